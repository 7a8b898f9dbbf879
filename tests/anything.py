"""JSON values of every shape, for the property tests.

``hypothesis.strategies.recursive`` costs about a millisecond a value, and so do dictionaries of optional
fields, which is most of the time of a test that draws dozens of values for each of its examples.  Here the
shapes are made once, by a seeded generator, when the first is drawn, and an example only chooses among them.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any, Callable, List, Sequence

from hypothesis import strategies as st

SHAPES = 2000


def shapes(make: Callable[[random.Random], Any]) -> st.SearchStrategy[Any]:
    """A strategy of the JSON values that ``make`` makes by chance; each is an object of its own."""

    def made() -> st.SearchStrategy[Any]:
        chance = random.Random(7)
        texts = {json.dumps(make(chance)) for _ in range(SHAPES)}
        simplest_first: List[str] = sorted(texts, key=lambda text: (len(text), text))
        return st.sampled_from(simplest_first).map(json.loads)

    return st.deferred(made)


def container(chance: random.Random, scalars: Sequence[Any], keys: Sequence[str], depth: int) -> Any:
    """A list or an object, by chance; the parameters are those of :func:`json_values`."""

    def nested() -> Any:
        if depth == 1 or chance.random() < 0.4:
            return chance.choice(scalars)
        return container(chance, scalars, keys, depth - 1)

    size = chance.randrange(4)
    if chance.random() < 0.5:
        return [nested() for _ in range(size)]
    return {chance.choice(keys): nested() for _ in range(size)}


def json_values(scalars: Sequence[Any], keys: Sequence[str], depth: int = 3) -> st.SearchStrategy[Any]:
    """A strategy of JSON values.

    :param scalars: what stands for numbers, texts and so on
    :param keys: the keys of objects
    :param depth: how many lists and objects may be nested
    :returns: half of what it draws are scalars; each value is an object of its own
    """
    return st.sampled_from(scalars) | shapes(
        lambda chance: container(chance, scalars, keys, chance.randint(1, depth))
    )


_NUMBER = re.compile(rb"-?[0-9]+(?:[.][0-9]+)?(?:e[+-]?[0-9]+)?")


def numbers_alike(data: bytes) -> bytes:
    """JSON with its numbers spelled as Python spells floats: encoders differ in ``1e-05`` and ``0.00001``."""
    return _NUMBER.sub(lambda number: repr(float(number[0])).encode(), data)

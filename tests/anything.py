"""JSON values of every shape, for the property tests.

``hypothesis.strategies.recursive`` costs about a millisecond a value, which is most of the time of a test
that draws dozens of values for each of its examples.  Here the shapes are made once, by a seeded generator,
and an example only chooses among them.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any, List, Sequence

from hypothesis import strategies as st

SHAPES = 2000


def json_values(scalars: Sequence[Any], keys: Sequence[str], depth: int = 3) -> st.SearchStrategy[Any]:
    """A strategy of JSON values.

    :param scalars: what stands for numbers, texts and so on
    :param keys: the keys of objects
    :param depth: how many lists and objects may be nested
    :returns: half of what it draws are scalars; each value is an object of its own
    """
    chance = random.Random(7)

    def nested(depth: int) -> Any:
        if depth == 0 or chance.random() < 0.4:
            return chance.choice(scalars)
        return container(depth)

    def container(depth: int) -> Any:
        size = chance.randrange(4)
        if chance.random() < 0.5:
            return [nested(depth - 1) for _ in range(size)]
        return {chance.choice(keys): nested(depth - 1) for _ in range(size)}

    texts = {json.dumps(container(chance.randint(1, depth))) for _ in range(SHAPES)}
    simplest_first: List[str] = sorted(texts, key=lambda text: (len(text), text))
    return st.sampled_from(scalars) | st.sampled_from(simplest_first).map(json.loads)


_NUMBER = re.compile(rb"-?[0-9]+(?:[.][0-9]+)?(?:e[+-]?[0-9]+)?")


def numbers_alike(data: bytes) -> bytes:
    """JSON with its numbers spelled as Python spells floats: encoders differ in ``1e-05`` and ``0.00001``."""
    return _NUMBER.sub(lambda number: repr(float(number[0])).encode(), data)

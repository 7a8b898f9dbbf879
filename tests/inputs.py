"""How many inputs a test tries: few while one works (``scripts/test``), all in ``.ci/run``.

The hypothesis profile says which (``HYPOTHESIS_PROFILE``, see ``conftest``), for cases that are not drawn by
hypothesis, too.
"""

from __future__ import annotations

import random
from typing import List, Sequence, TypeVar

from hypothesis import settings

T = TypeVar("T")

USUAL = 100  # inputs of a property in the default profile
EVERYTHING = settings().max_examples >= USUAL  # in this run


def examples(usual: int) -> int:
    """How many inputs to draw, where ``usual`` are drawn in the default profile."""
    return max(5, usual * settings().max_examples // USUAL)


def some(cases: Sequence[T], few: int) -> List[T]:
    """All cases, in the default profile; else ``few`` of them, at random, but the same in each run."""
    if EVERYTHING or few >= len(cases):
        return list(cases)
    return [cases[at] for at in sorted(random.Random(len(cases)).sample(range(len(cases)), few))]

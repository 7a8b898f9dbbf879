"""What ``scripts/fuzz`` once found stays found; and that what it is made of works."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "fuzz"))

from mutate import mutated, mutated_json, smaller
from targets import CORPUS, TARGETS, corpus, same_everywhere, seeds

by_target = pytest.mark.parametrize("name", TARGETS)


@by_target
def test_nothing_that_was_found_is_wrong_again(name: str) -> None:
    for data in corpus(name):
        TARGETS[name].run(data)


@by_target
def test_good_input_and_a_few_mutations_of_it(name: str) -> None:
    rng, good = random.Random(name), seeds(name)
    for data in rng.sample(good, min(6, len(good))):
        TARGETS[name].run(data)
        TARGETS[name].run(mutated(rng, data, good))


def test_the_corpus_belongs_to_targets() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)


def test_mutations_are_drawn_by_the_seed_and_leave_their_input_alone() -> None:
    good = [b'{"a": [1, {"b": "c"}]}', b"data: {}"]
    drawn = [[mutated(random.Random(seed), good[0], good) for seed in range(50)] for _ in range(2)]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 25
    value = {"a": [1, {"b": "c"}], "d": None}
    changed = [mutated_json(random.Random(seed), value, [value]) for seed in range(50)]
    assert value == {"a": [1, {"b": "c"}], "d": None} and sum(one != value for one in changed) > 40


def test_a_failure_is_made_smaller() -> None:
    assert smaller(b"x" * 300 + b"bad" + b"y" * 300, lambda data: b"bad" in data) == b"bad"


def test_a_result_that_depends_on_the_cuts_is_noticed() -> None:
    with pytest.raises(AssertionError, match="depends on the cuts"):
        same_everywhere(b"abc", lambda pieces: len(pieces))
    same_everywhere(b"abc", lambda pieces: b"".join(pieces))

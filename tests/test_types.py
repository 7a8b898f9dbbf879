"""Light dataclasses are what ``dataclasses`` would make of them."""

from __future__ import annotations

import dataclasses
import pickle
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from rproxy.convert.profile import Profile
from rproxy.types import light_dataclass


def made_with(dataclass: Any) -> List[Any]:
    """The same classes, made with this decorator."""

    @dataclass
    class Plain:
        first: int
        second: str = "two"
        many: List[int] = dataclasses.field(default_factory=list)
        own: int = dataclasses.field(init=False)
        secret: str = dataclasses.field(default="s", repr=False)
        ignored: Any = dataclasses.field(default_factory=object, repr=False, compare=False)

        def __post_init__(self) -> None:
            self.own = self.first + 1

    @dataclass(frozen=True)
    class Frozen:
        """With a docstring."""

        first: int
        second: Optional[str] = dataclasses.field(default=None, metadata={"name": "2"})

        @property
        def both(self) -> str:
            return f"{self.first}{self.second}"

    @dataclass(frozen=True)
    class Special:
        """With a docstring."""

        first: int

        def __repr__(self) -> str:
            return "special"

        def __eq__(self, other: Any) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    return [Plain, Frozen, Special]


OURS = made_with(light_dataclass)
THEIRS = made_with(dataclasses.dataclass)


def outcome(call: Any) -> Any:
    """What a call returns, as text, or the type of what it raises."""
    try:
        return repr(call()).replace("made_with.<locals>.", "")
    except Exception as error:
        return type(error)


ARGUMENTS: List[Tuple[Tuple[Any, ...], Dict[str, Any]]] = [
    ((1,), {}),
    ((), {"first": 1}),
    ((1, "b"), {}),
    ((1,), {"second": "b"}),
    ((), {}),
    ((), {"second": "b"}),
    ((1,), {"first": 2}),
    ((1,), {"unknown": 2}),
    ((1, "b", [3], 4), {}),
    ((1,), {"own": 3}),
]
METHODS: List[Callable[[Any], Any]] = [
    lambda made: made(1) == made(1),
    lambda made: made(1) == made(2),
    lambda made: made(1) == (1, "two"),
    lambda made: made(1, secret="a") == made(1, secret="b"),
    lambda made: hash(made(1)) == hash(made(1)),
    lambda made: setattr(made(1), "first", 3),
    lambda made: delattr(made(1), "first"),
    lambda made: made(1, "b").both,
    lambda made: dataclasses.replace(made(1), first=5),
    lambda made: list(dataclasses.asdict(made(1))),
    lambda made: [field.name for field in dataclasses.fields(made)],
    lambda made: made(1).many is made(1).many,
    lambda made: made.__doc__ if made.__doc__.startswith("With") else None,
]


@pytest.mark.parametrize("ours, theirs", zip(OURS, THEIRS))
def test_classes_are_the_same(ours: Any, theirs: Any) -> None:
    for args, named in ARGUMENTS:
        results = [outcome(partial(made, *args, **named)) for made in (ours, theirs)]
        assert results[0] == results[1], (args, named)
    for number, method in enumerate(METHODS):
        assert outcome(partial(method, ours)) == outcome(partial(method, theirs)), number
    assert (ours(1) == theirs(1)) == (ours.__name__ == "Special")


def test_light_classes_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Profile())) == Profile()

"""What every ladder is made of."""

from __future__ import annotations

from typing import Any, Callable, FrozenSet, Iterable, Iterator, List, NamedTuple, Sequence

from ...convert.request.omit import fingerprint
from ...types import Json
from ..refusal_words import Reading
from ..sent import Sent


class Cure(NamedTuple):
    """A change of the request.

    ``rung``: its name; one step of a ladder always has the same. ``override``: fields of the profile.
    ``refused``: fingerprints of what is left out, see :mod:`rproxy.convert.request.omit`.
    """

    rung: str
    override: Json = {}
    refused: FrozenSet[str] = frozenset()


Ladder = Callable[[Sent, Sequence[Reading]], Iterator[Cure]]


# ---- What the complaints have in common
def says(readings: Iterable[Reading], pattern: str) -> bool:
    return any(reading.says(pattern) for reading in readings)


def blames(readings: Iterable[Reading], pattern: str) -> bool:
    return any(reading.blames(pattern) for reading in readings)


def objects(readings: Iterable[Reading], kind: str) -> bool:
    return any(reading.objects(kind) for reading in readings)


def allowed(readings: Iterable[Reading], vocabulary: Sequence[str]) -> List[str]:
    return list(dict.fromkeys(word for reading in readings for word in reading.allowed(vocabulary)))


# ---- Cures of several ladders
def without(rung: str, field: str, values: Iterable[Any]) -> Cure:
    """Without parts of the client's content. ``field``: see :func:`.omit.fingerprint`."""
    return Cure(rung, refused=frozenset(fingerprint(field, value) for value in values))


def without_values(sent: Sent, keys: Sequence[str]) -> Cure:
    """Without fields of the request, but only in requests where they have the same value as here."""
    refused = frozenset(fingerprint(key, sent.body[key]) for key in keys)
    return Cure("without this value of " + ", ".join(keys), refused=refused)


def dropped(sent: Sent, keys: Sequence[str]) -> Iterator[Cure]:
    """Without those of the fields ``keys`` that the request has."""
    found = [key for key in keys if sent.value(key) is not None and key not in sent.profile.drop]
    if found:
        yield Cure("without " + ", ".join(found), {"drop": [*sent.profile.drop, *found]})

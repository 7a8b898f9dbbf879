"""The keys of clients: ``server.auth.keys``, plain texts or mappings with a name and limits."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from ..providers.profiles import glob_matches
from ..types import light_dataclass
from . import checks as c
from .checks import REQUIRED, Place

MAX_NAME = 64  # characters
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)"
    r"(?:[Tt ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,]\d+)?)?)?\s*(?:([Zz])|([+-]\d\d):?(\d\d)?)?)?"
)


def _name(place: Place) -> str:
    """A name that fits into a log line, a label of a metric and a table."""
    value = c.text(place).strip()
    if len(value) > MAX_NAME or not value.isprintable():
        raise place.error(f"must have at most {MAX_NAME} characters, without line breaks and the like")
    return value


def _digest(place: Place) -> str:
    value = c.reference(place).lower()
    if not _DIGEST.fullmatch(value):
        raise place.error(
            "must be the SHA-256 digest of a key: 64 hexadecimal digits; rproxy key NAME makes a key and "
            "prints its digest"
        )
    return value


def _moment(place: Place) -> float:
    """Seconds since the epoch; a date lasts to its end."""
    found = _MOMENT.fullmatch(str(place.value).strip())
    if found is None:
        raise place.error(
            "must be a date or a time of ISO 8601, such as 2026-12-31 or 2026-12-31T18:00+01:00 (UTC without "
            "a zone)"
        )
    year, month, day, hour, minute, second, _, ahead, ahead_minutes = found.groups()
    try:
        zone = timedelta(hours=abs(int(ahead or 0)), minutes=int(ahead_minutes or 0))
        offset = -zone if (ahead or "").startswith("-") else zone
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), 0,
            timezone(offset),
        )  # fmt: skip
        return moment.timestamp() if hour else (moment + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError) as error:
        raise place.error(f"is not a date or a time: {error}") from None


@light_dataclass(frozen=True)
class Key:
    """A client's key, and what it allows.

    ``expires`` is in seconds since the epoch.
    """

    name: str = c.key(_name, REQUIRED, "whose key it is, for the log, the metrics and the ledger")
    value: str = c.secret(c.header_value, "", "the key, preferably $VAR", name="key")
    key_sha256: str = c.key(_digest, "", "the SHA-256 digest of the key, instead of the key")
    models: Tuple[str, ...] = c.key(
        c.list_of(c.text, "a list of model names", at_least=1),
        (),
        'the models that it may use, such as ["gpt-*"]; default: all',
    )
    turns_per_minute: Optional[int] = c.key(c.whole(1), None, "turns within any 60 seconds")
    tokens_per_day: Optional[int] = c.key(
        c.whole(1), None, "tokens of input and output, cached ones included, within a day (UTC)"
    )
    expires: Optional[float] = c.key(_moment, None, "a date (to its end) or a time, in UTC without a zone")

    @cached_property
    def digest(self) -> str:
        """The SHA-256 digest in hexadecimal digits."""
        return self.key_sha256 or hashlib.sha256(self.value.encode()).hexdigest()

    @property
    def owner(self) -> str:
        """The owner of stored responses; the same for a key and its digest."""
        return self.digest[:32]

    def allows(self, model: str) -> bool:
        """May it use the model with this name?"""
        return not self.models or any(glob_matches(glob, model) for glob in self.models)


def _key(place: Place) -> Key:
    if not isinstance(place.value, dict):
        return Key(name=f"key{int(place.path[-1]) + 1}", value=c.header_value(place))
    values = c.values_of(Key, place)
    if ("value" in values) == ("key_sha256" in values):
        raise place.error("needs either 'key' or 'key_sha256'")
    return Key(**values)


def read_keys(place: Place) -> Tuple[Key, ...]:
    """A list of keys.  A repeated key is an error unless no entry has a name; a repeated name is always an
    error.
    """
    keys = c.list_of(_key, "a list of keys")(place)
    names: Dict[str, int] = {}
    digests: Dict[str, int] = {}
    kept: List[Key] = []
    for i, one in enumerate(keys):
        for table, value, what in (
            (digests, one.digest, "this key is"),
            (names, one.name, f"the name {one.name!r} is"),
        ):
            first = table.setdefault(value, i)
            if first != i and (isinstance(place.value[i], dict) or isinstance(place.value[first], dict)):
                line = place.document.position((*place.path, first))[0]
                raise place.step(i).error(f"{what} that of the entry in line {line} already")
        if digests[one.digest] == i:
            kept.append(one)
    return tuple(kept)


def useless_globs(keys: Sequence[Key], models: Sequence[str]) -> Iterator[str]:
    """Warnings about model names in keys that match no configured model.

    :param models: the configured names; with a glob among them, every name may match
    """
    if any("*" in model for model in models):
        return
    for key in keys:
        for glob in key.models:
            if not any(glob_matches(glob, model) for model in models):
                yield f"{key.name!r} may use {glob!r}, but no model of that name is configured"

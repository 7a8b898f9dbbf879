"""A cache of each owner's most recently used values, bounded by their bytes."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any, Generic, Hashable, Iterable, List, Optional, Tuple, TypeVar

from ..cooperative import in_thread

T = TypeVar("T")

QUICK = 1 << 20  # bytes of memory that are counted in a few milliseconds

# Bytes of a value besides its content, and of an entry with a number
TEXT, OBJECT, FIELD, ARRAY, ENTRY = 56, 160, 80, 56, 32


class OwnerCache(Generic[T]):
    """Values of each owner, by key.

    The least recently used values of an owner are dropped first; when there are too many in all, those of the
    least recently active owner.

    :param max_bytes: of all values together
    :param max_bytes_of_owner: of the values of one owner; a larger value is not kept
    """

    def __init__(self, max_bytes: int, max_bytes_of_owner: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_owner = max_bytes_of_owner
        self._owners: OrderedDict[str, _Values[T]] = OrderedDict()  # none is empty; most recently used last
        self.bytes = 0

    def get(self, key: Hashable, owner: str) -> Optional[T]:
        """This owner's value, if it is remembered."""
        values = self._owners.get(owner)
        return values.get(key) if values is not None else None

    def of(self, owner: str) -> List[T]:
        """All values of an owner."""
        values = self._owners.get(owner)
        return values.all() if values is not None else []

    def keep(self, owner: str, values: Iterable[Tuple[Hashable, T, int]]) -> None:
        """Keep values of one owner as the most recently used ones.

        :param values: their keys, the values and their bytes; the first of them are dropped first
        """
        owned = self._owners.pop(owner, None) or _Values()
        self.bytes -= owned.bytes
        for key, value, size in values:
            if size <= self._max_bytes_of_owner:
                owned.put(key, value, size)
            else:
                owned.drop(key)
        while owned.bytes > self._max_bytes_of_owner:
            owned.drop(owned.oldest())
        self._put_back(owner, owned)
        while self.bytes > self._max_bytes:
            owner, owned = self._owners.popitem(last=False)
            self.bytes -= owned.bytes
            owned.drop(owned.oldest())
            self._put_back(owner, owned, last=False)

    def forget(self, owner: str, keys: Iterable[Hashable]) -> None:
        """Drop values."""
        owned = self._owners.pop(owner, None) or _Values()
        self.bytes -= owned.bytes
        for key in keys:
            owned.drop(key)
        self._put_back(owner, owned)

    def _put_back(self, owner: str, owned: _Values[T], last: bool = True) -> None:
        if owned.bytes:
            self._owners[owner] = owned
            self._owners.move_to_end(owner, last)
            self.bytes += owned.bytes


class _Values(Generic[T]):
    """The values of one owner; most recently used last."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Tuple[T, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> Optional[T]:
        found = self._values.get(key)
        return found[0] if found is not None else None

    def all(self) -> List[T]:
        return [value for value, _ in self._values.values()]

    def put(self, key: Hashable, value: T, size: int) -> None:
        self.drop(key)
        self._values[key] = value, size
        self.bytes += size

    def oldest(self) -> Hashable:
        return next(iter(self._values))

    def drop(self, key: Hashable) -> None:
        _, size = self._values.pop(key, (None, 0))
        self.bytes -= size


def text_memory(value: Any, length: int) -> int:
    """:func:`memory_of` for a value that is mostly text.

    :param length: of its JSON
    :raises ValueError: it holds many small values, which take more memory, and a while to count
    """
    return memory_of(value, most=8 * length + 4096)


def memory_of(value: Any, most: float = float("inf")) -> int:
    """The approximate bytes of a JSON value in memory, as if it shared nothing.

    :raises ValueError: there are more than ``most``; no more than that are counted
    """
    size, found = 0, [value]
    for inner in found:
        if isinstance(inner, str):
            size += TEXT + (len(inner) if inner.isascii() else 4 * len(inner))
        elif isinstance(inner, dict):
            size += OBJECT + sum(map(len, inner)) + FIELD * len(inner)
            if size <= most:
                found += inner.values()
        elif isinstance(inner, list):
            size += ARRAY + ENTRY * len(inner)
            if size <= most:
                found += inner
        if size > most:
            raise ValueError("there is more in it than text")
    return size


async def counted_memory(value: Any, most: float = float("inf")) -> int:
    """:func:`memory_of`, in a thread if it takes long.

    :raises ValueError: there are more than ``most``
    """
    try:
        return memory_of(value, QUICK)
    except ValueError:
        return await in_thread(partial(memory_of, value, most))

"""A cache of values that are computed from a provider."""

from __future__ import annotations

from typing import Callable, Dict, Generic, Tuple, TypeVar

from .schema import Provider

T = TypeVar("T")
MAX_ENTRIES = 256


class ProviderCache(Generic[T]):
    """Values by provider and text, such as a path or a model.

    Providers cannot be keys of a dict, because they have mappings, but their identities can.  The cache keeps
    providers alive, so that no other object gets the same identity.  It is emptied when it is full, because a
    model with a glob keeps making new providers.
    """

    def __init__(self) -> None:
        self._entries: Dict[Tuple[int, str], Tuple[Provider, T]] = {}

    def get(self, provider: Provider, text: str, make: Callable[[Provider, str], T]) -> T:
        """Look up a value.

        :param make: computes it if it is not there
        """
        entry = self._entries.get((id(provider), text))
        if entry is None:
            value = make(provider, text)
            if len(self._entries) >= MAX_ENTRIES:
                self._entries.clear()
            self._entries[id(provider), text] = entry = provider, value
        return entry[1]

    def clear(self) -> None:
        self._entries.clear()

"""Which configured model answers for the name that a client sends, among those that its key may use.

A model with that name comes first, then the first glob that matches (``*`` after all others), then a
stand-in: whatever model the user chose, Codex asks for models of its own to approve actions, for memories and
after an update.

A key that is limited to some models sees a configuration without the others: their names are unknown, a glob
answers only for names that are allowed, and only models that are allowed stand in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Optional, Sequence

from ..providers.profiles import glob_matches

if TYPE_CHECKING:
    from .schema import Model

CODEX_NAMES = ("gpt-*", "codex-*")
STAND_INS = ("gpt-*", "*")  # the first model named in full that matches the first of these, else the second
MAX_REMEMBERED = 1000  # names whose route is remembered; clients choose them


class Routes:
    """The routes to ``models``, in the order of the configuration.

    :param allows: which names a key may use
    """

    def __init__(self, models: Sequence[Model], allows: Callable[[str], bool] = lambda name: True) -> None:
        exact = {model.model: model for model in models if not model.is_glob}
        self._exact: Dict[str, Model] = {name: model for name, model in exact.items() if allows(name)}
        self._hidden = exact.keys() - self._exact.keys()
        self._globs = sorted((model for model in models if model.is_glob), key=lambda m: m.model == "*")
        self._allows = allows
        self._remembered: Dict[str, Model] = {}

    def find(self, name: str) -> Optional[Model]:
        """The model that answers for ``name``, a glob with its names filled in; None if there is none."""
        found = self._exact.get(name) or self._remembered.get(name)
        if found is None and name not in self._hidden:
            if self._allows(name):
                found = next((m.resolved(name) for m in self._globs if glob_matches(m.model, name)), None)
            found = found or self._stand_in(name)
            if found is not None and len(self._remembered) < MAX_REMEMBERED:
                self._remembered[name] = found
        return found

    def _stand_in(self, name: str) -> Optional[Model]:
        if not any(glob_matches(pattern, name) for pattern in CODEX_NAMES):
            return None
        fitting = (
            model
            for pattern in STAND_INS
            for known, model in self._exact.items()
            if glob_matches(pattern, known)
        )
        return next(fitting, None)

"""What was learned from refusals, and for whom it applies.

Cures of form (fields of the profile) are kept for a provider and a downstream model.  Cures that leave out a
part of the client's content are kept for the client's key and exactly that part: what one client sends must
not change what another one gets.  Only cures that led to a success are kept, and none for longer than
:data:`LIFETIME`, so that a provider that starts to accept a form gets it again.  A configuration that is
loaded anew begins with an empty memory.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Sequence, Tuple

from ..config.provider_cache import ProviderCache
from ..config.schema import Provider
from ..types import Json

if TYPE_CHECKING:  # imported elsewhere when needed: its patterns take a while to compile
    from ..providers.diagnosis import Diagnosis

log = logging.getLogger("rproxy.overrides")

LIFETIME = 86_400.0  # seconds
GROWING = {"drop", "schema", "response_schema"}  # lists in a profile to which a cure adds
MAX_OWNERS = 1024  # clients for whose content something is kept
MAX_PARTS = 256  # refused parts of one client's content
MAX_LEARNED = 64  # cures for one provider and model
MAX_MODELS = 1024  # of providers that have cures; clients may choose the names
MAX_OVERRIDE = 2000  # characters of a cure as JSON: it may hold names that a client has chosen

Key = Tuple[str, str, str, str]  # name, address, API, downstream model


class Learned(NamedTuple):
    """A cure of form that has helped. ``form``: see :mod:`rproxy.providers.forms`."""

    subject: str
    form: str
    override: Json
    expires: float

    def __str__(self) -> str:
        return (
            f"{self.subject} changed: the provider refused it before; override: {json.dumps(self.override)}"
        )


class LearnedOverrides:
    """The memory of one process.

    :param now: a clock in seconds
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._learned: OrderedDict[Key, List[Learned]] = OrderedDict()
        # (owner, provider) -> fingerprint -> when it expires
        self._refused: OrderedDict[Tuple[str, Key], Dict[str, float]] = OrderedDict()
        self._applied: ProviderCache[Provider] = ProviderCache()

    def clear(self) -> None:
        """Forget everything: the providers, or their behaviour, may have changed."""
        self._learned.clear()
        self._refused.clear()
        self._applied.clear()

    def learned(self, provider: Provider, model: str) -> Sequence[Learned]:
        """The cures of form that apply to a provider's model."""
        if not self._learned:
            return ()
        key = _key(provider, model)
        cures = self._learned.get(key)
        if cures and cures[0].expires <= self._now():
            cures = self._learned[key] = [cure for cure in cures if cure.expires > self._now()]
            self._applied.clear()
        return tuple(cures or ())

    def applied(self, provider: Provider, model: str) -> Provider:
        """The provider with these cures; the same object until that changes."""
        if not self.learned(provider, model):
            return provider
        return self._applied.get(provider, model, self._apply)

    def _apply(self, provider: Provider, model: str) -> Provider:
        return overridden(provider, [cure.override for cure in self.learned(provider, model)])

    def refused(self, owner: str, provider: Provider, model: str) -> FrozenSet[str]:
        """The fingerprints of what a provider has refused of a client's content.

        :param owner: whose content it is
        """
        if not self._refused:
            return frozenset()
        parts = self._refused.get((owner, _key(provider, model)), {})
        return frozenset(fingerprint for fingerprint, expires in parts.items() if expires > self._now())

    def keep(self, owner: str, provider: Provider, model: str, cures: Sequence[Diagnosis]) -> None:
        """Remember cures that have helped."""
        expires, key = self._now() + LIFETIME, _key(provider, model)
        for subject, form, cure in cures:
            if cure.refused:
                self._keep_parts((owner, key), dict.fromkeys(cure.refused, expires))
                log.warning(
                    "%s refused a part of a request for %s (%s); it was left out",
                    provider.name,
                    model,
                    subject,
                )
            text = json.dumps(cure.override)  # which is YAML, too
            if cure.override and len(text) <= MAX_OVERRIDE:
                self._keep_form(key, Learned(subject, form, cure.override, expires))
                log.warning(
                    "%s refused a request for %s (%s); such requests are sent in another form for a day. To "
                    "make this permanent, put under the provider:  override: %s",
                    provider.name,
                    model,
                    subject,
                    text,
                )

    def _keep_parts(self, place: Tuple[str, Key], fingerprints: Mapping[str, float]) -> None:
        parts = self._refused.setdefault(place, {})
        self._refused.move_to_end(place)
        parts.update(fingerprints)
        for fingerprint in list(parts)[:-MAX_PARTS]:
            del parts[fingerprint]
        while len(self._refused) > MAX_OWNERS:
            self._refused.popitem(last=False)

    def _keep_form(self, key: Key, cure: Learned) -> None:
        learned = self._learned.setdefault(key, [])
        learned[:] = [known for known in learned if known.override != cure.override]
        learned.append(cure)
        del learned[:-MAX_LEARNED]
        self._learned.move_to_end(key)
        while len(self._learned) > MAX_MODELS:
            self._learned.popitem(last=False)
        self._applied.clear()


def _key(provider: Provider, model: str) -> Key:
    return provider.name, provider.base_url, provider.wire, model


def overridden(provider: Provider, overrides: Sequence[Json]) -> Provider:
    """The provider with other fields in its profile.

    Lists of what is left out and repaired grow: two turns may have learned different entries at the same
    time, and the configuration may have its own.
    """
    profile = provider.profile
    for override in overrides:
        profile = profile.override(_grown(asdict(profile), override))
    return replace(provider, profile=profile)


def _grown(fields: Json, override: Json) -> Json:
    grown: Json = {key: [*dict.fromkeys([*fields[key], *override[key]])] for key in GROWING & set(override)}
    nested = override.get("drop_keywords")
    if nested is not None:
        grown["drop_keywords"] = {
            place: sorted({*fields["drop_keywords"][place], *words}) for place, words in nested.items()
        }
    return {**override, **grown}

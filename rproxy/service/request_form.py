"""The form in which one turn sends its request to each provider.

The profile says what a provider accepts, and :class:`~rproxy.upstream.learned_overrides.LearnedOverrides`
what was learned from earlier refusals.  When the provider still refuses the request,
:meth:`RequestForm.change` looks for a cure (:mod:`rproxy.providers.diagnosis`) and tries it out;
:meth:`RequestForm.confirm` keeps a cure that helped.  A cure that is followed by the same refusal did not
help: it is withdrawn, and the next one is tried instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..config.schema import Provider
from ..convert.json_steps import is_large
from ..convert.profile import Profile
from ..convert.request.chat import Conversion
from ..convert.request.omit import without_refused
from ..cooperative import in_thread, in_thread_if
from ..errors import ApiError
from ..providers.provider_errors import Refusal
from ..types import Json
from ..upstream.learned_overrides import LearnedOverrides, overridden
from .plan import TurnPlan

if TYPE_CHECKING:  # imported when a provider refuses something: its patterns take a while to compile
    from ..providers.complaints import Complaint
    from ..providers.diagnosis import Diagnosis

LARGE = 1 << 15  # characters that are searched in a few milliseconds


class Prepared(NamedTuple):
    """A request in the form for a provider; ``provider`` has the profile with which it was made."""

    provider: Provider
    conversion: Conversion


@dataclass
class _Trial:
    """The cures that were tried at one provider in this turn.

    ``complaints``, ``body`` and ``profile`` are those of the refusal that is being cured, and the cures from
    ``kept`` on are for it; ``refused`` holds all bodies that were refused.
    """

    cures: List[Diagnosis] = field(default_factory=list)
    kept: int = 0
    tried: Set[Tuple[str, str]] = field(default_factory=set)  # (subject, rung)
    complaints: Sequence[Complaint] = ()
    body: Json = field(default_factory=dict)
    profile: Profile = field(default_factory=Profile)
    refused: List[Json] = field(default_factory=list)
    ready: Optional[Prepared] = None


class RequestForm:
    """The forms of one request, for each of its providers.

    :param owner: whose content the request holds; see :class:`~rproxy.service.client.Client`
    """

    def __init__(self, memory: LearnedOverrides, plan: TurnPlan, owner: str) -> None:
        self._memory = memory
        self._plan = plan
        self._owner = owner
        self._trials: Dict[int, _Trial] = {}  # by the identity of the provider

    async def prepared(self, provider: Provider) -> Prepared:
        """The request in the present form for ``provider``.

        :raises ApiError: 400, the provider cannot be asked this
        """
        trial = self._trials.get(id(provider))
        if trial is not None and trial.ready is not None:
            ready, trial.ready = trial.ready, None
            return ready
        return await self._made(provider)

    async def change(self, provider: Provider, refusal: Refusal, sent: Prepared, stream: bool) -> bool:
        """Find another form for a request that was refused.

        :param sent: the form that was refused
        :returns: whether there is one
        """
        diagnose = await in_thread(_diagnose)
        trial = self._trials.setdefault(id(provider), _Trial())
        body = sent.conversion.chat_request(stream)
        trial.refused.append(body)
        if refusal.complaints == trial.complaints:
            del trial.cures[trial.kept :]
        else:
            trial.complaints, trial.body, trial.profile = refusal.complaints, body, sent.provider.profile
            trial.kept = len(trial.cures)
        while True:
            look = partial(diagnose, trial.complaints, trial.body, trial.profile, trial.tried)
            found = await in_thread_if(is_large(trial.body, LARGE), look)
            if not found:
                return False
            trial.tried.update((one.subject, one.cure.rung) for one in found)
            trial.cures[trial.kept :] = found
            try:
                made = await self._made(provider)
            except ApiError:
                continue  # the request cannot be expressed in this form
            if made.conversion.chat_request(stream) not in trial.refused:
                trial.ready = made
                return True

    def confirm(self, provider: Provider) -> None:
        """The provider has accepted the request: keep the cures that helped."""
        trial = self._trials.pop(id(provider), None)
        if trial is not None and trial.cures:
            self._memory.keep(self._owner, provider, self._plan.model, trial.cures)

    async def _made(self, provider: Provider) -> Prepared:
        trial = self._trials.get(id(provider))
        cures = trial.cures if trial is not None else []
        fitted = self._memory.applied(provider, self._plan.model)
        overrides = [one.cure.override for one in cures if one.cure.override]
        if overrides:
            fitted = overridden(fitted, overrides)
        conversion = await self._plan.convert(fitted)
        body, warnings = conversion.body, list(conversion.warnings)
        refused = self._memory.refused(self._owner, provider, self._plan.model)
        refused = refused.union(*(one.cure.refused for one in cures))
        if refused:
            body, omitted = without_refused(body, refused)
            warnings += omitted
        warnings += [
            str(known)
            for known in self._memory.learned(provider, self._plan.model)
            if self._plan.has_form(known.form, known.override)
        ]
        if not (refused or cures or len(warnings) > len(conversion.warnings)):
            return Prepared(fitted, conversion)
        warnings += [f"{one.subject} changed ({one.cure.rung}): the provider refused it" for one in cures]
        return Prepared(fitted, replace(conversion, body=body, warnings=warnings))


def _diagnose() -> Callable[..., List[Diagnosis]]:
    """The function ``diagnose``; its modules are loaded for the first refusal of a process, which takes a
    while.
    """
    from ..providers.diagnosis import diagnose

    return diagnose

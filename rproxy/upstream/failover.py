"""Which provider to try first, and which to avoid for a while.

A model may have several providers, and a provider several keys; each pair is an endpoint here.
Without weights they are tried in the order of the configuration.  Those with weights, and the keys of one
provider, share the turns among them, and a conversation stays with the endpoint it began with (rendezvous
hashing), because only there is the prompt cache warm.

An endpoint that fails cools down: it goes to the end of the order, for a time that doubles with each further
failure.  Then one turn probes it (half open), while the others still avoid it; the outcome ends or extends
the cool-down.  :class:`rproxy.service.retry.RetryLoop` is the loop that tries them in this order.

There is also one budget of retries for all turns: an outage must not double or triple the load on a provider
that is down.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence, Tuple

from ..config.schema import Provider
from ..errors import ApiError

FIRST_PAUSE = 5.0  # seconds; doubles with each further failure
MAX_PAUSE = 300.0
QUOTA_PAUSE = 300.0  # an empty account is not topped up within seconds
RESERVE = 20.0  # retries that may follow each other at once ...
PER_SUCCESS, PER_SECOND = 0.2, 0.1  # ... and what is added to them afterwards


@dataclass
class _Health:
    pause: float = 0.0  # seconds, after the last failure
    until: float = 0.0  # not before this time
    probing: bool = False


class Failover:
    """The health of all endpoints of one process.

    :param now: monotonic seconds
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._health: Dict[Tuple[str, str, str], _Health] = {}
        self._reserve, self._counted = RESERVE, now()

    def may_repeat(self) -> bool:
        """Take a retry out of the budget.

        :returns: False if the budget is empty
        """
        self._earn((self._now() - self._counted) * PER_SECOND)
        self._counted = self._now()
        allowed = self._reserve >= 1
        self._reserve -= allowed
        return allowed

    def _earn(self, amount: float) -> None:
        self._reserve = min(self._reserve + amount, RESERVE)

    def order(self, providers: Sequence[Provider], conversation: str) -> List[Provider]:
        """All providers, in the order in which to try them.

        :param conversation: anything that stays the same for the turns of one conversation
        """
        if len(providers) == 1:
            return list(providers)
        line = _shared(providers, conversation)
        held_back = [provider for provider in line if self._is_held_back(provider)]
        ready = [provider for provider in line if provider not in held_back]
        for provider in ready[:1]:
            health = self._health.get(_key(provider))
            if health is not None:
                health.probing = True
        return ready + sorted(held_back, key=lambda p: self._health[_key(p)].until)

    def cools_down(self, provider: Provider) -> bool:
        """Has the endpoint failed so recently that it is still in its cool-down?"""
        return self.cool_down_left(provider) > 0

    def cool_down_left(self, provider: Provider) -> float:
        """Seconds until the endpoint's cool-down ends."""
        health = self._health.get(_key(provider))
        return 0.0 if health is None else max(health.until - self._now(), 0.0)

    def is_tried(self, provider: Provider) -> bool:
        """Has an endpoint failed, and not yet answered again?"""
        return _key(provider) in self._health

    def _is_held_back(self, provider: Provider) -> bool:
        health = self._health.get(_key(provider))
        return health is not None and (health.probing or self._now() < health.until)

    def succeeded(self, provider: Provider) -> bool:
        """:returns: whether this ends a cool-down"""
        self._earn(PER_SUCCESS)
        return self._health.pop(_key(provider), None) is not None

    def failed(self, provider: Provider, error: ApiError) -> float:
        """The endpoint failed in a way that another one might not.

        :returns: the seconds of the cool-down that begins; 0 if one is already running
        """
        health = self._health.setdefault(_key(provider), _Health())
        cooling = self._now() < health.until
        pause = health.pause = min(health.pause * 2 or FIRST_PAUSE, MAX_PAUSE)
        if error.stream_code in ("insufficient_quota", "invalid_api_key"):
            pause = QUOTA_PAUSE
        pause = max(pause, error.retry_after or 0.0)
        health.until = self._now() + pause
        health.probing = False
        return 0.0 if cooling else pause

    def released(self, provider: Provider) -> None:
        """An attempt ended without saying anything about the endpoint, because it was cancelled or wrong."""
        health = self._health.get(_key(provider))
        if health is not None:
            health.probing = False


def _key(provider: Provider) -> Tuple[str, str, str]:
    return provider.name, provider.base_url, provider.api_key or ""


def _shared(providers: Sequence[Provider], conversation: str) -> List[Provider]:
    """The providers, with those that have a weight permuted among themselves (the keys of one provider only
    among each other); the others keep their places.
    """
    line = list(providers)
    for group in {provider.group for provider in providers if provider.weight is not None}:
        places = [
            i
            for i, provider in enumerate(providers)
            if provider.weight is not None and provider.group == group
        ]
        for place, provider in zip(
            places, sorted((providers[i] for i in places), key=lambda p: _rank(p, conversation))
        ):
            line[place] = provider
    return line


def _rank(provider: Provider, conversation: str) -> float:
    """Weighted rendezvous hashing: the smallest rank wins, for each provider in proportion to its weight."""
    digest = hashlib.sha1("\0".join(_key(provider) + (conversation,)).encode("utf-8", "replace")).digest()
    share = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
    return -math.log(share) / (provider.weight or 1)

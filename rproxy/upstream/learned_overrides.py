"""Learned repairs: what a provider's refusal teaches about it.

A 400 or 422 that names a known cause changes the profile once, the request is made again, and the change is
kept for this process.  Each repair is an override of profile fields, so the log can name the lines that make
it permanent.  The texts are those of the providers' issue trackers and documents; the order matters, the
first row that fits and changes something wins.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Match, NamedTuple, Optional, Tuple

from ..config.provider_cache import ProviderCache
from ..config.schema import Provider
from ..convert.profile import Profile
from ..types import Json

log = logging.getLogger("rproxy.repairs")

MOST = 3  # repairs in one turn
NEEDED = {"model", "messages", "input", "tools", "stream"}  # keys that are never dropped


class Row(NamedTuple):
    """``pattern`` is looked for in the refusal; ``override`` makes the change from the match and the present
    profile."""

    pattern: str
    override: Callable[[Match[str], Profile], Json]


def _fixed(override: Mapping[str, Any]) -> Callable[[Match[str], Profile], Json]:
    return lambda match, profile: dict(override)


def _required_reasoning(match: Match[str], profile: Profile) -> Json:
    """The empty text first; a provider that takes it for missing gets a blank."""
    required = "" if profile.reasoning.required_on_tool_calls is None else " "
    replay = "always" if profile.reasoning.replay == "never" else profile.reasoning.replay
    return {"reasoning": {"required_on_tool_calls": required, "replay": replay}}


def _drop(match: Match[str], profile: Profile) -> Json:
    key = match.group("key").split(".")[0].strip("'\"`[]")
    if key == "stream_options":
        return {"include_usage": False}
    return {} if key in NEEDED or key in profile.drop else {"drop": profile.drop + (key,)}


def _format(match: Match[str], profile: Profile) -> Json:
    """One step down: json_schema, json_object, words in the prompt."""
    return {"response_format": profile.response_format[:-1]} if len(profile.response_format) > 1 else {}


def _cannot_stop_thinking(match: Match[str], profile: Profile) -> Json:
    return {"thinking": {"disable": None}}


def _effort(match: Match[str], profile: Profile) -> Json:
    """Do not send a level that the provider does not know, or at last no level at all."""
    wrong = match.group("value").lower()
    known = {level: word for level, word in profile.thinking.efforts.items() if word != wrong}
    if len(known) == len(profile.thinking.efforts):
        return {"thinking": {"effort": None}} if profile.thinking.effort else {}
    return {
        "thinking": {
            "efforts": {level: None for level, word in profile.thinking.efforts.items() if word == wrong}
        }
    }


LEVEL = r"(?P<value>none|minimal|low|medium|high|xhigh|max|ultra)\b"
REPAIRS: Tuple[Row, ...] = (
    Row(
        r"max_tokens.{0,60}(not supported|unsupported).{0,80}max_completion_tokens",
        _fixed({"max_tokens": {"field": "max_completion_tokens"}}),
    ),
    Row(
        r"max_completion_tokens.{0,60}(not supported|unsupported|unknown|unrecognized|not permitted)",
        _fixed({"max_tokens": {"field": "max_tokens"}}),
    ),
    Row(
        r"unknown variant `?developer|developer.{0,40}(role|not supported|invalid)|role.{0,40}developer",
        _fixed({"developer_role": "system"}),
    ),
    Row(
        r"reasoning_content.{0,60}(must be passed back|is missing|required)|missing .?reasoning_content",
        _required_reasoning,
    ),
    Row(r"(unknown variant|invalid value|unsupported value)[:\s]+[`'\"]?" + LEVEL, _effort),
    Row(LEVEL + r"['\"`]?.{0,30}(not supported|not a valid|is invalid).{0,40}(effort|reasoning)", _effort),
    Row(
        r"reasoning_effort.{0,60}(unsupported|invalid|must be).{0,40}(?P<value>none|minimal|medium|xhigh|max|ultra)\b",
        _effort,
    ),
    Row(
        r"please use low, high, or max|reasoning is mandatory|invalid combination of reasoning_effort and thinking",
        _cannot_stop_thinking,
    ),
    Row(
        r"(thinking|does not).{0,60}tool_choice|tool_choice.{0,80}(thinking|not support|unsupported|invalid)",
        _fixed({"tool_choice": {"any": ["auto", "none"]}}),
    ),
    Row(
        r"response_format.{0,80}(unavailable|not supported|unsupported|invalid|input should be)"
        r"|json_schema.{0,60}(not supported|unsupported|unavailable)",
        _format,
    ),
    Row(
        r"system message must be (at the beginning|first)|only.{0,20}first message.{0,20}system",
        _fixed({"system_position": "first"}),
    ),
    Row(
        r"roles must alternate|must alternate between",
        _fixed({"merge_same_role": True, "system_position": "first"}),
    ),
    Row(r"unexpected role .?user.? after role .?tool", _fixed({"assistant_after_tool": True})),
    Row(
        r"tool call id.{0,60}(a-z|length of 9|9 char)|must be a-z.{0,30}length of 9",
        _fixed({"tool_call_id": "alnum9"}),
    ),
    Row(
        r"(image_url|images?|multimodal).{0,60}(not support|unsupported|only.{0,10}text)"
        r"|not (support|accept).{0,30}image|unknown variant `?image_url",
        _fixed({"modalities": ["text"]}),
    ),
    Row(r"stream_options", _fixed({"include_usage": False})),
    Row(
        r"(?:unsupported parameter|unrecognized request argument(?: supplied)?|unknown (?:field|parameter|name)|unexpected keyword argument"
        r"|unrecognized (?:field|parameter))[:\s]+['\"`]?(?P<key>[A-Za-z_][\w.]*)",
        _drop,
    ),
    Row(r"unsupported value: ['\"`](?P<key>[a-z_]+)['\"`] does not support", _drop),
    Row(
        r"(?:property|parameter|field|argument)s? ['\"`](?P<key>[a-z_][\w.]*)['\"`] (?:is|are) "
        r"(?:not supported|unsupported|not permitted|not allowed|unknown)",
        _drop,
    ),
    Row(r"extra (?:parameters|inputs|fields).{0,20}\[?['\"`](?P<key>[a-z_][\w.]*)['\"`]", _drop),
    Row(
        r"['\"`]?(?:body|loc)['\"`]?.{0,12}['\"`](?P<key>[a-z_]\w*)['\"`].{0,200}extra(?:_forbidden| inputs are not permitted)",
        _drop,
    ),
    Row(
        r"extra(?:_forbidden| inputs are not permitted).{0,200}['\"`]?(?:body|loc)['\"`]?.{0,12}['\"`](?P<key>[a-z_]\w*)['\"`]",
        _drop,
    ),
)


class LearnedOverrides:
    """What this process has learned, by provider and downstream model."""

    def __init__(self) -> None:
        self._learned: Dict[Tuple[str, str], List[Json]] = {}
        self._applied: ProviderCache[Provider] = ProviderCache()

    def applied(self, provider: Provider, model: str) -> Provider:
        """The provider with what is known of its model; the same object until more is learned."""
        if (provider.base_url, model) not in self._learned:
            return provider
        return self._applied.get(provider, model, self._apply)

    def _apply(self, provider: Provider, model: str) -> Provider:
        profile = provider.profile
        for override in self._learned[provider.base_url, model]:
            profile = profile.override(override)
        return replace(provider, profile=profile)

    def learn(self, provider: Provider, model: str, refusal: str) -> Optional[str]:
        """Learn from a refusal of a request that was made with ``provider``'s profile.

        :arg refusal: the provider's words
        :returns: the profile fields that change, or None when there is nothing to learn
        """
        for pattern, change in REPAIRS:
            match = re.search(
                pattern, refusal, re.I | re.S
            )  # compiled when first needed, which takes a while
            override = change(match, provider.profile) if match else {}
            if override and provider.profile.override(override) != provider.profile:
                self._learned.setdefault((provider.base_url, model), []).append(override)
                self._applied.clear()
                log.warning(
                    "%s refused a request for %s and gets it in another form from now on. To make this permanent, put under "
                    "the provider:  override: %s",
                    provider.name,
                    model,
                    json.dumps(override),  # which is YAML, too
                )
                return ", ".join(override)
        return None

"""Fields of a request that only some providers know, such as ``prompt_cache_key`` and ``service_tier``.

A chat request gets those that the profile's ``optional_fields`` name, because many providers refuse fields
that they do not know.  The others are left out.  The answer stays usable without them, and some clients send
them in every request, so they are reported apart from the warnings
(:attr:`~rproxy.convert.request.chat.Conversion.left_out`).
"""

from __future__ import annotations

from typing import List, Mapping

from ...types import Json
from ..profile import OPTIONAL_FIELDS, Profile

# Values that mean the same as leaving the field out.
DEFAULTS = {"service_tier": ("auto", "default")}


def given_fields(request: Mapping[str, object]) -> Json:
    """The optional fields that a request has, by their names in a chat request."""
    if "text" in request or "verbosity" in request:
        text = request.get("text")
        request = {**request, "verbosity": text.get("verbosity") if isinstance(text, dict) else None}
    return {name: request[name] for name in OPTIONAL_FIELDS if name in request and request[name]}


def sent_fields(given: Json, profile: Profile) -> Json:
    """Those of the ``given`` fields that the provider knows."""
    return {name: value for name, value in given.items() if name in profile.optional_fields}


def left_out(given: Json, sent: Mapping[str, object]) -> List[str]:
    """The names of the ``given`` fields that the provider does not get.

    :param sent: the finished request, or a mapping with the same fields
    """
    return [name for name, value in given.items() if name not in sent and value not in DEFAULTS.get(name, ())]

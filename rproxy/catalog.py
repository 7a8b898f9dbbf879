"""``GET /models``: one body that serves OpenAI clients (``data``) and Codex (``models``).

Codex reads a catalog of its own shape.  One entry it cannot parse voids the whole list, so every entry has every field it asks for.  An
entry must bring the model's base instructions: Codex takes those of the entry instead of its bundled ones, and an empty text would
leave the model without any.  They are OpenAI's and not ours to serve, so ``codex_prompt.md`` beside this file is a prompt of our
own.  ``rproxy codex`` gives the installed Codex its own prompt instead.  Source of the fields: Codex CLI 0.169, measured.
"""
from __future__ import annotations

import hashlib
import json
import pkgutil
from functools import lru_cache
from typing import Any, Dict, List

from .config import Config, Model
from .convert.tools import DEFAULT_ALLOW

Json = Dict[str, Any]

CREATED = 1767225600                             # OpenAI clients want a date; when a model was configured means nothing
HIDDEN = ("codex-auto-review",)                  # served, but not offered in the model picker: Codex asks for it by itself
EFFORTS = {"none": "Answers at once", "minimal": "Thinks very little", "low": "Thinks briefly", "medium": "Thinks as much as most tasks need",
           "high": "Thinks thoroughly", "xhigh": "Thinks longer", "max": "Thinks as long as it can"}
DEFAULT_WINDOW = 128_000                         # tokens


def models_body(config: Config) -> Json:
    """The body of GET /models. Globs are routes, not models, and are not listed."""
    models = [model for model in config.models if not model.is_glob]
    return {"object": "list",
            "data": [{"id": m.model, "object": "model", "created": CREATED, "owned_by": m.providers[0].name} for m in models],
            "models": [_entry(m, i, config) for i, m in enumerate(models)]}


def etag(body: Json) -> str:
    """Changes when the catalog does."""
    return '"%s"' % hashlib.sha1(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _entry(model: Model, place: int, config: Config) -> Json:
    allow = config.server.tool_type_allowlist
    kinds = DEFAULT_ALLOW if allow is None else allow
    efforts = _efforts(model)
    entry: Json = {
        "slug": model.model,
        "display_name": model.display_name or model.model,
        "description": model.description or "%s at %s" % (model.downstream_model, model.providers[0].name),
        "supported_reasoning_levels": [{"effort": effort, "description": EFFORTS.get(effort, effort)} for effort in efforts],
        "shell_type": "unified_exec",
        "visibility": "hide" if model.model in HIDDEN else "list",
        "supported_in_api": True,
        "priority": place + 1,
        "base_instructions": _instructions(),
        "support_verbosity": False,
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "experimental_supported_tools": [],
        "apply_patch_tool_type": "freeform" if "custom" in kinds else None,
        "supports_search_tool": "tool_search" in kinds,
        "multi_agent_version": "v1" if "namespace" in kinds else "disabled",
        "supports_parallel_tool_calls": True,
        "input_modalities": [m for m in model.modalities if m in ("text", "image")],
        "context_window": model.context_window or DEFAULT_WINDOW,
    }
    if efforts:
        entry["default_reasoning_level"] = "medium" if "medium" in efforts else efforts[-1]
    return entry


def _efforts(model: Model) -> List[str]:
    """The levels a user may choose: those that the provider tells apart, and off where that is possible."""
    rule = model.providers[0].profile.thinking
    levels: Dict[str, str] = {}
    for level in model.efforts:
        word = rule.efforts.get(level, level)
        if word not in levels or level == word:
            levels[word] = level
    if rule.disable:
        levels.setdefault("none", "none")
    return sorted(levels.values(), key=list(EFFORTS).index)


@lru_cache(maxsize=None)
def _instructions() -> str:
    text = pkgutil.get_data("rproxy", "codex_prompt.md")
    assert text is not None
    return text.decode("utf-8")

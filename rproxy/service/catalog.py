"""``GET /models``: one body that serves OpenAI clients (``data``) and Codex (``models``).

Codex reads a catalog of its own shape.  One entry that it cannot parse invalidates the whole list, so every
entry has every field that it requires.  An entry must have the model's base instructions: Codex takes those
of the entry instead of its bundled ones, and an empty text would leave the model without any.  OpenAI's
instructions are not ours to serve, so ``codex_prompt.md`` beside this file is a prompt of our own.  ``rproxy
codex`` merges the entries into copies of one from the installed Codex (:func:`with_prompt_of`), which keeps
Codex's own prompt.  Source of the fields: Codex CLI 0.169, measured.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..config.routes import Routes
from ..config.schema import Config, Key, Model
from ..convert.profile import EFFORTS
from ..convert.tools.table import DEFAULT_ALLOW
from ..errors import invalid, model_not_found
from ..types import Json

CREATED = 1767225600  # OpenAI clients want a date; the time of configuration has no meaning
HIDDEN = ("codex-auto-review",)  # served, but not offered in the model picker: Codex asks for it by itself
EFFORT_TEXTS = {
    "none": "Answers at once",
    "minimal": "Thinks very little",
    "low": "Thinks briefly",
    "medium": "Thinks as much as most tasks need",
    "high": "Thinks thoroughly",
    "xhigh": "Thinks longer",
    "max": "Thinks as long as it can",
}
SWITCHED_ON = "medium"  # the level that means thinking where it can only be switched
# The first of these that the model has is its default; "none" must be chosen.
DEFAULT_EFFORTS = ("medium", "high", "low", "minimal", "xhigh", "max")
SEARCH_FIELD = (
    "web_search_tool_type"  # its value: what Codex can search; its presence: there is a search service
)
DEFAULT_WINDOW = 128_000  # tokens
MAX_NAME = 256  # characters of a model's name: clients choose them, and several caches keep them
# Values for keys of a bundled entry that are true only at OpenAI; missing keys are not added.
NOT_HERE: Mapping[str, Any] = {
    "upgrade": None,
    "availability_nux": None,
    "additional_speed_tiers": [],
    "service_tiers": [],
    "tool_mode": None,
    "use_responses_lite": False,
    "supports_image_detail_original": False,
    "default_verbosity": None,
}


def models_body(config: Config) -> Json:
    """The body of GET /models. Globs are routes, not models, and are not listed."""
    models = [model for model in config.models if not model.is_glob]
    return {
        "object": "list",
        "data": [
            {"id": m.model, "object": "model", "created": CREATED, "owned_by": m.providers[0].name}
            for m in models
        ],
        "models": [codex_entry(m, i, config) for i, m in enumerate(models, 1)],
    }


def etag(body: Json) -> str:
    """Changes when the catalog does."""
    return f'"{hashlib.sha1(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]}"'


class VisibleModels:
    """The models of a configuration that a key may use.

    ``body`` is that of GET /models, ``etag`` changes when it does.
    """

    def __init__(self, config: Config, key: Optional[Key]) -> None:
        models = tuple(model for model in config.models if key is None or key.allows(model.model))
        self._names = [model.model for model in models]
        self._routes = Routes(config.models) if key is None else Routes(config.models, key.allows)
        self.body = models_body(replace(config, models=models))
        self.etag = etag(self.body)

    @property
    def first(self) -> str:
        """The name of the first model, for requests that need not name one; "" if there is none."""
        return self._names[0] if self._names else ""

    def find(self, name: str) -> Model:
        """The model that answers for ``name``; see :mod:`rproxy.config.routes`.

        :raises ApiError: 404, none does; 400, the name is longer than ``MAX_NAME``
        """
        if len(name) > MAX_NAME:
            raise invalid(
                f"model has {len(name)} characters, but the name of a model has at most {MAX_NAME}. "
                "GET /v1/models lists the names.",
                "model",
                "string_above_max_length",
            )
        model = self._routes.find(name)
        if model is None:
            raise model_not_found(name, self._names)
        return model


class Catalog:
    """The models of a configuration, as each key sees them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._views: Dict[Tuple[str, ...], VisibleModels] = {}

    def of(self, key: Optional[Key]) -> VisibleModels:
        """What ``key`` sees; None: all."""
        models = key.models if key is not None else ()
        view = self._views.get(models)
        if view is None:
            view = self._views[models] = VisibleModels(self._config, key if models else None)
        return view


def codex_entry(model: Model, priority: int, config: Config, name: str = "") -> Json:
    """A model as an entry of Codex's catalog; ``name``: its name there, if that is not ``model.model``."""
    allow = config.server.tool_type_allowlist
    kinds = DEFAULT_ALLOW if allow is None else allow
    efforts = efforts_of(model)
    slug = name or model.model
    entry: Json = {
        "slug": slug,
        "display_name": model.display_name or slug,
        "description": model.description or f"{model.downstream_model} at {model.providers[0].name}",
        "supported_reasoning_levels": [
            {"effort": effort, "description": EFFORT_TEXTS[effort]} for effort in efforts
        ],
        "shell_type": "unified_exec" if "function" in kinds else "disabled",
        "visibility": "hide" if slug in HIDDEN else "list",
        "supported_in_api": True,
        "priority": priority,
        "base_instructions": _instructions(model.instructions_file),
        "support_verbosity": False,
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "experimental_supported_tools": [],
        "apply_patch_tool_type": "freeform" if "custom" in kinds else None,
        "supports_search_tool": "tool_search" in kinds,
        "multi_agent_version": "v1" if "namespace" in kinds else "disabled",
        "supports_parallel_tool_calls": True,
        "input_modalities": [m for m in model.modalities if m in ("text", "image")],
        "context_window": model.context_window or DEFAULT_WINDOW,
        "max_context_window": model.context_window or DEFAULT_WINDOW,
    }
    if config.search is not None:
        entry[SEARCH_FIELD] = "text"
    default = next((effort for effort in DEFAULT_EFFORTS if effort in efforts), None)
    return {**entry, "default_reasoning_level": default} if default else entry


def efforts_of(model: Model) -> List[str]:
    """The levels a user may choose: the configured ones, else those that the provider distinguishes, and off
    where that is possible.
    """
    if model.efforts:
        return sorted(set(model.efforts), key=EFFORTS.index)
    rule = model.providers[0].profile.thinking
    levels: Dict[str, str] = {}  # the provider's word -> the level that fits it best
    for level, word in rule.efforts.items():
        if level in EFFORTS and (word not in levels or level == word):
            levels[word] = level
    if not levels and (rule.enable or rule.default):
        levels[SWITCHED_ON] = SWITCHED_ON
    if levels and rule.disable:
        levels["none"] = "none"
    return sorted(levels.values(), key=EFFORTS.index)


def _instructions(path: Optional[str]) -> str:
    """The base prompt in a file of the configuration, else our own."""
    if path is not None:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    import pkgutil  # loaded only where it is used

    text = pkgutil.get_data(__package__, "codex_prompt.md")
    assert text is not None
    return text.decode("utf-8")


def with_prompt_of(entries: Sequence[Json], bundled: Sequence[Json]) -> List[Json]:
    """The entries with the prompt of the installed Codex: each is merged into a copy of a bundled one.

    :param bundled: the models of ``codex debug models --bundled``; one with Codex's classic tools is taken,
        if there is one.  Prompts that the configuration names stay.
    """
    template = next((m for m in bundled if not m.get("use_responses_lite")), bundled[0])
    reset = {key: value for key, value in NOT_HERE.items() if key in template}
    return [_laid_over({**template, **reset}, entry) for entry in entries]


def _laid_over(template: Json, entry: Json) -> Json:
    merged = {**template, **entry}
    if "default_reasoning_level" not in entry:
        merged.pop("default_reasoning_level", None)
    if entry["base_instructions"] == _instructions(None):
        merged["base_instructions"] = template.get("base_instructions", entry["base_instructions"])
    else:
        merged.pop("model_messages", None)  # they have the same prompt, and would take precedence
    return merged

"""Everything that the converter must know about a provider.

A profile is data: every difference between providers that tolerant code cannot detect by itself is a field
here, and the converter branches on these fields only, never on a provider's name.  The rows live in
``rproxy.providers.profiles``; every field can be overridden per provider and per model in the configuration,
in the form that :meth:`Profile.override` reads.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import field, fields, replace
from functools import cache
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type, TypeVar, get_args, get_type_hints

from ..errors import ConfigError
from ..types import light_dataclass

T = TypeVar("T")

# The values of reasoning.effort, the lowest first.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MODALITIES = ("text", "image", "file", "audio")  # what a model reads
# Chat fields that only some providers know; text.verbosity is `verbosity` in Chat.
OPTIONAL_FIELDS = (
    "verbosity",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "metadata",
    "prediction",
)
SCHEMA_REPAIRS = ("inline_refs", "add_types", "drop_schema_key", "close_objects", "essentials")


def _one_of(default: Any, *choices: str) -> Any:
    """A dataclass field that takes only these words."""
    return field(default=default, metadata={"choices": choices})


def _merged() -> Any:
    """A mapping that overrides add to, key by key (null takes a key away); other mappings are replaced as a
    whole.
    """
    return field(default_factory=dict, metadata={"merge": True})


@light_dataclass(frozen=True)
class Thinking:
    """How thinking is requested.

    ``enable`` and ``disable`` are merged into the chat request.  ``disable: null`` means that thinking cannot
    be switched off. ``effort`` is the (dotted) key that receives ``efforts[level]``; a level that ``efforts``
    does not name is not sent.  ``with_tools: false`` switches thinking off in every request that offers
    tools.
    """

    default: Optional[bool] = None  # does it think when the request does not say? None: not known
    enable: Mapping[str, Any] = field(default_factory=dict)
    disable: Optional[Mapping[str, Any]] = field(default_factory=dict)
    effort: Optional[str] = None
    efforts: Mapping[str, str] = _merged()
    with_tools: bool = True


@light_dataclass(frozen=True)
class Reasoning:
    """How earlier thinking is sent back to the provider.

    ``field`` is the key of the assistant message (``think_tags`` writes it into the content,
    ``mistral_parts`` makes content parts); ``also`` names further keys that get the same.  ``replay``:
    ``always``, ``tool_turns`` (only with tool calls) or ``never``. ``required_on_tool_calls`` is the text a
    message with tool calls gets when there is no thinking to replay (DeepSeek and Kimi refuse a missing
    field).  ``reasoning_only``: ``keep`` or ``drop`` an answer that was nothing but thinking. ``ids``: with
    ``wire: responses``, plain reasoning items need an id, so rproxy makes one (providers that keep items
    refuse an id that they do not know).
    """

    field: str = "reasoning_content"
    replay: str = _one_of("always", "always", "tool_turns", "never")
    required_on_tool_calls: Optional[str] = None
    reasoning_only: str = _one_of("drop", "drop", "keep")
    also: Tuple[str, ...] = ()
    ids: bool = False


@light_dataclass(frozen=True)
class ToolChoice:
    """The ``tool_choice`` words that a provider accepts: at any time, and while thinking; None: all.

    ``rename`` maps words.
    """

    any: Optional[Tuple[str, ...]] = None
    thinking: Optional[Tuple[str, ...]] = None
    rename: Mapping[str, str] = _merged()


@light_dataclass(frozen=True)
class AnswerForm:
    """How a provider writes its answers: thinking inside ``<think>`` tags, snapshots instead of deltas; calls
    that leak into the text (``heal_tool_text`` makes calls of those that are certain, see
    :mod:`rproxy.convert.answer.leaked_calls`).
    """

    think_tags: bool = False
    cumulative: bool = False
    heal_tool_text: bool = False


@light_dataclass(frozen=True)
class MaxTokens:
    """The key that limits the answer's length, and the highest value that the provider takes."""

    field: str = _one_of("max_tokens", "max_tokens", "max_completion_tokens")
    most: Optional[int] = None


@light_dataclass(frozen=True)
class DropKeywords:
    """Keywords of JSON Schema that are removed from the schemas of tools and of ``response_format``."""

    tools: Tuple[str, ...] = ()
    response_format: Tuple[str, ...] = ()


@light_dataclass(frozen=True)
class Profile:
    """One kind of provider.

    The defaults are the generic provider; the comments of the rows name the source of each rule.
    """

    name: str = "generic"
    max_tokens: MaxTokens = field(default_factory=MaxTokens)
    developer_role: str = _one_of("system", "system", "developer")
    # "first": one system message at the head, later ones become user text; "user": all of them do
    system_position: str = _one_of("keep", "keep", "first", "user")
    merge_same_role: bool = False
    assistant_after_tool: bool = False  # no user message may directly follow a tool message
    # "required": there must be a user message; "last": the conversation must not end with an answer
    user_message: str = _one_of("optional", "optional", "required", "last")
    tool_call_id: Optional[str] = _one_of(None, "alnum9", "max40")
    empty_content: Optional[str] = None  # content of an assistant message that has only tool calls
    thinking: Thinking = field(
        default_factory=lambda: Thinking(
            disable={"reasoning_effort": "none"},
            effort="reasoning_effort",
            efforts={effort: effort for effort in EFFORTS[1:]},
        )
    )
    reasoning: Reasoning = field(default_factory=Reasoning)
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    strict_tools: str = _one_of("pass", "pass", "omit")
    # repairs of the tools' schemas, and of the schema of response_format
    schema: Tuple[str, ...] = _one_of((), *SCHEMA_REPAIRS)
    response_schema: Tuple[str, ...] = _one_of((), *SCHEMA_REPAIRS)
    drop_keywords: DropKeywords = field(default_factory=DropKeywords)
    response_format: Tuple[str, ...] = _one_of(
        ("text", "json_object", "json_schema"), "text", "json_object", "json_schema"
    )
    optional_fields: Tuple[str, ...] = _one_of((), *OPTIONAL_FIELDS)  # the ones that the provider knows
    drop: Tuple[str, ...] = ()  # (dotted) chat request keys that are never sent
    drop_thinking: Tuple[str, ...] = ()  # ... that are not sent while thinking is on
    user_field: str = "user"
    include_usage: bool = True
    # "force_stream": the provider is always asked for a stream; "never": it is never asked for one
    non_stream: str = _one_of("pass", "pass", "force_stream")
    stream: str = _one_of("pass", "pass", "never")
    extra: Mapping[str, Any] = field(default_factory=dict)  # added to a request that streams and has tools
    keep_extra_content: bool = False  # Gemini: a thought_signature must come back with its tool call
    # "error": an answer without anything is a failure that may be retried
    empty_answer: str = _one_of("complete", "complete", "error")
    answer: AnswerForm = field(default_factory=AnswerForm)
    modalities: Tuple[str, ...] = _one_of(MODALITIES[:3], *MODALITIES)  # of the input
    context_window: Optional[int] = None  # tokens; GET /models reports it to Codex
    native_tools: Tuple[str, ...] = ()  # with wire: responses: kinds of tools that pass unchanged
    auth_header: str = "Authorization"  # "Authorization" gets "Bearer KEY", any other header the bare key
    headers: Mapping[str, str] = _merged()
    query: Mapping[str, str] = _merged()

    def override(self, data: Mapping[str, Any]) -> Profile:
        """This profile with the values of ``data``, in the shape of the configuration; nested mappings are
        merged field by field.

        :raises FieldError: for an unknown key or a wrong type
        """
        if "name" in data:
            raise FieldError(("name",), "a profile's name cannot be overridden")
        return _override(self, data, ())


class FieldError(ConfigError):
    """An override is wrong.

    ``path`` names the field, ``text`` says what is wrong with it; the configuration adds file, line and
    column.
    """

    def __init__(self, path: Tuple[str, ...], text: str, unknown: bool = False) -> None:
        super().__init__("{}: {}".format(".".join(path), text))
        self.path, self.text = path, text
        self.unknown = unknown  # the key itself is wrong, not its value


def suggestion(word: str, known: Any) -> str:
    """`` (did you mean 'X'?)`` when one of ``known`` is close to ``word``, else nothing."""
    from difflib import get_close_matches  # loaded only for mistakes

    close = get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, MappingABC) and all(isinstance(item, str) for item in value.values())


_KINDS: Dict[Any, Tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str)),
    int: (
        "a whole number above 0",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0,
    ),
    Mapping[str, Any]: ("a mapping", lambda value: isinstance(value, MappingABC)),
    Mapping[str, str]: ("a mapping of text to text", _is_text_map),
    Tuple[str, ...]: ("a list of words", _is_texts),
}


@cache
def _hints(kind: Type[Any]) -> Dict[str, Any]:
    """The types of the fields, cached because finding them takes most of the time of an override."""
    return get_type_hints(kind)


def _override(base: T, data: Mapping[str, Any], path: Tuple[str, ...]) -> T:
    """A copy of the dataclass instance ``base`` with the checked values of ``data``."""
    specs = {f.name: f for f in fields(base) if path or f.name != "name"}  # type: ignore[arg-type]
    hints = _hints(type(base))  # type: ignore[arg-type]
    values: Dict[str, Any] = {}
    for key, value in data.items():
        here = path + (str(key),)
        if key not in specs:
            raise FieldError(here, f"unknown key {key!r}{suggestion(str(key), specs)}", unknown=True)
        old = getattr(base, key)
        if hasattr(old, "__dataclass_fields__"):
            if not isinstance(value, MappingABC):
                raise FieldError(here, f"must be a mapping, not {_what(value)}")
            values[key] = _override(old, value, here)
        else:
            values[key] = _value(hints[key], specs[key].metadata, old, value, here)
    return replace(base, **values)  # type: ignore[type-var]


def _value(hint: Type[Any], meta: Mapping[str, Any], old: Any, value: Any, path: Tuple[str, ...]) -> Any:
    """``value`` checked against the type and the choices of its field, lists as tuples."""
    optional = type(None) in get_args(hint)
    if optional:
        if value is None:
            return None
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if meta.get("merge") and isinstance(value, MappingABC):
        value = {key: item for key, item in {**old, **value}.items() if item is not None}
    what, fits = _KINDS[hint]
    if not fits(value):
        raise FieldError(
            path, "must be {}{}, not {}".format(what, " or null" if optional else "", _what(value))
        )
    choices = meta.get("choices", ())
    for word in value if isinstance(value, (list, tuple)) else (value,):
        if choices and word not in choices:
            raise FieldError(
                path,
                "must be one of {}; not {!r}{}".format(", ".join(choices), word, suggestion(word, choices)),
            )
    return tuple(value) if isinstance(value, list) else value


def _what(value: Any) -> str:
    """The kind of a wrong value, in words; never the value itself, which may be a secret."""
    names: Any = (
        (type(None), "null (nothing)"),
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        (MappingABC, "a mapping"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "a list")

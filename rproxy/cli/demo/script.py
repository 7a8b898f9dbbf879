"""What the demo provider replies: a script that turns a chat request into a :class:`ScriptedReply`.

It thinks first, then either answers or calls a tool.  A tool is called when the user's last message asks for
one that is offered.  Commands in backticks are run one a round, so "run `date`, then `ls`" is a loop of three
requests.  The answer after a tool round quotes the tool's output.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ...types import Json
from .rules import thinking

QUOTED = 2000  # characters of a tool's output that the answer repeats

# Words of the user, words in the name of the tool that does this, and its default argument.
WISHES: Tuple[Tuple[str, str, str], ...] = (
    (r"\blist\b.*\bfiles?\b|\bwhat files\b", r"exec|shell|command|bash|terminal|list", "ls"),
    (r"\b(run|execute)\b", r"exec|shell|command|bash|terminal|run", "ls"),
    (r"\bweather\b", r"weather", "Paris"),
    (r"\btime\b|\bdate\b", r"(^|_)(time|date|clock)", "UTC"),
)
# Words in the name of a property, and its value.
PROPERTIES: Tuple[Tuple[str, str], ...] = ((r"dir|path|cwd", "."), (r"unit", "celsius"))
# Words in a tool's description, and the form in which it takes a command (a JSON string).
LANGUAGES: Tuple[Tuple[str, str], ...] = (
    (r"\bRun JavaScript\b", "text((await tools.exec_command({cmd: %s})).output)"),  # Codex's code mode
)
SUM = re.compile(r"(?<!\d)(-?\d+)\s*([-+*×])\s*(-?\d+)")
SUMS: Dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "×": int.__mul__,
}
PLACE = re.compile(r"\b(?:in|for|of)\s+([A-Z][\w-]+(?:\s[A-Z][\w-]+)*)")


@dataclass(frozen=True)
class ScriptedReply:
    """One answer in pieces: thinking, then text or the arguments of a tool call."""

    reasoning: Sequence[str]
    text: Sequence[str] = ()
    tool: Optional[str] = None
    arguments: Sequence[str] = ()
    finish: str = "stop"

    @property
    def tokens(self) -> int:
        return len(self.reasoning) + len(self.text) + len(self.arguments)


def script(body: Json) -> ScriptedReply:
    """The reply to a chat request that :func:`rproxy.cli.demo.rules.refusal` accepts."""
    question, outputs = _since_user(body["messages"])
    call = _wanted_call(body, question, len(outputs))
    think = f"The user says: {_short(question)}. "
    if call:
        name, arguments = call
        reply = ScriptedReply(
            _pieces(think + f"I need the tool {name}."),
            tool=name,
            arguments=_pieces(json.dumps(arguments, ensure_ascii=False)),
            finish="tool_calls",
        )
    elif outputs:
        reply = ScriptedReply(
            _pieces(think + "The tool has answered."),
            _pieces("The tool answered:\n\n" + outputs[-1][:QUOTED]),
        )
    else:
        reply = ScriptedReply(_pieces(think + "No tool is needed."), _pieces(_answer(question)))
    if reply.text and (body.get("response_format") or {}).get("type") == "json_object":
        schema, text = _schema(body["messages"]), "".join(reply.text)
        value = {"answer": text} if schema is None else instance(schema, text)
        reply = replace(reply, text=_pieces(json.dumps(value, ensure_ascii=False)))
    if not thinking(body):
        reply = replace(reply, reasoning=())
    return _limited(reply, body.get("max_tokens"))


def _schema(messages: Sequence[Json]) -> Any:
    """The JSON Schema that the instructions show for the answer; None when there is none."""
    instructions = "\n".join(_text(message) for message in messages if message["role"] == "system")
    _, found, shown = instructions.rpartition("JSON Schema:")
    try:
        return json.JSONDecoder().raw_decode(shown.lstrip())[0] if found else None
    except ValueError:
        return None


def _since_user(messages: Sequence[Json]) -> Tuple[str, List[str]]:
    """The user's last message, and the tool outputs that came after it."""
    last = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=-1)
    outputs = [_text(m) for m in messages[last + 1 :] if m["role"] == "tool"]
    return (_text(messages[last]) if last >= 0 else ""), outputs


def _text(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _answer(question: str) -> str:
    found = SUM.search(question)
    if found:
        return str(SUMS[found[2]](int(found[1]), int(found[3])))
    return (
        f'You said: "{_short(question)}". This is rproxy\'s demo provider: a script that behaves like '
        "DeepSeek's API. It is not a model: it can only think aloud, answer like this, and call a tool "
        "when you ask for one."
    )


def _wanted_call(body: Json, question: str, rounds: int) -> Optional[Tuple[str, Json]]:
    """The tool call that the user asks for in this round, if a matching tool is offered."""
    tools = {t["function"]["name"]: t["function"] for t in body.get("tools") or ()}
    choice = body.get("tool_choice") or "auto"
    commands = re.findall(r"`([^`\n]+)`", question)
    if not tools or choice == "none" or rounds >= max(1, len(commands)):
        return None
    name, word = _matching_tool(list(tools), question)
    if isinstance(choice, dict):
        name = str(choice["function"].get("name"))
    elif choice == "required" and not name:
        name = next(iter(tools))
    if name not in tools:
        return None
    place = PLACE.search(question)
    value = commands[rounds] if commands else place[1] if place else word or _short(question)
    for words, form in LANGUAGES:
        if re.search(words, tools[name].get("description") or ""):
            value = form % json.dumps(value)
    return name, instance(tools[name].get("parameters") or {}, value)


def _matching_tool(names: Sequence[str], question: str) -> Tuple[str, str]:
    """The offered tool that the question names, or one that does what it asks for; and its default
    argument.
    """
    lowered = question.lower()
    for name in names:
        if re.search(rf"\b{re.escape(name.lower())}\b", lowered):
            return name, ""
    for wish, does, word in WISHES:
        if re.search(wish, lowered):
            for name in names:
                if re.search(does, name.lower()):
                    return name, word
    return "", ""


def instance(schema: Any, value: str) -> Any:
    """A plausible value for a JSON schema: the required properties (the first one if none is required).

    :param value: for properties that are text
    """
    if not isinstance(schema, dict):
        return value
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return instance(schema[key][0], value)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return MAKERS.get(kind[0] if isinstance(kind, list) else kind, _string)(schema, value)


def _object(schema: Json, value: str) -> Json:
    known = schema.get("properties") or {}
    made = {}
    for name in schema.get("required") or list(known)[:1]:
        text = next((text for words, text in PROPERTIES if re.search(words, name)), value)
        made[name] = instance(known.get(name), text)
    return made


def _array(schema: Json, value: str) -> List[Any]:
    return [instance(schema.get("items"), word) for word in value.split()]


def _string(schema: Json, value: str) -> str:
    return value


MAKERS: Dict[str, Callable[[Json, str], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": lambda schema, value: int(schema.get("minimum", 1)),
    "number": lambda schema, value: schema.get("minimum", 1),
    "boolean": lambda schema, value: False,
    "null": lambda schema, value: None,
}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:200] + "…"


def _pieces(text: str) -> List[str]:
    """Words with the space after them: each is one token and one delta."""
    return re.findall(r"\s*\S{1,12}\s?|\s+", text)


def _limited(reply: ScriptedReply, limit: Optional[int]) -> ScriptedReply:
    """The reply within ``limit`` tokens, thinking included; ``finish`` says whether it was cut."""
    if limit is None or reply.tokens <= limit:
        return reply
    reasoning = reply.reasoning[:limit]
    text = reply.text[: limit - len(reasoning)]
    arguments = reply.arguments[: limit - len(reasoning) - len(text)]
    return ScriptedReply(reasoning, text, reply.tool if arguments else None, arguments, finish="length")

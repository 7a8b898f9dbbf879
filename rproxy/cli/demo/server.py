"""A scripted Chat Completions provider, for people without a key and for the tests.

It behaves as DeepSeek does on the wire: it thinks first, streams small pieces, reports cached tokens, and
refuses what DeepSeek refuses (``demo_rules``).  There is no model in it.  :func:`script` turns a chat request
into what is said: thinking, then either an answer or a tool call.  A tool is called when the user's last
message asks for one that is offered; commands in backticks are run one a round, so "run `date`, then `ls`" is
a loop of three requests.  The answer after a tool round quotes the tool's output.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from ...server.tornado_patches import NoDelayServer
from ...types import Json
from .rules import refusal, thinking

MODELS = ("demo", "deepseek-v4-pro", "deepseek-v4-flash")
KEY = "sk-demo"  # what the proxy is told to send; any key is taken
DELAY = 0.01  # seconds between two pieces of a stream
REMEMBERED = 1000  # message prefixes that count as cached
CACHE_BLOCK = 64  # the cache counts in blocks of so many tokens
QUOTED = 2000  # characters of a tool's output that the answer repeats

# What the user asks for -> words in the name of the tool that does it -> what the tool is told when the user
# names nothing.
WISHES: Tuple[Tuple[str, str, str], ...] = (
    (r"\blist\b.*\bfiles?\b|\bwhat files\b", r"exec|shell|command|bash|terminal|list", "ls"),
    (r"\b(run|execute)\b", r"exec|shell|command|bash|terminal|run", "ls"),
    (r"\bweather\b", r"weather", "Paris"),
    (r"\btime\b|\bdate\b", r"(^|_)(time|date|clock)", "UTC"),
)
# What other texts a tool is told: words in a property's name -> value.
PROPERTIES: Tuple[Tuple[str, str], ...] = ((r"dir|path|cwd", "."), (r"unit", "celsius"))
# Words in a tool's description -> how it wants to be told a command (as a JSON string).
LANGUAGES: Tuple[Tuple[str, str], ...] = (
    (r"\bRun JavaScript\b", "text((await tools.exec_command({cmd: %s})).output)"),  # Codex' code mode
)
SUM = re.compile(r"(-?\d+)\s*([-+*×])\s*(-?\d+)")
SUMS: Dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "×": int.__mul__,
}
PLACE = re.compile(r"\b(?:in|for|of)\s+([A-Z][\w-]+(?:\s[A-Z][\w-]+)*)")


# ---- what is said


@dataclass(frozen=True)
class Say:
    """One answer: the pieces of the thinking, of the text, and at most one tool call (name, pieces of the
    arguments)."""

    reasoning: Sequence[str]
    text: Sequence[str] = ()
    tool: Optional[str] = None
    arguments: Sequence[str] = ()
    finish: str = "stop"

    @property
    def tokens(self) -> int:
        return len(self.reasoning) + len(self.text) + len(self.arguments)


def script(body: Json) -> Say:
    """The answer to a chat request that :func:`.demo_rules.refusal` lets pass."""
    question, outputs = _since_user(body["messages"])
    call = _wanted_call(body, question, len(outputs))
    think = f"The user says: {_short(question)}. "
    if call:
        name, arguments = call
        said = Say(
            _pieces(think + f"I need the tool {name}."),
            tool=name,
            arguments=_pieces(json.dumps(arguments, ensure_ascii=False)),
            finish="tool_calls",
        )
    elif outputs:
        said = Say(
            _pieces(think + "The tool has answered."),
            _pieces("The tool answered:\n\n" + outputs[-1][:QUOTED]),
        )
    else:
        said = Say(_pieces(think + "No tool is needed."), _pieces(_answer(question)))
    if said.text and (body.get("response_format") or {}).get("type") == "json_object":
        schema, told = _schema(body["messages"]), "".join(said.text)
        said = replace(
            said,
            text=_pieces(
                json.dumps({"answer": told} if schema is None else instance(schema, told), ensure_ascii=False)
            ),
        )
    if not thinking(body):
        said = replace(said, reasoning=())
    return _limited(said, body.get("max_tokens"))


def _schema(messages: Sequence[Json]) -> Any:
    """The JSON Schema that the instructions show for the answer; None when there is none."""
    told = "\n".join(_text(message) for message in messages if message["role"] == "system")
    _, found, shown = told.rpartition("JSON Schema:")
    try:
        return json.JSONDecoder().raw_decode(shown.lstrip())[0] if found else None
    except ValueError:
        return None


def _since_user(messages: Sequence[Json]) -> Tuple[str, List[str]]:
    """The user's last message, and the tool outputs that came after it."""
    last = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=-1)
    return (_text(messages[last]) if last >= 0 else ""), [
        _text(m) for m in messages[last + 1 :] if m["role"] == "tool"
    ]


def _text(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _answer(question: str) -> str:
    found = SUM.search(question)
    if found:
        return f"{SUMS[found.group(2)](int(found.group(1)), int(found.group(3)))}"
    return (
        f'You said: "{_short(question)}". This is rproxy\'s demo provider: a script with the manners of DeepSeek, not a model, so it can only '
        "think aloud, answer like this, and call a tool when you ask for one."
    )


def _wanted_call(body: Json, question: str, rounds: int) -> Optional[Tuple[str, Json]]:
    """The tool call that the user asks for in this round, if a tool that fits is offered."""
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
    value = commands[rounds] if commands else place.group(1) if place else word or _short(question)
    for words, form in LANGUAGES:
        if re.search(words, tools[name].get("description") or ""):
            value = form % json.dumps(value)
    return name, instance(tools[name].get("parameters") or {}, value)


def _matching_tool(names: Sequence[str], question: str) -> Tuple[str, str]:
    """The offered tool that the question names, or one that does what it wishes; with the word it is told by
    default."""
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
    """A plausible value for a JSON schema: required properties only (the first one if none is required),
    ``value`` where a text goes."""
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
    names = schema.get("required") or list(known)[:1]
    return {
        name: instance(known.get(name), next((v for words, v in PROPERTIES if re.search(words, name)), value))
        for name in names
    }


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
    """Words with the blanks that follow them: each is one token and one delta."""
    return re.findall(r"\s*\S{1,12}\s?|\s+", text)


def _limited(said: Say, limit: Optional[int]) -> Say:
    """``max_tokens`` counts the thinking, too; what is too much is cut and ``finish_reason`` becomes
    ``length``."""
    if limit is None or said.tokens <= limit:
        return said
    reasoning = said.reasoning[:limit]
    text = said.text[: limit - len(reasoning)]
    arguments = said.arguments[: limit - len(reasoning) - len(text)]
    return Say(reasoning, text, said.tool if arguments else None, arguments, finish="length")


# ---- how it is written


def deltas(said: Say) -> List[Json]:
    """The deltas of a stream, in DeepSeek's shapes: both texts start with the role, later fragments of a call
    have only arguments."""
    out: List[Json] = [{"role": "assistant", "content": None, "reasoning_content": ""}]
    out += [{"content": None, "reasoning_content": piece} for piece in said.reasoning]
    out += [{"content": piece, "reasoning_content": None} for piece in said.text]
    if said.tool:
        out.append(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "call_00_" + uuid.uuid4().hex[:24],
                        "type": "function",
                        "function": {"name": said.tool, "arguments": ""},
                    }
                ]
            }
        )
        out += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in said.arguments]
    return out


def message(said: Say) -> Json:
    """The whole answer as one message."""
    out: Json = {"role": "assistant", "content": "".join(said.text)}
    if said.reasoning:
        out["reasoning_content"] = "".join(said.reasoning)
    if said.tool:
        out["tool_calls"] = [
            {
                "index": 0,
                "id": "call_00_" + uuid.uuid4().hex[:24],
                "type": "function",
                "function": {"name": said.tool, "arguments": "".join(said.arguments)},
            }
        ]
    return out


class PrefixCache:
    """Which beginnings of conversations were seen before: the context cache that makes cached tokens cheap."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def usage(self, body: Json, said: Say) -> Json:
        """DeepSeek's usage object for this request and answer; remembers the request."""
        total, hit, digest = 0, 0, sha256(json.dumps(body.get("tools")).encode())
        for entry in body["messages"]:
            data = json.dumps(entry, sort_keys=True).encode()
            digest.update(data)
            total += len(data) // 4 + 1
            if digest.digest() in self._seen:
                hit = total
            self._seen[digest.digest()] = None
            self._seen.move_to_end(digest.digest())
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        hit -= hit % CACHE_BLOCK
        return {
            "prompt_tokens": total,
            "completion_tokens": said.tokens,
            "total_tokens": total + said.tokens,
            "prompt_tokens_details": {"cached_tokens": hit},
            "completion_tokens_details": {"reasoning_tokens": len(said.reasoning)},
            "prompt_cache_hit_tokens": hit,
            "prompt_cache_miss_tokens": total - hit,
        }


class _Handler(RequestHandler):
    def initialize(self, cache: PrefixCache, delay: float) -> None:
        self.cache, self.delay = cache, delay

    def prepare(self) -> None:
        if not re.match(r"Bearer \S+", self.request.headers.get("Authorization", "")):
            self.refuse(401, "Authentication Fails (governor)", "authentication_error")

    def refuse(self, status: int, text: str, kind: str = "invalid_request_error") -> None:
        self.set_status(status)
        self.finish(
            {"error": {"message": text, "type": kind, "param": None, "code": "invalid_request_error"}}
        )


class ModelsHandler(_Handler):
    def get(self) -> None:
        self.finish(
            {
                "object": "list",
                "data": [{"id": name, "object": "model", "owned_by": "rproxy"} for name in MODELS],
            }
        )


class ChatHandler(_Handler):
    async def post(self) -> None:
        try:
            body = json.loads(self.request.body)
        except ValueError as exc:
            return self.refuse(400, f"Failed to parse the request body as JSON: {exc}")
        problem = refusal(body)
        if problem:
            return self.refuse(400, problem)
        said = script(body)
        head = {
            "id": str(uuid.uuid4()),
            "created": int(time.time()),
            "model": body["model"],
            "system_fingerprint": "fp_demo",
        }
        usage = self.cache.usage(body, said)
        if body.get("stream"):
            return await self.stream(head, said, usage)
        choice = {"index": 0, "message": message(said), "logprobs": None, "finish_reason": said.finish}
        self.finish(dict(head, object="chat.completion", choices=[choice], usage=usage))

    async def stream(self, head: Json, said: Say, usage: Json) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.write(": keep-alive\n\n")
        try:
            for delta in deltas(said):
                await self.chunk(head, delta, None, None)
                await asyncio.sleep(self.delay)
            await self.chunk(head, {"content": "", "reasoning_content": None}, said.finish, usage)
            await self.finish("data: [DONE]\n\n")
        except StreamClosedError:
            pass  # the client has hung up: nobody is there to tell

    def chunk(self, head: Json, delta: Json, finish: Optional[str], usage: Optional[Json]) -> Awaitable[None]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self.write(
            "data: {}\n\n".format(
                json.dumps(dict(head, object="chat.completion.chunk", choices=[choice], usage=usage))
            )
        )
        return self.flush()


def make_demo_app(delay: float = DELAY) -> Application:
    """The provider as an application: ``/chat/completions`` and ``/models``, with and without ``/v1``;
    ``delay`` in seconds."""
    arguments = {"cache": PrefixCache(), "delay": delay}
    return Application(
        [
            (r"(?:/v1)?/chat/completions", ChatHandler, arguments),
            (r"(?:/v1)?/models", ModelsHandler, arguments),
        ],
        log_function=lambda handler: None,
    )


@contextmanager
def serve_demo(host: str = "127.0.0.1", delay: float = DELAY) -> Iterator[str]:
    """Serve the provider on a free port of ``host`` in the running event loop, as long as the context lasts;
    gives the base URL."""
    server = NoDelayServer(make_demo_app(delay))
    sockets = bind_sockets(0, host)
    server.add_sockets(sockets)
    try:
        yield f"http://{host}:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()

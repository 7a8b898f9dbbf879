"""The attacks: requests that are made to keep the proxy busy, and requests for such answers.

A model's name is that of a configured glob (``chat.*``: nothing special; ``heal.*``: tool calls are taken out
of the text; ``wire.*``: the provider speaks the Responses API; ``kimi.*``: schemas are repaired) and, behind
the dot, that of the answer in :mod:`provider`.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from pdf_maker import make_pdf, pdf_message
from provider import ANSWERS, OF_THE_RESPONSES_API

from rproxy.convert.sealed import seal

CREATE = "/v1/responses"
TOOLS = [
    {
        "type": "function",
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
    {
        "type": "function",
        "name": "n",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
]


class Attack(NamedTuple):
    """``body`` makes the request's body; ``headers`` stand before it; ``ws``: it is a WebSocket message.

    ``store``: of the proxy; ``again``: read the response from it, too, as JSON and as a stream.  ``slow``:
    the client reads slowly.  ``before`` makes the input of a turn that comes first and is not measured, in a
    conversation unless it is ``alone``: CONVERSATION and RESPONSE stand for the ids of what it leaves behind,
    STEM for the digits of the latter.  ``times``: so many messages, or requests of one connection, at once.
    """

    path: str
    body: Callable[[], bytes]
    headers: str = ""
    ws: bool = False
    store: str = "memory"
    again: bool = False
    slow: bool = False
    method: str = "POST"
    before: Optional[Callable[[], List[Any]]] = None
    alone: bool = True
    times: int = 1


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def ask(
    model: str = "chat.hi",
    path: str = CREATE,
    ws: bool = False,
    in_store: str = "memory",
    again: bool = False,
    slow: bool = False,
    **fields: Any,
) -> Attack:
    """Ask with fields whose values are made when the attack begins, if they are functions."""

    def body() -> bytes:
        made = {name: value() if callable(value) else value for name, value in fields.items()}
        return _json(
            {
                "model": model,
                "type": "response.create",
                **({"input": "x"} if "messages" not in made else {}),
                **made,
            }
        )

    return Attack(path, body, ws=ws, store=in_store, again=again, slow=slow)


def answered(model: str, **fields: Any) -> Attack:
    return ask(model, tools=TOOLS, stream=True, **fields)


def text(role: str, content: Any) -> Dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


# ---- Tools
def any_of_refs(count: int) -> List[Any]:
    """A root of alternatives that all refer to one large definition."""
    large = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(count)}}
    schema = {"$defs": {"a": large}, "anyOf": [{"$ref": "#/$defs/a"}] * count}
    return [{"type": "function", "name": "f", "parameters": schema}]


def fanned_refs(count: int) -> List[Any]:
    """Definitions that refer to the next one several times."""
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 8} for n in range(count)}
    schema = {
        "type": "object",
        "$defs": defs,
        "properties": {f"p{n}": {"$ref": "#/$defs/d0"} for n in range(count)},
    }
    return [{"type": "function", "name": "f", "parameters": schema}]


def long_refs(count: int) -> List[Any]:
    """References with many steps."""
    ref = {"$ref": "#/" + "a/" * count}
    schema = {"type": "object", "properties": {f"p{n}": ref for n in range(count // 4)}}
    return [{"type": "function", "name": "f", "parameters": schema}]


def many_tools(count: int) -> List[Any]:
    return [
        {"type": "function", "name": f"f{n}", "parameters": {"type": "object", "properties": {}}}
        for n in range(count)
    ]


def wide_schema(count: int) -> List[Any]:
    properties = {f"p{n}": {"type": "string", "enum": ["a"]} for n in range(count)}
    return [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": properties}}]


# ---- Items
def messages(count: int) -> List[Any]:
    return [text("user", "x")] * count


def pairs(count: int, same: bool = False) -> List[Any]:
    found: List[Any] = []
    for number in range(count):
        call_id = "c" if same else f"c{number}"
        found.append({"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"})
        found.append({"type": "function_call_output", "call_id": call_id, "output": str(number)})
    return found


def calls_first(count: int) -> List[Any]:
    items = pairs(count)
    return items[::2] + items[1::2]


def interleaved(count: int) -> List[Any]:
    """Messages of the user between calls and their outputs."""
    items = pairs(count)
    return [*items[::2], *[text("user", "x")] * count, *items[1::2]]


# ---- Sealed items
def summary() -> Dict[str, Any]:
    return {"type": "compaction", "encrypted_content": seal("compaction", {"text": "x" * MB})}


def thought(said: str, details: Sequence[Any] = ()) -> Dict[str, Any]:
    sealed = seal("reasoning", {"text": said, "details": [*details]})
    return {"type": "reasoning", "summary": [], "encrypted_content": sealed}


# ---- Hosted tools
DOCS = {"type": "mcp", "server_label": "docs", "require_approval": "never"}


def mcp_list(tools: List[Any]) -> Dict[str, Any]:
    return {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "docs", "tools": tools}


def mcp_tools(count: int, name: str = "f{}") -> List[Any]:
    return [{"name": name.format(n), "input_schema": {"type": "object"}} for n in range(count)]


def mcp_calls(count: int) -> List[Any]:
    """Calls of as many responses, which nobody remembers."""
    call = {"type": "mcp_call", "server_label": "docs", "name": "f1", "arguments": "{}", "output": "x"}
    return [{**call, "id": f"mcp_{n:032x}0000"} for n in range(count)]


def searches(count: int) -> List[Any]:
    action = {"type": "search", "query": "x"}
    call = {"type": "web_search_call", "status": "completed", "action": action}
    return [{**call, "id": f"ws_{n:032x}0000"} for n in range(count)]


def approvals(count: int) -> List[Any]:
    """Questions and their answers, each of which says no."""
    asked = {"type": "mcp_approval_request", "server_label": "docs", "name": "f1", "arguments": "{}"}
    said = {"type": "mcp_approval_response", "approve": False}
    found: List[Any] = []
    for n in range(count):
        name = f"mcpr_{n:032x}0000"
        found += [{**asked, "id": name}, {**said, "approval_request_id": name}]
    return found


# ---- Bodies
def compressed(encoding: str, data: bytes) -> bytes:
    if encoding == "gzip":
        return gzip.compress(data, 6)
    import zstandard

    return bytes(zstandard.ZstdCompressor().compress(data))


def packed(encoding: str, inside: bytes) -> Attack:
    head = b'{"model":"chat.hi","input":"'
    return Attack(
        CREATE, lambda: compressed(encoding, head + inside + b'"}'), f"Content-Encoding: {encoding}\r\n"
    )


def raw(body: Callable[[], bytes], path: str = CREATE) -> Attack:
    return Attack(path, body)


# ---- Every shape in every place
SHAPES: Dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"[%b[]]" % (b"[]," * 10_000_000),
    "nested": lambda: b"[%b0]" % (b"[[[[[[0]]]]]]," * 80_000),
    "keys": lambda: b'{%b"a":0}' % b"".join(b'"k%d":0,' % n for n in range(2_000_000)),
    "some-keys": lambda: b'{%b"a":0}' % b"".join(b'"k%d":"v",' % n for n in range(49_000)),
    "objects": lambda: b"[%b{}]" % b"".join(b'{"a":"%d"},' % n for n in range(450_000)),
    "objects-of-objects": lambda: (
        b"{%b}" % b",".join(b'"%d":{"a":{"b":{"type":"string"}}}' % n for n in range(45_000))
    ),
    "long-keys": lambda: b"{%b}" % b",".join(b'"%d%b":0' % (n, b"k" * (1 << 16)) for n in range(1000)),
    "escapes": lambda: b'"%b"' % (b"\\n" * 30_000_000),
    "text": lambda: b'"%b"' % (b"x" * (60 << 20)),
    "numbers": lambda: b"[%b0]" % (b"1.5," * 4_900_000),
    "strings": lambda: b"[%b0]" % b"".join(b'"%d",' % n for n in range(4_900_000)),
}
ITEM = b'{"type":"message","role":"user","content":%s}'
FUNCTION = b'{"type":"function","name":"f","parameters":%s}'
FIELDS: Dict[str, bytes] = {  # of a create request
    "field": b'"input":"x","unknown":%s',
    "input": b'"input":%s',
    "content": b'"input":[' + ITEM + b"]",
    "output": b'"input":[{"type":"function_call_output","call_id":"c","output":%s}]',
    "instructions": b'"input":"x","instructions":%s',
    "metadata": b'"input":"x","metadata":%s',
    "include": b'"input":"x","include":%s',
    "prompt": b'"input":"x","prompt":%s',
    "schema": b'"input":"x","text":{"format":{"type":"json_schema","name":"f","schema":%s}}',
    "tools": b'"input":"x","tools":%s',
    "parameters": b'"input":"x","tools":[' + FUNCTION + b"]",
    "properties": b'"input":"x","tools":[' + FUNCTION % b'{"type":"object","properties":%s}' + b"]",
    "choice": b'"input":"x","tool_choice":%s',
}
PLACES: Dict[str, Tuple[str, bytes]] = {
    **{f"create-{name}": (CREATE, b'{"model":"chat.hi",' + field + b"}") for name, field in FIELDS.items()},
    **{
        f"{route}-{name}": (f"{CREATE}/{route}", b'{"model":"chat.hi",' + FIELDS[name] + b"}")
        for route in ("compact", "input_tokens")
        for name in ("input", "content", "parameters", "instructions")
    },
    "conversations-items": ("/v1/conversations", b'{"items":%s}'),
    "conversations-content": ("/v1/conversations", b'{"items":[' + ITEM + b"]}"),
    "conversations-metadata": ("/v1/conversations", b'{"metadata":%s}'),
    "add-items": ("/v1/conversations/CONVERSATION/items", b'{"items":%s}'),
    "add-content": ("/v1/conversations/CONVERSATION/items", b'{"items":[' + ITEM + b"]}"),
    "chat-field": ("/v1/chat/completions", b'{"model":"chat.hi","messages":[],"unknown":%s}'),
    "chat-messages": ("/v1/chat/completions", b'{"model":"chat.hi","messages":%s}'),
    "chat-content": (
        "/v1/chat/completions",
        b'{"model":"chat.hi","messages":[{"role":"user","content":%s}]}',
    ),
    "chat-input": ("/v1/chat/completions", b'{"model":"chat.hi","input":%s}'),
    "search-field": ("/v1/alpha/search", b'{"model":"chat.hi","unknown":%s}'),
}


def everywhere() -> Dict[str, Attack]:
    """Each shape in each place, and in some places compressed or as a message of a WebSocket."""
    found: Dict[str, Attack] = {}
    for place, (path, text) in PLACES.items():
        for shape, make in SHAPES.items():
            found[f"{place}/{shape}"] = Attack(path, lambda text=text, make=make: text % make())
    for place in ("create-content", "create-properties"):
        path, text = PLACES[place]
        message = text.replace(b"{", b'{"type":"response.create",', 1)
        for shape, make in SHAPES.items():
            found[f"{place}-websocket/{shape}"] = Attack(
                CREATE, lambda text=message, make=make: text % make(), ws=True
            )
            for encoding in ("gzip", "zstd"):
                found[f"{place}-{encoding}/{shape}"] = Attack(
                    path,
                    lambda text=text, make=make, encoding=encoding: compressed(encoding, text % make()),
                    f"Content-Encoding: {encoding}\r\n",
                )
    return found


def pdf_in_text(size: int) -> List[Any]:
    return pdf_message("a.pdf", make_pdf(b"BT " + b"(x) Tj 1 0 0 1 0 0 Tm " * (size // 23) + b"ET"))


def deflated_pdfs(count: int) -> List[Any]:
    return [
        part
        for number in range(count)
        for part in pdf_message(
            "a.pdf", make_pdf(b"BT %d Tf " % number + b"(x) Tj " * 1_000_000, deflated=True)
        )
    ]


def pdf_bomb() -> List[Any]:
    stream = base64.b85encode(zlib.compress(b" " * (200 << 20)))
    return pdf_message("a.pdf", make_pdf(stream) + make_pdf(b" " * (64 << 20), deflated=True))


MB = 1 << 20
BIG = 120 * MB
REQUESTS: Dict[str, Attack] = {
    # ---- The body
    "body-text": ask(input=lambda: "x" * BIG),
    "body-text-wide": ask(input=lambda: "é" * (BIG // 2)),
    "body-escapes": raw(lambda: b'{"model":"chat.hi","input":"%b"}' % (b"\\n" * (BIG // 2))),
    "body-unicode-escapes": raw(lambda: b'{"model":"chat.hi","input":"%b"}' % (b"\\u00e9" * (BIG // 6))),
    "body-messages": ask(input=lambda: messages(2_000_000)),
    "body-one-part": ask(input=lambda: [text("user", [{"type": "input_text", "text": "x" * BIG}])]),
    "body-image": ask(
        input=lambda: [
            text("user", [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * BIG}])
        ]
    ),
    "body-parts": ask(input=lambda: [text("user", [{"type": "input_text", "text": "x"}] * 2_000_000)]),
    "body-brackets": raw(
        lambda: (
            b'{"model":"chat.hi","input":[{"type":"message","role":"user","content":[%b[]]}]}'
            % (b"[]," * (10 * MB))
        )
    ),
    "body-brackets-field": raw(
        lambda: b'{"model":"chat.hi","input":"x","metadata":{"a":[%b[]]}}' % (b"[]," * (10 * MB))
    ),
    "body-deep": raw(lambda: b'{"model":"chat.hi","input":%b' % (b"[" * (30 * MB))),
    "body-keys": raw(
        lambda: b'{"model":"chat.hi",%b"input":"x"}' % b"".join(b'"k%d":0,' % n for n in range(2_000_000))
    ),
    "body-keys-inside": raw(
        lambda: (
            b'{"model":"chat.hi","input":"x","prompt_cache_options":{%b"a":0}}'
            % b"".join(b'"k%d":0,' % n for n in range(2_000_000))
        )
    ),
    "body-number": raw(lambda: b'{"model":"chat.hi","input":"x","temperature":%b}' % (b"1" * (30 * MB))),
    "body-damaged": raw(lambda: b'{"model":"chat.hi","input":[%b' % (b'{"type":"message"},' * 4_000_000)),
    "body-no-object": raw(lambda: b"[%b1]" % (b"1," * (30 * MB))),
    "body-blanks": raw(lambda: b" " * BIG + b'{"model":"chat.hi","input":"x"}'),
    "body-not-utf8": raw(lambda: b'{"model":"chat.hi","input":"%b\xff"}' % (b"x" * BIG)),
    "gzip": packed("gzip", b"x" * (120 * MB)),
    "gzip-escapes": packed("gzip", b"\\n" * (60 * MB)),
    "gzip-over": packed("gzip", b"x" * (600 * MB)),
    "zstd": packed("zstd", b"x" * (120 * MB)),
    "zstd-over": packed("zstd", b"x" * (600 * MB)),
    # ---- Items, parts, calls
    "items-brackets-output": raw(
        lambda: (
            b'{"model":"chat.hi","input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":[%b[]]}]}'
            % (b"[]," * (10 * MB))
        )
    ),
    "items-pairs": ask(input=lambda: pairs(50_000)),
    "items-same-call": ask(input=lambda: pairs(50_000, same=True)),
    "items-same-output": ask(
        input=lambda: [
            pairs(1)[0],
            *({"type": "function_call_output", "call_id": "c0", "output": str(n)} for n in range(50_000)),
        ]
    ),
    "items-calls-first": ask(input=lambda: calls_first(50_000)),
    "items-interleaved": ask(input=lambda: interleaved(20_000)),
    "items-references": ask(
        input=lambda: [{"type": "item_reference", "id": f"msg_{n:032x}_{n}"} for n in range(20_000)]
    ),
    "items-updates": ask(
        input=lambda: [{"type": "configuration_update", "reasoning": {f"k{n}": 1}} for n in range(20_000)]
    ),
    "items-reasoning": ask(
        input=lambda: [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]} for n in range(50_000)
        ]
    ),
    "items-unknown": ask(input=lambda: [{"type": f"odd{n}"} for n in range(100_000)]),
    "items-arguments": ask(
        input=lambda: [
            {
                "type": "function_call",
                "call_id": "c",
                "name": "f",
                "arguments": "[" + "[]," * (3 * MB) + "[]]",
            }
        ]
    ),
    "items-one-item": ask(input=lambda: [text("assistant", "x" * (20 * MB)), *messages(3)]),
    "items-wire": ask("wire.hi", input=lambda: pairs(50_000)),
    "items-wire-messages": ask("wire.hi", input=lambda: messages(1_000_000)),
    "input-tokens": ask(path=CREATE + "/input_tokens", input=lambda: messages(100_000)),
    "input-tokens-text": ask(path=CREATE + "/input_tokens", input=lambda: "é" * (20 * MB)),
    "input-tokens-pairs": ask(path=CREATE + "/input_tokens", input=lambda: pairs(100_000)),
    "input-tokens-tools": ask(path=CREATE + "/input_tokens", tools=lambda: wide_schema(100_000)),
    "compact": ask(path=CREATE + "/compact", input=lambda: messages(300_000)),
    "compact-text": ask(path=CREATE + "/compact", input=lambda: "x" * (60 * MB)),
    "conversation-items": raw(
        lambda: _json({"items": [text("user", "x" * (2 * MB))] * 20}), "/v1/conversations"
    ),
    "conversation-parts": raw(
        lambda: _json({"items": [text("user", [{"type": "input_text", "text": "x"}] * 500_000)]}),
        "/v1/conversations",
    ),
    "conversation-metadata": raw(
        lambda: b'{"metadata":{%b"a":"x"}}' % b"".join(b'"k%d":"x",' % n for n in range(1_000_000)),
        "/v1/conversations",
    ),
    "chat": raw(
        lambda: b'{"model":"chat.hi","messages":[{"role":"user","content":"%b"}]}' % (b"x" * BIG),
        "/v1/chat/completions",
    ),
    "chat-messages": raw(
        lambda: b'{"model":"chat.hi","messages":[%b{}]}' % (b'{"role":"user","content":"x"},' * 1_000_000),
        "/v1/chat/completions",
    ),
    "chat-parts": raw(
        lambda: (
            b'{"model":"chat.hi","messages":[{"role":"user","content":[%b{}]}]}'
            % (b'{"type":"text","text":"x"},' * 1_000_000)
        ),
        "/v1/chat/completions",
    ),
    "websocket": ask(ws=True, input=lambda: "x" * (60 * MB)),
    "websocket-brackets": Attack(
        CREATE,
        lambda: (
            b'{"type":"response.create","model":"chat.hi","input":[{"type":"message","role":"user","content":[%b[]]}]}'
            % (b"[]," * (10 * MB))
        ),
        ws=True,
    ),
    "websocket-items": ask(ws=True, input=lambda: messages(1_000_000)),
    # ---- Tools and schemas
    "schema-any-of": ask(tools=lambda: any_of_refs(1800)),
    "schema-fanned": ask(tools=lambda: fanned_refs(300)),
    "schema-fanned-kimi": ask("kimi.hi", tools=lambda: fanned_refs(300)),
    "schema-any-of-kimi": ask("kimi.hi", tools=lambda: any_of_refs(1800)),
    "schema-long-refs": ask(tools=lambda: long_refs(2000)),
    "schema-wide": ask(tools=lambda: wide_schema(300_000)),
    "schema-format": ask(
        text=lambda: {
            "format": {"type": "json_schema", "name": "f", "schema": any_of_refs(1800)[0]["parameters"]}
        }
    ),
    "schema-format-wide": ask(
        text=lambda: {
            "format": {"type": "json_schema", "name": "f", "schema": wide_schema(300_000)[0]["parameters"]}
        }
    ),
    "tools-many": ask(tools=lambda: many_tools(60_000)),
    "tools-hosted": ask(tools=lambda: [{"type": "web_search", "n": n} for n in range(60_000)]),
    "tools-allowed": ask(
        tools=lambda: many_tools(5_000),
        tool_choice=lambda: {
            "type": "allowed_tools",
            "tools": [{"type": "function", "name": f"f{n}"} for n in range(5_000)],
        },
    ),
    "tools-namespaces": ask(
        tools=lambda: [{"type": "namespace", "name": f"n{n}", "tools": many_tools(10)} for n in range(6_000)]
    ),
    "tools-of-items": ask(
        input=lambda: [{"type": "additional_tools", "tools": many_tools(6_000)}, *messages(2)]
    ),
    # ---- Hosted tools
    "hosted-messages": ask(input=lambda: messages(300_000), tools=[{"type": "web_search"}]),
    "hosted-searches": ask(input=lambda: searches(100_000), tools=[{"type": "web_search"}]),
    "hosted-calls": ask(
        input=lambda: [mcp_list(mcp_tools(128)), *mcp_calls(100_000), text("user", "x")], tools=[DOCS]
    ),
    "hosted-approvals": ask(
        input=lambda: [mcp_list(mcp_tools(128)), *approvals(50_000), text("user", "x")], tools=[DOCS]
    ),
    "hosted-list": ask(
        input=lambda: [mcp_list(mcp_tools(127) + mcp_tools(400_000, "f1")), text("user", "x")], tools=[DOCS]
    ),
    "hosted-names": ask(
        input=[mcp_list(mcp_tools(128)), text("user", "x")],
        tools=lambda: [{**DOCS, "allowed_tools": [f"g{n}" for n in range(1_000_000)]}],
    ),
    "hosted-entries": ask(tools=lambda: [{**DOCS, "server_label": f"d{n}"} for n in range(4_096)]),
    "metadata": raw(
        lambda: (
            b'{"model":"chat.hi","input":"x","metadata":{%b"a":"x"}}'
            % b"".join(b'"k%d":"x",' % n for n in range(1_000_000))
        )
    ),
    "include": ask(include=lambda: ["x"] * 1_000_000),
    "stop": ask(stop=lambda: ["x"] * 1_000_000),
    "instructions": ask(instructions=lambda: [text("user", "x")] * 300_000),
    # ---- Sealed items, which are small until they are opened
    "sealed-too-many": ask(input=lambda: [summary()] * 300),
    "sealed-most": ask(input=lambda: [summary()] * 15),
    "sealed-reasoning": ask(input=lambda: [thought("x" * MB)] * 15 + [text("user", "x")]),
    "sealed-wire": ask("wire.hi", input=lambda: [summary()] * 15),
    "sealed-input-tokens": ask(path=CREATE + "/input_tokens", input=lambda: [summary()] * 15),
    "sealed-compact": ask(path=CREATE + "/compact", input=lambda: [summary()] * 15),
    "sealed-brackets": ask(input=lambda: [thought("", [[]] * (4 * MB)), text("user", "x")]),
    "sealed-many": ask(input=lambda: [thought(f"{n} " * 50) for n in range(20_000)] + [text("user", "x")]),
    "sealed-websocket": ask(ws=True, input=lambda: [summary()] * 15),
    # ---- Many that are refused
    "many-messages": Attack(CREATE, lambda: b"{}", ws=True, times=37_500),
    "many-steers": Attack(CREATE, lambda: b'{"type":"response.steer"}', ws=True, times=37_500),
    "many-turns": ask("unknown", ws=True)._replace(times=10_000),
    "many-warm-ups": ask(ws=True, generate=False)._replace(times=10_000),
    "many-requests": Attack(CREATE, lambda: b"{}", times=10_000),
    "many-paths": Attack("/x", lambda: b"", method="GET", times=10_000),
    # ---- Files
    "pdf": ask(input=lambda: pdf_in_text(41_000)),
    "pdf-deflated": ask(input=lambda: deflated_pdfs(8)),
    "pdf-bomb": ask(input=pdf_bomb),
    "text-file": ask(
        input=lambda: [
            text(
                "user",
                [
                    {
                        "type": "input_file",
                        "filename": "a.txt",
                        "file_data": "data:text/plain;base64," + "QUFB" * (8 * MB),
                    }
                ],
            )
        ]
    ),
    # ---- A refusal that is diagnosed
    "refusal": ask(
        "chat.refusal", tools=TOOLS, input=lambda: [text("user", "allowed messages content " * 20)] * 5_000
    ),
}


# ---- What reads a large record from the store
STORED = "/v1/responses/RESPONSE"
KEPT = "/v1/conversations/CONVERSATION"


def stored(method: str, path: str, value: Any = None, count: int = 300_000) -> Attack:
    """A request with a stored response, or a conversation, of many items.

    :param value: the body
    """
    return Attack(
        path,
        lambda: b"" if value is None else _json(value),
        method=method,
        before=lambda: messages(count),
        alone="CONVERSATION" not in path + json.dumps(value),
    )


def turn(**fields: Any) -> Dict[str, Any]:
    return {"model": "chat.hi", "input": "x", **fields}


REFERENCES = [{"type": "item_reference", "id": f"msg_STEM{place}"} for place in ("i001", "i493df", "0000")]
READS: Dict[str, Attack] = {
    "stored-get": stored("GET", STORED),
    "stored-stream": stored("GET", STORED + "?stream=true"),
    "stored-input-items": stored("GET", STORED + "/input_items"),
    "stored-input-items-after": stored("GET", STORED + "/input_items?after=msg_STEMi001"),
    "stored-cancel": stored("POST", STORED + "/cancel"),
    "stored-delete": stored("DELETE", STORED),
    "stored-reference": stored("POST", CREATE, turn(input=[*REFERENCES, text("user", "x")])),
    "stored-previous": stored("POST", CREATE, turn(previous_response_id="RESPONSE")),
    "stored-previous-compact": stored("POST", CREATE + "/compact", turn(previous_response_id="RESPONSE")),
    "stored-previous-tokens": stored("POST", CREATE + "/input_tokens", turn(previous_response_id="RESPONSE")),
    "stored-previous-of-some": stored("POST", CREATE, turn(previous_response_id="RESPONSE"), count=30_000),
    "kept-get": stored("GET", KEPT),
    "kept-metadata": stored("POST", KEPT, {"metadata": {"a": "b"}}),
    "kept-items": stored("GET", KEPT + "/items"),
    "kept-items-after": stored("GET", KEPT + "/items?order=asc&after=msg_STEM0000"),
    "kept-add": stored("POST", KEPT + "/items", {"items": messages(1)}),
    "kept-item": stored("GET", KEPT + "/items/msg_STEM0000"),
    "kept-item-delete": stored("DELETE", KEPT + "/items/msg_STEM0000"),
    "kept-turn": stored("POST", CREATE, turn(conversation="CONVERSATION")),
    "kept-input-items": stored("GET", STORED + "/input_items?before=CONVERSATION"),
    "kept-delete": stored("DELETE", KEPT),
}


CHAT = "/v1/chat/completions"
SEALED = {"store": False, "include": ["reasoning.encrypted_content"]}
LARGE = ("delta-30mb", "text-100mb", "arguments-30mb", "reasoning-50mb", "most-calls-in-one-delta")
# How a client may ask for an answer, beside a stream of events.
MODES: Dict[str, Callable[[str], Attack]] = {
    "json": lambda model: ask(model, tools=TOOLS, again=True),
    "websocket": lambda model: answered(model, ws=True),
    "background": lambda model: answered(model, background=True, again=True),
    "slow": lambda model: answered(model, slow=True),
    "sqlite": lambda model: answered(model, in_store="sqlite", again=True),
    "redis": lambda model: answered(model, in_store="redis", again=True),
    "chat": lambda model: ask(model, path=CHAT, stream=True, messages=[{"role": "user", "content": "x"}]),
}


def attacks(all_places: bool) -> Dict[str, Attack]:
    """The attacks, by name.

    :param all_places: with those of :func:`everywhere`
    """
    found = {**REQUESTS, **READS, **(everywhere() if all_places else {})}
    for name in ANSWERS:
        model = "heal" if name.startswith("leaked") else "wire" if name in OF_THE_RESPONSES_API else "chat"
        found[f"answer-{name}"] = answered(f"{model}.{name}")
    for mode, asked in MODES.items():
        for name in LARGE:
            found[f"answer-{mode}-{name}"] = asked(f"chat.{name}")
    found["answer-json-whole"] = ask("chat.whole-30mb")
    found["answer-json-calls"] = ask("chat.whole-calls", tools=TOOLS)
    found["answer-chat-whole"] = ask(
        "chat.whole-30mb", path=CHAT, messages=[{"role": "user", "content": "x"}]
    )
    found["answer-chat-refusal"] = ask(
        "chat.refusal-30mb", path=CHAT, messages=[{"role": "user", "content": "x"}]
    )
    found["answer-chat-error"] = ask(
        "chat.error-chunk", path=CHAT, messages=[{"role": "user", "content": "x"}]
    )
    found["answer-sealed"] = answered("chat.reasoning-50mb", **SEALED)
    found["answer-with-logprobs"] = answered("chat.logprobs", top_logprobs=5)
    return found

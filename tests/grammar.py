"""The grammar of every event stream, in one place.

:func:`check_stream` takes the events of one response, from whatever transport, and returns the terminal
Response object; :func:`check_sse` does the same for the body of an SSE answer and checks the framing too;
:func:`check_response` takes one Response object.  All of them raise AssertionError with a sentence about what
is wrong.

The rules are those that the accumulators of the OpenAI SDKs, LangChain, Codex and the Open Responses test
suite rely on: numbered events, created, in_progress, items strictly one after another, everything announced
before it is filled, every text said three times in the same words (deltas, done, item), exactly one terminal
event, last.  The checker folds the deltas by itself, so a stream passes only when its deltas alone give the
final output.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

Json = Dict[str, Any]

TERMINAL = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
INTERRUPTS = (
    "response.interrupt.accepted",
    "response.output_item.interrupted",
)  # what Codex is told before an interrupted end
LIFECYCLE = {
    "response.created": "in_progress",
    "response.queued": "queued",
    "response.in_progress": "in_progress",
    **TERMINAL,
}

# part type -> (the item it belongs in, list of the item, index key, text key, prefix of the part's events,
# prefix of the text's events)
PARTS = {
    "output_text": (
        "message",
        "content",
        "content_index",
        "text",
        "response.content_part",
        "response.output_text",
    ),
    "refusal": (
        "message",
        "content",
        "content_index",
        "refusal",
        "response.content_part",
        "response.refusal",
    ),
    "reasoning_text": (
        "reasoning",
        "content",
        "content_index",
        "text",
        "response.content_part",
        "response.reasoning_text",
    ),
    "summary_text": (
        "reasoning",
        "summary",
        "summary_index",
        "text",
        "response.reasoning_summary_part",
        "response.reasoning_summary_text",
    ),
}
TEXT_EVENTS = {prefix: part for part, (_, _, _, _, _, prefix) in PARTS.items()}
# item type -> (key of what the model wrote, prefix of its events; None: nothing is streamed)
CALLS: Dict[str, Tuple[str, Optional[str]]] = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
    "tool_search_call": ("arguments", None),
    "local_shell_call": ("action", None),
    "shell_call": ("action", None),
    "apply_patch_call": ("operation", None),
}
# what a provider with the Responses API has done itself; nothing is streamed
HOSTED = (
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
)
# item type -> (prefix of its events, those before the work, those after it: one of them)
WORK: Dict[str, Tuple[str, List[str], List[str]]] = {
    "web_search_call": ("response.web_search_call", ["in_progress", "searching"], ["completed"]),
    "mcp_list_tools": ("response.mcp_list_tools", ["in_progress"], ["completed", "failed"]),
    "mcp_call": ("response.mcp_call", ["in_progress"], ["completed", "failed"]),
}
WORK_EVENTS = {prefix: kind for kind, (prefix, _, _) in WORK.items()}
CALL_EVENTS = {prefix: (key, kind) for kind, (key, prefix) in CALLS.items() if prefix}

RESPONSE_KEYS = {
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "error",
    "model",
    "output",
    "instructions",
    "previous_response_id",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "truncation",
    "text",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "user",
}
NEVER_NULL = {
    "encrypted_content",
    "phase",
    "content",
    "summary",
    "namespace",
}  # keys of items: absent, or something


def check_stream(events: Iterable[Json]) -> Json:
    """The terminal Response object of a well-formed stream. :raises AssertionError: for any other"""
    checker = _Checker()
    for number, event in enumerate(events):
        try:
            checker.event(number, event)
        except (KeyError, TypeError, IndexError) as e:
            raise AssertionError(f"event {number} lacks something: {e!r} in {_short(event)}") from e
    return checker.end()


def check_sse(body: bytes) -> Json:
    """The same for the whole body of an SSE answer of ours. :raises AssertionError:"""
    return check_stream(parse_sse(body))


def parse_sse(body: bytes) -> List[Json]:
    """The events of an SSE body as this server writes them, its framing checked. :raises AssertionError:"""
    text = body.decode("utf-8")
    assert text.endswith("\n\n"), f"the body ends with {text[-40:]!r}, not with a blank line"
    events: List[Json] = []
    blocks = [block for block in text[:-2].split("\n\n") if not block.startswith(":")]
    assert blocks and blocks[-1] == "data: [DONE]", f"the last block is {blocks[-1:]!r}, not [DONE]"
    for block in blocks[:-1]:
        lines = block.split("\n")
        well_formed = len(lines) == 2 and lines[0].startswith("event: ") and lines[1].startswith("data: ")
        assert well_formed, f"a block is not one event line and one data line: {block!r}"
        event = json.loads(lines[1][6:])
        assert event.get("type") == lines[0][7:], "event: {}, but data.type {!r}".format(
            lines[0][7:], event.get("type")
        )
        events.append(event)
    return events


def check_response(response: Json) -> Json:
    """Checks one Response object, and returns it. :raises AssertionError:"""
    missing = sorted(RESPONSE_KEYS - set(response))
    assert not missing, "the response lacks {}".format(", ".join(missing))
    assert response["object"] == "response", "object is {!r}".format(response["object"])
    assert isinstance(response["id"], str) and response["id"], "response.id is {!r}".format(response["id"])
    _integer(response["created_at"], "created_at")
    status = response["status"]
    assert (response["error"] is not None) == (status == "failed"), "status {} with error {!r}".format(
        status, response["error"]
    )
    if status == "failed":
        assert response["error"].get("code") and response["error"].get("message"), (
            "error without code or message: {!r}".format(response["error"])
        )
    details = response["incomplete_details"]
    assert (details is not None) == (status == "incomplete"), (
        f"status {status} with incomplete_details {details!r}"
    )
    assert details is None or details["reason"], "incomplete without a reason"
    if status == "completed":
        _integer(response["completed_at"], "completed_at")
    else:
        assert response["completed_at"] is None, f"status {status} with completed_at"
    if status in ("completed", "incomplete"):
        assert response["usage"] is not None, f"status {status} without usage"
    if response["usage"] is not None:
        check_usage(response["usage"])
    for key in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        assert isinstance(response[key], (int, float)), f"{key} is {response[key]!r}"
    assert set(response["reasoning"]) >= {"effort", "summary"}, "reasoning is {!r}".format(
        response["reasoning"]
    )
    assert response["text"]["format"]["type"], "text is {!r}".format(response["text"])
    for tool in response["tools"]:
        assert tool["type"] != "function" or {"name", "description", "parameters", "strict"} <= set(tool), (
            f"a tool lacks keys: {tool!r}"
        )
    ids = [item["id"] for item in response["output"]]
    assert len(set(ids)) == len(ids), f"two output items share an id: {ids}"
    for at, item in enumerate(response["output"]):
        check_item(item)
        assert item.get("status") != "incomplete" or at == len(ids) - 1, (
            f"an incomplete item is not the last one: {_short(item)}"
        )
        assert item.get("status") != "incomplete" or status == "incomplete", (
            f"an incomplete item in a {status} response"
        )
    return response


def check_usage(usage: Json) -> None:
    numbers = (
        usage["input_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["input_tokens_details"]["cache_write_tokens"],
        usage["output_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
        usage["total_tokens"],
    )
    for number in numbers:
        _integer(number, "a figure of usage")
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], (
        f"usage does not add up: {usage!r}"
    )


def check_item(item: Json) -> None:
    """A finished output item."""
    kind = item["type"]
    assert isinstance(item["id"], str) and "_" in item["id"], "item id {!r}".format(item["id"])
    nulls = [key for key in NEVER_NULL if key in item and item[key] is None]
    assert not nulls, f"{kind} item with null {nulls}"
    if kind == "message":
        assert item["role"] == "assistant" and item["status"] in ("completed", "incomplete"), (
            f"message: {_short(item)}"
        )
        assert item["content"], "a message without content"
    elif kind == "reasoning":
        assert isinstance(item["summary"], list), "a reasoning item without a summary list"
        assert item["summary"] or item.get("content") or item.get("encrypted_content"), (
            "an empty reasoning item"
        )
    elif kind == "compaction":
        assert item["encrypted_content"], "an empty compaction item"
    elif kind in HOSTED:
        assert item.get("status", "completed") != "in_progress", f"a {kind} that is not finished"
    else:
        assert kind in CALLS, f"unknown item type {kind!r}"
        assert item["status"] == "completed", "a call with status {!r} among the finished items".format(
            item["status"]
        )
        assert isinstance(item["call_id"], str) and item["call_id"], "a call without call_id"
        if "name" in item or CALLS[kind][1]:
            assert isinstance(item["name"], str) and item["name"], "a call without a name"
        assert CALLS[kind][0] in item, f"a call without {CALLS[kind][0]}"
        assert kind != "function_call" or isinstance(item["arguments"], str) and item["arguments"], (
            f"empty arguments: {_short(item)}"
        )
    for part in item.get("content", []) + item.get("summary", []):
        belongs, _, _, key, _, _ = PARTS[part["type"]]
        assert belongs == kind, "a {} part in a {} item".format(part["type"], kind)
        assert isinstance(part[key], str) and part[key], "an empty {} part".format(part["type"])
        if part["type"] == "output_text":
            lists = isinstance(part["annotations"], list) and isinstance(part["logprobs"], list)
            assert lists, "output_text without annotations or logprobs"


def _integer(value: Any, what: str) -> None:
    assert isinstance(value, int) and not isinstance(value, bool) and value >= 0, (
        f"{what} is {value!r}, not a whole number"
    )


def _short(value: Any) -> str:
    return json.dumps(value)[:300]


class _Part:
    def __init__(self, type_: str) -> None:
        self.type = type_
        self.text: List[str] = []
        self.annotations: List[Json] = []
        self.logprobs: List[Json] = []
        self.text_done = self.closed = False


class _Item:
    def __init__(self, added: Json, index: int) -> None:
        self.added = added
        self.index = index
        self.done: Optional[Json] = None
        self.parts: Dict[str, List[_Part]] = {"content": [], "summary": []}
        self.work: List[str] = []  # the events of an item that rproxy makes itself
        self.written: List[str] = []  # arguments or input
        self.written_done = False


class _Checker:
    def __init__(self) -> None:
        self.types: List[str] = []
        self.sequence = -1
        self.created: Optional[Json] = None
        self.final: Optional[Json] = None
        self.items: List[_Item] = []
        self.call_ids: Set[str] = set()

    # ---- every event
    def event(self, number: int, event: Json) -> None:
        kind = event["type"]
        assert isinstance(kind, str), f"event {number} has type {kind!r}"
        try:
            json.dumps(event, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except ValueError as e:
            raise AssertionError(f"{kind} cannot be written as UTF-8 JSON: {e}") from e
        assert self.final is None, f"{kind} after the terminal event"
        number = event["sequence_number"]
        assert number == self.sequence + 1, f"{kind} has sequence_number {number!r} after {self.sequence}"
        self.sequence += 1
        assert (
            kind in (*INTERRUPTS[1:], "response.incomplete")
            or self.types[-1:] == []
            or self.types[-1] not in INTERRUPTS
        ), f"{kind} after an interrupt"
        assert kind == "response.failed" or self.types[-1:] != ["error"], (
            f"{kind} after an error event, which only response.failed may follow"
        )
        if number == 0:
            assert kind == "response.created", f"the first event is {kind}"
        elif number == 1 or self.types == ["response.created", "response.queued"]:
            assert kind in ("response.in_progress", "response.queued"), (
                f"event {number} is {kind}, not response.in_progress"
            )
        self.types.append(kind)
        if kind in LIFECYCLE:
            self.lifecycle(kind, event["response"])
        elif kind == "response.output_item.added":
            self.added(event["output_index"], event["item"])
        elif kind in INTERRUPTS:
            self.interrupted(kind, event)
        elif kind != "error":
            self.item_event(kind, event)

    def interrupted(self, kind: str, event: Json) -> None:
        assert self.created is not None and event["response_id"] == self.created["id"], (
            f"{kind} of another response"
        )
        if kind == INTERRUPTS[1]:
            assert self.types[-2] == INTERRUPTS[0], f"{kind} without {INTERRUPTS[0]}"
            last = self.items[-1]
            assert last.done is None, "the interrupted item is finished"
            assert (event["output_index"], event["item_id"]) == (last.index, last.added["id"]), (
                "another item than the open one"
            )

    def lifecycle(self, kind: str, response: Json) -> None:
        assert (kind == "response.created") == (self.created is None), (
            "response.created is not the first event, or comes twice"
        )
        check_response(response)
        assert response["status"] == LIFECYCLE[kind], "{} with status {!r}".format(kind, response["status"])
        if self.created is None:
            assert response["output"] == [] and response["usage"] is None, (
                "response.created has output or usage already"
            )
            self.created = response
        assert response["id"] == self.created["id"], "response.id changes from {} to {}".format(
            self.created["id"], response["id"]
        )
        assert set(response) == set(self.created), (
            f"the response's keys change: {set(response) ^ set(self.created)}"
        )
        if kind in TERMINAL:
            self.final = response

    # ---- items
    def added(self, index: Any, item: Json) -> None:
        kind = item["type"]
        assert index == len(self.items), (
            f"{kind} added with output_index {index!r}, expected {len(self.items)}"
        )
        assert item["id"] not in {other.added["id"] for other in self.items}, (
            "item id {} is used twice".format(item["id"])
        )
        assert not [key for key in NEVER_NULL if key in item and item[key] is None], (
            f"an added item with a null: {_short(item)}"
        )
        assert not item.get("content") and not item.get("summary"), f"{kind} added with content already there"
        if kind == "compaction":
            assert item["encrypted_content"], "compaction added without its content, which no delta brings"
        elif kind in HOSTED:
            assert item.get("status", "in_progress") == "in_progress", "{} added with status {!r}".format(
                kind, item["status"]
            )
        elif kind in ("message", "reasoning"):
            assert item["summary" if kind == "reasoning" else "content"] == [], (
                f"{kind} added without an empty list"
            )
            assert kind == "reasoning" or (item["role"], item["status"]) == ("assistant", "in_progress"), (
                f"message added: {_short(item)}"
            )
        else:
            assert kind in CALLS, f"an item of type {kind!r}"
            key, streamed = CALLS[kind]
            given = item.get(key)
            if isinstance(given, dict):  # the keys of an action are there from the beginning
                given = [value for name, value in given.items() if name != "type" and value]
            assert not given, f"{kind} added with {key} already there"
            assert streamed is None or item[key] == "", f"{kind} added with {key} {item[key]!r}"
            assert streamed is None or item["name"], f"{kind} added without a name"
            assert item["status"] == "in_progress", "{} added with status {!r}".format(kind, item["status"])
            assert item["call_id"] and item["call_id"] not in self.call_ids, (
                "call_id missing or used twice: {!r}".format(item["call_id"])
            )
            self.call_ids.add(item["call_id"])
        self.items.append(_Item(item, index))

    def item_event(self, kind: str, event: Json) -> None:
        index = event["output_index"]
        assert isinstance(index, int) and index < len(self.items), (
            f"{kind} for item {index!r}, which was not added"
        )
        assert index == len(self.items) - 1, (
            f"{kind} for item {index}, but item {len(self.items) - 1} was added since: they interleave"
        )
        item = self.items[index]
        assert item.done is None, f"{kind} for item {index} after its output_item.done"
        if kind == "response.output_item.done":
            self.done(item, event["item"])
            return
        item_id = event["item_id"]
        assert item_id == item.added["id"], f"{kind}: item_id {item_id!r} is not that of item {index}"
        prefix, _, step = kind.rpartition(".")
        if kind == "response.output_text.annotation.added":
            part = self.part(item, "output_text", event)
            assert not part.text_done and event["annotation_index"] == len(part.annotations), (
                f"annotation out of order: {_short(event)}"
            )
            part.annotations.append(event["annotation"])
        elif prefix in CALL_EVENTS:
            self.written(item, prefix, step, event)
        elif prefix in WORK_EVENTS:
            assert WORK_EVENTS[prefix] == item.added["type"], f"{kind} for a {item.added['type']}"
            item.work.append(step)
        elif prefix == "response.mcp_call_arguments":
            item.work.append("arguments." + step)
        elif prefix in TEXT_EVENTS:
            self.text(item, TEXT_EVENTS[prefix], step, event)
        elif prefix in ("response.content_part", "response.reasoning_summary_part"):
            self.part_event(item, prefix, step, event)
        else:
            raise AssertionError(f"unknown event type {kind}")

    def part(self, item: _Item, type_: str, event: Json) -> _Part:
        _, holds, index_key, _, _, _ = PARTS[type_]
        parts = item.parts[holds]
        index = event[index_key]
        assert isinstance(index, int) and index < len(parts), "{} before its part was added".format(
            event["type"]
        )
        assert parts[index].type == type_, "{} for a part of type {}".format(event["type"], parts[index].type)
        assert not parts[index].closed, "{} for a part that is done".format(event["type"])
        return parts[index]

    def part_event(self, item: _Item, prefix: str, step: str, event: Json) -> None:
        given = event["part"]
        belongs, holds, index_key, key, wanted, _ = PARTS[given["type"]]
        assert prefix == wanted, "{} with a part of type {}".format(event["type"], given["type"])
        assert belongs == item.added["type"], "a {} part in a {} item".format(
            given["type"], item.added["type"]
        )
        if step == "added":
            assert given[key] == "", "{} with text already there".format(event["type"])
            parts = item.parts[holds]
            index = event[index_key]
            assert index == len(parts), f"{event['type']} with {index_key} {index!r}, expected {len(parts)}"
            assert all(part.closed for part in parts), "{} while another part is open".format(event["type"])
            parts.append(_Part(given["type"]))
        else:
            assert step == "done", "unknown event type {}".format(event["type"])
            part = self.part(item, given["type"], event)
            assert part.text_done, "{} before the text is done".format(event["type"])
            assert given == self.folded(part), "{} says {}, its deltas {}".format(
                event["type"], _short(given), _short(self.folded(part))
            )
            part.closed = True

    def text(self, item: _Item, type_: str, step: str, event: Json) -> None:
        part = self.part(item, type_, event)
        assert not part.text_done, "{} after the text is done".format(event["type"])
        if type_ == "output_text":
            assert isinstance(event["logprobs"], list), "{} without logprobs".format(event["type"])
        if step == "delta":
            assert isinstance(event["delta"], str) and event["delta"], "{} with delta {!r}".format(
                event["type"], event["delta"]
            )
            part.text.append(event["delta"])
            part.logprobs += event.get("logprobs", [])
            return
        assert step == "done", "unknown event type {}".format(event["type"])
        said, folded = event[PARTS[type_][3]], "".join(part.text)
        assert said == folded, "{} says {}, its deltas {}".format(event["type"], _short(said), _short(folded))
        assert event.get("logprobs", []) == part.logprobs, (
            "{}: logprobs differ from those of the deltas".format(event["type"])
        )
        part.text_done = True

    def written(self, item: _Item, prefix: str, step: str, event: Json) -> None:
        key, kind = CALL_EVENTS[prefix]
        assert item.added["type"] == kind, "{} for a {}".format(event["type"], item.added["type"])
        assert not item.written_done, "{} after it was done".format(event["type"])
        if step == "delta":
            assert isinstance(event["delta"], str) and event["delta"], "{} with delta {!r}".format(
                event["type"], event["delta"]
            )
            item.written.append(event["delta"])
            return
        assert step == "done", "unknown event type {}".format(event["type"])
        folded = "".join(item.written)
        assert event[key] == folded, "{} says {}, its deltas {}".format(
            event["type"], _short(event[key]), _short(folded)
        )
        assert event.get("name", item.added["name"]) == item.added["name"], "{} changes the name".format(
            event["type"]
        )
        item.written_done = True

    def done(self, item: _Item, given: Json) -> None:
        for key in ("id", "type", "call_id", "name", "namespace"):
            assert given.get(key) == item.added.get(key), (
                f"output_item.done changes {key} of item {item.index} to {given.get(key)!r}"
            )
        check_item(given)
        kind = given["type"]
        if item.work:
            _, begun, ended = WORK[kind]
            begun = begun + (["arguments.delta", "arguments.done"] if kind == "mcp_call" else [])
            assert item.work[:-1] == begun and item.work[-1] in ended, f"{kind}: the events {item.work}"
            assert "action" not in item.added, "a search is announced with its action"
        key, streamed = CALLS.get(kind, ("", None))
        if streamed:
            assert item.written_done, f"output_item.done of a {kind} before its {key} are done"
            assert given[key] == "".join(item.written), f"item {item.index}: {key} differs from its deltas"
        for holds, parts in item.parts.items():
            assert all(part.closed for part in parts), (
                f"output_item.done of item {item.index} before its part is done"
            )
            folded = [self.folded(part) for part in parts]
            assert given.get(holds, []) == folded, (
                f"item {item.index}: {holds} is {_short(given.get(holds))}, its deltas {_short(folded)}"
            )
        item.done = given

    @staticmethod
    def folded(part: _Part) -> Json:
        """The part as its events alone tell it."""
        result: Json = {"type": part.type, PARTS[part.type][3]: "".join(part.text)}
        if part.type == "output_text":
            result.update(annotations=part.annotations, logprobs=part.logprobs)
        return result

    # ---- the end
    def end(self) -> Json:
        assert self.created is not None, "no events"
        assert self.final is not None, f"the stream ends with {self.types[-1]}, not with a terminal event"
        status = self.final["status"]
        interrupted = status == "incomplete" and self.final["incomplete_details"]["reason"] == "interrupted"
        for item in self.items:
            excused = (
                status == "failed" or interrupted or status == "incomplete" and item.added["type"] in CALLS
            )
            assert item.done is not None or excused, (
                f"item {item.index} was added, but never done: {_short(item.added)}"
            )
        done = [item.done for item in self.items if item.done is not None]
        assert self.final["output"] == done, (
            "response.output {} is not the list of the finished items {}".format(
                _short(self.final["output"]), _short(done)
            )
        )
        return self.final

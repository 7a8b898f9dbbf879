"""Chat requests judged from outside: the patterns of the fixtures, and the rules that every provider
enforces.

:func:`differences` compares a value with a pattern of a ``req_*.json`` case.  :func:`problems` is an
independent reading of the order and content rules of Chat Completions providers; it knows a profile's fields,
but nothing of the converter.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Optional

from rproxy.convert.profile import Profile

Json = Dict[str, Any]

CALL_IDS = {None: r".+", "alnum9": r"[a-zA-Z0-9]{9}", "max40": r".{1,40}"}
PARTS = {
    "text": "text",
    "image_url": "image",
    "file": "file",
    "input_audio": "audio",
    "thinking": "text",
}  # part -> modality


# ---- patterns
def differences(want: Any, got: Any, names: Optional[Dict[str, str]] = None, path: str = "$") -> List[str]:
    """Where ``got`` does not fit the pattern ``want``; [] when it does.

    ``names``: what ``$bind`` has bound so far.
    """
    names = {} if names is None else names
    if isinstance(want, dict) and want and all(key.startswith("$") for key in want):
        return [line for op, arg in want.items() for line in _operator(op, arg, got, names, path)]
    if want is None:
        return [] if got in (None, "") else [f"{path}: expected nothing, got {got!r}"]
    if isinstance(want, dict) and isinstance(got, dict):
        keys = [*want, *(key for key in got if key not in want and got[key] is not None)]
        return [
            line for key in keys for line in differences(want.get(key), got.get(key), names, f"{path}.{key}")
        ]
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [
            line
            for i, (w, g) in enumerate(zip(want, got))
            for line in differences(w, g, names, f"{path}[{i}]")
        ]
    return [] if want == got else [f"{path}: expected {json.dumps(want)}, got {json.dumps(got)}"]


def _operator(op: str, arg: Any, got: Any, names: Dict[str, str], path: str) -> List[str]:
    if op == "$one_of":
        tries = [differences(one, got, names, path) for one in arg]
        return [] if [] in tries else [line for lines in tries for line in lines]
    if op == "$has":
        return [
            line
            for key, w in arg.items()
            for line in differences(w, (got or {}).get(key), names, f"{path}.{key}")
        ]
    fit: Dict[str, Callable[[], Any]] = {
        "$any": lambda: got not in (None, "", [], {}),
        "$absent": lambda: got is None,
        "$mentions": lambda: arg.lower() in json.dumps(got, ensure_ascii=False).lower(),
        "$bind": lambda: isinstance(got, str) and names.setdefault(arg, got) == got,
        "$re": lambda: isinstance(got, str) and re.fullmatch(arg, got, re.S),
        "$contains": lambda: isinstance(got, str) and all(piece in got for piece in arg),
        "$words": lambda: isinstance(got, str) and got.split() == arg.split(),
        "$json": lambda: isinstance(got, str) and json.loads(got) == arg,
    }
    return [] if fit[op]() else [f"{path}: {op} {json.dumps(arg)} does not fit {got!r}"]


# ---- rules
def problems(body: Json, profile: Profile) -> List[str]:
    """What a strict provider of this profile would refuse or misunderstand in a chat request."""
    found = [f"{key} is null" for key, value in body.items() if value is None]
    found += [
        f"{key} must not be sent"
        for key in (*profile.drop, "input", "instructions", "previous_response_id")
        if key in body
    ]
    found += ["tools is empty"] if body.get("tools") == [] else []
    found += ["tool_choice without tools"] if "tool_choice" in body and "tools" not in body else []
    found += _tools(body.get("tools", []))
    messages = body["messages"]
    if not messages:
        return [*found, "no messages"]
    roles = {"system", "user", "assistant", "tool", profile.developer_role}
    waiting: List[str] = []
    for i, message in enumerate(messages):
        where = f"messages[{i}] ({message.get('role')})"
        if message.get("role") not in roles:
            found.append(where + " has an unknown role")
        if message["role"] == "tool":
            found += _tool_message(where, message, waiting)
            continue
        if waiting:
            found.append(f"{where} stands where the results of {waiting} are due")
        waiting = [call["id"] for call in message.get("tool_calls", [])]
        found += _content(where, message, profile)
        if message["role"] == "assistant":
            found += _assistant(where, message, profile)
    found += [f"the results of {waiting} are missing"] if waiting else []
    return found + _template(messages, profile)


def _tools(tools: List[Json]) -> List[str]:
    functions = [tool["function"] for tool in tools if tool["type"] == "function"]
    names = [function["name"] for function in functions]
    found = [f"a tool is offered twice: {names}"] if len(set(names)) != len(names) else []
    for function in functions:
        if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", function["name"]):
            found.append("illegal name {!r}".format(function["name"]))
        if not isinstance(function["description"], str):
            found.append("the description of {} is not text".format(function["name"]))
        found += [
            "{}: {}".format(function["name"], line)
            for line in schema_problems(function["parameters"], function["parameters"])
        ]
        if function["parameters"].get("type") != "object" or {"anyOf", "oneOf", "allOf"} & set(
            function["parameters"]
        ):
            found.append("the parameters of {} are not one object".format(function["name"]))
    return found


def schema_problems(schema: Any, root: Json, path: str = "$") -> List[str]:
    """What OpenAI's and DeepSeek's checks refuse in a JSON Schema."""
    if isinstance(schema, bool):
        return []
    if not isinstance(schema, dict):
        return [f"{path} is not a schema: {schema!r}"]
    kinds = schema.get("type", [])
    found = [
        f"{path}.type {kind!r}"
        for kind in (kinds if isinstance(kinds, list) else [kinds])
        if kind not in ("object", "array", "string", "number", "integer", "boolean", "null")
    ]
    if "encrypted" in schema:
        found.append(path + ".encrypted")
    if schema.get("enum", [1]) == [] or not isinstance(schema.get("enum", []), list):
        found.append(path + ".enum")
    if not isinstance(schema.get("required", []), list) or not all(
        isinstance(name, str) for name in schema.get("required", [])
    ):
        found.append(path + ".required")
    if "$ref" in schema and _target(schema["$ref"], root) is None:
        found.append("{}.$ref {!r}".format(path, schema["$ref"]))
    for key in ("properties", "$defs", "definitions", "patternProperties"):
        inner = schema.get(key, {})
        found += (
            [
                line
                for name, sub in inner.items()
                for line in schema_problems(sub, root, f"{path}.{key}.{name}")
            ]
            if isinstance(inner, dict)
            else [f"{path}.{key} is no object"]
        )
    for key in ("items", "additionalProperties", "not"):
        inner = schema.get(key, [])
        for i, sub in enumerate(inner if isinstance(inner, list) else [inner]):
            found += schema_problems(sub, root, f"{path}.{key}[{i}]")
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema and (not isinstance(schema[key], list) or not schema[key]):
            found.append(f"{path}.{key}")
        elif key in schema:
            found += [
                line
                for i, sub in enumerate(schema[key])
                for line in schema_problems(sub, root, f"{path}.{key}[{i}]")
            ]
    return found


def _target(ref: Any, root: Any) -> Any:
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    for key in filter(None, ref[1:].split("/")):
        root = root.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
    return root


def _tool_message(where: str, message: Json, waiting: List[str]) -> List[str]:
    found = []
    if message.get("tool_call_id") in waiting:
        waiting.remove(message["tool_call_id"])
    else:
        found.append("{} answers {!r}, which nobody asked for".format(where, message.get("tool_call_id")))
    if not isinstance(message["content"], str) or not message["content"]:
        found.append("{}: content {!r}".format(where, message["content"]))
    return found


def _content(where: str, message: Json, profile: Profile) -> List[str]:
    content = message["content"]
    if isinstance(content, list):
        found = [f"{where} has no parts"] if not content else []
        found += [
            f"{where} has an empty text part"
            for part in content
            if part["type"] == "text" and not part["text"]
        ]
        found += [
            "{} has a part {}".format(where, part["type"])
            for part in content
            if PARTS[part["type"]] not in profile.modalities
        ]
        if message["role"] != "user" and not (
            message["role"] == "assistant" and profile.reasoning.field == "mistral_parts"
        ):
            found.append(f"{where} has parts")
        return found
    if content is None or content == "":
        return [] if message["role"] == "assistant" else [f"{where} is empty"]
    return [] if isinstance(content, str) else [f"{where} has content {content!r}"]


def _assistant(where: str, message: Json, profile: Profile) -> List[str]:
    rule, found = profile.reasoning, []
    calls = message.get("tool_calls")
    if calls is not None:
        if not calls:
            found.append(f"{where}: tool_calls is empty")
        if len({call["id"] for call in calls}) != len(calls):
            found.append(f"{where}: a call id twice")
        for call in calls:
            function = call["function"]
            named = call["type"] == "function" and re.fullmatch("[a-zA-Z0-9_-]{1,64}", function["name"])
            if not named or not isinstance(function["arguments"], str) or not function["arguments"].strip():
                found.append(f"{where}: malformed call {call!r}")
            if not re.fullmatch(CALL_IDS[profile.tool_call_id], call["id"], re.S):
                found.append("{}: call id {!r}".format(where, call["id"]))
        if (
            rule.replay != "never"
            and rule.required_on_tool_calls is not None
            and not isinstance(message.get(rule.field), str)
        ):
            found.append(f"{where}: no {rule.field} beside the calls")
    elif message["content"] is None:
        found.append(f"{where}: neither content nor tool_calls")
    elif not message["content"] and not message.get(rule.field):
        found.append(f"{where} is empty")
    replayed = {"reasoning_content", "reasoning", "reasoning_details"} & set(message)
    if replayed and (rule.replay == "never" or rule.replay == "tool_turns" and not calls):
        found.append(f"{where}: {replayed} must not go back")
    return found


def _template(messages: List[Json], profile: Profile) -> List[str]:
    roles = [message["role"] for message in messages]
    found = []
    if profile.system_position == "first" and "system" in roles[1:]:
        found.append(f"a system message that is not the first: {roles}")
    if profile.system_position == "user" and "system" in roles:
        found.append(f"a system message: {roles}")
    if profile.user_message == "required" and "user" not in roles:
        found.append(f"no message of the user: {roles}")
    if profile.user_message == "last" and roles[-1] == "assistant":
        found.append(f"the conversation ends with an answer: {roles}")
    if profile.merge_same_role and any(a == b != "tool" for a, b in zip(roles, roles[1:])):
        found.append(f"roles do not alternate: {roles}")
    if profile.assistant_after_tool and ("tool", "user") in zip(roles, roles[1:]):
        found.append(f"user after tool: {roles}")
    return found

"""``rproxy doctor --live``: small turns with each model, through the same service that answers clients.

One streams, one calls a tool, one thinks.  Each costs a few hundred tokens.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Callable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ...config.schema import Config, Model, Provider
from ...errors import ApiError
from ...service.catalog import efforts_of
from ...service.client import Client
from ...service.service import Service
from ...store.memory import MemoryStore
from ...types import Event, Json, Response
from ...upstream.client import Upstream
from .check import ERROR, OK, WARNING, Check

MAX_TOKENS = 2000  # of an answer; a model that thinks needs some before it answers
TOOL: Json = {
    "type": "function",
    "name": "report_status",
    "description": "Reports the status of the system.",
    "parameters": {
        "type": "object",
        "properties": {"status": {"type": "string", "description": "one word"}},
        "required": ["status"],
    },
}
ASK: Json = {"store": False, "max_output_tokens": MAX_TOKENS}


class Events:
    """Takes the events of a turn.  ``first``: when the first delta came."""

    blocked = False

    def __init__(self) -> None:
        self.types: List[str] = []
        self.first: Optional[float] = None

    def begin(self, response: Response, headers: Mapping[str, str]) -> None: ...

    def send(self, events: Sequence[Event]) -> None:
        for event in events:
            self.types.append(event["type"])
            if self.first is None and event["type"].endswith(".delta"):
                self.first = time.monotonic()

    async def send_large(self, events: Sequence[Event]) -> None:
        self.send(events)


class Trial(NamedTuple):
    """One turn.  ``judge``: returns what is wrong with its answer, "" if nothing is, and what to do."""

    name: str
    request: Json
    judge: Callable[[Response, Events], Tuple[str, str]]


# ---- The turns
def trials_of(model: Model) -> Iterator[Trial]:
    """The turns that a model is tried with."""
    yield Trial("streamed turn", {"input": "Answer with the one word: ready"}, _judge_text)
    order = "Call the tool report_status with the status 'ready'. Do nothing else."
    yield Trial("tool turn", {"input": order, "tools": [TOOL]}, _judge_call)
    efforts = [effort for effort in efforts_of(model) if effort != "none"]
    if efforts:
        reasoning = {"effort": "low" if "low" in efforts else efforts[0], "summary": "auto"}
        question = "Which is larger, 9.11 or 9.9? Answer with the number alone."
        yield Trial("thinking turn", {"input": question, "reasoning": reasoning}, _judge_thinking)


def _judge_text(response: Response, events: Events) -> Tuple[str, str]:
    if _items(response, "message"):
        deltas = sum(kind.endswith(".delta") for kind in events.types)
        if deltas:
            return "", ""
        return "the answer came in one piece", "clients show nothing until it is complete"
    return "the answer had no text", "try again; if it stays so, choose another model"


def _judge_call(response: Response, events: Events) -> Tuple[str, str]:
    if _items(response, "function_call"):
        return "", ""
    return "the model did not call the tool", "agents such as Codex need tools; choose another model"


def _judge_thinking(response: Response, events: Events) -> Tuple[str, str]:
    usage: Any = response.get("usage") or {}
    thought = (usage.get("output_tokens_details") or {}).get("reasoning_tokens")
    if _items(response, "reasoning") or thought:
        return "", ""
    return "no thinking was seen", "set the model's efforts, or thinking in its override, if it can think"


def _items(response: Response, kind: str) -> List[Any]:
    return [item for item in response["output"] if item["type"] == kind]


# ---- Running them
def tried_models(config: Config, usable: Sequence[Provider]) -> List[Tuple[Model, Provider]]:
    """Each downstream model at each provider that can be asked, once."""
    found: List[Tuple[Model, Provider]] = []
    seen = set()
    for model in config.models:
        if model.is_glob and not model.downstream_model:
            continue  # a glob has no name of its own
        for provider in model.resolved(model.model).providers:
            known = (provider.base_url, provider.api_key, model.downstream_model or model.model)
            can = any((one.base_url, one.api_key) == known[:2] for one in usable)
            if can and known not in seen:
                seen.add(known)
                found.append((model, provider))
    return found


async def try_models(
    config: Config, usable: Sequence[Provider], upstream: Upstream, report: Callable[[str], None]
) -> List[Check]:
    """Run the turns, one after the other.

    :param usable: the providers that answer
    :param report: takes a line about what is being done
    """
    plans = [
        (model, provider, trial)
        for model, provider in tried_models(config, usable)
        for trial in trials_of(replace(model, providers=(provider,)))
    ]
    found = []
    for number, (model, provider, trial) in enumerate(plans, 1):
        report(f"[{number}/{len(plans)}] {shown(model, provider)}: {trial.name} ...")
        found.append(await _try(config, model, provider, trial, upstream))
    return found


def shown(model: Model, provider: Provider) -> str:
    """A model as people know it: ``gpt-5.5 (deepseek-v4-pro at deepseek)``."""
    return f"{model.model} ({model.downstream_model or model.model} at {provider.name})"


async def _try(config: Config, model: Model, provider: Provider, trial: Trial, upstream: Upstream) -> Check:
    downstream = model.downstream_model or model.model
    name = f"{shown(model, provider)}: {trial.name}"
    only = replace(model, model=downstream, downstream_model=downstream, providers=(provider,))
    server = replace(config.server, retries=0, errors="openai")
    service = Service(replace(config, models=(only,), server=server), upstream, memory())
    events, started = Events(), time.monotonic()
    client = Client(None, False, "sse", "req_doctor", {})
    try:
        body = {**ASK, "model": downstream, "stream": True, **trial.request}
        result = await service.create(body, client, events)
        response = result.response
    except ApiError as error:
        return Check(
            name, ERROR, error.message, "see docs/operating.md, Troubleshooting; rproxy check --live"
        )
    finally:
        await service.close()
    if response["status"] == "failed":
        failure = response["error"] or {"message": "it failed"}
        return Check(
            name, ERROR, failure["message"], "try again; if it stays so, record it: serve --record DIR"
        )
    problem, remedy = trial.judge(response, events)
    seconds = f"{time.monotonic() - started:.1f} s"
    first = "" if events.first is None else f", first text after {events.first - started:.1f} s"
    usage: Any = response.get("usage") or {}
    tokens = f", {usage.get('total_tokens', 0)} tokens"
    return Check(name, WARNING if problem else OK, problem or seconds + first + tokens, remedy)


def memory() -> MemoryStore:
    """A store for one turn that keeps nothing."""
    return MemoryStore(1, 1 << 20, 60.0, time.monotonic)

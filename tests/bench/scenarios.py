"""What is measured: each scenario loads one variant for a moment and gives figures by name."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import lab
from variants import Variant

Json = Dict[str, Any]
Figures = Dict[str, float]
STREAMS, RATE = 200, 20


class Bench(NamedTuple):
    """A variant that runs. ``process`` is the provider itself when there is no proxy in between."""

    variant: Variant
    process: lab.Process
    provider: lab.Provider
    errors: List[str]

    def options(self, **more: Any) -> Json:
        options = {"port": self.process.port, "path": self.variant.path, "form": self.variant.form, **more}
        if self.variant.form == "chat":
            options["expect"] = -1  # a relay may cut the mark that deltas are counted by
        return options

    def clean(self) -> None:
        """Tornado's own client never lets go of a stream whose reader has left; it would spoil what is
        measured next.
        """
        if self.variant.leaks:
            self.process.stop()
            self.process.start()

    def load(self, **more: Any) -> Tuple[Json, float]:
        """:returns: the client's result, and the processor seconds it cost"""
        before = self.process.cpu()
        result = lab.load(self.options(**more))
        cost = self.process.cpu() - before
        name = self.variant.name + (", TLS" if self.provider.ca else "")
        self.errors.extend(
            "%s, %s: %d x %s" % (name, more["model"], count, text) for text, count in result["errors"].items()
        )
        return result, cost


def percentile(values: List[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def live(bench: Bench, seconds: float) -> Figures:
    """Many slow streams, each delta in a packet of its own: the price of a delta alone, without the set-up of
    turns.
    """
    with lab.held(bench.options(model=f"bench-n1000000-r{RATE}", workers=STREAMS, spread=0.6)):
        time.sleep(0.1)
        cpu, sent = bench.process.cpu(), bench.provider.stats()["deltas"]
        time.sleep(seconds)
        cpu, sent = bench.process.cpu() - cpu, bench.provider.stats()["deltas"] - sent
    bench.clean()
    return {"live": cpu / max(sent, 1) * 1e6}


def burst(bench: Bench, seconds: float) -> Figures:
    """Answers of 1000 deltas as fast as they go, eight at a time."""
    result, cpu = bench.load(model="bench-n1000", expect=1000, workers=8, seconds=seconds)
    deltas = max(result["deltas"], 1)
    return {"burst": cpu / deltas * 1e6, "rate": deltas / result["seconds"]}


def turn(bench: Bench, seconds: float) -> Figures:
    """Answers of one delta, one after another: the price of a turn."""
    result, cpu = bench.load(model="bench-n1", workers=1, seconds=seconds)
    return {"turn": cpu / max(result["turns"], 1) * 1e3}


def codex(bench: Bench, seconds: float) -> Figures:
    """The same with what a coding agent sends: 33 KB, 15 tools."""
    result, cpu = bench.load(model="bench-n1", body="codex", workers=1, seconds=seconds)
    return {"codex": cpu / max(result["turns"], 1) * 1e3}


def history(bench: Bench, seconds: float) -> Figures:
    """The same with 500 KB of conversation, which are a working day."""
    result, cpu = bench.load(model="bench-n1", body="history", workers=1, seconds=seconds)
    return {"history": cpu / max(result["turns"], 1) * 1e3}


def chain(bench: Bench, seconds: float) -> Figures:
    """Turns 105 to 120 of a conversation by ``previous_response_id``, with instructions and tools in each."""
    before, _ = bench.load(model="bench-n1", body="codex", chain=104)
    result, cpu = bench.load(model="bench-n1", body="codex", chain=16, previous=before["last"])
    return {"chain": cpu / max(result["turns"], 1) * 1e3}


def scale(bench: Bench, seconds: float) -> Figures:
    """Eight coding agents and then eight long answers at once, as fast as they go; the client and the
    provider take their share of the same machine.
    """
    turns, _ = bench.load(model="bench-n1", body="codex", workers=8, seconds=seconds)
    deltas, _ = bench.load(model="bench-n1000", workers=8, seconds=seconds)  # nginx cuts marks
    return {
        "scale_turns": turns["turns"] / turns["seconds"],
        "scale_rate": deltas["deltas"] / deltas["seconds"],
    }


def first(bench: Bench, seconds: float) -> Figures:
    """Eight clients with live answers of 0.1 s: how long the first delta takes."""
    result, _ = bench.load(model="bench-n5-r50", expect=5, workers=8, seconds=seconds, spread=0.1)
    return {"first50": percentile(result["first"], 0.5), "first99": percentile(result["first"], 0.99)}


def quiet(bench: Bench, seconds: float) -> Figures:
    """Streams that have begun and say nothing."""
    before = bench.process.rss()
    with lab.held(bench.options(model="bench-n1-q1", workers=STREAMS, spread=0.3)):
        time.sleep(min(seconds, 0.2))
        grown = bench.process.rss() - before
    bench.clean()
    return {"quiet": grown * 1024 / STREAMS}


class Scenario(NamedTuple):
    run: Callable[[Bench, float], Figures]
    seconds: float
    servers: str  # which take part; "" is the provider itself
    forms: str
    tls: bool  # also with TLS to the provider


PEERS = " codex-relay codex-bridge-python codex-proxy open-responses-server litellm"
SCENARIOS: Dict[str, Scenario] = {
    # before the others, which leave memory behind
    "quiet": Scenario(quiet, 0.2, "rproxy nginx naive", "sse chat", True),
    "live": Scenario(live, 1.0, "rproxy rproxy-fast nginx relay naive", "sse ws chat", True),
    "burst": Scenario(burst, 0.4, "rproxy rproxy-fast nginx relay naive" + PEERS, "sse ws chat", False),
    "turn": Scenario(turn, 0.5, "rproxy rproxy-fast nginx relay naive" + PEERS, "sse ws json chat", True),
    "codex": Scenario(codex, 0.6, "rproxy rproxy-fast rproxy-x1 rproxy-x2 naive" + PEERS, "sse ws", False),
    "history": Scenario(history, 0.8, "rproxy rproxy-fast naive" + PEERS, "sse ws", False),
    "chain": Scenario(chain, 0.0, "rproxy rproxy-fast rproxy-sqlite rproxy-redis", "sse", False),
    "scale": Scenario(scale, 1.0, "rproxy rproxy-x1 rproxy-x2", "sse", False),
    "first": Scenario(first, 1.0, "direct rproxy rproxy-fast nginx naive" + PEERS, "sse ws chat", True),
}

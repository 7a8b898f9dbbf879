"""Turns with a provider that fails, and what is the right end of each."""

from __future__ import annotations

from typing import Awaitable, Callable, List, Tuple

from hostile import FORMS, Turn, WebSocket, Wrong, create, ended, exchange, request_bytes

Scenario = Callable[[], Awaitable[str]]


async def ask_json(port: int, model: str) -> Turn:
    return ended(await exchange(port, request_bytes(create(model))))


async def ask_sse(port: int, model: str) -> Turn:
    return ended(await exchange(port, request_bytes(create(model, stream=True))))


_idle: List[WebSocket] = []


async def ask_websocket(port: int, model: str) -> Turn:
    """On a connection that serves many turns: a provider's failure leaves it open."""
    socket = _idle.pop() if _idle else WebSocket(port)
    turn = await socket.turn(create(model))
    _idle.append(socket)
    return turn


def leave() -> None:
    """Close the connections that are kept."""
    while _idle:
        _idle.pop().close()


ASK = {"JSON": ask_json, "SSE": ask_sse, "WebSocket": ask_websocket}


def check(kind: str, form: str, position: int, turn: Turn) -> None:
    """:raises Wrong: it is not the end that this fault must have"""
    good = FORMS[form]
    if kind == "garble":
        return  # the byte may be any part of the answer: what matters is that there is one well-formed end
    if not good.says.startswith(turn.said):
        raise Wrong(f"told {turn.said!r}, of {good.says!r}")
    if turn.status == "completed" and (position < good.enough or turn.said != good.says):
        raise Wrong(
            f"completed with {turn.said!r}, after {position} of {good.enough} bytes that tell the end"
        )
    if position >= len(good.data) and turn.status != "completed":
        raise Wrong(f"{turn.status}, although the answer was whole")


def scenarios(port: int, way: str, kind: str, step: int) -> List[Tuple[str, Scenario]]:
    """Every fault of this kind, for each kind of client."""

    def scenario(client: str, form: str, position: int) -> Tuple[str, Scenario]:
        model = f"{'wire/' if form == 'responses' else way}{kind}/{form}/{position}"

        async def play() -> str:
            turn = await ASK[client](port, model)
            check(kind, form, position, turn)
            return turn.status

        return f"{client}, {model}", play

    return [
        scenario(client, form, position)
        for form, good in FORMS.items()
        if not (way and form == "responses")
        for position in range(0, len(good.data) + (kind != "garble"), step)
        for client in ASK
    ]

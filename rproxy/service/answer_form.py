"""The form of an answer, as the client wants it."""

from __future__ import annotations

from ..types import Json


def reasoning_form(form: str, body: Json, *, codex: bool) -> str:
    """``summary`` or ``content``: Codex shows only summaries, other clients request them if they want them.

    :param form: ``server.reasoning``
    :param body: the create request
    """
    if form != "auto":
        return form
    wanted = body.get("reasoning") or {}
    return "summary" if codex or wanted.get("summary") or wanted.get("generate_summary") else "content"


def wants_schema(body: Json) -> bool:
    """Does the client want JSON that fits a schema?"""
    form = (body.get("text") or {}).get("format") or {}
    return bool(form.get("type") == "json_schema")

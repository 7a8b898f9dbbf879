"""The model servers that rproxy looks for on this machine, and how to read their model lists.

All of them speak Chat Completions without a key, each on its default port; no other port is tried.  The
search itself is in :mod:`rproxy.upstream.discovery`.
"""

from __future__ import annotations

import json
from typing import Any, List, NamedTuple, Optional, Tuple

from ..json_codec import UNREADABLE

NOT_FOR_CHAT = "embed"  # in the names of embedding models


class LocalKind(NamedTuple):
    """A kind of server.  ``port``: its default.  ``owner``: ``owned_by`` of its models, if that identifies
    it.
    """

    name: str
    profile: str
    port: int
    owner: str = ""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


# In the order in which they are asked for names that no model has.
LOCAL_KINDS: Tuple[LocalKind, ...] = (
    LocalKind("Ollama", "ollama", 11434),
    LocalKind("LM Studio", "lmstudio", 1234),
    LocalKind("llama.cpp", "llamacpp", 8080, "llamacpp"),
    LocalKind("vLLM", "vllm", 8000, "vllm"),
)


class LocalModel(NamedTuple):
    """A model of a local server.

    ``context_window``: tokens, if the server says so.
    """

    name: str
    context_window: Optional[int]


class LocalServer(NamedTuple):
    """A server that answered, with its models; it may have none yet."""

    kind: LocalKind
    base_url: str
    models: Tuple[LocalModel, ...]

    def __str__(self) -> str:
        """``Ollama at http://127.0.0.1:11434/v1 (3 models)``"""
        count = len(self.models)
        return f"{self.kind.name} at {self.base_url} ({count} model{'' if count == 1 else 's'})"


def local_server(kind: LocalKind, body: bytes) -> Optional[LocalServer]:
    """The server that gave this answer to ``GET /v1/models``; None if it is not a list of models.

    :param kind: the one that the port suggests; ``owned_by`` may show that it is another
    """
    try:
        data = json.loads(body)
    except UNREADABLE:
        return None
    if not isinstance(data, dict) or "data" not in data:
        return None
    entries = [] if data["data"] is None else data["data"]  # Ollama's null: it has none yet
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    owners = {entry.get("owned_by") for entry in entries if isinstance(entry.get("owned_by"), str)}
    real = next((other for other in LOCAL_KINDS if other.owner and owners == {other.owner}), kind)
    return LocalServer(real, kind.base_url, tuple(_chat_models(entries)))


def _chat_models(entries: List[Any]) -> List[LocalModel]:
    found = {}
    for entry in entries:
        name, window = entry.get("id"), entry.get("max_model_len")  # the latter is vLLM's
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            continue
        if "*" not in name and NOT_FOR_CHAT not in name.lower():
            whole = isinstance(window, int) and not isinstance(window, bool) and window > 0
            found[name] = LocalModel(name, window if whole else None)
    return list(found.values())

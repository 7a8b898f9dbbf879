"""The small paths: which models there are, whether this server is well, and that all other paths are none."""

from __future__ import annotations

from ..errors import model_not_found, not_found
from .base import HttpHandler


class ModelsHandler(HttpHandler):
    """``GET /models``: one body for OpenAI clients and for Codex."""

    def get(self) -> None:
        self.set_header("ETag", self.state.service.models_etag)
        self.put_json(self.state.service.models())

    head = get


class ModelHandler(HttpHandler):
    """``GET /models/{id}``."""

    def get(self, name: str) -> None:
        models = {model["id"]: model for model in self.state.service.models()["data"]}
        if name not in models:
            raise model_not_found(name, list(models))
        self.put_json(models[name])

    head = get


class HealthHandler(HttpHandler):
    """``GET /health``: 200 while requests are welcome, 503 while the server drains.  Open to everybody."""

    public = True

    def get(self) -> None:
        if self.state.draining:
            self.set_status(503)
            self.put_json({"status": "draining"})
        else:
            self.put_json(self.state.service.health())

    head = get


class NotFoundHandler(HttpHandler):
    """Every other path."""

    public = True

    def check_verb(self) -> None:
        raise not_found(
            f"There is no {self.request.method} {self.request.path[:200]} here. This is a Responses API server: "
            "POST /v1/responses, GET /v1/models, GET /health."
        )

"""``GET /models`` and ``GET /models/{id}``."""

from __future__ import annotations

from ..errors import model_not_found
from .http import HttpHandler


class ModelsHandler(HttpHandler):
    """``/models``: one body for OpenAI clients and for Codex"""

    async def list_models(self) -> None:
        view = self.state.service.catalog.of(self.key)
        self.set_header("ETag", view.etag)
        await self.put_json(view.body)

    verbs = {"GET": list_models, "HEAD": list_models}


class ModelHandler(HttpHandler):
    """``/models/{id}``"""

    async def retrieve(self, name: str) -> None:
        models = {model["id"]: model for model in self.state.service.catalog.of(self.key).body["data"]}
        if name not in models:
            raise model_not_found(name, list(models))
        await self.put_json(models[name])

    verbs = {"GET": retrieve, "HEAD": retrieve}

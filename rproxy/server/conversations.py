"""``/conversations`` and what lies below it; see :mod:`rproxy.service.conversations`."""

from __future__ import annotations

from ..types import Json
from .base import HttpHandler


class _Handler(HttpHandler):
    def body_json(self) -> Json:
        """The request's body; none at all counts as an empty object."""
        body = self.body()
        return body.json() if body.size else {}


class ConversationsHandler(_Handler):
    """``POST /conversations``"""

    verbs = ("POST",)

    async def post(self) -> None:
        await self.put_json(await self.state.service.conversations.create(self.body_json(), self.owner))


class ConversationHandler(_Handler):
    """``/conversations/{id}``: GET, POST (new metadata), DELETE"""

    verbs = ("GET", "HEAD", "POST", "DELETE")

    async def get(self, name: str) -> None:
        await self.put_json(await self.state.service.conversations.retrieve(name, self.owner))

    head = get

    async def post(self, name: str) -> None:
        await self.put_json(await self.state.service.conversations.update(name, self.body_json(), self.owner))

    async def delete(self, name: str) -> None:
        await self.put_json(await self.state.service.conversations.delete(name, self.owner))


class ConversationItemsHandler(_Handler):
    """``/conversations/{id}/items``: GET lists, POST adds"""

    verbs = ("GET", "HEAD", "POST")

    async def get(self, name: str) -> None:
        await self.put_json(await self.state.service.conversations.items(name, self.query(), self.owner))

    head = get

    async def post(self, name: str) -> None:
        await self.put_json(await self.state.service.conversations.add(name, self.body_json(), self.owner))


class ConversationItemHandler(_Handler):
    """``/conversations/{id}/items/{item}``: GET, DELETE"""

    verbs = ("GET", "HEAD", "DELETE")

    async def get(self, name: str, item_id: str) -> None:
        await self.put_json(await self.state.service.conversations.item(name, item_id, self.owner))

    head = get

    async def delete(self, name: str, item_id: str) -> None:
        await self.put_json(await self.state.service.conversations.delete_item(name, item_id, self.owner))

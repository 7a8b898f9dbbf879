"""``/conversations`` and the paths below it; see :mod:`rproxy.service.conversations`."""

from __future__ import annotations

from ..service.conversations import Conversations
from ..types import Json
from .http import HttpHandler


class _Handler(HttpHandler):
    @property
    def conversations(self) -> Conversations:
        return self.state.service.conversations

    async def body_json(self) -> Json:
        """The request body as JSON; an empty body counts as an empty object."""
        return await self.body.parsed() if self.body.size else {}


class ConversationsHandler(_Handler):
    """``/conversations``"""

    async def create(self) -> None:
        await self.put_json(await self.conversations.create(await self.body_json(), self.owner))

    verbs = {"POST": create}


class ConversationHandler(_Handler):
    """``/conversations/{id}``; POST replaces the metadata"""

    async def retrieve(self, name: str) -> None:
        await self.put_json(await self.conversations.retrieve(name, self.owner))

    async def update(self, name: str) -> None:
        await self.put_json(await self.conversations.update(name, await self.body_json(), self.owner))

    async def remove(self, name: str) -> None:
        await self.put_json(await self.conversations.delete(name, self.owner))

    verbs = {"GET": retrieve, "HEAD": retrieve, "POST": update, "DELETE": remove}


class ConversationItemsHandler(_Handler):
    """``/conversations/{id}/items``"""

    async def list_items(self, name: str) -> None:
        await self.put_json(await self.conversations.items(name, self.query(), self.owner))

    async def add(self, name: str) -> None:
        await self.put_json(await self.conversations.add(name, await self.body_json(), self.owner))

    verbs = {"GET": list_items, "HEAD": list_items, "POST": add}


class ConversationItemHandler(_Handler):
    """``/conversations/{id}/items/{item}``"""

    async def retrieve(self, name: str, item_id: str) -> None:
        await self.put_json(await self.conversations.item(name, item_id, self.owner))

    async def remove(self, name: str, item_id: str) -> None:
        await self.put_json(await self.conversations.delete_item(name, item_id, self.owner))

    verbs = {"GET": retrieve, "HEAD": retrieve, "DELETE": remove}

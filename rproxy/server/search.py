"""``POST /alpha/search``: the search that Codex runs itself; see :mod:`rproxy.service.search`."""

from __future__ import annotations

from .http import HttpHandler


class SearchHandler(HttpHandler):
    """``POST /alpha/search``"""

    async def search(self) -> None:
        body = await self.body.parsed()
        client = self.client("json", self.body.json_size)
        await self.put_json(await self.run_turn(self.state.service.search.answer(body, client)))

    verbs = {"POST": search}

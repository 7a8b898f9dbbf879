"""What rproxy is compared with, on stock Tornado: ``python rivals.py naive|relay PORT PROVIDER_URL
[CA_FILE]``.

``relay`` passes bytes on, ``naive`` translates them to Responses events the obvious way: Tornado's own
client, each delta parsed, written as an event and flushed by itself.  Neither does more than the comparison
needs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Dict, Optional

import tornado.httpclient
import tornado.web
from tornado.iostream import StreamClosedError

Json = Dict[str, Any]


class Handler(tornado.web.RequestHandler):
    url = ""
    ca_file: Optional[str] = None

    async def ask(self, request: Json) -> None:
        """Send the chat request; :meth:`piece` gets what comes back."""
        queue: asyncio.Queue[Optional[bytes]] = asyncio.Queue()
        self.request.connection.stream.set_nodelay(True)
        self.set_header("Content-Type", "text/event-stream")
        client = tornado.httpclient.AsyncHTTPClient()
        answer = asyncio.ensure_future(
            client.fetch(
                self.url,
                method="POST",
                body=json.dumps(request),
                request_timeout=0,
                headers={"Content-Type": "application/json"},
                ca_certs=self.ca_file,
                decompress_response=False,
                streaming_callback=queue.put_nowait,
            )
        )
        answer.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while True:
                data = await queue.get()
                if data is None:
                    break
                await self.piece(data)
            await answer
        except StreamClosedError:
            answer.cancel()

    async def piece(self, data: bytes) -> None:
        raise NotImplementedError


class Relay(Handler):
    async def post(self) -> None:
        await self.ask(json.loads(self.request.body))

    async def piece(self, data: bytes) -> None:
        self.write(data)
        await self.flush()


class Naive(Handler):
    async def post(self) -> None:
        asked = json.loads(self.request.body)
        self.number, self.rest, self.text = 0, b"", ""
        await self.event("response.created", response={"id": "resp_1", "status": "in_progress"})
        await self.ask(
            {
                "model": asked["model"],
                "stream": True,
                "messages": [{"role": "user", "content": asked["input"]}],
            }
        )
        await self.event(
            "response.output_text.done", item_id="msg_1", output_index=0, content_index=0, text=self.text
        )
        await self.event(
            "response.completed",
            response={"id": "resp_1", "status": "completed", "output": [{"text": self.text}]},
        )

    async def piece(self, data: bytes) -> None:
        *events, self.rest = (self.rest + data).split(b"\n\n")
        for event in events:
            payload = event[6:]
            if payload == b"[DONE]":
                continue
            for choice in json.loads(payload)["choices"]:
                content = choice["delta"].get("content")
                if content:
                    self.text += content
                    await self.event(
                        "response.output_text.delta",
                        item_id="msg_1",
                        output_index=0,
                        content_index=0,
                        delta=content,
                        logprobs=[],
                    )

    async def event(self, kind: str, **fields: Any) -> None:
        body = json.dumps({"type": kind, "sequence_number": self.number, **fields})
        self.number += 1
        self.write(f"event: {kind}\ndata: {body}\n\n")
        await self.flush()


async def main(kind: str, port: int, url: str, ca_file: Optional[str]) -> None:
    Handler.url, Handler.ca_file = url + "/chat/completions", ca_file
    tornado.httpclient.AsyncHTTPClient.configure(None, max_clients=100_000, max_body_size=1 << 40)
    handlers = [(r"/v1/.*", {"naive": Naive, "relay": Relay}[kind])]
    tornado.web.Application(handlers, log_function=lambda handler: None).listen(
        port, "127.0.0.1", backlog=4096
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None))

"""One key can never change what another key's request says, whatever it makes the provider say.

The provider of these tests refuses whatever its prompt tells it to refuse, in those words, and takes the next
form: as if one client could choose the sentences of a provider's refusals.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest
from api import Api
from rawserver import OK, Peer, RawServer

from rproxy.config.load import parse_config
from rproxy.server.app import embedded

Json = Dict[str, Any]
CONFIG = """
server: {listen_addr: "127.0.0.1:0", retries: 0, auth: {keys: [key-one-0123456789, key-two-0123456789]}}
models: [{model: m, provider: {base_url: "BASE", api_key: k}}]
"""
PIXEL = "data:image/png;base64,iVBORw0KGgo="
OTHERS: Json = {
    "model": "m",
    "instructions": "Answer in verse.",
    "input": [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": PIXEL},
            ],
        },
    ],
    "tools": [
        {
            "type": "function",
            "name": "paint_it",
            "description": "Paints.",
            "parameters": {"type": "object", "properties": {"color": {"type": "string", "pattern": "^r"}}},
        }
    ],
    "tool_choice": "required",
    "temperature": 0.5,
    "max_output_tokens": 500,
    "text": {
        "format": {"type": "json_schema", "name": "s", "schema": {"type": "object", "minProperties": 1}}
    },
    "reasoning": {"effort": "high"},
}
# What the prompt of the first client makes the provider say.
SENTENCES = [
    "Unsupported parameter: 'tools' is not supported with this model.",
    "Invalid content type. image_url is only supported by certain models.",
    "Unsupported value: messages[0].role does not support 'system' with this model.",
    "stream_options: Extra inputs are not permitted in this request",
    "Unsupported parameter: 'temperature' is not supported with this model.",
    "max_tokens is too large: 500. This model supports at most 300 completion tokens",
    "Unsupported value: 'reasoning_effort' does not support 'high' with this model.",
    "response_format type json_schema is unavailable now for this model",
    "tool_choice 'required' is not supported by this model, use auto",
    "Invalid schema for function 'paint_it': 'pattern' is not permitted",
    "Unknown name \"minProperties\" at 'response_format': Cannot find field.",
    "the tool paint_it is not allowed for this account, please remove it",
]
WRAPPINGS = ["{}", "Invalid request: {} (request id 7)", '{{"detail": "{}"}}', "Bad Request\n\n> {}\n"]


class Parrot:
    """Refuses a request once or twice in the words of its last message, then takes it."""

    def __init__(self) -> None:
        self.requests: List[Json] = []
        self.refusals, self.wrapping = 0, "{}"

    async def __call__(self, peer: Peer) -> None:
        while True:
            _, _, body = await peer.request()
            self.requests.append(json.loads(body))
            said = self.requests[-1]["messages"][-1]["content"]
            if isinstance(said, str) and said in SENTENCES and self.refusals:
                self.refusals -= 1
                error = {"message": self.wrapping.format(said), "type": "invalid_request_error"}
                status, answer = b"400 Bad Request", json.dumps({"error": error}).encode()
            else:
                message = {"role": "assistant", "content": "{}"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                status, answer = b"200 OK", json.dumps({"choices": [choice]}).encode()
            head = OK.replace(b"200 OK", status).replace(b"2\r\n\r\nok", b"%d\r\n\r\n" % len(answer))
            await peer.send(head + answer)


@pytest.mark.parametrize("refusals", [1, 2])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
async def test_a_prompt_cannot_change_what_others_send(wrapping: str, refusals: int, expect_log: Any) -> None:
    expect_log(".", required=False)
    parrot = Parrot()
    server = RawServer(parrot)
    async with server.running():
        config = parse_config(CONFIG.replace("BASE", server.url).encode(), "test.yaml", {})
        async with embedded(config) as url:
            one, two = Api(url + "/v1", "key-one-0123456789"), Api(url + "/v1", "key-two-0123456789")
            await two("POST", "/responses", OTHERS)
            before = parrot.requests[-1]
            for sentence in SENTENCES:
                parrot.wrapping, parrot.refusals = wrapping, refusals
                await one.raw("POST", "/responses", {**OTHERS, "input": sentence})
                parrot.refusals = 0
                await two("POST", "/responses", OTHERS)
                assert parrot.requests[-1] == before, sentence

"""Bad input, through the real process at its most talkative: it gets its error, the next request works, and
no secret gets into the log.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

import pytest
from api import Api
from grammar import check_sse
from scripted import CONFIG, KEY, ScriptedProvider, error, running, say, think
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

Json = Dict[str, Any]
CLIENT_KEY = "client-key-0123456789"
SERVER = """  log_level: trace
  log_format: %s
  max_body_size: 2 MiB
  max_message_size: 2 MiB
  auth: {enabled: true, keys: [%s]}
"""
SECRET = "tangerine"  # in every prompt and in every answer
GOOD: Json = {"model": "gpt-5.5", "input": "Say " + SECRET}

# body, status, param, code
BAD: List[Tuple[Union[bytes, Json], int, Any, Any]] = [
    (b'{"model": "gpt-5.5", "input": "tangerine', 400, None, None),
    (b"", 400, None, None),
    (b'["tangerine"]', 400, None, None),
    (b'{"model": "gpt-5.5", "input": "tangerine \xff"}', 400, None, None),
    (b'{"model": "gpt-5.5", "input": "tangerine", "temperature": 1e999}', 400, "temperature", "invalid_type"),
    (b'{"model": "gpt-5.5", "input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, None, None),
    ({**GOOD, "model": 5}, 400, "model", "invalid_type"),
    ({**GOOD, "input": 5}, 400, "input", "invalid_type"),
    ({**GOOD, "input": [SECRET]}, 400, "input", "invalid_type"),
    ({**GOOD, "stream": "yes"}, 400, "stream", None),
    ({**GOOD, "tools": SECRET}, 400, "tools", "invalid_type"),
    ({**GOOD, "reasoning": {"effort": 5}}, 400, "reasoning", "invalid_type"),
    ({"input": SECRET}, 400, "model", "missing_required_parameter"),
    ({"model": "gpt-5.5"}, 400, "input", "missing_required_parameter"),
    ({**GOOD, "model": "llama-of-nobody"}, 404, "model", "model_not_found"),
    ({**GOOD, "previous_response_id": "resp_0"}, 400, "previous_response_id", "previous_response_not_found"),
    (
        {**GOOD, "previous_response_id": "../../etc/passwd"},
        400,
        "previous_response_id",
        "previous_response_not_found",
    ),
    ({**GOOD, "conversation": "conv_0"}, 404, None, None),
    ({**GOOD, "prompt": {"id": "pmpt_1"}}, 400, "prompt", "unsupported_parameter"),
    (
        {**GOOD, "input": [{"type": "function_call_output", "call_id": "call_0", "output": SECRET}]},
        400,
        "input",
        None,
    ),
    ({**GOOD, "input": SECRET * 300_000}, 413, None, "request_too_large"),
]


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_every_bad_input_gets_its_error_and_the_log_tells_no_secret(
    tmp_path: Path, log_format: str
) -> None:
    provider = ScriptedProvider()
    provider.turns.extend([think("About " + SECRET), say(SECRET)] for _ in range(100))
    async with running(tmp_path, provider.base_url, SERVER % (log_format, CLIENT_KEY), CONFIG) as proxy:
        await over_http(proxy.base_url)
        await over_websocket(proxy.base_url)
        provider.turns.clear()
        provider.turns.append([error(400, f"Bad prompt: {GOOD['input']}. Your key {KEY} is good.")])
        api = Api(proxy.base_url, CLIENT_KEY)
        told = await api("POST", "/responses", GOOD, expect=400)
        assert (
            SECRET in told["message"] and KEY not in told["message"]
        )  # the client hears of its own prompt, but never of the key
        said = proxy.log.read_text()
    await provider.close()
    assert (
        len(said.splitlines()) > len(BAD)
        and SECRET not in said
        and CLIENT_KEY not in said
        and KEY not in said
    )


async def over_http(base_url: str) -> None:
    api, http = Api(base_url, CLIENT_KEY), AsyncHTTPClient(force_instance=True)
    headers = {"Authorization": "Bearer " + CLIENT_KEY}
    for body, status, param, code in BAD:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await http.fetch(
            base_url + "/responses", method="POST", body=content, headers=headers, raise_error=False
        )
        told = json.loads(answer.body)["error"]
        assert (answer.code, told["param"], told["code"]) == (status, param, code), (content[:80], told)
        assert set(told) == {"message", "type", "param", "code"} and answer.headers[
            "x-request-id"
        ].startswith("req_")
    assert (await Api(base_url, SECRET + "-wrong")("POST", "/responses", GOOD, expect=401))[
        "code"
    ] == "invalid_api_key"
    assert (await api("POST", "/responses", GOOD))["status"] == "completed"
    assert (
        check_sse((await api.raw("POST", "/responses", {**GOOD, "stream": True}))[1])["status"] == "completed"
    )


async def over_websocket(base_url: str) -> None:
    url = base_url.replace("http", "ws") + "/responses"
    with pytest.raises(HTTPClientError) as refused:
        await websocket_connect(HTTPRequest(url, headers={"Authorization": f"Bearer {SECRET}-wrong"}))
    assert refused.value.code == 401
    client = await websocket_connect(HTTPRequest(url, headers={"Authorization": "Bearer " + CLIENT_KEY}))
    good = json.dumps({"type": "response.create", **GOOD})
    for body, status, param, code in BAD:
        if status == 413 or param == "stream" or isinstance(body, bytes) and b"\xff" in body:
            # such a message ends the connection by the protocol's own rules; stream is not looked at
            continue
        wrong = body.decode() if isinstance(body, bytes) else json.dumps(body)
        wrong = wrong.replace("{", '{"type": "response.create", ', 1)
        await client.write_message(wrong)
        told = await hear(client)
        assert told["type"] == "error" and told["status"] == status and told["error"]["param"] == param, (
            wrong[:80],
            told,
        )
        assert told["error"]["code"] and (code is None or told["error"]["code"] == code)
    await client.write_message(SECRET.encode(), binary=True)
    assert (await hear(client))["status"] == 400
    await client.write_message(good)
    while (await hear(client))["type"] != "response.completed":
        pass
    await client.write_message(json.dumps({"type": "response.create", **GOOD, "input": SECRET * 300_000}))
    assert await asyncio.wait_for(client.read_message(), 10) is None and client.close_code == 1009  # type: ignore[arg-type]
    client.close()
    await asyncio.sleep(0.01)


async def hear(client: Any) -> Json:
    told: Json = json.loads(await asyncio.wait_for(client.read_message(), 10))
    return told

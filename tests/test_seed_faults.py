"""The faults of responses-proxy 0.1.1, one test each: who comes from there finds none of them here.

And its configuration file works.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import resource
from collections import deque
from pathlib import Path
from typing import Any, AsyncIterator, Deque, Dict, List, Tuple, Union

import pytest
from api import Api
from grammar import check_sse, check_stream, parse_sse
from rawserver import CHUNKED, END, Peer, RawServer
from rawserver import chunk as framed
from running_server import running_server
from scripted import free_port, running, served
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from rproxy.config.addresses import ListenAddress
from rproxy.config.load import parse_config
from rproxy.errors import ConfigError
from rproxy.server.listen import check_exposure

Json = Dict[str, Any]
Answer = Union[
    List[bytes], Tuple[str, Json]
]  # the reads of a stream, or a status line's end (with headers) and a body
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "error")

# Every key of its documentation, at the places and in the forms that it shows.
SEED_CONFIG = """
server:
  listen_addr: "{listen}"
  request_timeout: {timeout}
  log_level: info
  auth:
    enabled: {auth}
    keys:
      - sk-your-key-here
  tool_type_allowlist:
    - function
    - {allow}

models:
  - model: gpt-5.5
    provider:
      base_url: {base_url}
      api_key: $SCRIPTED_KEY
    downstream_model: deepseek-v4-pro
  - model: other
    provider:
      base_url: {base_url}
      api_key: sk-plain-text-key
"""
CONFIG = SEED_CONFIG.replace("{listen}", "127.0.0.1:{port}").replace("{timeout}", "0.5")
CONFIG = CONFIG.replace("{auth}", "false").replace("{allow}", "custom")


# ---- a provider that sends these bytes, read by read
def data(delta: Json, finish: Any = None, **more: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
OK: List[bytes] = [data({"content": "ok"}, "stop"), DONE]


class Lab:
    """rproxy in front of a provider that gives ``answers`` in turn, then ``OK`` for ever; ``asked`` is what
    it was sent.
    """

    def __init__(self) -> None:
        self.answers: Deque[Answer] = deque()
        self.asked: List[Json] = []
        self.pause = 0.0
        self.api = Api("")

    async def play(self, peer: Peer) -> None:
        while True:
            _, _, body = await peer.request()
            self.asked.append(json.loads(body))
            answer = self.answers.popleft() if self.answers else OK
            if isinstance(answer, tuple):
                content = json.dumps(answer[1]).encode()
                await peer.send(
                    b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (answer[0].encode(), len(content)), content
                )
            else:
                await peer.send(CHUNKED, *[framed(piece) for piece in answer], END, pause=self.pause)

    async def __call__(self, said: Any = "hi", expect: int = 200, **fields: Any) -> Json:
        return await self.api(
            "POST", "/responses", {"model": "gpt-5.5", "input": said, **fields}, expect=expect
        )

    async def stream(self, *answers: Answer, **fields: Any) -> List[Json]:
        self.answers += answers
        _, body = await self.api.raw(
            "POST", "/responses", {"model": "gpt-5.5", "input": "hi", "stream": True, **fields}
        )
        check_sse(body)
        return parse_sse(body)

    @contextlib.asynccontextmanager
    async def socket(self) -> AsyncIterator[Any]:
        client = await websocket_connect(self.api.base_url.replace("http", "ws") + "/responses")

        async def turn(**fields: Any) -> List[Json]:
            await client.write_message(
                json.dumps({"type": "response.create", "model": "gpt-5.5", "input": "hi", **fields})
            )
            heard: List[Json] = []
            while not heard or heard[-1]["type"] not in TERMINAL:
                heard.append(json.loads(await asyncio.wait_for(client.read_message(), 10)))  # type: ignore[arg-type]
            return heard

        yield turn
        client.close()
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lab(*answers: Answer, config: str = CONFIG) -> AsyncIterator[Lab]:
    found = Lab()
    found.answers += answers
    async with RawServer(found.play).running() as provider, served(provider.url, "", config) as base_url:
        found.api.base_url = base_url
        yield found


def text(events: List[Json]) -> str:
    return str(events[-1]["response"]["output"][-1]["content"][0]["text"])


# ---- the faults
async def test_01_the_websocket_asks_for_a_key() -> None:
    async with lab(config=CONFIG.replace("enabled: false", "enabled: true")) as site:
        url = site.api.base_url.replace("http", "ws") + "/responses"
        with pytest.raises(HTTPClientError) as refused:
            await websocket_connect(url)
        assert refused.value.code == 401
        (
            await websocket_connect(HTTPRequest(url, headers={"Authorization": "Bearer sk-your-key-here"}))
        ).close()
        await asyncio.sleep(0.01)


async def test_02_a_stream_may_last_longer_than_request_timeout() -> None:
    async with lab() as site:
        site.pause = 0.1
        events = await site.stream([data({"content": "."})] * 12 + OK)
        assert text(events) == "." * 12 + "ok"


async def test_03_characters_split_over_reads_stay_whole() -> None:
    async with lab() as site:
        raw = data({"content": "hé 世界 🎉"}) + b"".join(OK)
        assert text(await site.stream([raw[i : i + 1] for i in range(len(raw))])) == "hé 世界 🎉ok"


async def test_04_lines_may_end_in_crlf() -> None:
    async with lab() as site:
        assert text(await site.stream([piece.replace(b"\n", b"\r\n") for piece in OK])) == "ok"


async def test_05_an_answer_without_done_is_complete_all_the_same() -> None:
    async with lab() as site:
        assert (await site.stream(OK[:1]))[-1]["type"] == "response.completed"


async def test_06_errors_in_mid_stream_are_told() -> None:
    async with lab() as site:
        begun = data({"content": "Well"})
        error = await site.stream(
            [begun, b'data: {"error": {"message": "The GPU is on fire", "code": 500}}\n\n']
        )
        assert (
            error[-1]["type"] == "response.failed"
            and "GPU is on fire" in error[-1]["response"]["error"]["message"]
        )
        cut = await site.stream([begun])
        assert cut[-1]["type"] == "response.failed" and "truncated" in cut[-1]["response"]["error"]["message"]


@pytest.mark.parametrize(
    "finish, reason", [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_07_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    async with lab() as site:
        last = (await site.stream([data({"content": "We"}, finish), DONE]))[-1]
        assert last["type"] == "response.incomplete" and last["response"]["incomplete_details"] == {
            "reason": reason
        }


async def test_08_cached_tokens_are_the_hits() -> None:
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 2,
        "prompt_cache_hit_tokens": 20,
        "prompt_cache_miss_tokens": 10,
    }
    async with lab() as site:
        last = (await site.stream([data({"content": "ok"}, "stop", usage=usage), DONE]))[-1]["response"]
        assert (
            last["usage"]["input_tokens"] == 30
            and last["usage"]["input_tokens_details"]["cached_tokens"] == 20
        )


async def test_09_images_and_files_reach_the_model() -> None:
    sees = CONFIG.replace(
        "    downstream_model", "    override: {{modalities: [text, image]}}\n    downstream_model"
    )
    letter = "data:text/plain;base64," + base64.b64encode(b"Dear reader").decode()
    async with lab(config=sees) as site:
        image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        await site(
            [
                {
                    "role": "user",
                    "content": [image, {"type": "input_file", "filename": "a.txt", "file_data": letter}],
                }
            ]
        )
        sent = site.asked[0]["messages"][0]["content"]
        assert (
            sent[0]["image_url"]["url"] == "data:image/png;base64,AAAA" and "Dear reader" in sent[1]["text"]
        )


async def test_10_previous_response_id_works_over_http_and_forks() -> None:
    async with lab() as site:
        first = await site("one")
        for word in ("two", "three"):
            await site(word, previous_response_id=first["id"])
            assert [m["content"] for m in site.asked[-1]["messages"]] == ["one", "ok", word]


async def test_11_tool_choice_is_written_as_chat_wants_it() -> None:
    async with lab() as site:
        tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
        await site(model="other", tools=tools, tool_choice={"type": "function", "name": "look"})
        assert site.asked[0]["tool_choice"] == {"type": "function", "function": {"name": "look"}}


async def test_12_freeform_tools_pass_and_no_empty_list_is_sent() -> None:
    async with lab() as site:
        call = {"index": 0, "id": "c1", "function": {"name": "apply_patch", "arguments": '{"input": "+x"}'}}
        site.answers.append([data({"tool_calls": [call]}, "tool_calls"), DONE])
        made = await site(tools=[{"type": "custom", "name": "apply_patch"}])
        assert made["output"][0]["type"] == "custom_tool_call" and made["output"][0]["input"] == "+x"
        await site(tools=[{"type": "web_search"}])
        assert site.asked[0]["tools"][0]["function"]["name"] == "apply_patch" and "tools" not in site.asked[1]


async def test_13_errors_keep_their_status_and_retry_after() -> None:
    async with lab() as site:
        for status, told in (
            ("400 Bad Request", 400),
            ("401 Unauthorized", 401),
            ("429 Too Many Requests\r\nRetry-After: 17", 429),
        ):
            site.answers.append((status, {"error": {"message": "No."}}))
            assert "No." in (await site(expect=told))["message"]
        assert site.api.headers["retry-after"] == "17"


async def test_14_a_schema_is_nested_as_chat_wants_it() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    async with lab() as site:
        await site(model="other", text={"format": form})
        assert site.asked[0]["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        }


async def test_15_developer_messages_stay_in_their_place() -> None:
    async with lab() as site:
        said = [("user", "one"), ("assistant", "two"), ("developer", "three"), ("user", "four")]
        await site([{"role": role, "content": word} for role, word in said], instructions="zero")
        assert [m["content"] for m in site.asked[0]["messages"]] == ["zero", "one", "two", "three", "four"]


async def test_16_a_turn_that_failed_is_not_part_of_the_history() -> None:
    async with lab() as site, site.socket() as turn:
        first = (await turn(input="one"))[-1]["response"]["id"]
        site.answers.append(("400 Bad Request", {"error": {"message": "No."}}))
        assert (await turn(input="lost", previous_response_id=first))[-1]["type"] == "error"
        check_stream(await turn(input="two", previous_response_id=first))
        assert [m["content"] for m in site.asked[-1]["messages"]] == ["one", "ok", "two"]


async def test_17_errors_on_the_websocket_carry_their_status() -> None:
    poor = ("402 Payment Required", {"error": {"message": "Insufficient Balance"}})
    async with lab(poor) as site, site.socket() as turn:
        assert (await turn())[-1]["status"] == 429
        assert (await turn(model="gone"))[-1]["status"] == 404


async def test_18_a_huge_index_of_a_call_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call = {"index": 10**9, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    async with lab() as site:
        item = (await site.stream([data({"tool_calls": [call]}, "tool_calls"), DONE]))[-1]["response"][
            "output"
        ][0]
        assert (item["name"], item["arguments"]) == ("f", "{}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


async def test_19_requests_may_be_larger_than_two_megabytes() -> None:
    async with lab() as site:
        await site("x" * (5 << 20))
        assert len(site.asked[0]["messages"][0]["content"]) == 5 << 20


async def test_20_every_item_has_its_own_output_index() -> None:
    async with lab() as site:
        events = await site.stream([data({"content": "First."}), data({"reasoning_content": "Hm."}), *OK])
        added = [
            (e["output_index"], e["item"]["type"])
            for e in events
            if e["type"] == "response.output_item.added"
        ]
        assert added == [(0, "message"), (1, "reasoning"), (2, "message")]


async def test_21_a_call_is_announced_when_its_name_is_known() -> None:
    late: List[Json] = [
        {"id": "c1", "function": {"arguments": ""}},
        {"function": {"name": "look"}},
        {"function": {"arguments": "{}"}},
    ]
    async with lab() as site:
        events = await site.stream(
            [data({"tool_calls": [{"index": 0, **call}]}) for call in late] + [data({}, "tool_calls"), DONE]
        )
        assert [e["item"]["name"] for e in events if e["type"] == "response.output_item.added"] == ["look"]


async def test_22_every_effort_has_its_meaning_and_none_stops_thinking() -> None:
    async with lab() as site:
        for effort in ("none", "low", "high", "max"):
            await site(reasoning={"effort": effort})
        none, low, high, most = site.asked
        assert none["thinking"] == {"type": "disabled"} and "reasoning_effort" not in none
        assert all(one["thinking"] == {"type": "enabled"} for one in (low, high, most))
        assert [one["reasoning_effort"] for one in (low, high, most)] == ["low", "high", "max"]


async def test_23_created_at_is_an_integer() -> None:
    async with lab() as site:
        assert all(type(e["response"]["created_at"]) is int for e in await site.stream() if "response" in e)


async def test_24_nobody_from_outside_is_let_in_unasked() -> None:
    config = "models: [{model: m, provider: {base_url: 'http://127.0.0.1:1'}}]\n"
    assert parse_config(config.encode(), "c.yaml", {}).server.listen_addr == (
        ListenAddress("127.0.0.1", 3000),
    )
    with pytest.raises(ConfigError, match="--insecure"):
        check_exposure(
            parse_config(("server: {listen_addr: '0.0.0.0:3000'}\n" + config).encode(), "c.yaml", {}),
            insecure=False,
        )
    async with running_server() as site:
        answer = await site.fetch("/v1/models", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert (
            await site.fetch("/v1/responses", {"input": "hello"}, headers={"Origin": "https://evil.example"})
        ).code == 403


async def test_25_the_websocket_asks_the_model_that_is_named() -> None:
    async with lab() as site, site.socket() as turn:
        await turn(model="other")
        assert site.asked[0]["model"] == "other"
        nameless = (await turn(model=None))[-1]
        assert (nameless["status"], nameless["error"]["param"]) == (400, "model") and len(site.asked) == 1


# ---- its configuration
async def test_the_configuration_file_of_the_seed_serves(tmp_path: Path) -> None:
    found = Lab()
    async with RawServer(found.play).running() as provider:
        text = SEED_CONFIG.replace("{listen}", "127.0.0.1:{port}").format(
            port="{port}", timeout=30, auth="true", allow="web_search_preview", base_url="{base_url}"
        )
        async with running(tmp_path, provider.url, config=text) as proxy:
            api = Api(proxy.base_url, key="sk-your-key-here")
            assert [model["id"] for model in (await api("GET", "/models"))["data"]] == ["gpt-5.5", "other"]
            made = await api("POST", "/responses", {"model": "gpt-5.5", "input": "hi"})
            assert (
                made["output"][0]["content"][0]["text"] == "ok"
                and found.asked[0]["model"] == "deepseek-v4-pro"
            )
            await api("POST", "/responses", {"model": "other", "input": "hi"})
            assert found.asked[1]["model"] == "other"
            refused = await Api(proxy.base_url)(
                "POST", "/responses", {"model": "other", "input": "hi"}, expect=401
            )
            assert refused["code"] == "invalid_api_key"
            assert (await Api(proxy.base_url[:-3])("GET", "/health"))["status"] == "ok"


def test_base_url_and_key_come_from_the_environment_and_an_open_address_needs_a_word() -> None:
    text = SEED_CONFIG.format(
        listen=f"0.0.0.0:{free_port()}", timeout=30, auth="false", allow="web_search", base_url="$MY_BASE_URL"
    )
    config = parse_config(
        text.encode(), "config.yaml", {"MY_BASE_URL": "https://api.deepseek.com", "SCRIPTED_KEY": "sk-1"}
    )
    assert (config.models[0].providers[0].base_url, config.models[0].providers[0].api_key) == (
        "https://api.deepseek.com",
        "sk-1",
    )
    assert config.server.tool_type_allowlist == ("function", "web_search")
    check_exposure(config, insecure=True)
    with pytest.raises(ConfigError, match="MY_BASE_URL"):
        parse_config(text.encode(), "config.yaml", {})

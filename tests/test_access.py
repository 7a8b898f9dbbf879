"""Who may use the proxy: keys, web pages, host names."""

from __future__ import annotations

from typing import Optional

import pytest
from running_server import error_of, running_server
from tornado.httputil import HTTPHeaders

from rproxy.config.addresses import ListenAddress
from rproxy.config.schema import Key
from rproxy.errors import ApiError
from rproxy.server.access import Access

HELLO = {"model": "m", "input": "hello"}


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer ", "Basic k-1", "k-1", "Bearer k-1x", "Bearer \xe9"]
)
async def test_wrong_keys(header: Optional[str]) -> None:
    async with running_server(keys=["k-1", "k-2"]) as e:
        headers = {"Authorization": header} if header else {}
        for path, body in (
            ("/responses", HELLO),
            ("/v1/models", None),
            ("/responses", None),
            ("/responses/compact", HELLO),
        ):
            answer = await e.fetch(path, body, headers=headers)
            assert answer.code == 401 and error_of(answer)["code"] == "invalid_api_key"
        assert (await e.fetch("/health", headers=headers)).code == 200
        assert e.provider.requests == []
        assert (await e.fetch("/responses", HELLO, headers={"Authorization": "Bearer k-2"})).code == 200


@pytest.mark.parametrize(
    "origin, status",
    [
        (None, 200),
        ("http://localhost:8080", 200),
        ("http://127.0.0.1:5173", 200),
        ("http://[::1]:1", 200),
        ("http://app.localhost", 200),
        ("https://chat.example.com", 200),
        ("https://other.example.com", 403),
        ("null", 403),
        ("http://localhost.example.com", 403),
        ("http://127.0.0.1.example.com", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
async def test_web_pages(origin: Optional[str], status: int) -> None:
    async with running_server(allowed_origins=("https://chat.example.com",)) as e:
        headers = {} if origin is None else {"Origin": origin}
        answer = await e.fetch("/responses", HELLO, headers=headers)
        assert answer.code == status
        if status == 403:
            assert "allowed_origins" in error_of(answer)["message"] and e.provider.requests == []
        listed = origin == "https://chat.example.com"
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if listed else None)
        asked = await e.fetch(
            "/responses",
            method="OPTIONS",
            headers={**headers, "Access-Control-Request-Headers": "content-type"},
        )
        assert ("Access-Control-Allow-Methods" in asked.headers) == listed


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost:3000", 200),
        ("127.0.0.1", 200),
        ("[::1]:3000", 200),
        ("chat.example.com", 200),
        ("LOCALHOST", 200),
        ("evil.example.com:3000", 403),
        ("127.0.0.1.evil.example.com", 403),
        ("192.168.1.7:3000", 403),
    ],
)
async def test_names_of_a_keyless_loopback_server(host: str, status: int) -> None:
    async with running_server(allowed_origins=("https://chat.example.com",)) as e:
        answer = await e.fetch("/v1/models", headers={"Host": host})
        assert answer.code == status
        if status == 403:
            assert "allowed_origins" in error_of(answer)["message"]


async def test_with_keys_or_beyond_loopback_any_name_will_do() -> None:
    async with running_server(keys=["k"]) as e:
        assert (
            await e.fetch("/v1/models", headers={"Host": "proxy.example.com", "Authorization": "Bearer k"})
        ).code == 200
    async with running_server(listen_addr="0.0.0.0:0") as e:
        assert (await e.fetch("/v1/models", headers={"Host": "proxy.example.com"})).code == 200
    async with running_server(allowed_origins=("*",)) as e:
        assert (await e.fetch("/v1/models", headers={"Host": "proxy.example.com"})).code == 200


def test_every_key_has_its_owner() -> None:
    access = Access([Key("one", "one"), Key("two", "zwölf")], (), [ListenAddress("127.0.0.1")])

    def owner(**headers: str) -> str:
        key = access.key(HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()}))
        assert key is not None
        return key.owner

    other = owner(Authorization="Bearer " + "zwölf".encode().decode("latin-1"))
    assert owner(Authorization="Bearer one") == owner(authorization="bearer  one ") != other
    assert owner(api_key="one") == owner(x_api_key="one") == owner(Authorization="Basic x", API_KEY="one")
    for wrong in ({}, {"api_key": "two"}, {"x_api_key": ""}, {"Authorization": "one"}):
        with pytest.raises(ApiError) as caught:
            owner(**wrong)
        assert caught.value.status == 401

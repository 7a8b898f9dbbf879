"""Which proxy is taken, and requests through a proxy that runs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List, Optional, Tuple

import pytest
from rawserver import OK, Peer, RawServer, keep_serving, make_certificate, nothing_left
from tornado.httpclient import HTTPRequest

from rproxy.errors import ConfigError
from rproxy.upstream.http_client import PooledHTTPClient
from rproxy.upstream.proxy import Proxy, bypasses, connect_request, find_proxy, refusal
from rproxy.upstream.transport import TransportError

A, B = "http://a.example:1", "http://b.example:2"


@pytest.mark.parametrize(
    "url,environ,host",
    [
        ("https://x.example/", {}, None),
        ("https://x.example/", {"HTTPS_PROXY": A}, "a.example"),
        ("https://x.example/", {"https_proxy": B, "HTTPS_PROXY": A}, "b.example"),
        ("https://x.example/", {"https_proxy": "", "HTTPS_PROXY": A}, None),
        ("https://x.example/", {"HTTP_PROXY": A}, None),
        ("https://x.example/", {"ALL_PROXY": A}, "a.example"),
        ("https://x.example/", {"ALL_PROXY": A, "https_proxy": B}, "b.example"),
        ("http://x.example/", {"HTTP_PROXY": A, "HTTPS_PROXY": B}, "a.example"),
        ("http://x.example/", {"HTTP_PROXY": A, "REQUEST_METHOD": "GET"}, None),
        ("http://x.example/", {"http_proxy": A, "REQUEST_METHOD": "GET"}, "a.example"),
        ("https://localhost:8000/", {"ALL_PROXY": A}, None),
        ("https://gpu.localhost/", {"ALL_PROXY": A}, None),
        ("http://127.3.2.1/", {"ALL_PROXY": A}, None),
        ("http://[::1]:11434/", {"ALL_PROXY": A}, None),
        ("http://[::ffff:127.0.0.1]:11434/", {"ALL_PROXY": A}, None),
        ("http://LOCALHOST:11434/", {"ALL_PROXY": A}, None),
        ("http://localhost.:11434/", {"ALL_PROXY": A}, None),
        ("http+unix://%2Fx/", {"ALL_PROXY": A}, None),
        ("https://x.example/", {"HTTPS_PROXY": A, "NO_PROXY": "example"}, None),
        ("https://x.example/", {"HTTPS_PROXY": A, "NO_PROXY": "example", "no_proxy": "other"}, "a.example"),
        ("https://x.example/", {"HTTPS_PROXY": "a.example:3128"}, "a.example"),
    ],
)
def test_environment(url: str, environ: Dict[str, str], host: Optional[str]) -> None:
    proxy = find_proxy(url, environ)
    assert (proxy.host if proxy else None) == host


def test_explicit_proxy() -> None:
    environ = {"HTTPS_PROXY": A, "NO_PROXY": "*"}
    assert find_proxy("https://x.example/", environ, B) == Proxy("b.example", 2)
    assert find_proxy("http://127.0.0.1/", {}, B) == Proxy("b.example", 2)
    assert find_proxy("https://x.example/", {"HTTPS_PROXY": A}, "") is None


def test_proxy_url() -> None:
    assert find_proxy("https://x/", {}, "http://u%40x:p%3Aw@proxy") == Proxy("proxy", 80, "u@x", "p:w")
    assert find_proxy("https://x/", {}, "http://[::1]:8080/") == Proxy("::1", 8080)
    for bad in ("socks5://u:secret@h:1", "https://h:1", "http://", "http://h:port", "http://[::1"):
        with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
            find_proxy("https://x/", {"ALL_PROXY": bad})
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "entries,host,port,expected",
    [
        ("", "a.com", 443, False),
        ("*", "a.com", 443, True),
        ("b.com, *", "a.com", 443, True),
        ("a.com", "a.com", 443, True),
        ("a.com", "x.a.com", 443, True),
        ("a.com", "ba.com", 443, False),
        ("a.com", "a.com.evil", 443, False),
        (".a.com", "x.a.com", 443, True),
        (".a.com", "a.com", 443, True),
        ("*.a.com", "x.y.a.com", 443, True),
        ("A.Com", "a.cOM", 443, True),
        ("a.com:443", "a.com", 443, True),
        ("a.com:80", "a.com", 443, False),
        ("b.com a.com", "a.com", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.1.2.3/8", "10.9.9.9", 80, True),
        ("10.0.0.0/99", "10.1.2.3", 80, False),
        ("10.0.0.0/8", "ten.com", 80, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("10.0.0.0/8", "fd12::1", 80, False),
        ("10.1.2.3", "10.1.2.3", 80, True),
        ("10.1.2.3:80", "10.1.2.3", 80, True),
        ("10.1.2.3:81", "10.1.2.3", 80, False),
        ("2.3", "10.1.2.3", 80, False),
        ("fd12::1", "fd12:0::1", 80, True),
        ("[fd12::1]", "fd12::1", 80, True),
        ("[fd12::1]:80", "fd12::1", 80, True),
        ("[fd12::1]:81", "fd12::1", 80, False),
        (".", "a.com", 80, False),
        (",,", "a.com", 80, False),
    ],
)
def test_no_proxy(entries: str, host: str, port: int, expected: bool) -> None:
    assert bypasses(entries, host, port) is expected


def test_connect_request() -> None:
    assert (
        connect_request("x.example", 443, Proxy("p", 1))
        == b"CONNECT x.example:443 HTTP/1.1\r\nHost: x.example:443\r\n\r\n"
    )
    assert connect_request("::1", 443, Proxy("p", 1, "u", "\u00e4")).startswith(
        b"CONNECT [::1]:443 HTTP/1.1\r\n"
    )
    assert b"\r\nProxy-Authorization: Basic dTrDpA==\r\n\r\n" in connect_request(
        "x", 1, Proxy("p", 1, "u", "\u00e4")
    )
    assert "user:password@" in refusal(407, "No", Proxy("p", 1)) and "user:password@" not in refusal(
        403, "No", Proxy("p", 1)
    )


class TunnelServer:
    """A CONNECT proxy with the user u and the password p.

    ``seen``: first line and headers of what it was asked.
    """

    def __init__(self) -> None:
        self.seen: List[Tuple[str, Dict[str, str]]] = []
        self.server = RawServer(self._script)

    async def _script(self, peer: Peer) -> None:
        first, headers, _ = await peer.request()
        self.seen.append((first, headers))
        if headers.get("proxy-authorization") != "Basic dTpw":
            return await peer.send(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")
        if not first.startswith("CONNECT"):
            return await peer.send(OK)
        host, _, port = first.split()[1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await peer.send(b"HTTP/1.1 200 Connection ", b"established\r\n\r\n")
        try:
            await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        data = await reader.read(65536)
        if not data:
            return writer.close()
        writer.write(data)
        await writer.drain()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextlib.asynccontextmanager
async def proxied(
    certificate: Tuple[Path, Path],
) -> AsyncIterator[Tuple[PooledHTTPClient, TunnelServer, HTTPRequest]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    tunnel = TunnelServer()
    async with (
        nothing_left(),
        RawServer(keep_serving(OK)).running(context) as server,
        tunnel.server.running(),
    ):
        client = PooledHTTPClient(force_instance=True)
        port = int(tunnel.server.url.rpartition(":")[2])
        yield (
            client,
            tunnel,
            HTTPRequest(
                server.url,
                ca_certs=str(certificate[0]),
                proxy_host="127.0.0.1",
                proxy_port=port,
                proxy_username="u",
                proxy_password="p",
            ),
        )
        client.close()


async def test_tunnel(certificate: Tuple[Path, Path]) -> None:
    async with proxied(certificate) as (client, tunnel, request):
        for _ in range(2):
            assert (await client.fetch(request)).body == b"ok"
        assert len(tunnel.seen) == 1, "one tunnel for both"
        assert "authorization" not in tunnel.seen[0][1]


async def test_tunnel_refused(certificate: Tuple[Path, Path]) -> None:
    async with proxied(certificate) as (client, _, request):
        request.proxy_username = None
        with pytest.raises(TransportError, match="407 Who.*user name") as caught:
            await client.fetch(request)
        assert caught.value.kind == "connect" and "0 busy, 0 idle" in repr(client)


async def test_plain_http_through_a_proxy(certificate: Tuple[Path, Path]) -> None:
    async with proxied(certificate) as (client, tunnel, request):
        request.url = "http://models.example:8000/v1/x?y=z"
        assert (await client.fetch(request)).body == b"ok"
        first, headers = tunnel.seen[0]
        assert (
            first == "GET http://models.example:8000/v1/x?y=z HTTP/1.1"
            and headers["host"] == "models.example:8000"
        )


@pytest.mark.parametrize(
    "answer,text",
    [(b"", "closed the connection"), (b"SSH-2.0\r\n", "does not speak HTTP"), (None, "Connect call failed")],
)
async def test_broken_proxy(answer: Optional[bytes], text: str) -> None:
    async def script(peer: Peer) -> Any:
        await peer.request()
        await peer.send(answer or b"")

    async with nothing_left(), RawServer(script).running() as server:
        client = PooledHTTPClient(force_instance=True)
        port = int(server.url.rpartition(":")[2]) if answer is not None else 1
        with pytest.raises(TransportError, match=text) as caught:
            await client.fetch("https://x.example/", proxy_host="127.0.0.1", proxy_port=port)
        assert caught.value.kind == "connect" and "through the proxy 127.0.0.1" in str(caught.value)
        client.close()

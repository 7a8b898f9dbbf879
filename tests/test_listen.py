"""The address that the server listens on: what it may be, and what is said when it cannot be used."""

from __future__ import annotations

import socket

import pytest
from edge import config

from rproxy.config.addresses import is_loopback, split_address
from rproxy.errors import ConfigError
from rproxy.server.listen import check_exposure, listen, url_of


@pytest.mark.parametrize(
    "address, host, port",
    [
        ("127.0.0.1:3000", "127.0.0.1", 3000),
        ("[::1]:80", "::1", 80),
        ("localhost:0", "localhost", 0),
        (":3000", "", 3000),
        ("*:1", "", 1),
    ],
)
def test_split_address(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


@pytest.mark.parametrize("address", ["", "3000", "localhost", "::1:3000", "a:b", "a:70000", "a:-1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(
    "host, yes",
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.", True),
        ("LOCALHOST", True),
        ("a.localhost", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_is_loopback(host: str, yes: bool) -> None:
    assert is_loopback(host) is yes


@pytest.mark.parametrize(
    "address", ["0.0.0.0:3000", "[::]:3000", ":3000", "192.0.2.1:3000", "proxy.example.com:3000"]
)
def test_an_open_address_needs_keys(address: str) -> None:
    with pytest.raises(ConfigError, match="--insecure") as caught:
        check_exposure(config(listen_addr=address), False)
    assert "server.auth" in str(caught.value) and "127.0.0.1:3000" in str(caught.value)
    check_exposure(config(listen_addr=address), True)
    check_exposure(config(listen_addr=address, keys=["k"]), False)
    check_exposure(config(listen_addr="127.0.0.1:3000"), False)


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # Tornado does not close a socket that cannot be bound
def test_a_taken_port_and_other_trouble() -> None:
    sockets = listen("127.0.0.1:0")
    port = sockets[0].getsockname()[1]
    try:
        assert url_of(sockets) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match="another program uses this port.*--listen"):
            listen(f"127.0.0.1:{port}")
        with pytest.raises(ConfigError, match="no such address"):
            listen("192.0.2.1:0")
        with pytest.raises(ConfigError, match="cannot be resolved"):
            listen("no-such-host.invalid:0")
    finally:
        for one in sockets:
            one.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    try:
        sockets = listen("[::1]:0")
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert url_of(sockets) == f"http://[::1]:{sockets[0].getsockname()[1]}"
    sockets[0].close()

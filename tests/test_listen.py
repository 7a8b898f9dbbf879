"""The addresses that the server listens on: what they may be, what is said when one cannot be used, and Unix
sockets.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from running_server import Raw, config, played

from rproxy.config.addresses import ListenAddress, is_loopback, parse_listen_address
from rproxy.errors import ConfigError
from rproxy.server.app import serving
from rproxy.server.listen import check_exposure, open_listeners


@pytest.mark.parametrize(
    "text, address, shown",
    [
        ("127.0.0.1:3000", ListenAddress("127.0.0.1", 3000), "127.0.0.1:3000"),
        ("[::1]:80", ListenAddress("::1", 80), "[::1]:80"),
        ("localhost:0", ListenAddress("localhost", 0), "localhost:0"),
        (":3000", ListenAddress("", 3000), "*:3000"),
        ("*:1", ListenAddress("", 1), "*:1"),
        ("unix:/run/a b.sock", ListenAddress(path="/run/a b.sock"), "unix:/run/a b.sock"),
    ],
)
def test_addresses(text: str, address: ListenAddress, shown: str) -> None:
    assert parse_listen_address(text) == address and str(address) == shown


@pytest.mark.parametrize(
    "text", ["", "3000", "localhost", "::1:3000", "a:b", "a:70000", "a:-1", "[::1]", "http://a:1", "a:\u0663"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:3000|\[::1\]:3000"):
        parse_listen_address(text)


@pytest.mark.parametrize(
    "path, why", [("run/a.sock", "absolute"), ("", "absolute"), ("/" + "x" * 103, "longer")]
)
def test_paths_that_no_socket_can_have(path: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_listen_address("unix:" + path)


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


def server(*texts: str, **more: Any) -> Any:
    return config(listen_addr=texts, **more).server


def test_one_open_address_among_local_ones_needs_keys() -> None:
    addresses = ["127.0.0.1:1", "unix:/run/a.sock", "0.0.0.0:2"]
    with pytest.raises(ConfigError, match=r"server.listen_addr is 0\.0\.0\.0:2"):
        check_exposure(config(listen_addr=addresses), False)
    check_exposure(config(listen_addr=addresses[:2]), False)


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # Tornado does not close a socket that cannot be bound
def test_a_taken_port_and_other_trouble() -> None:
    with open_listeners(server("127.0.0.1:0")) as (one,):
        assert one.address.url(False) == f"http://127.0.0.1:{one.socket.getsockname()[1]}"
        for address, why in (
            (str(one.address), "another program uses this port.*--listen"),
            ("192.0.2.1:0", "no such address"),
            ("no-such-host.invalid:0", "cannot be resolved"),
        ):
            with pytest.raises(ConfigError, match=why), open_listeners(server("127.0.0.1:0", address)):
                pass
            gc.collect()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    try:
        with open_listeners(server("[::1]:0")) as (one,):
            assert one.address.url(False) == f"http://[::1]:{one.socket.getsockname()[1]}"
    except ConfigError:
        pytest.skip("no IPv6 here")


# ---- Unix sockets
def test_a_socket_file_has_its_mode_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with open_listeners(server(f"unix:{path}", socket_mode=0o660)):
        assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o660
        with (
            pytest.raises(ConfigError, match="another program listens on it"),
            open_listeners(server(f"unix:{path}")),
        ):
            pass
        assert path.exists()
    assert not path.exists()
    with open_listeners(server(f"unix:{path}")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stale_socket_file_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    with open_listeners(server(f"unix:{path}")), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is not a socket"), open_listeners(server(f"unix:{path}")):
        pass
    assert path.read_text() == "mine"
    with (
        pytest.raises(ConfigError, match="folder does not exist"),
        open_listeners(server(f"unix:{tmp_path}/none/r.sock")),
    ):
        pass


def test_the_file_of_another_process_stays(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with open_listeners(server(f"unix:{path}")):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()


def test_when_one_address_fails_the_others_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    addresses = f"unix:{path}", "127.0.0.1:0", f"unix:{tmp_path}/none/r.sock"
    with pytest.raises(ConfigError, match="none/r.sock"), open_listeners(server(*addresses)):
        pass
    assert not path.exists()


# ---- Whom each address answers
async def connected(address: ListenAddress) -> Raw:
    if address.path:
        return Raw(*await asyncio.open_unix_connection(address.path))
    return Raw(*await asyncio.open_connection("127.0.0.1", address.port))


async def test_each_local_address_asks_for_a_name_of_its_own(tmp_path: Path) -> None:
    """Other addresses do not: a reverse proxy may send any name there."""
    texts = "127.0.0.1:0", f"unix:{tmp_path}/r.sock", "0.0.0.0:0"
    hurry = asyncio.Event()
    hurry.set()
    async with (
        played(listen_addr=texts) as (settings, service, _),
        serving(settings, service, hurry) as running,
    ):
        statuses = {}
        for one in running.listeners:
            for host in ("localhost", "evil.example.com"):
                raw = await connected(one.address)
                raw.send("GET /v1/models HTTP/1.1", f"Host: {host}")
                statuses[str(one.address).partition(":")[0], host], _, _ = await raw.answer()
                raw.cut()
    assert statuses == {
        ("127.0.0.1", "localhost"): 200,
        ("127.0.0.1", "evil.example.com"): 403,
        ("unix", "localhost"): 200,
        ("unix", "evil.example.com"): 403,
        ("0.0.0.0", "localhost"): 200,
        ("0.0.0.0", "evil.example.com"): 200,
    }

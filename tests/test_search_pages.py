"""Pages that a search of Codex opens: which may be opened, and what is shown of them."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, List

import pytest
from rawserver import until
from search_services import Json, Lab, config, lab, query, ref

from rproxy.hosted.addresses import domain_of, named_by_user, refusal, within
from rproxy.hosted.page_text import html_page, plain, text_page
from rproxy.providers.search_table import SEARCH_SERVICES
from rproxy.server.app import embedded


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """The addresses that were connected to; beyond this machine nobody listens."""
    addresses: List[Any] = []
    real = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(loop: Any, sock: Any, address: Any) -> None:
        addresses.append(address)
        if not address[0].startswith("127."):
            raise ConnectionRefusedError
        await real(loop, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    return addresses


# ---- Pages
async def test_a_page_is_opened_searched_and_its_links_are_followed() -> None:
    async with lab() as there:
        await there.run(search_query=query("x"))
        opened = await there.text(open=ref("turn0search0"))
        assert "[turn1view0] Page x-1" in opened and "L2: All about x-1." in opened
        assert "L4:     return 1" in opened and "next (link 0) file" in opened and "alert" not in opened
        assert "L3: def" in await there.text(open=ref("turn0search0", lineno=3))
        assert "L2: All about" in await there.text(find=ref("turn1view0", pattern="ALL  about"))
        assert "'absent' was not found in 5 lines" in await there.text(
            find=ref("turn1view0", pattern="absent")
        )
        assert there.services.paths.count("/page/x-1") == 1  # it is remembered
        assert "All about next_(one)." in await there.text(click=ref("turn1view0", id=0))
        assert "has no link '1'" in await there.text(click=ref("turn1view0", id=1))


@pytest.mark.parametrize("kind", ["deepseek", "tavily", "exa"])
async def test_a_service_that_has_pages_is_asked_for_them(kind: str) -> None:
    async with lab(kind) as there:
        await there.run(search_query=query("x"))
        text = await there.text(open=ref("turn0search0"))
        endpoint = SEARCH_SERVICES[kind].page
    assert endpoint is not None and there.services.paths == [SEARCH_SERVICES[kind].path, endpoint.path]
    assert f"Text of {there.services.url}/page/x-1" in text


async def test_pages_are_off_unless_they_are_on() -> None:
    async with lab(more="", kind="searxng") as there:
        search = f"search: {{kind: searxng, url: '{there.services.url}'}}"
        async with embedded(config(search)) as url:
            closed = Lab(url, there.services)
            await closed.run(search_query=query("x"))
            assert "cannot be opened on this proxy" in await closed.text(open=ref("turn0search0"))
            assert there.services.paths == ["/search"]


async def test_names_belong_to_the_owner_and_the_session() -> None:
    async with lab() as there:
        await there.run(search_query=query("x"))
        for other in ({"key": "second-client"}, {"session": "other"}):
            answer = await there.run(open=ref("turn0search0"), **other)
            assert "is not known" in answer["output"]
        assert there.services.paths == ["/search"]


async def test_a_process_that_does_not_know_a_session_gives_no_name_again() -> None:
    items = [{"type": "function_call_output", "output": "[turn4search1] x\n[turn7view0] y"}]
    async with lab() as there:
        answer = await there.ask({"commands": {"search_query": query("x")}, "input": items})
    assert answer["results"][0]["ref_id"] == "turn8search0"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "http://2130706433/",
        "http://127.1/",
        "http://0x7f.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[::7f00:1]/",
        "http://[fec0::1]/",
        "http://[64:ff9b:1::7f00:1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/",
        "http://x.localhost./",
        "http://intranet/",
        "http://user@example.com/",
        "https://10.0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://100.64.0.1/",
    ],
)
async def test_private_addresses_are_not_opened_even_if_they_were_found(
    url: str, connected: List[Any]
) -> None:
    async with lab() as there:
        there.services.results = lambda q: [there.services.result(url)]
        await there.run(search_query=query("x"))
        connected.clear()
        items = [{"role": "user", "content": f"look at {url} please"}]
        for name in ("turn0search0", url):
            text = (await there.ask({"commands": {"open": ref(name)}, "input": items}))["output"]
            assert "cannot be opened" in text or "is not known" in text, text
        assert connected == []


@pytest.mark.standard_loop  # whose name resolution can be replaced
async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, connected: List[Any]
) -> None:
    """A name that resolves to this machine, or to this machine too, is refused; it is resolved once."""
    asked: List[str] = []
    addresses = ["93.184.216.34", "127.0.0.1"]
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example.com" or kwargs.get("flags"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    async with lab() as there:
        there.services.results = lambda q: [there.services.result("http://rebinding.example.com/")]
        await there.run(search_query=query("x"))
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        connected.clear()
        assert "not on the internet" in await there.text(open=ref("turn0search0"))
        addresses.reverse()
        assert "not on the internet" in await there.text(open=ref("turn0search0"))
        assert connected == []
        del addresses[0]
        asked.clear()
        assert "the connection was refused" in await there.text(open=ref("turn0search0"))
        assert set(connected) == {("93.184.216.34", 80)} and len(asked) == len(connected)


async def test_only_what_was_found_or_written_by_the_user_is_opened() -> None:
    async with lab() as there:
        url = there.services.url + "/page/mine"
        for items in ([], [{"role": "assistant", "content": url}], [{"role": "user", "content": url + "x"}]):
            answer = await there.ask({"commands": {"open": ref(url)}, "input": items})
            assert "is not known" in answer["output"]
        assert there.services.asked == []
        read: Json = {"role": "user", "content": [{"type": "input_text", "text": f"Read ({url})."}]}
        answer = await there.ask({"commands": {"open": ref(url)}, "input": [read]})
    assert "All about mine." in answer["output"]


async def test_a_redirect_is_not_followed_but_its_target_can_be_opened() -> None:
    async with lab() as there:
        there.services.pages["/page/x-1"] = (302, {"Location": "/page/new"}, "")
        there.services.pages["/page/x-2"] = (302, {"Location": "http://169.254.169.254/"}, "")
        there.services.pages["/page/x-3"] = (302, {"Location": "file:///etc/passwd"}, "")
        await there.run(search_query=query("x"))
        text = await there.text(open=ref("turn0search0") + ref("turn0search1") + ref("turn0search2"))
        assert "/page/new; open turn1view0" in text and "outside the web" in text
        assert "/page/new" not in there.services.paths
        assert "All about new." in await there.text(open=ref("turn1view0"))
        assert "not on the internet" in await there.text(open=ref("turn1view1"))
        there.services.pages["/page/x-1"] = (302, {"Location": "http://[x/"}, "")
        assert "outside the web" in await there.text(open=ref("turn0search0"))


@pytest.mark.parametrize(
    "answer, said",
    [
        ((404, {}, "gone"), "answers with status 404"),
        ((200, {"Content-Type": "image/png"}, b"\x89PNG"), "it is not text but image/png"),
        ((200, {"Content-Type": "text/plain; charset=punycode"}, "plain text"), "L1: plain text"),
        ((200, {"Content-Type": "text/plain; charset=latin-1"}, b"caf\xe9"), "L1: caf\xe9"),
        ((200, {"Content-Type": "application/json"}, '{"a": 1}'), 'L1: {"a": 1}'),
        ((200, {"Content-Type": "text/plain"}, b"y" * (3 << 20)), "for more, open it with lineno 51"),
    ],
    ids=["404", "image", "charset", "latin-1", "json", "long"],
)
async def test_pages_of_other_kinds(answer: Any, said: str) -> None:
    async with lab() as there:
        there.services.pages["/page/x-1"] = answer
        await there.run(search_query=query("x"))
        text = await there.text(open=ref("turn0search0"))
    assert said in text and len(text) < 41_000


async def test_an_address_with_characters_of_other_scripts() -> None:
    async with lab() as there:
        url = there.services.url + "/page/\u65e5%20x?q=\xe4#part"
        there.services.results = lambda q: [there.services.result(url)]
        await there.run(search_query=query("x"))
        assert "All about" in await there.text(open=ref("turn0search0"))
        assert there.services.asked[-1].request.uri == "/page/%E6%97%A5%20x?q=%C3%A4"


async def test_a_page_without_end_is_cut_and_its_connection_closed() -> None:
    async with lab(more=", timeout: 60") as there:
        there.services.results = lambda q: [there.services.result(f"{there.services.url}/page/endless")]
        await there.run(search_query=query("x"))
        assert "for more, open it with lineno" in await there.text(open=ref("turn0search0"))
        # not on_connection_close, which Tornado leaves out when a write has noticed the end first
        await until(there.services.asked[-1].request.connection.stream.closed)


# ---- Texts and addresses
def test_a_page_as_its_readers_see_it() -> None:
    page = html_page(
        "<title>A &amp; B</title><!-- no --><p>one<br>two</P><script>if (a<b) {}</script><ul><li>x<li>y</ul>"
        "a < b <a href='x?a=1&amp;b#f'>rel</a><a href=javascript:x>no</a><pre>  in\n  dented</pre><div",
        "https://example.com/d/",
    )
    assert page.title == "A & B" and page.links == ["https://example.com/d/x?a=1&b"]
    assert page.lines == ["one", "two", "- x", "- y", "a < b rel (link 0)no", "  in", "  dented"]


@pytest.mark.parametrize(
    "piece", ["<", "<script>", "<!--", "<a href='", "<a href=x>", "</", "&#", "&#1", "<p>", "<title>", "-->"]
)
def test_no_page_takes_long(piece: str) -> None:
    """Work is in proportion to the length: eight times as much takes less than thirty times as long."""

    def seconds(count: int) -> float:
        text, started = piece * count, time.process_time()
        html_page(text, "https://example.com/")
        return time.process_time() - started

    small = min(seconds(5_000) for _ in range(3))
    assert seconds(40_000) < 30 * max(small, 0.002)


def test_plain_texts() -> None:
    assert plain("<b>a</b>\n b&nbsp;&lt;c&gt; &#99999999999; x<y") == "a b <c> x<y"
    page = text_page("t", "see [this](https://example.com/x) and [that](ftp://x)")
    assert (page.links, page.lines) == (["https://example.com/x"], ["see [this](link 0) and [that](ftp://x)"])


def test_domains() -> None:
    assert within("a.example.com", ["example.com"]) and not within("evil-example.com", ["example.com"])
    assert [domain_of(t) for t in (" HTTPS://Example.com/x", "*.example.com", ".example.com.")] == [
        "example.com"
    ] * 3
    assert refusal("https://example.com/x", "") == "" and refusal("http://h:8/x", "http://h:8/s") == ""
    assert refusal("http://h:9/x", "http://h:8/s") and refusal("https://example.com/\n", "")
    assert named_by_user("https://example.com/a/", [{"role": "user", "content": "see example.com/a."}])

"""The inspector's page in a browser: what a user sees, at any size, in both schemes, with or without a mouse.

Needs Debian's ``chromium``; the rules of accessibility are those of axe-core, from npm (``$AXE``, else where
``.ci/run`` installs it).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List, Tuple

import pytest
from browser import CHROMIUM, Page, chromium, connected
from inputs import EVERYTHING
from rawserver import until
from running_server import RunningServer, running_server
from test_inspector import ANN, record, turn

from rproxy.config.schema import Key

Json = Dict[str, Any]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
AXE = Path(os.environ.get("AXE") or CACHE / "rproxy-axe/node_modules/axe-core/axe.min.js")
PHONE, DESK = (390, 844), (1440, 900)
WIDE = """[...document.querySelectorAll('main *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 4).map(e => e.outerHTML)"""
# the rows that exist, as they follow each other
ROWS = "[...document.querySelectorAll('.row:not([hidden])')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
    pytest.mark.timeout(seconds=180),
]


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the browser of all these tests listens."""
    with chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@contextlib.asynccontextmanager
async def looking(devtools: str, turns: int = 0, **server: Any) -> AsyncIterator[Tuple[RunningServer, Page]]:
    """A tab in front of an inspector that has some turns; in the end nothing of the page was wrong."""
    async with running_server(**server) as e, connected(devtools) as browser:
        fill(e, turns)
        page = await browser.page()
        await page.size(*DESK)
        await page.open(e.url)
        await page.until("['live', 'lost'].includes(document.querySelector('#live')?.dataset.state)")
        yield e, page
        assert await page.run("__violations") == []
        assert [error for error in page.errors if "401" not in error] == []
        foreign = [url for url in page.urls if not url.startswith((e.url, "data:", "blob:"))]
        assert foreign == [] or set(foreign) == {"about:blank"}
        await page.leave(e.url + "/health")


def fill(e: RunningServer, turns: int) -> None:
    """Turns of several kinds."""
    recent = e.state.service.telemetry.recent
    assert recent is not None
    kinds = ["queue", "connect", "first_byte", "thinking", "text", "tool", "novelty"]
    spans = [("attempt", 0.0, 700.0, "lab 200")]
    for i, kind in enumerate(kinds):
        spans.append((kind, 100.0 * i, 100.0 * i + 100, "ls" if kind == "tool" else ""))
    for number in range(turns):
        status = ["completed", "completed", "failed", "incomplete", "cancelled"][number % 5]
        known = {"error": "server_error", "reason": "It broke."} if status == "failed" else {}
        tokens = {} if known else {"input_tokens": 2000, "cached_tokens": 1500, "output_tokens": 90}
        warned = {"warnings": ["a tool was dropped"]} if number % 7 == 0 else {}
        model, key = f"model-{number % 3}", ["ann", "ben"][number % 2]
        more: Json = {**known, **tokens, **warned}
        one = record(number, status=status, model=model, key=key, total_ms=700.0, spans=spans, **more)
        recent.add(one, None if known else 0.001, "USD")


async def statuses(page: Page) -> List[str]:
    found: List[str] = await page.run(ROWS + ".map(row => row.querySelector('.status').dataset.s)")
    return found


# ---- The list
async def test_turns_appear_as_they_happen_and_open(devtools: str) -> None:
    async with looking(devtools) as (e, page):
        await page.until("document.body.innerText.includes('No turns yet')")
        running = asyncio.ensure_future(turn(e, text="gate", stream=True))
        await page.until(ROWS + ".length === 1")
        assert await statuses(page) == ["in_progress"]
        await page.click(".row")
        await page.until("document.querySelector('.waterfall tbody')?.innerText.includes('Text')")
        e.provider.gate.set()
        request_id = await running
        await page.until("document.querySelector('.row .status').dataset.s === 'completed'")
        assert await page.run("location.hash") == "#turn=" + request_id
        steps = await page.run(
            "[...document.querySelectorAll('.waterfall tbody th')].map(th => th.innerText)"
        )
        assert {"Queue", "Attempt lab 200", "Connect", "First byte", "Text"} == {s.strip() for s in steps}
        await turn(e, text="refuse")
        await page.until(ROWS + "[1]?.querySelector('.status').dataset.s === 'completed'")
        await page.until(ROWS + "[0].querySelector('.status').dataset.s === 'failed'")
        await page.until("document.querySelector('#totals').innerText.includes('50%')")
        await page.click('.row[aria-rowindex="2"]')
        await page.until("document.querySelector('.callout')?.innerText.includes('Slow down.')")
        await page.key("Escape")
        await page.until("document.querySelector('#detail').hidden")


async def test_a_stream_that_breaks_is_taken_up_again(devtools: str) -> None:
    async with looking(devtools, turns=3) as (e, page):
        await page.until(ROWS + ".length === 3")
        recent = e.state.service.telemetry.recent
        assert recent is not None and len(recent.listeners) == 1
        for connection in list(e.server._connections):
            connection.stream.close()
        await until(lambda: not recent.listeners)
        recent.add(record(99), None, "")
        await page.until(ROWS + ".length === 4 && document.querySelector('#banner').hidden")
        page.errors.clear()  # that the connection was lost


async def test_filters_and_search(devtools: str) -> None:
    async with looking(devtools, turns=50) as (_, page):
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '51'")
        await page.click("#statuses [data-status=failed]")
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '11'")
        assert set(await statuses(page)) == {"failed"}
        await page.until("document.querySelector('#totals').innerText.includes('100%')")  # sums follow
        await page.click("#q")
        await page.type("broke ben")
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '6'")
        await page.type(" nowhere")
        await page.until("document.body.innerText.includes('No turn fits')")
        await page.click("#state button")
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '51'")
        choose = "(s => { s.value = 'model-1'; s.dispatchEvent(new Event('change')) })"
        await page.run(f"{choose}(document.querySelector('#f-model'))")
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '18'")
        assert await page.run(ROWS + ".every(row => row.innerText.includes('model-1'))")


async def test_ten_thousand_turns_scroll_smoothly(devtools: str) -> None:
    """Each frame of a scroll shows the right rows, of which never more exist than fit twice."""
    async with looking(devtools, turns=10_000) as (_, page):
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '10001'")
        scroll = """(async () => {
          const list = document.querySelector('#list'), frame = () => new Promise(requestAnimationFrame);
          const end = list.scrollHeight - list.clientHeight;
          const wrong = [];
          let most = 0, frames = 0;
          const nodes = document.querySelectorAll('*').length;
          for (let i = 0; i <= 10; i++) {
            list.scrollTop = Math.floor(end * i / 400) * 40 + 7;
            await frame(); await frame(); frames++;
            const box = list.getBoundingClientRect();
            for (const y of [60, 380, 60 + 40 * Math.floor((box.height - 80) / 40)]) {
              const row = document.elementFromPoint(box.x + 300, box.y + y)?.closest('.row');
              const at = Math.floor((list.scrollTop + y - 32) / 40);
              if (row?.ariaRowIndex !== String(at + 2))
                wrong.push([i, y, at, row?.ariaRowIndex]);
            }
            most = Math.max(most, document.querySelectorAll('.row').length);
          }
          return {most, wrong, frames, grown: document.querySelectorAll('*').length - nodes};
        })()"""
        found = await page.run(scroll)
        assert found["frames"] == 11 and found["wrong"] == []
        assert found["most"] <= 2 * (900 // 40) and found["grown"] < 2000
        await page.click("#q")
        await page.type("model-2 ann failed")
        await page.until("Number(document.querySelector('#list').getAttribute('aria-rowcount')) < 400")


async def test_what_one_reads_stays_where_it_is(devtools: str) -> None:
    async with looking(devtools, turns=200) as (e, page):
        await page.until("document.querySelector('#list').getAttribute('aria-rowcount') === '201'")
        # within the list, because what is above it grows
        at = "document.querySelector('#list').getBoundingClientRect().top + 100"
        top = f"document.elementFromPoint(400, {at}).closest('.row')?.dataset.id"
        await page.run("document.querySelector('#list').scrollTop = 2000")
        # once the list has drawn what is there: six frames in a row show the same
        before = await page.run(
            "new Promise(done => { let last, same = 0; const look = () => {"
            f"const now = {top}; same = now && now === last ? same + 1 : 0; last = now;"
            "same > 5 ? done(now) : requestAnimationFrame(look); }; look(); })"
        )
        fill_from = e.state.service.telemetry.recent
        assert fill_from is not None
        for number in range(500, 505):
            fill_from.add(record(number), None, "")
        await page.until("document.querySelector('#newer').innerText.includes('5 new turns')")
        assert await page.run(top) == before
        await page.click("#newer")
        await page.until("document.querySelector('#list').scrollTop === 0")
        await page.until("document.querySelector('#newer').hidden")


# ---- Without a mouse, at every size, for everybody
async def test_the_keyboard_is_enough(devtools: str) -> None:
    async with looking(devtools, turns=30) as (_, page):
        await page.until(ROWS + ".length > 5")
        await page.until("!document.querySelector('#f-model').hidden")
        seen: List[str] = []
        while "list" not in seen:
            await page.key("Tab")
            seen.append(await page.run("document.activeElement.id || document.activeElement.className"))
            assert len(seen) < 30, seen
        assert seen[0] == "skip button" and {"q", "theme", "help", "f-model"} <= set(seen)
        for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown"):
            await page.key(key)
        active = "document.querySelector('#list').getAttribute('aria-activedescendant')"
        assert await page.run(active) == "row-req_28"
        await page.key("Enter")
        await page.until("document.activeElement.id === 'detail'")
        assert "model-1" in await page.run("document.querySelector('#detail h2').innerText")
        await page.key("Escape")
        await page.until("document.activeElement.id === 'list'")
        await page.key("End")
        await page.until(active + " === 'row-req_0'")
        await page.key("/")
        await page.until("document.activeElement.id === 'q'")
        await page.type("model-0")
        await page.key("Escape")
        await page.until("document.querySelector('#q').value === ''")
        await page.key("Escape")
        await page.key("?")
        await page.until("document.querySelector('#keys').open")
        await page.key("Escape")
        await page.until("!document.querySelector('#keys').open")


# what each view is, once it is there
SHOWN = {
    "turns": "!at('#view-turns').hidden && at('#detail').hidden",
    "turn": "at('#detail').dataset.id === value && !at('#detail').innerText.includes('Loading')",
    "usage": "!at('#view-usage').hidden && at('#usage-box').childElementCount",
    "providers": "!at('#view-providers').hidden && at('#providers-box').childElementCount",
}


async def show(page: Page, hash: str) -> None:
    """Go to a view, and wait until it is drawn."""
    view, _, value = hash.partition("=")
    found = await page.run(f"""(async () => {{
      const value = {json.dumps(value)}, at = selector => document.querySelector(selector);
      const frame = () => new Promise(requestAnimationFrame), shown = () => {SHOWN[view]};
      location.hash = {json.dumps(hash)};
      for (let i = 0; i < 2000 && (await frame(), !shown()); i++);
      await frame(); await frame();
      return !!shown();
    }})()""")
    assert found, f"{hash} is not shown"


async def test_every_size_and_scheme(devtools: str) -> None:
    async with looking(devtools, turns=40) as (_, page):
        light = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128"
        sizes = [PHONE, (320, 640), (768, 1024), DESK, (2560, 1440)]
        for at, (width, height) in enumerate(sizes):
            await page.size(width, height, phone=width < 500)
            for scheme in ("light", "dark") if EVERYTHING else ("light", "dark")[at % 2 :][:1]:
                await page.scheme(scheme)
                assert await page.run(light) is (scheme == "light")
                await fits(page, (width, height, scheme))
        await page.click("#theme")
        await page.click("#theme")  # light, then dark, whatever the system says
        for scheme in ("light", "dark"):
            await page.scheme(scheme)
            assert await page.run(light) is False


async def fits(page: Page, what: Tuple[int, int, str]) -> None:
    """No view is larger than the window."""
    for hash in ("usage", "turn=req_37", "providers", "turns"):
        await show(page, hash)
        wide = await page.run("document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, (what, hash, await page.run(WIDE))
        high = await page.run("document.scrollingElement.scrollHeight - innerHeight")
        assert high <= 0, (what, hash)
    cards = await page.run("document.querySelector('#list').classList.contains('cards')")
    assert cards is (what[0] < 730)


def axe() -> str:
    return AXE.read_text(encoding="utf-8")


async def violations(page: Page, *schemes: str) -> List[Any]:
    """What axe-core finds: the rule and where.

    :param schemes: the first is checked by all rules, others by those that they can change: of colours
    """
    if await page.run("typeof axe") == "undefined":
        await page.run(axe() + "\n0")
    found: List[Any] = []
    rules = ""
    for scheme in schemes:
        await page.scheme(scheme)
        found += await page.run(
            f"axe.run(document, {{{rules}resultTypes: ['violations'], selectors: false}})"
            ".then(r => r.violations.map(v => [v.impact, v.id, "
            "v.nodes.slice(0, 3).map(n => n.html.slice(0, 150) + ' | ' + n.failureSummary)]))"
        )
        rules = "runOnly: ['color-contrast', 'link-in-text-block'], "
    return found


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core from npm; .ci/run installs it")
async def test_accessibility(devtools: str) -> None:
    """All rules on a desk and on a phone, and colours in both schemes; on each of them in ``.ci/run``."""
    schemes = {DESK: ["light", "dark"], PHONE: ["dark", "light"]}
    async with looking(devtools, turns=9, inspector="content") as (e, page):
        asked = await turn(e, text="count 5", stream=True)

        async def check(state: str) -> None:
            for size, both in schemes.items():
                await page.size(*size)
                await page.run(
                    "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
                )
                assert await violations(page, *(both if EVERYTHING else both[:1])) == [], (state, size)

        for hash in ("turns", "turn=req_7", "turn=" + asked, "usage", "providers"):
            await show(page, hash)
            await check(hash)
        await show(page, "turns")
        await page.click("#q")
        await page.type("nothing fits")
        await page.until("document.body.innerText.includes('No turn fits')")
        await check("nothing fits")
        await page.run("document.querySelector('#keys').showModal()")
        await check("keys")


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core from npm; .ci/run installs it")
async def test_accessibility_of_what_comes_first(devtools: str) -> None:
    async with looking(devtools) as (_, page):
        await page.until("document.body.innerText.includes('No turns yet')")
        assert await violations(page, *("light", "dark")[: 1 + EVERYTHING]) == []
    async with looking(devtools, keys=[ANN]) as (_, page):
        await page.until("document.body.innerText.includes('asks for a key')")
        assert await violations(page, *("dark", "light")[: 1 + EVERYTHING]) == []


# ---- Keys and content
async def test_a_key_stays_in_memory(devtools: str) -> None:
    ann = Key("ann", "sk-ann-0123456789")
    async with looking(devtools, turns=5, keys=[ann]) as (e, page):
        await page.until("document.activeElement.name === 'key'")
        assert await page.run(ROWS + ".length") == 0
        await page.type("sk-wrong")
        await page.key("Enter")
        await page.until("document.querySelector('.error').innerText.includes('not one of')")
        await page.run("document.activeElement.value = ''")
        await page.type(ann.value)
        await page.key("Enter")
        await page.until(ROWS + ".length === 5")
        assert not [url for url in page.urls if ann.value in url]
        kept = await page.run("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert ann.value not in kept and ann.value not in await page.run("document.documentElement.outerHTML")
        await page("Page.reload")
        await page.until("document.activeElement?.name === 'key'")


async def test_content_side_by_side(devtools: str, tmp_path: Path) -> None:
    text = "hello <img src=x onerror=document.title='bad'> it's <script>document.title='bad'</script>"
    async with looking(devtools, inspector="content") as (e, page):
        request_id = await turn(e, text=text, stream=True)
        await page.until(ROWS + ".length === 1")
        await page.click(".row")
        await page.until("document.querySelector('#tab-panel')?.innerText.includes('onerror')")
        await page.click("#tab-chat")
        await page.until("document.querySelector('#tab-panel').innerText.includes('/chat/completions')")
        await page.click("#tab-events")
        await page.until("document.querySelector('.pairs')?.innerText.includes('output_text.delta')")
        rows = await page.run("[...document.querySelectorAll('.pairs tbody tr')].map(tr => tr.innerText)")
        first = next(row for row in rows if "created" in row)
        assert "text" in first and "output_item.added message" in first and "output_text.delta" in first
        assert "finish stop" in rows[-2] + rows[-1] + rows[-3] and "completed" in rows[-1]
        await page.click(".pairs tbody button")
        await page.until("!!document.querySelector('.pairs pre')")
        assert (
            await page.run("document.title") == "rproxy inspector"
            and await page.run("document.title") != "bad"
        )
        # what the buttons give
        await page.run("copied = ''; navigator.clipboard.writeText = async text => { copied = text }")
        await page.click("#content .tools button:nth-child(3)")
        command = await page.until("copied")
        name = command.split()[2]
        assert command.startswith("rproxy replay ") and name.endswith(f"{request_id}.jsonl")
        await page("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await page.click("#content .tools button:nth-child(2)")
        await until(lambda: (tmp_path / name).exists())
        whole = await e.fetch(f"/inspector/turns/{request_id}/recording")
        await until(lambda: (tmp_path / name).read_bytes() == whole.body)
        await page.run("copied = ''")
        await page.click("#content .tools button:nth-child(1)")
        command = await page.until("copied")
        if shutil.which("curl"):
            curl = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=asyncio.subprocess.PIPE)
            answer, _ = await curl.communicate()
            assert b"response.completed" in answer
            assert e.provider.requests[-1]["messages"][-1]["content"] == text

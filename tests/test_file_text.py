"""PDF files for providers that take none: their text, and files that are slow, broken, large or hostile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
from api import site
from pdf_maker import make_pdf, pdf_message, text_page
from rawserver import until
from scripted import say

from rproxy.convert.profile import Profile
from rproxy.errors import ApiError
from rproxy.service import file_text, pdf_worker
from rproxy.service.file_text import FileTexts
from rproxy.service.pdf_worker import pdf_text
from rproxy.types import Json

pytestmark = pytest.mark.timeout(seconds=60)
TEXT = Profile(modalities=("text",))
PAGE = text_page("Title: Fixture", "Second line")


def children() -> List[str]:
    """The processes that read files for this one and are not yet reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                is_server = b"forkserver" in (entry / "cmdline").read_bytes()  # of tests that ran before
            except OSError:
                continue
            if int(words[1]) == os.getpid() and not is_server:
                found.append(entry.name)
    return found


async def texts(files: FileTexts, *pdfs: bytes) -> List[Any]:
    items = [item for pdf in pdfs for item in pdf_message("a.pdf", pdf)]
    return [item["content"][0].get("text") for item in await files.readable(items, TEXT)]


@pytest.mark.parametrize("deflated", [False, True])
def test_the_text_of_a_pdf(deflated: bool) -> None:
    pytest.importorskip("pypdf")
    assert pdf_text(make_pdf(PAGE, deflated)) == "Title: Fixture\nSecond line"


def test_a_long_text_is_cut(monkeypatch: Any) -> None:
    pytest.importorskip("pypdf")
    monkeypatch.setattr(pdf_worker, "MAX_TEXT", 9)
    assert pdf_text(make_pdf(PAGE)) == "Title: Fi"


async def test_files_are_read_in_a_process_of_their_own_and_remembered(monkeypatch: Any) -> None:
    pytest.importorskip("pypdf")
    files = FileTexts()
    one, two = make_pdf(PAGE), make_pdf(text_page("Two"), deflated=True)
    first = "Title: Fixture\nSecond line"
    assert await texts(files, one, two, one) == [first, "Two", first]
    monkeypatch.setattr(file_text, "MAX_REMEMBERED", 20)
    assert await texts(files, make_pdf(text_page("Three"))) == ["Three"]  # and the oldest is forgotten
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert await texts(files, two) == ["Two"]
    with pytest.raises(ApiError, match="needs the Python package pypdf"):
        await texts(files, one)
    assert children() == []


async def test_nothing_is_read_for_a_provider_that_takes_files() -> None:
    items = pdf_message("a.pdf", b"%PDF-")
    assert await FileTexts().readable(items, Profile(modalities=("text", "file"))) is items


async def test_a_file_that_takes_forever(monkeypatch: Any) -> None:
    """2,652 bytes that keep pypdf busy for half a minute do not keep the event loop busy, nor other files."""
    pytest.importorskip("pypdf")
    slow = make_pdf(b"BT /F1 12 Tf " + b"(a) Tj " * 1_000_000 + b"ET", deflated=True)
    files = FileTexts(timeout=2.0)
    ended, most, gaps = False, 0, []

    async def watch() -> None:
        nonlocal most
        loop = asyncio.get_running_loop()
        while not ended:
            most = max(most, len(children()))
            start = loop.time()
            await asyncio.sleep(0.01)
            gaps.append(loop.time() - start)

    watching = asyncio.ensure_future(watch())
    results = await asyncio.gather(*(texts(files, slow) for _ in range(3)), return_exceptions=True)
    ended = True
    await watching
    for error in results:
        assert isinstance(error, ApiError) and error.status == 400
        assert "cannot read a.pdf: that takes more than 2 seconds. Send its text" in error.message
    assert children() == [] and most == file_text.WORKERS
    assert len(gaps) > 20 and sorted(gaps)[len(gaps) // 2] < 0.2
    files = FileTexts()
    assert await texts(files, make_pdf(PAGE)) == ["Title: Fixture\nSecond line"]


async def test_a_client_that_leaves_ends_the_process() -> None:
    pytest.importorskip("pypdf")
    slow = make_pdf(b"BT /F1 12 Tf " + b"(a) Tj " * 1_000_000 + b"ET", deflated=True)
    reading = asyncio.ensure_future(texts(FileTexts(), slow))
    await until(children)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert children() == []


async def test_a_file_that_is_too_large(monkeypatch: Any) -> None:
    monkeypatch.setattr(file_text, "MAX_FILE", 1 << 20)
    with pytest.raises(ApiError, match="cannot read a.pdf: it is larger than 1 MiB"):
        await texts(FileTexts(), b"%PDF-" + bytes(1_050_000))


def test_a_worker_cannot_fill_the_memory() -> None:
    code = "from rproxy.service.pdf_worker import limit_memory; limit_memory(); bytearray(2 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "MemoryError" in done.stderr


async def test_a_worker_gets_no_keys(monkeypatch: Any) -> None:
    monkeypatch.setenv("ACME_API_KEY", "k")
    assert "ACME_API_KEY" not in file_text._environment()


async def test_a_conversation_about_a_pdf(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("A title.")], [say("Yes.")]]
        body: Json = {"model": "gpt-5.5", "input": pdf_message("a.pdf", make_pdf(PAGE))}
        first = await api("POST", "/responses", body)
        question = "a.pdf:\nTitle: Fixture\nSecond line\nWhat is in it?"
        assert provider.requests[0]["messages"][-1]["content"] == question
        more = {"model": "gpt-5.5", "input": "Sure?", "previous_response_id": first["id"]}
        await api("POST", "/responses", more)
        assert provider.requests[1]["messages"][-3]["content"] == question
        assert (await api("POST", "/responses/input_tokens", body))["input_tokens"] > 15


async def test_a_broken_pdf_is_a_400(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    async with site(tmp_path) as (provider, api, _):
        for broken in (b"%PDF-1.7 scanned", make_pdf(b"")):
            body: Json = {"model": "gpt-5.5", "input": pdf_message("a.pdf", broken)}
            error = await api("POST", "/responses", body, expect=400)
            assert error["param"] == "input" and "no text could be read from a.pdf" in error["message"]
        assert provider.requests == []


async def test_without_pypdf_a_pdf_is_a_400_that_says_what_to_install(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(ApiError) as caught:
        await texts(FileTexts(), make_pdf(PAGE))
    assert caught.value.status == 400 and caught.value.param == "input"
    assert caught.value.message == (
        "This model's provider takes no files, and rproxy cannot read a.pdf: that needs the Python package "
        "pypdf on the server (pip install 'rproxy-responses[pdf]'). Send its text as input_text."
    )

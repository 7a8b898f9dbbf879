"""A headless Chromium, driven through its DevTools protocol; see https://chromedevtools.github.io.

:func:`chromium` starts one, for many tests; in each of them :func:`connected` drives it, and
:meth:`Browser.page` opens a tab.  Debian's package is ``chromium``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List

from tornado.websocket import WebSocketClientConnection, websocket_connect

Json = Dict[str, Any]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALONE = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--no-default-browser-check", "--hide-scrollbars", "--force-color-profile=srgb",
    "--font-render-hinting=none", "--disable-features=SpareRendererForSitePerProcess,Translate,MediaRouter",
    "--process-per-site", "--remote-debugging-port=0",
)  # fmt: skip
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowDown": (40, ""), "ArrowUp": (38, ""),
        "End": (35, ""), "Home": (36, ""), "PageDown": (34, "")}  # fmt: skip
PATIENCE = 120.0  # seconds for one command; the machine may be busy
# What a page does before its own script runs: it notes what its policy forbids.
WATCH = """
window.__violations = [];
document.addEventListener("securitypolicyviolation",
  e => __violations.push(e.violatedDirective + " " + e.blockedURI));
"""


class Page:
    """One tab.

    ``urls``: what it has asked for.  ``errors``: exceptions of its scripts, and what it wrote to the console
    as an error.
    """

    def __init__(self, socket: WebSocketClientConnection, session: str) -> None:
        self._socket = socket
        self._session = session
        self._answers: Dict[int, asyncio.Future[Json]] = {}
        self._count = 0
        self.urls: List[str] = []
        self.errors: List[str] = []

    async def start(self) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self(f"{domain}.enable")
        await self("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def heard(self, message: Json) -> None:
        """What the browser says."""
        waiting = self._answers.pop(message.get("id", 0), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
        method, said = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.urls.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])

    async def __call__(self, method: str, **parameters: Any) -> Json:
        """Send a command; gives its result."""
        self._count += 1
        number = self._count
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters, "sessionId": self._session}
        await self._socket.write_message(json.dumps(message))
        found = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in found, (method, found["error"])
        result: Json = found["result"]
        return result

    async def open(self, url: str) -> None:
        await self("Page.navigate", url=url)

    async def leave(self, url: str) -> None:
        """Forget what the page has stored, and show something without scripts of the same site instead.

        The next tab has another origin, since each server has a port of its own, but it is of the same site,
        and so gets by with the process that this tab keeps alive.
        """
        await self.run("localStorage.clear(), sessionStorage.clear()")
        await self.open(url)

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        found = await self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script: str, seconds: float = 15.0) -> Any:
        """Wait until an expression is true."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            found = await self.run(script)
            if found:
                return found
            assert asyncio.get_running_loop().time() < end, f"never true: {script}"
            await asyncio.sleep(0.03)

    async def key(self, key: str) -> None:
        """Press a key."""
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
        pressed: Json = {"key": key, "windowsVirtualKeyCode": code}
        await self("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": text} if text else {}))
        await self("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def type(self, text: str) -> None:
        """Put a text where the focus is."""
        await self("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        box = await self.until(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            "return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null })()"
        )
        at: Json = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        await self("Input.dispatchMouseEvent", type="mousePressed", **at)
        await self("Input.dispatchMouseEvent", type="mouseReleased", **at)

    async def size(self, width: int, height: int, phone: bool = False, scale: float = 1) -> None:
        await self(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=phone,
        )  # fmt: skip

    async def scheme(self, name: str) -> None:
        """``dark`` or ``light``."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self("Emulation.setEmulatedMedia", features=features)

    async def picture(self) -> bytes:
        """What it looks like, as PNG."""
        shot = await self("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


class Browser:
    """A running Chromium."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self._pages: Dict[str, Page] = {}
        self._count = 1 << 20
        self._answers: Dict[int, asyncio.Future[Json]] = {}

    async def listen(self) -> None:
        while True:
            text = await self._socket.read_message()
            if text is None:
                return
            message = json.loads(text)
            page = self._pages.get(message.get("sessionId", ""))
            if page is not None:
                page.heard(message)
            elif message.get("id") in self._answers:
                self._answers.pop(message["id"]).set_result(message)

    async def _ask(self, method: str, **parameters: Any) -> Json:
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        await self._socket.write_message(
            json.dumps({"id": self._count, "method": method, "params": parameters})
        )
        result: Json = (await asyncio.wait_for(answer, PATIENCE))["result"]
        return result

    async def page(self) -> Page:
        """A new tab; see :meth:`Page.leave`."""
        target = await self._ask("Target.createTarget", url="about:blank")
        session = (await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True))[
            "sessionId"
        ]
        page = self._pages[session] = Page(self._socket, session)
        await page.start()
        return page


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """A browser while the context lasts.  Gives the address of its DevTools.

    :param folder: for what it writes
    """
    assert CHROMIUM is not None
    log = folder / "chromium.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [CHROMIUM, *ALONE, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    try:
        yield _address(log, process)
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Browser]:
    """Drive the browser whose DevTools are at this address, while the context lasts."""
    socket = await websocket_connect(address, max_message_size=1 << 28)
    browser = Browser(socket)
    listening = asyncio.ensure_future(browser.listen())
    try:
        yield browser
    finally:
        socket.close()
        await listening


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        for line in _said(log).splitlines():
            _, found, address = line.partition("DevTools listening on ")
            if found:
                return address.strip()
        assert process.poll() is None, _said(log)
        time.sleep(0.05)
    raise AssertionError("chromium does not start: " + _said(log))


def _said(log: Path) -> str:
    return log.read_text(errors="replace")

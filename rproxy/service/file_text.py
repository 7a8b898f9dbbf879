"""The text of PDF files, for providers that take no files.

Reading them is long work on untrusted bytes, so it happens in a process of its own
(:mod:`rproxy.service.pdf_worker`), with limits of size, memory, time and number of processes.  It needs the
package ``pypdf``, the extra ``pdf``; without it, such a request is refused with an error that says how to
install it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import OrderedDict
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from typing import Dict, Iterable, Mapping, NamedTuple, Sequence, Tuple

from ..convert.profile import Profile
from ..convert.request.files import pdf_files, with_texts
from ..cooperative import in_thread_if
from ..errors import ApiError, invalid_value
from ..types import AnyItem

TIMEOUT = 20.0  # seconds for all files of a request, waiting for a free process included
WORKERS = 2  # processes at a time
MAX_FILE = 32 << 20  # bytes
MAX_REMEMBERED = 16 << 20  # characters of text
WORKER = "rproxy.service.pdf_worker"
ROOT = os.path.abspath(os.sep)  # where workers run: the current directory must not offer modules


class FileTexts:
    """Reads PDF files and remembers their texts: a file stays in the history of its conversation.

    :param timeout: seconds for all files of a request
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._texts: OrderedDict[bytes, str] = OrderedDict()  # most recently used last
        self._size = 0  # characters in them

    async def readable(
        self, items: Sequence[AnyItem], profile: Profile, short: bool = True
    ) -> Sequence[AnyItem]:
        """``items`` as ``profile`` needs them: with the texts of the PDF files, if the provider accepts no
        files.

        :param short: searching them takes a few milliseconds
        :raises ApiError: 400, when a file cannot be read
        """
        if "file" in profile.modalities:
            return items
        files = await in_thread_if(not short, lambda: [*pdf_files(items)])
        if not files:
            return items
        texts = await self._read(files)
        return await in_thread_if(not short, lambda: with_texts(items, texts))

    async def _read(self, files: Iterable[Tuple[str, str]]) -> Mapping[str, str]:
        """The texts of PDF files, by their ``file_data``; "" for a file without text.

        :param files: see :func:`~rproxy.convert.request.files.pdf_files`
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        texts: Dict[str, str] = {}
        for name, data in files:
            if data in texts:
                continue
            if len(data) > MAX_FILE * 4 // 3 + 1000:
                raise _refused(name, f"it is larger than {MAX_FILE >> 20} MiB")
            file = await loop.run_in_executor(None, _encoded, data)
            if file.digest not in self._texts:
                self._remember(file.digest, await self._text(name, file.content, end - loop.time()))
            self._texts.move_to_end(file.digest)
            texts[data] = self._texts[file.digest]
        return texts

    async def _text(self, name: str, content: bytes, timeout: float) -> str:
        if find_spec("pypdf") is None:
            raise _refused(
                name,
                "that needs the Python package pypdf on the server (pip install 'rproxy-responses[pdf]')",
            )
        try:
            return await asyncio.wait_for(self._in_worker(content), timeout)
        except asyncio.TimeoutError:
            raise _refused(name, f"that takes more than {self._timeout:g} seconds") from None

    async def _in_worker(self, content: bytes) -> str:
        """The text of a file; "" when the worker could not read it."""
        async with self._free_workers:
            # A process that is being started must not be lost when the client leaves.
            starting = asyncio.ensure_future(_start_worker())
            try:
                text, _ = await (await asyncio.shield(starting)).communicate(content)
            finally:
                worker = await starting
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
        return text.decode("utf-8", "replace") if worker.returncode == 0 else ""

    @cached_property
    def _free_workers(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(WORKERS)  # made in the event loop, as Python 3.9 requires

    def _remember(self, digest: bytes, text: str) -> None:
        self._texts[digest] = text
        self._size += len(text)
        while self._size > MAX_REMEMBERED and len(self._texts) > 1:
            _, oldest = self._texts.popitem(last=False)
            self._size -= len(oldest)


class _Encoded(NamedTuple):
    """A file as base64, without the head of a data URL."""

    content: bytes
    digest: bytes


def _encoded(data: str) -> _Encoded:
    content = data.rpartition(",")[2].encode("ascii", "ignore")
    return _Encoded(content, sha256(content).digest())


async def _start_worker() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        WORKER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_environment(),
        cwd=ROOT,
    )


def _environment() -> Dict[str, str]:
    """What Python needs to start and to find the same modules; no keys."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def _refused(name: str, reason: str) -> ApiError:
    return invalid_value(
        f"This model's provider takes no files, and rproxy cannot read {name[:200]}: {reason}. "
        "Send its text as input_text."
    )

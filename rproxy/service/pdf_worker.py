"""The process that reads one PDF file: ``python -m rproxy.service.pdf_worker``.

A client's file may be made to take forever or to fill the memory.  Here the operating system's limits apply,
and the server can kill a process that takes too long (:mod:`rproxy.service.file_text`).

stdin: the file, as base64.  stdout: its text in UTF-8, one line for each line.  Exit status 0: the file was
read, even if it has no text.
"""

from __future__ import annotations

import base64
import io
import sys
from importlib import import_module
from typing import List

MAX_MEMORY = 1 << 30  # bytes of address space
MAX_TEXT = 8 << 20  # characters


def pdf_text(data: bytes) -> str:
    """The text of all pages, cut at ``MAX_TEXT``."""
    reader = import_module("pypdf").PdfReader(io.BytesIO(data))
    pages: List[str] = []
    size = 0
    for page in reader.pages:
        pages.append(page.extract_text().strip()[: MAX_TEXT - size])
        size += len(pages[-1])
        if size >= MAX_TEXT:
            break
    return "\n".join(filter(None, pages))


def limit_memory() -> None:
    """Limit the address space of this process, if the system supports it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def main() -> None:
    """Read a file from stdin, and write its text to stdout."""
    limit_memory()
    text = pdf_text(base64.b64decode(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()

"""Shows an answer while it arrives: its text on stdout, its thinking dimmed on stderr.

A :class:`Printer` takes the events of one turn (:class:`~rproxy.service.client.EventSink`).  When the reader
of stdout has gone (``| head -1``), it calls ``on_closed`` and prints nothing more.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Awaitable, Callable, Iterator, List, Mapping, Optional, Sequence, TextIO, cast

from ...log import CONTROL
from ...types import Event, Json, Response
from ..command import discard_stdout

DIM, RESET = "\x1b[2m", "\x1b[0m"
THINKING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
ENDS = ("response.completed", "response.incomplete", "response.failed")


def use_utf8() -> None:
    """Read and write UTF-8, whatever the locale says."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def is_coloured(stream: Optional[TextIO], environ: Mapping[str, str]) -> bool:
    """May there be colours?  Not in a file or a pipe, nor where the user wants none (no-color.org)."""
    return is_terminal(stream) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Is it a terminal?"""
    with contextlib.suppress(ValueError):  # it is closed
        return stream is not None and stream.isatty()
    return False


# ---- Values from a server may have any type
def object_in(value: Any) -> Json:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_in(value: Any) -> List[Json]:
    """The objects in a list; none if ``value`` is something else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


class Printer:
    """Shows one answer.

    ``response``: the final Response object, ``error``: that of an ``error`` event, once they have come.
    ``warnings``: about parts of the request that were changed or left out.  ``closed``: stdout is closed.
    ``shown``: text of the answer has been printed.

    :param form: ``text``, ``events``, or ``nothing``: the caller prints the whole
    :param thinking: whether thinking is shown
    """

    def __init__(self, form: str, thinking: bool, environ: Mapping[str, str]) -> None:
        self.form = form
        self._thinking = thinking
        self._dim = is_coloured(sys.stderr, environ)
        self._terminals = {stream: is_terminal(stream) for stream in (sys.stdout, sys.stderr)}
        self._open: Optional[TextIO] = None  # its last line has no end yet
        self._message: Optional[int] = None  # the output_index of the last text
        self.response: Optional[Response] = None
        self.error: Optional[Json] = None
        self.warnings: Sequence[str] = ()
        self.closed = False
        self.shown = False
        self.on_closed: Callable[[], object] = lambda: None

    # ---- EventSink
    @property
    def blocked(self) -> bool:
        return False

    def begin(self, response: Response, headers: Mapping[str, str]) -> None:
        pass

    def send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        """Show what the events say."""
        if not self.closed:
            with self._stdout():
                for event in events:
                    self._take(event)
        return None

    async def send_large(self, events: Sequence[Event]) -> None:
        self.send(events)

    # ---- What is shown
    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind in ENDS:
            response = object_in(event.get("response"))
            self.response = cast(Response, response) if response else None
        elif kind == "error":
            self.error = object_in(event.get("error")) or {"message": event.get("error"), **event}
        if self.form == "events":
            self._write(sys.stdout, json.dumps(event, ensure_ascii=False) + "\n")
        elif kind in THINKING and self._thinking:
            self._think(str(event.get("delta", "")))
        elif kind == "response.output_text.delta" and self.form == "text":
            self._say(str(event.get("delta", "")), event.get("output_index", 0))

    def _say(self, text: str, message: int) -> None:
        if self._open is sys.stderr or self._message not in (None, message):
            self.end_line()
        self._message = message
        self.shown = self.shown or bool(text)
        self._write(sys.stdout, text)

    def _think(self, text: str) -> None:
        if self._open is sys.stdout and self._terminals[sys.stdout]:
            self.end_line()
        try:
            self._write(sys.stderr, f"{DIM}{CONTROL.sub('', text)}{RESET}" if self._dim else text)
            _flush(sys.stderr)
        except BrokenPipeError:
            self._thinking = False

    def _write(self, stream: Optional[TextIO], text: str) -> None:
        if stream is None or not text:
            return
        if self._terminals[stream] and not (stream is sys.stderr and self._dim):
            text = CONTROL.sub("", text)
        stream.write(text)
        plain = text[: -len(RESET)] if text.endswith(RESET) else text
        self._open = None if plain.endswith("\n") else stream

    def end_line(self) -> None:
        """End a line that has no end yet."""
        if self._open is not None and not self.closed:
            self._write(self._open, "\n")

    def whole(self, text: str) -> None:
        """Print a whole text."""
        with self._stdout():
            self._write(sys.stdout, text if text.endswith("\n") else text + "\n")

    def finish(self) -> None:
        """End the last line."""
        with self._stdout():
            self.end_line()

    @contextlib.contextmanager
    def _stdout(self) -> Iterator[None]:
        """Flush stdout in the end; if it is closed, drop the text that Python still has for it."""
        try:
            yield
            _flush(sys.stdout)
        except BrokenPipeError:
            self.closed = True
            discard_stdout()
            self.on_closed()


def _flush(stream: Optional[TextIO]) -> None:
    if stream is not None:
        stream.flush()

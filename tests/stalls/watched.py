"""``rproxy`` with a watch on it: how long a step of its event loop takes, in CPU time.

Who else uses the machine does not change these figures, as it changes what ``/health`` takes.  There are two,
because others wait for both: the longest *step*, from one turn of the event loop to the next, and the longest
*hold*, for which one thread has kept the interpreter from all others, as a C function does.

SIGUSR1 writes what there was since the last one to the file that ``$STALLS_WATCH`` names.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Dict, List, Optional

LOOK = 0.004  # seconds between two looks
WORTH_A_LOOK = 0.01  # seconds; shorter steps are not looked at
FRAMES = 9


def stack(frame: Optional[FrameType]) -> str:
    """The innermost functions of a stack.

    Nobody may hold on to the frame: it would keep the function's variables, and a text that grows would be
    copied, because somebody else refers to it.
    """
    found: List[str] = []
    while frame is not None and len(found) < FRAMES:
        code = frame.f_code
        found.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


class Watch:
    """Measures from its making on; ``main`` is the thread of the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._main = threading.main_thread().ident
        self._began = 0.0  # when the present step did, in seconds of the main thread; 0: there is none
        self._seen: List[str] = []  # of the present step
        self._collecting = 0.0
        self._forget()
        self._run = asyncio.Handle._run
        asyncio.Handle._run = self._timed()  # type: ignore[method-assign]
        gc.callbacks.append(self._collects)
        signal.signal(signal.SIGUSR1, lambda *_: self._write())
        threading.Thread(target=self._look, daemon=True).start()

    def _forget(self) -> None:
        self._longest: Dict[str, Any] = {"step": 0.0, "hold": 0.0, "collection": 0.0, "where": [], "held": []}

    def _write(self) -> None:
        found = {
            key: value * 1000 if isinstance(value, float) else value for key, value in self._longest.items()
        }
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(json.dumps(found))
        unfinished.rename(self._path)
        self._forget()

    def _timed(self) -> Any:
        def run(handle: asyncio.Handle) -> None:
            self._began, self._seen = time.monotonic(), []
            before = time.thread_time()
            try:
                self._run(handle)
            finally:
                took, self._began = time.thread_time() - before, 0.0
                if took > self._longest["step"]:
                    self._longest.update(step=took, where=self._seen)

        return run

    def _collects(self, phase: str, info: Dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
            return
        took = now - self._collecting
        self._longest["collection"] = max(self._longest["collection"], took)
        if took > WORTH_A_LOOK:
            self._seen.append(f"garbage of generation {info['generation']}: {took * 1000:.0f} ms")

    def _look(self) -> None:
        while True:
            before, used = time.monotonic(), time.process_time()
            time.sleep(LOOK)
            now, held = time.monotonic(), time.process_time() - used
            began = self._began
            if began and now - began > WORTH_A_LOOK:
                seen = stack(sys._current_frames().get(self._main or 0))
                self._seen.append(f"{(now - began) * 1000:.0f} ms: {seen}")
            if now - before > LOOK + WORTH_A_LOOK and held > self._longest["hold"]:
                mine = threading.get_ident()
                stacks = [stack(frame) for ident, frame in sys._current_frames().items() if ident != mine]
                self._longest.update(hold=held, held=stacks)


if __name__ == "__main__":
    Watch(Path(os.environ["STALLS_WATCH"]))
    from rproxy.cli.main import main

    sys.exit(main(sys.argv[1:]))

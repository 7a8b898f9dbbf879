"""What a test leaves open makes that test fail, and not the next one."""

from __future__ import annotations

import asyncio
import os
from typing import Callable

import pytest
from conftest import close, watched
from tornado.ioloop import IOLoop

from rproxy.server.speedups import event_loops


@pytest.mark.parametrize("make", [asyncio.new_event_loop, event_loops().new_event_loop])
def test_what_is_left_open_is_closed_and_named(
    make: Callable[[], asyncio.AbstractEventLoop], io_loop: IOLoop
) -> None:
    loop, kept = make(), []  # type: ignore[var-annotated]
    asyncio.set_event_loop(loop)
    tornado_loop, processes = IOLoop.current(), watched(loop)

    async def leave(*command: str) -> int:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        kept.append(process)
        return process.pid

    async def leave_a_pipe() -> None:
        await leave("head", "-c", "1000000", "/dev/zero")
        kept[-1].kill()
        await kept[-1].wait()

    async def leave_a_server() -> None:
        kept.append(await asyncio.start_server(lambda *streams: None, "127.0.0.1", 0))

    loop.run_until_complete(leave_a_pipe())
    running = loop.run_until_complete(leave("sleep", "30"))
    if make is not asyncio.new_event_loop:  # whose servers do not complain
        loop.run_until_complete(leave_a_server())
    left = close(tornado_loop, processes)
    asyncio.set_event_loop(io_loop.asyncio_loop)  # type: ignore[attr-defined]
    assert loop.is_closed() and left[0] == "the process 'sleep 30' was running"
    assert all("TCPServer" in one for one in left[1:])
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)

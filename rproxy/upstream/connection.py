"""One keep-alive HTTP/1.1 connection to a provider: a socket read straight from the event loop.

Reading costs one callback per arrival: ``recv``, parse, call the receiver.  (A Tornado IOStream costs twice
that, because its reads go through a future and so through another turn of the loop.)  A connection is in one
of four states:

    FREE      nothing is asked; any byte or a close from the other side ends it, for nobody could say what the bytes answer
    BUSY      an exchange runs, and its caller waits
    DRAINING  the caller has heard enough; the end of the body may still come for a moment and make the connection FREE
    CLOSED

The limits are on silence, never on duration: any byte, read or written, re-arms them.  A read only notes the
time and the timer looks at that note when it fires, so that a stream of many small events does no work on
timers; nor do exchanges, for the timer of one stays for the next and, if it fires too early, goes back to
sleep.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
import time
from functools import partial
from typing import Awaitable, Callable, List, Optional, Protocol, Tuple, cast

from tornado.httpclient import HTTPClientError
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from .parser import Head, ProtocolError, ResponseParser

READ_SIZE = 65536
ONE_PACKET = 65536  # bytes; head and body of a smaller request go out together, which saves a system call
LINGER = 0.1  # seconds that the end of a body may come after the last bytes that were of interest
_TRY_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TransportError(HTTPClientError):
    """There is no (complete) answer; the one error of this client, with Tornado's code 599 for that.

    ``kind``: ``connect`` (no connection), ``timeout``, ``reset`` (the connection broke) or ``protocol`` (not
    HTTP/1.1). ``answered``: bytes of an answer had come.  ``real_error``: the system's exception behind it,
    if there is one.
    """

    def __init__(
        self, kind: str, message: str, answered: bool = False, real_error: Optional[BaseException] = None
    ) -> None:
        super().__init__(599, message)
        self.kind = kind
        self.answered = answered
        self.real_error = real_error

    def __str__(self) -> str:
        return str(self.message)


class StopReading(Exception):
    """Raised by a ``streaming_callback`` that needs no more of the body: the fetch ends well, at once.

    Many providers send ``[DONE]`` in one packet and the end of the body in the next; the connection waits for
    that in the background for ``LINGER`` seconds and can then be used again, while a cancelled fetch closes
    it.
    """


class CancelToken:
    """Ends from outside whatever holds it.  A cancelled exchange ends as if its answer were complete; its
    connection is closed, so that the server stops, too.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._callback: Optional[Callable[[], object]] = None

    def cancel(self) -> None:
        """Call what :meth:`on_cancel` was given last.  A second call has no effect."""
        if not self.cancelled:
            self.cancelled = True
            self.on_cancel(self._callback)

    def on_cancel(self, callback: Optional[Callable[[], object]]) -> None:
        """From now on, cancelling means to call ``callback``, in place of the one before.

        :param callback: called at once if the token is cancelled already; None: there is nothing to end
        """
        self._callback = callback
        if self.cancelled and callback is not None:
            callback()


OnData = Callable[[bytes], Optional[Awaitable[None]]]


def silence(limit: float, began: bool, answered: bool) -> TransportError:
    """Nothing came for ``limit`` seconds.

    ``began``: the head of an answer had come; ``answered``: a byte of it
    """
    text = "{} for {:g} s".format("nothing came" if began else "no answer came", limit)
    return TransportError("timeout", text, answered, TimeoutError(text))


class Receiver(Protocol):
    """Who gets the answer. The methods may raise; the exchange then ends with that very exception."""

    def on_sent(self) -> None:
        """The request is on its way."""

    def on_head(self, head: Head) -> OnData:
        """:returns: what to call with each piece of the body"""

    def on_end(self) -> None: ...


class State(enum.Enum):
    FREE, BUSY, DRAINING, CLOSED = "free", "busy", "draining", "closed"


class Connection:
    """:arg on_state: told of each FREE and of CLOSED"""

    def __init__(self, sock: socket.socket, on_state: Callable[[Connection], None]) -> None:
        self.state = State.FREE
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._selector = cast(
            BaseAsyncIOLoop, IOLoop.current()
        ).selector_loop  # not every loop of asyncio can watch a socket
        self._reading = self._writing = False  # what it watches for
        self._parser = ResponseParser()
        self._receiver: Optional[Receiver] = None
        self._deliver: Optional[OnData] = None  # there is a receiver, and it has the head
        self._future: Optional[asyncio.Future[None]] = None
        self._pause: Optional[asyncio.Future[None]] = None
        self._pause_is_ours = False
        self._output: List[memoryview] = []
        self._timer: Optional[asyncio.TimerHandle] = None
        self._due = 0.0  # when the timer fires
        self._limits: Tuple[float, float] = (0.0, 0.0)
        self._limit = 0.0
        self._last = 0.0  # when a byte was last read or written
        self._answered = False
        self._broken = False  # it cannot be written any more
        self._watch()

    async def exchange(
        self,
        request: List[bytes],
        parser: ResponseParser,
        receiver: Receiver,
        stop: CancelToken,
        first_byte_timeout: float = 0,
        idle_timeout: float = 0,
    ) -> None:
        """Send ``request`` and read the answer into ``receiver``; afterwards the connection is free or
        closed.

        :arg first_byte_timeout: seconds of silence before the head of the answer is complete, 0 for no limit
        :arg idle_timeout: the same for the body
        :raises TransportError: kinds timeout, reset and protocol
        """
        assert self.state is State.FREE
        self.state = State.BUSY
        self._parser, self._receiver, self._answered = parser, receiver, False
        self._limits = (first_byte_timeout, idle_timeout)
        future = self._future = self._loop.create_future()
        small = sum(map(len, request)) <= ONE_PACKET
        self._output = (
            [memoryview(b"".join(request))] if small else [memoryview(piece) for piece in request if piece]
        )
        self._arm(first_byte_timeout)
        self._write()
        try:
            stop.on_cancel(partial(self._stop, future))
            receiver.on_sent()
            await future
        except BaseException:
            if self._future is future:  # as in _stop()
                self.close()
            raise
        finally:
            stop.on_cancel(None)

    def _stop(self, future: asyncio.Future[None]) -> None:
        if self._future is future:  # otherwise it ended just before, and may already serve another request
            self.close()
            if not future.done():  # cancelled just now
                future.set_result(None)

    def close(self) -> None:
        """Close the socket now, whatever goes on. Does nothing the second time."""
        if self.state is State.CLOSED:
            return
        self._release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.state = State.CLOSED
        self._output = []
        self._watch()
        self._sock.close()
        self._on_state(self)

    # How an exchange ends...

    def _release(self) -> Optional[asyncio.Future[None]]:
        """Forget the caller, its callbacks and its limits."""
        future, self._future, self._receiver, self._deliver = self._future, None, None, None
        self._arm(0)
        pause, self._pause = self._pause, None
        if pause is not None and self._pause_is_ours:
            pause.cancel()
        return future

    def _finish(self) -> None:
        future = self._release()
        if self._parser.reusable and not self._output and not self._broken:
            self.state = State.FREE
            self._watch()
            self._on_state(self)
        else:  # also when it answered before it had taken the whole request
            self.close()
        if future is not None and not future.done():
            future.set_result(None)

    def _fail(self, error: BaseException) -> None:
        future = self._release()
        self.close()
        if future is not None and not future.done():
            future.set_exception(error)

    def _drain(self) -> None:
        future = self._release()
        self.state = State.DRAINING
        self._limit = LINGER
        self._wake_in(LINGER)
        if future is not None and not future.done():
            future.set_result(None)

    # Limits...

    def _arm(self, limit: float) -> None:
        """From now on there may be silence for ``limit`` seconds, or (0) for ever."""
        self._last, self._limit = time.monotonic(), limit
        if limit and (self._timer is None or self._due > self._last + limit):
            self._wake_in(limit)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._limit:
            return
        left = self._last + self._limit - time.monotonic()
        if self._pause is not None:  # the silence is ours
            left = self._limit
        if left > 0 and self.state is State.BUSY:
            return self._wake_in(left)
        self._fail(silence(self._limit, self._parser.head is not None, self._answered))

    # The socket...

    def _watch(self) -> None:
        reading = self._pause is None and self.state is not State.CLOSED
        writing = bool(self._output)
        loop, sock = self._selector, self._sock
        if reading is not self._reading:
            loop.add_reader(sock, self._read) if reading else loop.remove_reader(sock)
        if writing is not self._writing:
            loop.add_writer(sock, self._write) if writing else loop.remove_writer(sock)
        self._reading, self._writing = reading, writing

    def _write(self) -> None:
        try:
            while self._output:
                sent = self._sock.send(self._output[0])
                self._last = time.monotonic()
                self._output[0] = self._output[0][sent:]
                if not self._output[0]:
                    del self._output[0]
        except _TRY_LATER:
            pass
        except OSError:
            # The provider may have answered (401, 413) before it closed, so let the reading side say how this
            # ends.  It will not wait: a socket that cannot be written any more is always readable.
            self._output = []
            self._broken = True
        self._watch()

    def _read(self) -> None:
        again = True
        while again:
            try:
                data = self._sock.recv(READ_SIZE)
            except _TRY_LATER:
                return
            except OSError as error:
                return self._fail(
                    TransportError("reset", f"the connection broke: {error}", self._answered, error)
                )
            self._last = time.monotonic()
            self._answered = self._answered or bool(data)
            if self._receiver is None and self.state is not State.DRAINING:
                return self.close()
            self._take(data)
            # what TLS has decrypted already is not announced by the loop
            again = (
                self._tls is not None
                and self._pause is None
                and self.state is not State.CLOSED
                and self._tls.pending() > 0
            )

    def _take(self, data: bytes) -> None:
        """What came (nothing: the other side closed) goes through the parser to the receiver."""
        parser = self._parser
        try:
            body = parser.feed(data) if data else parser.feed_eof()
            if self._deliver is None and self._receiver is not None and parser.head is not None:
                self._arm(self._limits[1])
                self._deliver = self._receiver.on_head(parser.head)
            if body and self._deliver is not None:
                wait_for = self._deliver(body)
                if wait_for is not None:
                    self._hold(wait_for)
            if parser.done and self._receiver is not None:
                self._receiver.on_end()
        except StopReading:
            if not parser.done:
                self._drain()
        except ProtocolError as error:
            self._fail(_as_transport_error(error, self._answered))
        except (Exception, asyncio.CancelledError) as error:  # the receiver's own: it belongs to the caller
            self._fail(error)
        if self._parser.done and self._pause is None and self.state in (State.BUSY, State.DRAINING):
            self._finish()

    # Backpressure...

    def _hold(self, wait_for: Awaitable[None]) -> None:
        """Read no more until the receiver is ready."""
        self._pause = pause = asyncio.ensure_future(wait_for)
        self._pause_is_ours = (
            pause is not wait_for
        )  # a task for a coroutine; a future belongs to whoever made it
        self._watch()
        pause.add_done_callback(self._resume)

    def _resume(self, pause: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if pause.cancelled() else pause.exception()
        if pause is not self._pause:  # the exchange ended meanwhile
            return
        self._pause = None
        self._last = time.monotonic()
        if error is not None:
            self._fail(error)
        elif self._parser.done:
            self._finish()
        else:
            self._watch()
            if self._tls is not None:  # it may hold bytes that the loop does not announce
                self._read()


def _as_transport_error(error: ProtocolError, answered: bool) -> TransportError:
    if error.truncated:
        return TransportError("reset", str(error), answered, ConnectionResetError(str(error)))
    return TransportError("protocol", str(error), answered)

"""One keep-alive HTTP/1.1 connection to a provider: a socket read straight from the event loop.

Reading costs one callback per arrival: ``recv``, parse, call the receiver.  (A Tornado IOStream costs twice
that, because its reads go through a future and therefore through another turn of the loop.)  A connection is
in one of four states:

    IDLE      no request is under way; any byte, and a close by the server, ends the connection
    BUSY      an exchange is under way
    ENDING    the receiver needs no more; the end of the body may still arrive and make the connection IDLE
    CLOSED

All time limits are limits on silence: any byte, read or written, restarts them.  A read only notes the time,
and the timer compares when it fires, so that a stream of many small events does no work on timers.  The next
exchange inherits the timer; if it fires too early, it is set again.

When bytes and a reset arrive together, uvloop (0.23) announces both once, and nothing ever after.  So with it
there is a second look when nothing more has come for a moment.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
import time
from typing import Awaitable, Callable, List, Optional, Protocol, Tuple, cast

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from .parser import Head, ProtocolError, ResponseParser
from .transport import OnData, StopReading, TransportError

READ_SIZE = 65536
ONE_PACKET = 65536  # bytes; head and body of a smaller request go out together, which saves a system call
LATE_END_TIMEOUT = 0.1  # seconds in the state ENDING before the connection is closed
SECOND_LOOK = 0.25  # seconds of silence after which uvloop may have lost an event
_TRY_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Receiver(Protocol):
    """Gets the response of one exchange.  ``on_head`` and ``on_end`` may raise: that ends the exchange."""

    def on_head(self, head: Head) -> OnData:
        """The head is complete.

        :returns: what to call with each piece of the body; it may raise, too
        """

    def on_end(self) -> None:
        """The body is complete."""

    def on_done(self, error: Optional[BaseException]) -> None:
        """The exchange is over; called once, and nothing is called afterwards.

        :param error: why the response is not complete: a :class:`TransportError`, or what the receiver raised
        """


class State(enum.Enum):
    IDLE, BUSY, ENDING, CLOSED = "idle", "busy", "ending", "closed"


class Connection:
    """A connection that is open and idle.

    :param sock: connected and non-blocking; the connection owns it
    :param on_state: called whenever the state has become IDLE or CLOSED
    """

    def __init__(self, sock: socket.socket, on_state: Callable[[Connection], None]) -> None:
        self.state = State.IDLE
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        # not every asyncio loop can watch a socket, but Tornado has one that can
        self._selector = cast(BaseAsyncIOLoop, IOLoop.current()).selector_loop
        self._reading = self._writing = False  # what the loop watches for
        self._parser = ResponseParser()
        self._receiver: Optional[Receiver] = None
        self._deliver: Optional[OnData] = None  # set once the receiver has the head
        self._pause: Optional[asyncio.Future[None]] = None
        self._pause_is_ours = False
        self._output: List[memoryview] = []
        self._timer: Optional[asyncio.TimerHandle] = None
        self._due = 0.0  # when the timer fires
        self._limits: Tuple[float, float] = (0.0, 0.0)
        self._limit = 0.0
        self._last = 0.0  # when a byte was last read or written
        self._answered = False
        self._broken = False  # the socket cannot be written any more
        self._look_twice = type(self._selector).__module__ == "uvloop"
        self._second_look: Optional[asyncio.TimerHandle] = None
        self._watch()

    def exchange(
        self,
        request: List[bytes],
        parser: ResponseParser,
        receiver: Receiver,
        first_byte_timeout: float = 0,
        idle_timeout: float = 0,
    ) -> None:
        """Start to send ``request``, and to read the response into ``receiver``.

        :param first_byte_timeout: seconds of silence before the head is complete, 0 for no limit
        :param idle_timeout: seconds of silence within the body, 0 for no limit
        """
        assert self.state is State.IDLE
        self.state = State.BUSY
        self._parser, self._receiver, self._answered = parser, receiver, False
        self._limits = (first_byte_timeout, idle_timeout)
        small = sum(map(len, request)) <= ONE_PACKET
        self._output = (
            [memoryview(b"".join(request))] if small else [memoryview(piece) for piece in request if piece]
        )
        self._arm(first_byte_timeout)
        self._write()

    def close(self) -> None:
        """Close the socket now, in any state; the receiver is not notified.  A second call has no effect."""
        if self.state is State.CLOSED:
            return
        self._release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._second_look is not None:
            self._second_look.cancel()
            self._second_look = None
        self.state = State.CLOSED
        self._output = []
        self._watch()
        self._sock.close()
        self._on_state(self)

    # ---- How an exchange ends
    def _release(self) -> Optional[Receiver]:
        """Let go of the receiver, its limits and the awaitable it returned."""
        receiver, self._receiver, self._deliver = self._receiver, None, None
        self._arm(0)
        pause, self._pause = self._pause, None
        if pause is not None and self._pause_is_ours:
            pause.cancel()
        return receiver

    def _finish(self) -> None:
        receiver = self._release()
        # a server may respond before it has read the whole request; the rest would be its next one
        if self._parser.reusable and not self._output and not self._broken:
            self.state = State.IDLE
            self._watch()
            self._on_state(self)
        else:
            self.close()
        if receiver is not None:
            receiver.on_done(None)

    def _fail(self, error: BaseException) -> None:
        receiver = self._release()
        self.close()
        if receiver is not None:
            receiver.on_done(error)

    def _stop_reading(self) -> None:
        receiver = self._release()
        self.state = State.ENDING
        self._limit = LATE_END_TIMEOUT
        self._wake_in(LATE_END_TIMEOUT)
        if receiver is not None:
            receiver.on_done(None)

    # ---- Time limits
    def _arm(self, limit: float) -> None:
        """Allow ``limit`` seconds of silence from now on; 0 for no limit."""
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
        if self._pause is not None:  # the server is not silent, it is not being read
            left = self._limit
        if left > 0 and self.state is State.BUSY:
            return self._wake_in(left)
        began = self._parser.head is not None
        text = f"{'nothing more' if began else 'no response'} arrived for {self._limit:g} s"
        self._fail(TransportError("timeout", text, self._answered, TimeoutError(text)))

    # ---- The socket
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
            # The server may have responded (401, 413) before it closed, so let the reading side find out how
            # this ends.  It will not wait: a socket that cannot be written any more is always readable.
            self._output = []
            self._broken = True
            self._loop.call_soon(self._read)  # the loop may have announced that already
        self._watch()

    def _look_again(self) -> None:
        """Read if nothing has been read for a moment; one look after the last bytes is enough."""
        self._second_look = None
        left = self._last + SECOND_LOOK - time.monotonic()
        if left > 0:
            self._second_look = self._loop.call_later(left, self._look_again)
        elif self._pause is None:
            self._read()

    def _read(self) -> None:
        again = self.state is not State.CLOSED
        while again:
            try:
                data = self._sock.recv(READ_SIZE)
            except _TRY_LATER:
                return
            except OSError as error:
                text = f"the connection was lost: {error}"
                return self._fail(TransportError("reset", text, self._answered, error))
            self._last = time.monotonic()
            if self._look_twice and self._second_look is None:
                self._second_look = self._loop.call_later(SECOND_LOOK, self._look_again)
            self._answered = self._answered or bool(data)
            if self._receiver is None and self.state is not State.ENDING:
                return self.close()
            self._take(data)
            # the loop does not announce what TLS has decrypted already
            again = (
                self._tls is not None
                and self._pause is None
                and self.state is not State.CLOSED
                and self._tls.pending() > 0
            )

    def _take(self, data: bytes) -> None:
        """Parse what was read (nothing: the server closed) and pass it to the receiver."""
        parser = self._parser
        broken: Optional[ProtocolError] = None
        try:
            try:
                body = parser.feed(data) if data else parser.feed_eof()
            except ProtocolError as error:  # the data before it counts, in the same read or not
                body, broken = parser.take_body(), error
            if self._deliver is None and self._receiver is not None and parser.head is not None:
                self._arm(self._limits[1])
                deliver = self._receiver.on_head(parser.head)
                # on_head may have closed the connection
                self._deliver = deliver if self._receiver is not None else None
            if body and self._deliver is not None:
                wait_for = self._deliver(body)
                if wait_for is not None:
                    self._hold(wait_for)
            if broken is not None:
                raise broken
            if parser.done and self._receiver is not None:
                self._receiver.on_end()
        except StopReading:
            if not parser.done and self.state is State.BUSY:
                self._stop_reading()
        except ProtocolError as error:
            self._fail(_as_transport_error(error, self._answered))
        except (Exception, asyncio.CancelledError) as error:  # raised by the receiver
            self._fail(error)
        broken = None  # it refers to this frame
        if self._parser.done and self._pause is None and self.state in (State.BUSY, State.ENDING):
            self._finish()

    # ---- Backpressure
    def _hold(self, wait_for: Awaitable[None]) -> None:
        """Read no more until the receiver is ready."""
        pause = asyncio.ensure_future(wait_for)
        # a coroutine has become a task of ours; a future belongs to its maker
        ours = pause is not wait_for
        if self.state is not State.BUSY:  # the receiver has closed the connection
            if ours:
                pause.cancel()
            return
        self._pause, self._pause_is_ours = pause, ours
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

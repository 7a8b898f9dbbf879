"""The vocabulary of one exchange with a server: how it fails, and how its caller ends it early."""

from __future__ import annotations

from typing import Awaitable, Callable, Optional

from tornado.httpclient import HTTPClientError

# Gets a piece of a body.  Nothing more is read until the awaitable that it may return is done.
OnData = Callable[[bytes], Optional[Awaitable[None]]]


class TransportError(HTTPClientError):
    """There is no complete response.  The one error of the client, with Tornado's code 599 for that.

    ``kind``: ``connect`` (no connection), ``timeout``, ``reset`` (the connection was lost) or ``protocol``
    (not HTTP/1.1).  ``answered``: at least one byte of a response had arrived.  ``response``: status, headers
    and body as far as they had arrived, None before the end of the head.  ``real_error``: the exception
    behind it, if there is one.
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


class PrivateAddress(OSError):
    """A host that has to be on the internet is not, or one of its addresses is not."""


class StopReading(Exception):
    """Raised by a ``streaming_callback`` that needs no more of the body: the fetch succeeds at once.

    Many providers send ``[DONE]`` in one packet and the end of the body in the next.  The connection waits
    for that end in the background for a moment and can then be used again; cancelling would close it.
    """


class CancelToken:
    """Ends an operation from outside.  A cancelled fetch succeeds with what has arrived, and its
    connection is closed, so that the server stops generating.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._callback: Optional[Callable[[], object]] = None

    def cancel(self) -> None:
        """Call the last callback of :meth:`on_cancel`.  A second call has no effect."""
        if not self.cancelled:
            self.cancelled = True
            self.on_cancel(self._callback)

    def on_cancel(self, callback: Optional[Callable[[], object]]) -> None:
        """From now on, cancelling calls ``callback`` instead of the previous one.

        :param callback: called at once if the token is cancelled already; None: there is nothing to end
        """
        self._callback = callback
        if self.cancelled and callback is not None:
            callback()

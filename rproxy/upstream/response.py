"""One response while it arrives: decodes the body, passes it on or keeps it.

The body of a 2xx response goes to the request's ``streaming_callback``.  Without one, and for every other
status, it is kept for ``HTTPResponse.body``: what a provider says about a refusal is needed as a whole.
"""

from __future__ import annotations

import io
from typing import Awaitable, Callable, Optional

from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPHeaders

from ..cooperative import Slices
from .parser import GzipDecoder, Head, ProtocolError
from .request import PreparedRequest
from .transport import OnData, StopReading

MAX_BODY = 100 << 20  # bytes of a 2xx body without a streaming_callback; Tornado's own limit
PIECE = 1 << 16  # bytes of a decoded body that are passed on at once, as many as one read has
MAX_ERROR_BODY = 1 << 20  # bytes of any other body; what exceeds them is cut off


class ResponseReader:
    """The response to one request.

    :param request: its callbacks are called
    """

    def __init__(self, request: PreparedRequest) -> None:
        self._request = request
        self._head: Optional[Head] = None
        self._headers = HTTPHeaders()
        self._success = False  # 2xx
        self._decoder: Optional[GzipDecoder] = None
        self._callback: Optional[OnData] = None
        self._body = bytearray()
        self._room = MAX_ERROR_BODY

    @property
    def has_head(self) -> bool:
        return self._head is not None

    @property
    def refused(self) -> bool:
        """Is the status known, and not 2xx?"""
        return self._head is not None and not self._success

    def on_head(self, head: Head) -> OnData:
        """The head is complete.

        :returns: what to call with each piece of the body
        :raises ProtocolError: the body has a coding that was not asked for
        """
        self._head = head
        for name, value in head.headers:
            self._headers.add(name, value)
        self._success = 200 <= head.status < 300
        self._decide_on_coding(head)
        if self._request.header_callback is not None:
            _call_with_lines(self._request.header_callback, head)
        if self._success:
            self._room = MAX_BODY
            self._callback = self._request.streaming_callback
            if self._request.on_head is not None:
                self._request.on_head(head.status, self._headers)
        return self._callback if self._callback is not None and self._decoder is None else self._take

    def _decide_on_coding(self, head: Head) -> None:
        coding = [name for name in head.values("content-encoding") if name != "identity"]
        if coding in (["gzip"], ["x-gzip"]):
            self._decoder = GzipDecoder()
        elif coding and self._success:
            names = ", ".join(coding)[:80]
            raise ProtocolError(f"the response has the Content-Encoding {names!r}, which was not asked for")
        elif coding:
            self._room = 0  # the status says more than an unreadable body

    def _take(self, data: bytes) -> Optional[Awaitable[None]]:
        if self._decoder is not None:
            data = self._decode(self._decoder, data)
        if not data:
            return None
        if self._callback is not None:
            return self._callback(data) if len(data) <= PIECE else self._in_pieces(self._callback, data)
        if self._success and len(self._body) + len(data) > MAX_BODY:
            raise ProtocolError(f"the body is longer than {MAX_BODY} bytes")
        self._body += data[: self._room - len(self._body)]
        if not self._success and len(self._body) >= self._room:
            raise StopReading
        return None

    async def _in_pieces(self, callback: OnData, data: bytes) -> None:
        """Pass on what one read has expanded to, as if it had been read bit by bit."""
        slices = Slices()
        for begin in range(0, len(data), PIECE):
            try:
                blocked = callback(data[begin : begin + PIECE])
            except StopReading:
                if self._request.cancel_token is not None:
                    self._request.cancel_token.cancel()
                return
            await (blocked or slices.pause())

    def _decode(self, decoder: GzipDecoder, data: bytes) -> bytes:
        try:
            return decoder.feed(data)
        except ProtocolError:
            if self._success:
                raise
            self._room = len(self._body)
            return b""

    def on_end(self) -> None:
        """The body is complete.

        :raises ProtocolError: the compressed body is cut off
        """
        if self._decoder is not None and self._success:
            self._decoder.close()

    def response(self, start_time: float, seconds: float) -> HTTPResponse:
        """What has arrived: status 599 if that is less than a head."""
        head = self._head
        return HTTPResponse(
            self._request,
            head.status if head is not None else 599,
            headers=self._headers,
            buffer=io.BytesIO(self._body),
            reason=head.reason if head is not None else None,
            request_time=seconds,
            start_time=start_time,
        )


def _call_with_lines(header_callback: Callable[[str], object], head: Head) -> None:
    """As Tornado does: line by line, with the line ends."""
    header_callback(f"{head.version} {head.status} {head.reason}\r\n")
    for name, value in head.headers:
        header_callback(f"{name}: {value}\r\n")
    header_callback("\r\n")

"""How many bytes of memory the WebSocket messages that wait may take (``server.max_pending_bytes``).

A message counts with what its parsed JSON takes, which is twenty times its own size if it is made for that.
Two kinds of messages are kept after they have arrived: those whose turn has to wait for another one, and
warm-ups, whose input is remembered for the turns that continue it.  Both count against a budget of their
connection, and that against a budget of the process, which is :data:`FULL_BUDGETS` times as large.  A turn
that starts at once does not count: its connection may always have one.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Optional, Union

from ..errors import ApiError, invalid
from ..types import Json
from .body import parse_object

FULL_BUDGETS = 4  # full budgets of connections that exhaust the budget of the process
MEASURED_AT_ONCE = 1 << 14  # bytes of a message whose memory is measured in a millisecond
NOT_FOR_TURNS = ("type", "stream_id", "stream", "background")  # fields of the transport
PAUSE = 1.0  # seconds after which the client may try again


class ByteBudget:
    """A number of bytes that may be used.

    :param limit: in bytes
    :param parent: a budget from which these bytes are taken as well
    """

    def __init__(self, limit: int, parent: Optional[ByteBudget] = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent

    def take(self, size: int) -> Charge:
        """Use bytes until :meth:`Charge.release`.

        :raises ApiError: 429, there are too few left
        """
        if not self._has(size):
            raise ApiError(
                429,
                f"This message takes {size} bytes of memory and would have to wait, and too many bytes are "
                "waiting already. "
                "Wait for a response to finish, or raise server.max_pending_bytes.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=PAUSE,
            )
        self._add(size)
        return Charge(self, size)

    def close(self) -> None:
        """Return everything to the parent."""
        if self._parent is not None:
            self._parent._add(-self.used)
            self._parent = None

    def _has(self, size: int) -> bool:
        return self.used + size <= self.limit and (self._parent is None or self._parent._has(size))

    def _add(self, size: int) -> None:
        self.used += size
        if self._parent is not None:
            self._parent._add(size)


class Charge:
    """Bytes that were taken from a budget."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self.size = size

    def release(self) -> None:
        """Return them; a second call has no effect."""
        size, self.size = self.size, 0
        self._budget._add(-size)


class Waiting(NamedTuple):
    """A request in a queue.

    ``size``: of its message in bytes.  ``arrived``: when it came, in monotonic seconds.  ``charge``: for the
    bytes that it holds.
    """

    request: Json
    size: int
    arrived: float
    charge: Optional[Charge] = None

    @classmethod
    def now(cls, message: Json, size: int) -> Waiting:
        """A request that has just come."""
        request = {name: message[name] for name in message if name not in NOT_FOR_TURNS}
        return cls(request, size, time.monotonic())

    @property
    def warms_up(self) -> bool:
        """Is it a warm-up, whose input is remembered without a turn?"""
        return self.request.get("generate") is False

    def start(self) -> Optional[Charge]:
        """The request stops waiting, and returns its bytes unless it is a warm-up.

        :returns: the charge of a warm-up
        """
        if self.warms_up:
            return self.charge
        self.drop()
        return None

    def drop(self) -> None:
        """Return its bytes."""
        if self.charge is not None:
            self.charge.release()


def read_message(message: Union[str, bytes]) -> Json:
    """The JSON object in a message.

    :raises ApiError: 400
    """
    if isinstance(message, bytes):
        raise invalid("Binary frames are not part of the protocol; send JSON in text frames.")
    return parse_object(message, "message")


def size_of(message: Union[str, bytes]) -> int:
    """The bytes of a message as it was sent."""
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())

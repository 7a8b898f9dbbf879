"""The base of HTTP and WebSocket handlers: the shared state, request ids, admission, error responses.

The server moves bytes and knows no field of a response except its id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import field, replace
from functools import partial
from http.client import responses as REASONS
from typing import Any, ClassVar, Coroutine, Dict, Mapping, MutableMapping, Optional, Protocol, Sequence, Set

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream
from tornado.web import Finish, HTTPError, RequestHandler

from ..config.addresses import ListenAddress, is_loopback
from ..config.schema import Config, Key, Server
from ..errors import ApiError, internal
from ..json_codec import encode_json
from ..log import mask
from ..service.client import Client
from ..service.codex_errors import for_codex, uses_codex_form
from ..service.service import Service
from ..service.single_flight import SingleFlight
from ..telemetry.lag import LoopLag
from ..telemetry.records import RefusalRecord
from ..types import Json, LocalRecord, light_dataclass
from ..upstream.client import CancelToken
from .access import Access, hostname
from .local_responses import Remembered
from .pending import FULL_BUDGETS, ByteBudget
from .recent_bodies import RecentBodies
from .remote import PROXY_HEADERS, UNIX, TrustedProxies

log = logging.getLogger("rproxy.http")

STOPPING = "The proxy is shutting down. Please try again."


class Session(Protocol):
    """A WebSocket connection as the shutdown sees it."""

    closed: asyncio.Future[None]

    def shut_down(self) -> None: ...


@light_dataclass
class AppState:
    """The state that the handlers of one server share.  ``addresses``: the ones that the server listens on.
    ``turns`` maps a running task to the task that the shutdown cancels after the grace period: usually the
    same one, or None when the turn is over and only the last bytes are being written.  ``pending``: the bytes
    of WebSocket messages that wait.  ``remembered``: what WebSockets remember of responses.
    """

    config: Config
    service: Service
    addresses: Sequence[ListenAddress]
    access: Access = field(init=False)
    proxies: TrustedProxies = field(init=False)
    stopping: bool = False  # no longer ready, because the process will end
    draining: bool = False  # no new turns any more
    turns: Dict[asyncio.Task[Any], Optional[asyncio.Task[Any]]] = field(default_factory=dict)
    sessions: Set[Session] = field(default_factory=set)
    single_flight: SingleFlight = field(default_factory=SingleFlight)
    pending: ByteBudget = field(init=False)
    remembered: Remembered = field(default_factory=Remembered)
    recent_bodies: RecentBodies = field(default_factory=RecentBodies)
    lag: LoopLag = field(default_factory=LoopLag)
    reports: Set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pending = ByteBudget(FULL_BUDGETS * self.config.server.max_pending_bytes)
        self._admit_by(self.config.server)

    def configure(self, config: Config) -> None:
        """Use ``config`` for everything that begins from now on."""
        self.config = config
        self.service.configure(config)
        self.pending.limit = FULL_BUDGETS * config.server.max_pending_bytes
        self._admit_by(config.server)

    def _admit_by(self, server: Server) -> None:
        keys = server.auth.keys if server.auth.enabled else None
        self.access = Access(keys, server.allowed_origins, self.addresses)
        self.proxies = TrustedProxies(server.trusted_proxies)

    def report(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``, which writes a line to the log, while the client gets its answer."""
        task = asyncio.ensure_future(work)
        self.reports.add(task)
        task.add_done_callback(self.reports.discard)

    def track(self, outer: asyncio.Task[Any], turn: Optional[asyncio.Task[Any]]) -> None:
        """Count ``turn`` as running until ``outer`` is done.

        :param turn: None: the turn is over, and only the last bytes are being written
        """
        outer.add_done_callback(self._done)
        self.turns[outer] = turn

    def _done(self, outer: asyncio.Task[Any]) -> None:
        self.turns.pop(outer, None)


def new_request_id() -> str:
    """``req_`` and 32 random hexadecimal digits."""
    return "req_" + secrets.token_hex(16)


def is_codex(headers: Mapping[str, str]) -> bool:
    """Does a client identify itself as Codex, by its originator or by a header of its own?

    An editor that runs Codex's app server names itself as the originator.
    """
    if headers.get("originator", "").lower().startswith("codex"):
        return True
    return any(name.startswith("X-Codex-") for name in headers)  # Tornado's spelling of all names


class BaseHandler(RequestHandler):
    """Any request: its id, whether it is admitted, and errors in OpenAI's format."""

    public: ClassVar[bool] = False  # reachable without a key and while the server drains
    state: AppState
    key: Optional[Key] = None  # the client's; None also when authentication is off

    request_id = ""
    """The id of this request; every response carries it in ``x-request-id``."""

    # No cached_property: it would make every attribute of a handler slower (Python 3.11 and earlier lock it).
    def initialize(self) -> None:
        headers = self.request.headers
        self.state = self.settings["state"]
        self.peer: str = getattr(self.stream, "peer", "")
        """The address of the other end of the connection; ``unix`` for a Unix socket, "" if it is closed."""
        self.remote = self.state.proxies.client(self.peer, headers.get_list("X-Forwarded-For"))
        """The client's address, also behind reverse proxies that are trusted."""
        self.codex = is_codex(headers)
        """Does the client identify itself as Codex?"""

    def set_default_headers(self) -> None:
        state: AppState = self.settings["state"]  # Tornado calls this before initialize()
        self.request_id = self.request_id or new_request_id()
        del self._headers["Server"]
        self.put_headers(
            {
                "Content-Type": "application/json",
                "x-request-id": self.request_id,
                "X-Content-Type-Options": "nosniff",
            }
        )
        if state.draining and not self.public:
            self.set_header("Connection", "close")  # a reverse proxy must not reuse this connection
        origin = self.request.headers.get("Origin")
        if origin is not None and state.access.listed(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "x-request-id, retry-after")
            self.set_header("Vary", "Origin")

    def put_headers(self, headers: Mapping[str, str]) -> None:
        """Set our own headers: set_header() would check each for characters that only clients could have put
        into it.
        """
        for name, value in headers.items():
            self._headers[name] = value

    @property
    def connection(self) -> HTTP1Connection:
        """The HTTP connection of this request."""
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        return connection

    @property
    def stream(self) -> IOStream:
        """The socket below the connection."""
        return self.connection.stream

    @property
    def is_local(self) -> bool:
        """Does the request come from this machine, not through a reverse proxy on it?

        A request that came through such a proxy has a loopback peer, too, so its Host must be loopback as
        well, and it must have none of the headers that proxies add.
        """
        headers = self.request.headers
        forwarded = any(name in PROXY_HEADERS or name.startswith("X-Forwarded-") for name in headers)
        return (
            not forwarded
            and (self.peer == UNIX or is_loopback(self.peer))
            and is_loopback(hostname(headers.get("Host", "")))
        )

    def sockname(self) -> Any:
        """Our end of the connection: host and port, the path of a Unix socket, or None if it is closed."""
        sock = self.stream.socket
        return None if sock is None else sock.getsockname()

    def compute_etag(self) -> Optional[str]:
        return None

    def admit(self) -> None:
        """Check the host name, the origin and the key, and that the server is not draining.

        A draining server closes the connection without an answer: only then may a balancer send the
        request to another process.  A 503 could come from a provider that has received the request.

        :raises ApiError: 401 or 403
        :raises Finish: the connection is closed
        """
        headers, access = self.request.headers, self.state.access
        if self.public:
            return
        access.check_host(headers.get("Host", ""), self.sockname)
        if self.request.method not in ("GET", "HEAD") or "Upgrade" in headers:
            access.check_origin(headers.get("Origin"), headers.get("Host", ""))
        self.key = access.key(headers)
        if self.state.draining:
            log.info("%s %s: connection closed, the server stops", self.request_id, self.request.path[:200])
            self.stream.close()
            raise Finish()

    @property
    def owner(self) -> str:
        """The owner whose stored responses this request may read; "" when authentication is off."""
        return self.key.owner if self.key is not None else ""

    def client(
        self,
        transport: str,
        size: int,
        arrived: Optional[float] = None,
        request_id: Optional[str] = None,
        local: Optional[MutableMapping[str, LocalRecord]] = None,
        interrupt: Optional[CancelToken] = None,
    ) -> Client:
        """The client of a request, as the service sees it.

        :param size: of the request's JSON in bytes
        :param arrived: when it came, in monotonic seconds; None: when its header did
        """
        if arrived is None:
            arrived = time.monotonic() - self.request.request_time()
        return Client(
            key=self.key,
            codex=self.codex,
            transport=transport,
            request_id=request_id or self.request_id,
            headers=self.request.headers,
            remote=self.remote,
            size=size,
            local=local,
            interrupt=interrupt,
            arrived=arrived,
        )

    @property
    def codex_headers(self) -> Mapping[str, str]:
        """Headers of every response to Codex.

        ``x-models-etag`` shows whether its catalog is still the current one, ``x-reasoning-included`` that
        ``input_tokens`` counts earlier reasoning (else Codex adds its own estimate and compacts too early).
        """
        if not self.codex:
            return {}
        return {"x-models-etag": self.state.service.catalog.of(self.key).etag, "x-reasoning-included": "true"}

    def for_client(self, error: ApiError) -> ApiError:
        """The error without secrets, in the form that serves this client best (``server.errors``)."""
        error.apply(partial(mask, secrets=self.state.config.secrets))
        return for_codex(error) if uses_codex_form(self.state.config.server.errors, self.codex) else error

    def as_api_error(self, error: BaseException) -> ApiError:
        """Any exception as an error for the client, without details if it was unexpected."""
        if isinstance(error, ApiError):
            return self.for_client(error)
        if isinstance(error, HTTPError) and error.status_code < 500:  # Tornado's own refusals
            reason = REASONS.get(error.status_code, "Bad Request")
            return ApiError(error.status_code, f"{reason}: {self.request.method} {self.request.path[:200]}.")
        return self.for_client(internal())

    def put_error(self, error: ApiError) -> bytes:
        """Set the status and the headers for ``error``.

        :returns: the response body
        """
        self.set_status(error.status)
        for name, value in {**self.codex_headers, **error.answer_headers, **error.headers()}.items():
            self.set_header(name, value)
        return encode_json(error.body())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else HTTPError(status_code)
        self.finish(self.put_error(self.as_api_error(error)))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, (ApiError, HTTPError)):
            if not getattr(value, "reported", False):
                error = value if isinstance(value, ApiError) else self.as_api_error(value)
                self.log_refusal(error, self.request.method or "", self.read_body)
        else:
            method, path = self.request.method, self.request.path[:200]
            log.error("%s %s %s failed", self.request_id, method, path, exc_info=(typ, value, tb))

    @property
    def read_body(self) -> Json:
        """The body of the request as far as it has been read; only for :meth:`log_refusal`."""
        return {}

    def log_refusal(self, error: ApiError, method: str, body: Json) -> None:
        """Report a request that never became a turn, with its own status rather than the one for Codex.

        :param method: of HTTP, or ``WS`` for a message on a WebSocket
        :param body: what the error message may quote
        """
        if not self.state.service.telemetry.count_refusal(error.status):
            return
        record = RefusalRecord(
            request_id=self.request_id,
            key=self.key.name if self.key is not None else "",
            remote=self.remote,
            method=method,
            path=self.request.path[:200],
            status=error.status,
            error=error.code or error.type,
            reason="",
        )
        # In a task, because a large body takes time; nothing waits for the line.
        self.state.report(self._log_refusal(record, error, body))

    async def _log_refusal(self, record: RefusalRecord, error: ApiError, body: Json) -> None:
        from ..telemetry.reason import reason_of  # loaded for failures only

        reason = await reason_of(error, body)
        self.state.service.telemetry.log_refusal(replace(record, reason=reason))

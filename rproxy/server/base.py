"""The HTTP edge: requests in, JSON or server-sent events out.  It moves bytes and knows no field of a
response but its id.

**Before the body.**  Every handler streams its request body (``@stream_request_body``), so that
:meth:`BaseHandler.admit` can refuse a request as soon as its header is there.  A refusal is written at once,
but the connection is kept until the body has passed, up to ``LINGER`` bytes: closing a socket that still
receives makes TCP drop the very answer that explains the refusal.

**The turn.**  ``service.create`` runs in the handler's task.  When the client goes, Tornado calls
``on_connection_close`` and the turn is cancelled, whether or not the provider says anything.  When the server
stops, what still runs after the grace period is cancelled, too; a stream that has begun then ends with
``response.failed``, because a client must never have to guess how a turn ended.

**Writing.**  The head leaves with the first events in one write; everything after that goes through
:mod:`rproxy.server.writer`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from typing import (
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Coroutine,
    Dict,
    Mapping,
    MutableMapping,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream
from tornado.web import Finish, HTTPError, RequestHandler, stream_request_body

from ..config.schema import Config
from ..convert.events.fastpath import DeltaBatch
from ..convert.sse import DONE, encode_json, encode_sse
from ..errors import ApiError, error_event, internal, unavailable
from ..service.client import Client
from ..service.codex_errors import for_codex
from ..service.service import Service
from ..service.single_flight import SingleFlight
from ..types import Json
from ..upstream.client import CancelToken
from .access import Access
from .body import BodyReader
from .writer import EventWriter, SocketWriter, drained

log = logging.getLogger("rproxy.http")

T = TypeVar("T")

BODY_TIMEOUT = (
    600.0  # seconds a request body may take to arrive; Tornado's own limit costs a task for each request
)
LINGER = 8 << 20  # bytes of a refused body that are read and thrown away
LINGER_SECONDS = 10.0
UNLIMITED = 1 << 60  # Tornado's own limit answers without a body; BodyReader counts instead
STOPPING = "The proxy is shutting down. Please try again."


class Session(Protocol):
    """A WebSocket connection, as the shutdown sees it."""

    closed: asyncio.Future[None]

    def shut_down(self) -> None: ...


@dataclass
class AppState:
    """What the handlers of one server share.

    ``turns`` maps a running handler task to the task to cancel in the end, which may be itself; None: it only
    says goodbye.
    """

    config: Config
    service: Service
    access: Access
    draining: bool = False
    turns: Dict[asyncio.Task[Any], Optional[asyncio.Task[Any]]] = field(default_factory=dict)
    sessions: Set[Session] = field(default_factory=set)
    sharing: SingleFlight = field(default_factory=SingleFlight)

    def track(self, outer: asyncio.Task[Any], turn: asyncio.Task[Any]) -> None:
        """Count ``turn`` as running until ``outer`` is done."""
        if outer not in self.turns:
            outer.add_done_callback(lambda done: self.turns.pop(done, None))
        self.turns[outer] = turn


def current_task() -> asyncio.Task[Any]:
    """The running task; handlers always run in one."""
    task = asyncio.current_task()
    assert task is not None
    return task


class BaseHandler(RequestHandler):
    """What HTTP and WebSocket requests have in common: ids, who may come in, errors in OpenAI's shape."""

    public: ClassVar[bool] = False  # reachable without a key and while draining
    state: AppState
    owner = ""

    def initialize(self) -> None:
        self.state = self.settings["state"]

    @property
    def request_id(self) -> str:
        """The id of this request; every answer carries it in ``x-request-id``."""
        if not hasattr(self, "_request_id"):
            self._request_id = new_request_id()
        return self._request_id

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("x-request-id", self.request_id)
        if self.settings["state"].draining:
            self.set_header("Connection", "close")  # a reverse proxy shall not send us more on this one
        origin = self.request.headers.get("Origin")
        if origin is not None and self.settings["state"].access.listed(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "x-request-id, retry-after")
            self.set_header("Vary", "Origin")

    def compute_etag(self) -> Optional[str]:
        return None

    def admit(self) -> None:
        """Raise ApiError (401, 403, 503) when this request may not come in."""
        headers, access = self.request.headers, self.state.access
        if self.public:
            return
        access.check_host(headers.get("Host", ""))
        if self.request.method not in ("GET", "HEAD") or "Upgrade" in headers:
            access.check_origin(headers.get("Origin"), headers.get("Host", ""))
        self.owner = access.owner(headers.get("Authorization"))
        if self.state.draining:
            raise unavailable(STOPPING)

    @property
    def codex(self) -> bool:
        """True when the client says that it is Codex."""
        return self.request.headers.get("originator", "").lower().startswith("codex")

    def client(
        self,
        transport: str,
        *,
        request_id: Optional[str] = None,
        local: Optional[MutableMapping[str, Any]] = None,
        interrupt: Optional[CancelToken] = None,
    ) -> Client:
        """Who asks, for the service."""
        return Client(
            owner=self.owner,
            codex=self.codex,
            transport=transport,
            request_id=request_id or self.request_id,
            headers=self.request.headers,
            local=local,
            interrupt=interrupt,
        )

    @property
    def catalog_headers(self) -> Mapping[str, str]:
        """Headers of every answer to Codex, which show whether its catalog is still the current one."""
        return self.state.service.catalog_headers if self.codex else {}

    def for_client(self, error: ApiError) -> ApiError:
        """The error as this client can make the best of it (``server.errors``)."""
        style = self.state.config.server.errors
        return for_codex(error) if style == "codex" or (style == "auto" and self.codex) else error

    def as_api_error(self, error: BaseException) -> ApiError:
        """Any exception as an error for the client; an unexpected one without its details."""
        if isinstance(error, ApiError):
            return self.for_client(error)
        if isinstance(error, HTTPError) and error.status_code < 500:
            text = {404: "There is no such path here", 405: "This path does not answer this method"}.get(
                error.status_code, "Bad request"
            )
            return ApiError(error.status_code, f"{text}: {self.request.method} {self.request.path[:200]}.")
        return self.for_client(internal())

    def put_error(self, error: ApiError) -> bytes:
        """Set status and headers for ``error``; returns the body."""
        self.set_status(error.status)
        for name, value in {**self.catalog_headers, **error.answer_headers, **error.headers()}.items():
            self.set_header(name, value)
        return encode_json(error.body())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else HTTPError(status_code)
        self.finish(self.put_error(self.as_api_error(error)))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, (ApiError, HTTPError)):
            told = self.as_api_error(value)  # without its text: a provider may quote the prompt in it
            log.info(
                "%s %s %s: %d %s",
                self.request_id,
                self.request.method,
                self.request.path[:200],
                told.status,
                told.code or told.type,
            )
        else:
            log.error(
                "%s %s %s failed",
                self.request_id,
                self.request.method,
                self.request.path,
                exc_info=(typ, value, tb),
            )


def has_body(headers: Mapping[str, str]) -> bool:
    """True when the header announces a request body."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


def new_request_id() -> str:
    """``req_`` and 32 random hexadecimal digits."""
    return "req_" + secrets.token_hex(16)


@stream_request_body
class HttpHandler(BaseHandler):
    """One path.  Subclasses name their ``verbs`` and define the methods."""

    verbs: ClassVar[Tuple[str, ...]] = ("GET", "HEAD")
    _body: Optional[BodyReader] = None
    _late: Optional[asyncio.TimerHandle] = None  # while the body arrives
    _refused = False
    _dropped = 0
    _turn: Optional[asyncio.Task[Any]] = None
    _gone = False

    @property
    def stream(self) -> IOStream:
        """The connection's stream."""
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        return connection.stream

    def prepare(self) -> None:
        connection, headers = self.request.connection, self.request.headers
        assert isinstance(connection, HTTP1Connection)
        connection.set_max_body_size(UNLIMITED)
        if has_body(headers):
            self._allow(BODY_TIMEOUT)
        try:
            if self.request.method == "OPTIONS" and headers.get("Origin"):
                return
            self.check_verb()
            self.admit()
            if self.request.method == "POST":
                limit = self.state.config.server.max_body_size
                self._body = BodyReader(
                    limit, headers.get("Content-Length"), headers.get("Content-Encoding", "")
                )
        except ApiError as error:
            self.refuse(error)

    def check_verb(self) -> None:
        """Raise ApiError 405 unless this path answers the method."""
        if self.request.method not in self.verbs:
            self.set_header("Allow", ", ".join(self.verbs))
            raise ApiError(
                405,
                f"{self.request.path[:200]} answers {', '.join(self.verbs)}, not {self.request.method}.",
                code="method_not_allowed",
            )

    def refuse(self, error: ApiError) -> None:
        """Answer before the body was read; see the module's text."""
        if self._refused:
            return
        self._refused = True
        self.log_exception(type(error), error, None)
        body = self.put_error(self.for_client(error))
        waits = self.request.headers.get("Expect", "").lower() == "100-continue"
        if waits or not has_body(self.request.headers):
            self.finish(body)
            return
        self._allow(LINGER_SECONDS)
        self.set_header("Content-Length", str(len(body)))
        self.write(body)
        self.flush()
        # What Tornado calls once the body has passed:
        setattr(self, str(self.request.method).lower(), lambda *args: drained(self.finish()))

    def data_received(self, chunk: bytes) -> None:
        if self._body is not None and not self._refused:
            try:
                self._body.feed(chunk)
            except ApiError as error:
                self.refuse(error)
            return
        self._dropped += len(chunk)
        if self._dropped > LINGER and not self._finished:
            if self._refused:
                self.finish()
            else:
                self.stream.close()

    def body(self) -> BodyReader:
        """The body of a POST. It has come when the verb's method is called."""
        assert self._body is not None
        self._in_time()
        return self._body

    def _allow(self, seconds: float) -> None:
        """So long the body may take from now on; and a verb that does not look at it, too, until its turn
        begins or it has answered."""
        self._in_time()
        self._late = asyncio.get_running_loop().call_later(seconds, self.stream.close)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def on_finish(self) -> None:
        self._in_time()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._in_time()
        self._gone = True
        if self._turn is not None:
            self._turn.cancel()

    def query(self) -> Dict[str, str]:
        """The parameters of the URL; of one that comes more than once the last."""
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    async def run_turn(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, which is cancelled when the client goes, or when the server has waited long enough.

        Raises what ``work`` raises, tornado.web.Finish when the client is gone, ApiError 503 when the server
        stops.
        """
        if self._gone:
            work.close()
            raise Finish()
        self._in_time()
        task = self._turn = current_task()
        self.state.track(task, task)
        try:
            return await work
        except asyncio.CancelledError:
            raise (Finish() if self._gone else unavailable(STOPPING)) from None
        finally:
            self._turn = None
            self.state.turns[task] = None

    def options(self, *args: str) -> None:
        """A browser asks what it may send; only listed origins get an answer that helps them."""
        self.set_status(204)
        self.clear_header("Content-Type")
        self.set_header("Allow", ", ".join(self.verbs))
        if "Access-Control-Allow-Origin" in self._headers:
            self.set_header("Access-Control-Allow-Methods", ", ".join(self.verbs))
            self.set_header(
                "Access-Control-Allow-Headers",
                self.request.headers.get("Access-Control-Request-Headers", "*"),
            )

    async def send_events(
        self, work: Callable[[SSESink], Coroutine[Any, Any, None]], *, lasts: bool = False
    ) -> None:
        """Answer with the event stream that ``work`` writes, or with an HTTP error when it fails before its
        first event.

        :arg lasts: what is shown goes on without this client, so that it must not be told to have failed when
            only the showing ends
        """
        out = SSESink(self)
        try:
            await self.run_turn(work(out))
        except Exception as error:
            if not out.begun or self._gone:
                raise
            self.log_exception(type(error), error, error.__traceback__)
            if lasts:
                self.stream.close()
                raise Finish() from error
            if out.open:
                out.send([out.failed(self.as_api_error(error))])
            elif out.response is None:
                out.write(encode_sse([error_event(self.as_api_error(error), 0)]))
        await drained(self.finish(b"" if out.done else DONE))
        if self.request.version != "HTTP/1.1":
            self.stream.close()  # without chunks only this ends the body, whatever the client asked for

    def put_json(self, value: Any, headers: Mapping[str, str] = {}) -> Awaitable[None]:
        """Finish with ``value``.  Returns what to wait for until the client has it."""
        self.put_time()
        for name, header in {**self.catalog_headers, **headers}.items():
            self.set_header(name, header)
        return drained(self.finish(encode_json(value)))

    def put_time(self) -> None:
        """Say how long it took so far, in milliseconds."""
        self.set_header("openai-processing-ms", str(max(0, int(self.request.request_time() * 1000))))


class SSESink(EventWriter):
    """Events of one turn as a server-sent event stream (:class:`rproxy.service.service.EventSink`)."""

    def __init__(self, handler: HttpHandler) -> None:
        super().__init__()
        self._handler = handler
        self._chunked = handler.request.version == "HTTP/1.1"
        self.done = False  # [DONE] was sent, together with the terminal event
        self._wire: Optional[SocketWriter] = None

    @property
    def begun(self) -> bool:
        """Has the client got the head of the answer, or is it on its way?"""
        return self.response is not None or self._wire is not None

    def begin(self, response: Json, headers: Mapping[str, str]) -> None:
        """Commit to status 200; the head leaves with the first events."""
        if not self.begun:
            self.put_head(headers)
        self.response = response

    def idle(self) -> Optional[Awaitable[None]]:
        """A comment, so that nobody in between takes the connection for dead."""
        if not self.begun:
            self.put_head({})
        return self.write(b": wait\n\n")

    def put_head(self, headers: Mapping[str, str]) -> None:
        """The head of an event stream."""
        for name, value in {**self._handler.catalog_headers, **headers}.items():
            self._handler.set_header(name, value)
        self._handler.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self._handler.set_header("Cache-Control", "no-cache")
        self._handler.set_header("X-Accel-Buffering", "no")
        self._handler.put_time()

    def send(self, events: Sequence[Json]) -> Optional[Awaitable[None]]:
        """Write whole events, at once.  Returns what to wait for when the client does not keep up."""
        if type(events) is DeltaBatch:
            self._next = events.after
            return self.write(events.sse())
        if not events:
            return None
        self.note(events)
        self.done = self.ended
        return self.write(encode_sse(events) + (DONE if self.done else b""))

    def write(self, data: bytes) -> Optional[Awaitable[None]]:
        """Write ``data`` as one HTTP chunk (an HTTP/1.0 client gets it as it is)."""
        if self._wire is None:
            stream = self._handler.stream
            if stream is None or stream.closed():
                return None
            self._wire = SocketWriter(stream)
            self._handler.write(data)
            written = self._handler.flush()
            return drained(written) if stream.writing() else None
        return self._wire.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

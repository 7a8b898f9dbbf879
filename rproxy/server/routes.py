"""Which handler answers which path.

Every start and nearly every turn needs the first handlers; the modules of the others are loaded when they are
first used, which makes a server smaller and its start shorter.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Awaitable, Dict, Optional, Sequence, Tuple, Type, Union

from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Matcher, PathMatches, Router, Rule
from tornado.web import Application

from .base import BaseHandler
from .connections import ClientStream
from .health import HealthHandler, ReadyHandler
from .http import has_body
from .responses import (
    CancelHandler,
    CompactHandler,
    InputItemsHandler,
    InputTokensHandler,
    ResponsesHandler,
    StoredResponseHandler,
)

# A handler that is named by a text here is loaded when its first request comes.
ROUTES: Sequence[Tuple[str, Union[Type[BaseHandler], str]]] = (
    (r"(?:/v1)?/responses/?", ResponsesHandler),
    (r"(?:/v1)?/responses/compact/?", CompactHandler),
    (r"(?:/v1)?/responses/input_tokens/?", InputTokensHandler),
    (r"(?:/v1)?/responses/([^/]+)/?", StoredResponseHandler),
    (r"(?:/v1)?/responses/([^/]+)/input_items/?", InputItemsHandler),
    (r"(?:/v1)?/responses/([^/]+)/cancel/?", CancelHandler),
    (r"(?:/v1)?/conversations/?", "conversations.ConversationsHandler"),
    (r"(?:/v1)?/conversations/([^/]+)/?", "conversations.ConversationHandler"),
    (r"(?:/v1)?/conversations/([^/]+)/items/?", "conversations.ConversationItemsHandler"),
    (r"(?:/v1)?/conversations/([^/]+)/items/([^/]+)/?", "conversations.ConversationItemHandler"),
    (r"(?:/v1)?/chat/completions/?", "chat.ChatHandler"),
    (r"(?:/v1)?/alpha/search/?", "search.SearchHandler"),
    (r"(?:/v1)?/models/?", "models.ModelsHandler"),
    (r"(?:/v1)?/models/(.+)", "models.ModelHandler"),
    (r"(?:/v1)?/health/?", HealthHandler),
    (r"(?:/v1)?/ready/?", ReadyHandler),
    (r"/metrics/?", "metrics.MetricsHandler"),
    (r"/", "inspector.PageHandler"),
    (r"/inspector/turns/?", "inspector.TurnsHandler"),
    (r"/inspector/turns/([^/]+)/?", "inspector.TurnHandler"),
    (r"/inspector/turns/([^/]+)/recording/?", "inspector.RecordingHandler"),
    (r"/inspector/stream/?", "inspector.StreamHandler"),
    (r"/inspector/summary/?", "inspector.SummaryHandler"),
)
WEBSOCKET = "websocket.ResponsesSocket"
SLASHES = re.compile("//+")


class Upgrade(Matcher):
    """Matches a WebSocket handshake on the path ``pattern``.

    A handshake with a request body does not match: the WebSocket handler has no limits for bodies.
    """

    def __init__(self, pattern: str) -> None:
        self._path = PathMatches(pattern)

    def match(self, request: HTTPServerRequest) -> Optional[Dict[str, Any]]:
        if (
            request.method != "GET"
            or request.headers.get("Upgrade", "").strip().lower() != "websocket"
            or has_body(request.headers)
        ):
            return None
        return self._path.match(request)


class LaterHandler(Router):
    """A handler whose module is loaded when the first request for it comes.

    :param name: the module in this package, and the class
    """

    def __init__(self, app: Application, name: str) -> None:
        self._app = app
        self._module, _, self._class = name.partition(".")

    def load(self) -> Type[BaseHandler]:
        handler: Type[BaseHandler] = getattr(import_module(f".{self._module}", __package__), self._class)
        return handler

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:
        return self._app.get_handler_delegate(request, self.load(), **kwargs)


class App(Application):
    """Tornado's routing, but ``//`` in a path counts as one slash, because a base URL may end with one."""

    def __init__(self, **settings: Any) -> None:
        upgrade = Rule(Upgrade(ROUTES[0][0]), LaterHandler(self, WEBSOCKET))
        rules = [
            (pattern, LaterHandler(self, handler) if isinstance(handler, str) else handler)
            for pattern, handler in ROUTES
        ]
        super().__init__([upgrade, *rules], **settings)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        stream = getattr(request.connection, "stream", None)
        if "//" in request.path:
            request.path = SLASHES.sub("/", request.path)
        delegate = super().find_handler(request, **kwargs)
        if isinstance(stream, ClientStream):
            stream.request_came(request.headers)
            if stream.whole:
                return WholeRequest(delegate)
        return delegate


class WholeRequest(HTTPMessageDelegate):
    """A request whose body came with its head: it need not wait for the handler to decide about it.

    Tornado reads a body when ``prepare`` has run in the handler's task, which then continues.  Each of these
    changes from one task to the other costs an iteration of the event loop.

    :param handler: Tornado's delegate for the handler
    """

    def __init__(self, handler: HTTPMessageDelegate) -> None:
        self._handler = handler

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        self._handler.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Optional[Awaitable[None]]:
        return self._handler.data_received(chunk)

    def finish(self) -> None:
        self._handler.finish()

    def on_connection_close(self) -> None:
        self._handler.on_connection_close()

"""``rproxy convert``: the translation as a filter, from stdin to stdout, without a server and a provider.

It is the code of every turn (:mod:`rproxy.convert`).  An answer is read as it comes: as an event stream, as
JSON lines or as one JSON document.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Sequence

from ..convert.events.converter import StreamConverter
from ..convert.events.fastpath import FastPath
from ..convert.events.response import response_object
from ..convert.ids import Ids
from ..convert.profile import Profile
from ..convert.request.chat import Conversion, input_items, to_chat_request
from ..convert.request.validate import check_request, without_nulls
from ..convert.sse import DONE, encode_sse
from ..errors import ApiError, ConfigError, RproxyError
from ..json_codec import UNREADABLE, encode_json
from ..providers.profiles import choose_profile, row_name
from ..service.answer_form import reasoning_form, wants_schema
from ..types import Event, Json
from .command import Command, Environ, complain, warn
from .exit_status import FAILED, OK

PIECE = 1 << 16  # bytes read at once
PEEK = 1 << 16  # bytes in which an answer names its model
NO_REQUEST = "."  # the input of an unknown request
_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


def run(args: argparse.Namespace, environ: Environ) -> int:
    return ACTIONS[args.what](args)


# ---- Requests
def convert_request(args: argparse.Namespace) -> int:
    """A create request becomes a chat request."""
    request = json_object(sys.stdin.buffer.read(), "stdin")
    conversion = converted(request, args)
    write_line(conversion.chat_request(request.get("stream") is True))
    left_out = [f"{name} left out: the provider does not know it" for name in conversion.left_out]
    warn([*unresolved(request), *conversion.warnings, *left_out])
    return OK


def converted(request: Json, args: argparse.Namespace) -> Conversion:
    """A create request converted for the profile.

    :raises RproxyError: it cannot be converted
    """
    request = without_nulls(request)
    try:
        check_request(request)
        model = args.model or request["model"]
        return to_chat_request(
            request, input_items(request), profile_for(args, model), downstream_model=model
        )
    except ApiError as error:
        raise RproxyError(f"the request cannot be converted: {error.message}") from None


def profile_for(args: argparse.Namespace, model: str) -> Profile:
    """The profile of ``--profile``, else that of the model's name, else the generic one."""
    return choose_profile(args.profile, "", model)


def unresolved(request: Json) -> List[str]:
    """Warnings about the fields of a request that only a server can resolve."""
    names = ("previous_response_id", "conversation")
    return [
        f"{name}: the earlier turns are not known here, and left out" for name in names if request.get(name)
    ]


# ---- Answers
def convert_response(args: argparse.Namespace) -> int:
    """An answer becomes a Response object."""
    answer = ConvertedAnswer(args, sys.stdin.buffer)
    for _ in answer.events():
        pass
    write_line(answer.converter.response)
    return answer.exit_status()


def convert_stream(args: argparse.Namespace) -> int:
    """An answer becomes events, which are written as they come."""
    answer, write = ConvertedAnswer(args, sys.stdin.buffer), _as_lines if args.json_lines else encode_sse
    out = sys.stdout.buffer
    for events in answer.events():
        out.write(write(events))
        out.flush()
    if not args.json_lines:
        out.write(DONE)
    out.flush()
    return answer.exit_status()


def write_line(value: Any) -> None:
    """Write JSON in UTF-8, whatever the locale."""
    sys.stdout.buffer.write(encode_json(value) + b"\n")
    sys.stdout.flush()


def _as_lines(events: Sequence[Event]) -> bytes:
    return b"".join([encode_json(event) + b"\n" for event in events])


class ConvertedAnswer:
    """A provider's answer, which the converter turns into events.

    :param source: its bytes
    """

    def __init__(self, args: argparse.Namespace, source: BinaryIO) -> None:
        read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        self._pieces = iter(partial(read, PIECE), b"")
        self._begin = b""
        if args.request is None:
            model = args.model or self._named() or "unknown"
            request: Json = {"model": model, "input": NO_REQUEST}
        else:
            with open(args.request, "rb") as file:
                request = without_nulls(json_object(file.read(), args.request))
        self._conversion = converted(request, args)
        ids, now = Ids(secrets.token_hex(16)), int(time.time())
        self.converter = StreamConverter(
            response_object(request, id=ids.response, created_at=now),
            self._conversion.tools,
            ids=ids,
            now=lambda: max(int(time.time()), now),
            reasoning=reasoning_form("auto", request, codex=False),
            reader=self._conversion.reader(),
            strip_fences=self._conversion.strip_fences,
            phases=wants_schema(request),
            logprobs=self._conversion.logprobs,
        )
        self._failure: Optional[str] = None

    def _named(self) -> str:
        """The name of the model in the answer; "" if there is none."""
        for piece in self._pieces:
            self._begin += piece
            found = _MODEL.search(self._begin)
            if found is not None:
                with suppress(ValueError):
                    return str(json.loads(found[1].decode("utf-8", "replace")))
                break
            if len(self._begin) > PEEK or b'"choices"' in self._begin and self._begin.endswith(b"\n"):
                break
        return ""

    def events(self) -> Iterator[Sequence[Event]]:
        """The events, as the bytes come; the last one is terminal."""
        path = FastPath(self.converter)
        yield self.converter.start()
        for piece in self._all_pieces():
            yield from path.feed(piece)
            yield from path.later()
            if path.done:
                break
        yield path.close()
        yield from path.later()
        failure = path.converter.failure(path.done)
        if failure is None:
            yield self.converter.finish()
            return
        error = None if failure.raw is None else stream_error_of(failure.raw)
        self._failure = failure.message if error is None else error.message
        code = failure.code if error is None else error.stream_code
        yield self.converter.fail(code, self._failure)

    def _all_pieces(self) -> Iterator[bytes]:
        if self._begin:
            yield self._begin
        yield from self._pieces

    def exit_status(self) -> int:
        """The exit status after :meth:`events`; complains if the answer failed."""
        if self._failure is None:
            return OK
        complain(f"the answer failed: {self._failure}")
        return FAILED


def stream_error_of(raw: Any) -> ApiError:
    """The meaning of an error within an answer."""
    from ..providers.provider_errors import stream_error  # its patterns take a while to load

    return stream_error(raw, "the provider", "", ())


def json_object(data: bytes, name: str) -> Json:
    """:raises RproxyError: ``data`` is not a JSON object"""
    try:
        value = json.loads(data)
    except UNREADABLE as error:
        raise RproxyError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RproxyError(f"{name} is JSON, but not an object")
    return value


ACTIONS = {"request": convert_request, "response": convert_response, "stream": convert_stream}


def _profile_name(text: str) -> str:
    try:
        return row_name(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=tuple(ACTIONS),
        help="request: a Responses request becomes a chat request; response: a chat answer becomes a "
        "Response object; stream: it becomes events",
    )
    parser.add_argument(
        "--profile",
        type=_profile_name,
        metavar="P",
        help="the kind of provider, see rproxy profiles; default: by the model's name, otherwise generic",
    )
    parser.add_argument(
        "--model", metavar="M", help="the provider's name for the model; default: the one given"
    )
    parser.add_argument(
        "--request", metavar="FILE", help="response, stream: the Responses request that is answered"
    )
    parser.add_argument(
        "--json-lines", action="store_true", help="stream: one event per line; default: server-sent events"
    )


COMMAND = Command(
    "convert between the Responses API and Chat Completions, as a filter",
    "rproxy convert request --profile deepseek < request.json",
    run,
    add_options,
)

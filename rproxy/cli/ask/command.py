"""``rproxy ask``: its options, and one turn from the question to the exit status."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from typing import Any, AsyncContextManager, Awaitable, List, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

from ...config import checks
from ...convert.profile import EFFORTS
from ...errors import ApiError, TryLater, UsageError
from ...json_codec import UNREADABLE
from ...types import Json
from .. import exit_status
from ..command import (
    KEY_VARIABLE,
    Command,
    Environ,
    complain,
    demo_config,
    key_of,
    read_config,
    warn,
    with_v1,
)
from .client import Responder, in_process, remote
from .json_schema import first_problem
from .output import Printer, object_in, objects_in, use_utf8
from .prompt import Schema, read_schema, request_body, user_message
from .threads import MAX_NAME, Thread, Threads

# The exit status after a turn that failed before any text was shown, by the code of its error.
BY_CODE: Mapping[str, int] = {
    "rate_limit_exceeded": exit_status.TRY_LATER,
    "server_error": exit_status.TRY_LATER,
    "invalid_api_key": exit_status.REFUSED,
}


class Question(NamedTuple):
    """A question.  ``items``: the conversation with the new message."""

    args: argparse.Namespace
    environ: Environ
    thread: Thread
    items: List[Json]
    schema: Optional[Schema]

    @classmethod
    def of(cls, args: argparse.Namespace, environ: Environ) -> Question:
        """:raises UsageError: the arguments do not make a question
        :raises RproxyError: there is no conversation to continue
        """
        schema = read_schema(args.schema)
        message = user_message(args)
        session = args.session or ""
        thread = Threads(environ).find(session) if getattr(args, "continue") else Thread.new(session)
        if args.instructions is not None:
            thread = thread._replace(instructions=args.instructions)
        return cls(args, environ, thread, [*thread.items, message], schema)


def run(args: argparse.Namespace, environ: Environ) -> int:
    use_utf8()
    logging.getLogger().addHandler(logging.NullHandler())
    question = Question.of(args, environ)
    if args.demo:
        return asyncio.run(ask_demo(question))
    if args.url is not None:
        return asyncio.run(ask(question, remote(_base_url(args.url), key_of(environ), environ)))
    found = read_config(args, environ)
    found.say_source(used=True)
    return asyncio.run(ask(question, in_process(found.config)))


async def ask_demo(question: Question) -> int:
    """Ask the demo provider in this process."""
    from ..demo.server import serve_demo  # loaded for the demo only

    with serve_demo() as url:
        config = demo_config(url, question.args.config, question.environ)
        return await ask(question, in_process(config))


def _base_url(url: str) -> str:
    base_url = with_v1(url)
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--url {url}: this is not an address such as http://127.0.0.1:3000")
    return base_url


async def ask(question: Question, responder: AsyncContextManager[Responder]) -> int:
    """Ask, print the answer, and remember both."""
    args, thread, schema = question.args, question.thread, question.schema
    body = request_body(question.items, thread.instructions, args.effort, schema)
    form = "events" if args.events else "nothing" if args.json or schema is not None else "text"
    printer = Printer(form, args.thinking and not args.events, question.environ)
    try:
        async with responder as answering:
            await _within(_turn(answering, body, args.model or thread.model, printer), args.timeout, printer)
    except ApiError as error:
        printer.finish()
        complain(error.message)
        return exit_status.FAILED if printer.shown else exit_status.status_of(error)
    finally:
        printer.finish()
    if printer.closed:
        return exit_status.OK
    warn(printer.warnings)
    status = conclude(printer, args.json, schema)
    text = "" if printer.response is None else text_of(printer.response)
    if text:
        answer = {"role": "assistant", "content": text}
        kept = thread._replace(model=body["model"], items=[*question.items, answer])
        _keep(Threads(question.environ), kept)
    return status


async def _turn(answering: Responder, body: Json, model: str, printer: Printer) -> None:
    body["model"] = model or await answering.first_model()
    await answering.answer(body, printer)


async def _within(work: Awaitable[None], seconds: Optional[float], printer: Printer) -> None:
    """Await ``work``, but stop it when it takes too long, or when stdout has been closed.

    :raises TryLater: it takes too long
    """
    task = asyncio.ensure_future(work)
    printer.on_closed = task.cancel
    try:
        await asyncio.wait_for(task, seconds)
    except asyncio.TimeoutError:
        raise TryLater(f"there was no complete answer within {seconds:g} s (--timeout)") from None
    except asyncio.CancelledError:
        if not printer.closed:
            raise


def _keep(threads: Threads, thread: Thread) -> None:
    try:
        threads.keep(thread)
    except OSError as error:
        complain(f"warning: --continue will not know this answer: {error}")


# ---- The end
def conclude(printer: Printer, whole: bool, schema: Optional[Schema]) -> int:
    """Print what has to wait for the end, and report errors.

    :param whole: print the Response object
    :returns: the exit status
    """
    response = printer.response
    if response is None:
        return _failed(printer.error or {}, printer.shown)
    status = response.get("status")
    if whole and (schema is None or status != "completed"):
        printer.whole(json.dumps(response, ensure_ascii=False, indent=2))
    if status == "failed":
        return _failed(object_in(response.get("error")), printer.shown)
    if status != "completed":
        details = object_in(response.get("incomplete_details"))
        complain(f"the answer was cut: {details.get('reason') or status}")
        return exit_status.FAILED
    refusal = "".join(str(part.get("refusal") or "") for parts in _messages(response) for part in parts)
    if refusal:
        complain(f"the model refuses: {refusal}")
        return exit_status.FAILED
    if schema is not None:
        return _checked(printer, whole, schema)
    if printer.form == "text" and not printer.shown:  # a server that does not stream
        printer.whole(text_of(response))
    return exit_status.OK


def _checked(printer: Printer, whole: bool, schema: Schema) -> int:
    """Print the answer if it is JSON that fits the schema."""
    assert printer.response is not None
    text = text_of(printer.response, last=True).strip()
    try:
        problem = first_problem(json.loads(text), schema.schema)
    except UNREADABLE as error:
        problem = f"it is not JSON ({error})"
    if problem is not None:
        complain(f"the answer does not fit {schema.path}: {problem}")
        return exit_status.FAILED
    printer.whole(json.dumps(printer.response, ensure_ascii=False, indent=2) if whole else text)
    return exit_status.OK


def _failed(error: Mapping[str, Any], shown: bool) -> int:
    code = str(error.get("code"))
    complain(str(error.get("message") or "the turn failed"))
    return exit_status.FAILED if shown else BY_CODE.get(code, exit_status.FAILED)


def _messages(response: Mapping[str, Any]) -> List[List[Json]]:
    """The content parts of each message of an answer."""
    items = [item for item in objects_in(response.get("output")) if item.get("type") == "message"]
    return [objects_in(item.get("content")) for item in items]


def text_of(response: Mapping[str, Any], last: bool = False) -> str:
    """The text of an answer; ``last``: only that of its last message."""
    texts = ["".join(str(part.get("text") or "") for part in parts) for parts in _messages(response)]
    return "\n".join(texts[-1:] if last else texts)


# ---- Options
def _duration(text: str) -> float:
    seconds = checks.duration(text)
    if seconds is None or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; use 90, 90s, 5m or 1h")
    return seconds


def _session(text: str) -> str:
    if not text.strip() or len(text) > MAX_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {MAX_NAME} printable characters")
    return text


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="the question, or what to do with the text from stdin")
    add("-m", "--model", metavar="NAME", help="the model; default: the first one")
    add("--instructions", metavar="TEXT", help="how the model is to answer")
    add("--effort", choices=EFFORTS, help="how much the model thinks")
    add("--image", action="append", default=[], metavar="FILE", help="an image to send; may be repeated")
    add("--file", action="append", default=[], metavar="FILE", help="a text or PDF to read; may be repeated")
    add("--schema", metavar="FILE", help="a JSON Schema; print JSON that fits it, or fail")
    add("--no-thinking", dest="thinking", action="store_false", help="do not show thinking on stderr")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the whole Response object")
    form.add_argument("--events", action="store_true", help="print every event as it arrives, one per line")
    add(
        "--continue",
        action="store_true",
        help="continue the last conversation of this terminal, or else the last one",
    )
    add("--session", type=_session, metavar="NAME", help="begin this thread, or continue it with --continue")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        help=f"use the server at this address, such as http://127.0.0.1:3000; its key: ${KEY_VARIABLE}",
    )
    where.add_argument(
        "--demo", action="store_true", help="ask a built-in scripted provider; needs no key and no file"
    )
    add("--timeout", type=_duration, metavar="TIME", help="give up after 90, 90s, 5m or 1h")


COMMAND = Command(
    "ask a model, and print its answer",
    'rproxy ask "write a commit message" < changes.diff',
    run,
    add_options,
)

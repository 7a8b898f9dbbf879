"""``rproxy replay``: play a turn again that ``serve --record`` has written."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import logging
import re
import sys
from typing import List

from ..config.addresses import parse_listen_address
from ..convert.sse import DONE, encode_sse
from ..errors import UsageError
from ..log import MASK
from ..service.player import comparable, play
from ..telemetry.recording_file import NoRecording, RecordedTurn, read_recording
from ..types import Json
from .command import Command, Environ, complain
from .exit_status import FAILED, OK

ANY_PORT = "127.0.0.1:0"
REST_OF_SECRET = re.compile(rf"{re.escape(MASK)}[\w~+/=.-]*")
CONTEXT = 1  # events shown around a difference


def run(args: argparse.Namespace, environ: Environ) -> int:
    if args.file is None and args.serve not in (None, ANY_PORT):
        args.file, args.serve = args.serve, ANY_PORT  # replay --serve FILE
    if args.file is None:
        raise UsageError("which recording? rproxy replay FILE")
    recorded = read(args.file)
    if args.serve is not None:
        return serve(recorded, args.serve)
    logging.getLogger().addHandler(logging.NullHandler())  # the recorded turn has its line in the log already
    replayed = asyncio.run(play(recorded))
    if args.diff:
        return show_difference(recorded, replayed)
    if args.sse:
        sys.stdout.buffer.write(encode_sse(replayed.events) + DONE)
    else:
        for event in replayed.events:
            print(json.dumps(event))
    if replayed.error is not None:
        complain(f"the turn fails: {replayed.error}")
    return OK


def read(path: str) -> RecordedTurn:
    """:raises UsageError: it cannot be read, or is not a recording"""
    try:
        with open(path, "rb") as file:
            return read_recording(file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except NoRecording as error:
        raise UsageError(f"{path}: {error}") from None


def show_difference(recorded: RecordedTurn, replayed: RecordedTurn) -> int:
    """Compare the events, and print the differences as ``diff -u`` does, one event per line."""
    before, after = lines(comparable(recorded)), lines(comparable(replayed))
    if recorded.truncated or not recorded.status:
        complain("warning: the recording breaks off; what it has is compared")
        after = after[: len(before)]
    if before == after:
        complain(f"{len(before)} events, no difference")
        return OK
    for line in difflib.unified_diff(before, after, "recorded", "replayed", lineterm="", n=CONTEXT):
        print(line)
    return FAILED


def lines(events: List[Json]) -> List[str]:
    """Each event as a line, its type first.  Of a secret that was cut in two, the second part may be left."""
    texts = (f"{event['type']} {json.dumps(event, sort_keys=True)}" for event in events)
    return [REST_OF_SECRET.sub(MASK, text) for text in texts]


def serve(recorded: RecordedTurn, text: str) -> int:
    """``--serve``: act as the recorded provider until Ctrl-C."""
    from .demo.recorded import serve_recorded  # loaded only here, as it loads Tornado's server

    try:
        address = parse_listen_address(text)
    except ValueError as error:
        raise UsageError(f"--serve: {text!r} {error}") from None
    if address.path:
        raise UsageError("--serve needs HOST:PORT")

    async def forever() -> None:
        with serve_recorded(recorded, address.host, address.port) as url:
            print(url, flush=True)
            await asyncio.Event().wait()

    asyncio.run(forever())
    return OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="a recording of rproxy serve --record")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--diff",
        action="store_true",
        help="compare the events with the recorded ones; the exit status is 1 if they differ",
    )
    what.add_argument(
        "--sse", action="store_true", help="print server-sent events; default: one JSON object per line"
    )
    what.add_argument(
        "--serve",
        nargs="?",
        const=ANY_PORT,
        metavar="HOST:PORT",
        help="play the recorded provider, and print its base URL; default: a free port of 127.0.0.1",
    )


COMMAND = Command(
    "play a recorded turn again", "rproxy replay --diff recordings/TURN.jsonl", run, add_options
)

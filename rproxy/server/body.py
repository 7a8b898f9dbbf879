"""Request bodies: from the bytes of a client to one JSON object.

A body arrives in pieces.  :class:`BodyReader` knows from the request's header whether the body can be read at
all (size, encoding), counts the bytes while they arrive, and at the end decompresses and parses them.  The
limit applies to the bytes as sent and again to the decompressed bytes, so that a small compressed body cannot
become a large one in memory.

Decompression is a table of generators, one for each ``Content-Encoding``.  Each yields pieces of at most
``PIECE`` bytes, and the caller stops as soon as the limit is exceeded.  A large body is decompressed, decoded
and parsed piece by piece, in steps between which other requests get their turn.  zstd is supported because
Codex uses it when it is logged in with ChatGPT.  It needs Python 3.14 or the optional package ``zstandard``,
and without these the error explains how to switch the compression off.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from importlib import import_module
from itertools import chain
from random import random
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Optional, Union

from ..convert.json_reader import USUAL, NotAnObject, TooManyValues, parse_steps
from ..cooperative import free_later, large_values, run_cooperatively
from ..errors import ApiError, invalid, too_large
from ..json_codec import parser
from ..types import Json

PIECE = 1 << 17  # bytes
LARGE = 1 << 20  # bytes of JSON that are parsed in 3 ms; more is parsed in steps
MAYBE_LARGE = 1 << 18  # bytes of JSON that are parsed in some milliseconds even if they are full of values
MANY_VALUES = 70_000  # which take 5 to 30 ms; a body that holds text has a tenth of them
SAMPLES, SAMPLE = 16, 1 << 8  # how many pieces of a text are looked at, and their bytes
MAX_EMPTY = 100  # consecutive parts of a compressed body without content
# The value that Tornado can read; it joins repeated headers with commas.
CONTENT_LENGTH = re.compile(r"([0-9]{1,18})(?:,[ \t]*\1)*")
IDENTITY = ("", "identity")
JSON_NAMES = {
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}
FIRST = {"[": list, '"': str, "t": bool, "f": bool, "n": type(None)}  # all other characters begin numbers


def _over(limit: int, what: str = "request body") -> ApiError:
    return too_large(
        f"The {what} is larger than {limit} bytes, the limit of this proxy. "
        "Send less, or raise server.max_body_size."
    )


def _gunzip(data: bytes) -> Iterator[bytes]:
    member, left, empty = zlib.decompressobj(wbits=31), memoryview(data), 0
    part = b""
    while left or part:
        if not part:  # a part at a time: what a step leaves of its input is copied
            part, left = bytes(left[:PIECE]), left[PIECE:]
        piece = member.decompress(part, PIECE)
        part = member.unconsumed_tail
        if member.eof:
            part = member.unused_data
            if part or left:  # a gzip body may have several members, one after the other
                member = zlib.decompressobj(wbits=31)
        empty = 0 if piece else empty + 1
        if empty > MAX_EMPTY:
            raise ValueError("it has too many empty parts")
        yield piece
    while not member.eof:
        piece = member.decompress(b"", PIECE)
        if not piece and not member.eof:
            raise ValueError("it is truncated")
        yield piece


def _unzstd_stdlib(data: bytes) -> Iterator[bytes]:
    zstd = import_module("compression.zstd")  # Python 3.14
    while data:
        frame = zstd.ZstdDecompressor()
        while not frame.eof:
            piece = frame.decompress(data, PIECE)
            data = b""
            if not piece and frame.needs_input and not frame.eof:
                raise ValueError("it is truncated")
            yield piece
        data = frame.unused_data


def _unzstd_package(data: bytes) -> Iterator[bytes]:
    zstandard = import_module("zstandard")
    # The package does not report a truncated body; the JSON parser will.
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        data, read_across_frames=True
    ) as reader:
        while True:
            piece = reader.read(PIECE)
            if not piece:
                return
            yield piece


def _unzstd(data: bytes) -> Iterator[bytes]:
    for name, unpack in (("compression.zstd", _unzstd_stdlib), ("zstandard", _unzstd_package)):
        try:
            import_module(name)
        except ImportError:
            continue
        return unpack(data)
    raise invalid(
        "The request body is compressed with zstd, which this proxy cannot read: that needs Python 3.14 or "
        "the package 'zstandard'. Install it (pip install zstandard), or switch the compression off in "
        "~/.codex/config.toml: "
        "[features] enable_request_compression = false",
        code="invalid_prompt",
    )


DECODERS: Dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "zstd": _unzstd,
}


def decompressed(data: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    """The plain bytes of ``data``, in pieces.

    :param encoding: a key of ``DECODERS``
    :raises ApiError: 400 when ``data`` is damaged, 413 when the plain bytes are more than ``limit``
    """
    size = 0
    try:
        for piece in DECODERS[encoding](data):
            size += len(piece)
            if size > limit:
                raise _over(limit, "decompressed request body")
            yield piece
    except (ApiError, GeneratorExit):
        raise
    except Exception as error:  # each library has exceptions of its own
        raise invalid(f"The request body is not valid {encoding}: {error}.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


parse_json = parser(_no_constant)


def _empty(what: str) -> ApiError:
    return invalid(f"The {what} is empty. Send a JSON object with 'model' and 'input'.")


def _no_object(what: str, name: str) -> ApiError:
    return invalid(f"The {what} must be a JSON object, not {name}.")


_UNREADABLE = (TooManyValues, NotAnObject, ValueError, RecursionError)  # the exceptions of reading a text


def _unreadable(error: Exception, what: str) -> ApiError:
    """The error for a text that cannot be read.

    :param error: one of ``_UNREADABLE``
    :param what: what to call the text in an error message
    """
    if isinstance(error, TooManyValues):
        return invalid(f"The {what} has {error}, the limit of this proxy. Send less at a time.")
    if isinstance(error, NotAnObject):
        name = JSON_NAMES[FIRST.get(error.first, int)] if error.first else ""
        return _no_object(what, name) if name else _empty(what)
    if isinstance(error, UnicodeDecodeError):
        return invalid(f"The {what} is not UTF-8: invalid byte at offset {error.start}.")
    if isinstance(error, RecursionError):
        return invalid(f"The {what} is nested too deeply.")
    return invalid(f"The {what} is not valid JSON: {error}.")


def _is_blank(data: Union[str, bytes]) -> bool:
    text = data if isinstance(data, str) else data.decode("utf-8-sig", "replace")
    return not text.strip()


def parse_object(data: Union[str, bytes], what: str = "request body") -> Json:
    """The JSON object in ``data``, which is UTF-8 when it is bytes.

    :param what: what to call ``data`` in an error message
    :raises ApiError: 400; the message says what is wrong and where
    """
    try:
        value = parse_json(data)
    except _UNREADABLE as error:
        raise (_empty(what) if _is_blank(data) else _unreadable(error, what)) from None
    if not isinstance(value, dict):
        raise _no_object(what, JSON_NAMES[type(value)])
    return value


def is_dense(data: bytes) -> bool:
    """Are there so many values in a text of at most ``LARGE`` bytes that it takes long to parse?

    Looks at samples.  Their places are random, so that nobody can prepare them.
    """
    if len(data) < MAYBE_LARGE:
        return False
    last = len(data) - SAMPLE
    places = [int(random() * last) for _ in range(SAMPLES)]
    samples = b"".join([data[at : at + SAMPLE] for at in places])
    values = len(samples) - len(samples.translate(None, b",[{"))
    return values * len(data) > MANY_VALUES * len(samples)


async def parse_large(
    data: Union[str, Iterable[bytes]], what: str = "request body", bounded: bool = True
) -> Json:
    """:func:`parse_object` that lets other tasks run in between, also when the object is freed.

    :param data: a text, or the pieces of one
    :param bounded: may it not hold too many values?  At most ``LARGE`` bytes cannot
    :raises ApiError: 400, also for more objects, arrays or other values than a request may have
    """
    unfinished: List[Any] = []
    large_values.begin()
    try:
        value = await run_cooperatively(
            parse_steps(data, _no_constant, bounds=USUAL if bounded else None, unfinished=unfinished)
        )
        free_later([value])
        return value
    except _UNREADABLE as error:
        free_later(unfinished)
        raise _unreadable(error, what) from None
    finally:
        large_values.end()


class BodyReader:
    """Collects one request body.

    :param limit: the number of bytes that it may have
    :param length: the header Content-Length
    :param encoding: the header Content-Encoding
    :raises ApiError: the header shows that the body cannot be read: 413 for its length, 415 for its encoding

    ``value`` is the body once it has been parsed, ``json_size`` the number of its bytes, decompressed.
    """

    def __init__(self, limit: int, length: Optional[str] = None, encoding: str = "") -> None:
        self._limit = limit
        self._encoding = encoding.strip().lower()
        self._pieces: List[bytes] = []
        self._size = 0
        self.value: Json = {}
        self.json_size = 0
        found = CONTENT_LENGTH.fullmatch(length) if length is not None else None
        if found and int(found[1]) > limit:
            raise _over(limit)
        if self._encoding not in IDENTITY and self._encoding not in DECODERS:
            known = ", ".join(sorted(DECODERS))
            raise ApiError(
                415,
                f"Content-Encoding {self._encoding!r} is not supported; "
                f"send the body uncompressed or as one of: {known}.",
                code="unsupported_content_encoding",
            )

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        :raises ApiError: 413, there are more bytes than the limit
        """
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()
            raise _over(self._limit)
        self._pieces.append(piece)

    @property
    def size(self) -> int:
        """The number of bytes so far, as sent."""
        return self._size

    async def digest(self) -> str:
        """A digest of the body as sent; to be taken before the body is parsed."""
        digest = hashlib.blake2b(digest_size=16)

        def hashing() -> Generator[None, None, None]:
            for piece in self._pieces:
                digest.update(piece)
                yield

        await run_cooperatively(hashing())
        return digest.hexdigest()

    async def parsed(self, parse: Callable[[bytes], Json] = parse_object) -> Json:
        """The whole body as a JSON object; other tasks run in between when it is large.

        :param parse: parses one that is not
        :raises ApiError: 400 or 413, see :func:`decompressed` and :func:`parse_object`
        """
        pieces = self._plain()
        first: List[bytes] = []
        for piece in pieces:
            first.append(piece)
            if self.json_size > LARGE:
                self.value = await parse_large(chain(first, pieces))
                return self.value
        data = b"".join(first)
        self.value = await parse_large([data], bounded=False) if is_dense(data) else parse(data)
        return self.value

    def _plain(self) -> Iterator[bytes]:
        """The pieces of the plain body, counted.  The reader gives up its own."""
        pieces, self._pieces = self._pieces, []
        plain: Iterable[bytes] = pieces
        if self._encoding not in IDENTITY and pieces:
            plain = decompressed(b"".join(pieces), self._encoding, self._limit)
        for piece in plain:
            self.json_size += len(piece)
            yield piece

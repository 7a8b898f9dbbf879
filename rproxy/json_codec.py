"""JSON as rproxy writes and reads it: it writes compact UTF-8 that every parser accepts, and reads any JSON.

There are two implementations of the same functions.  :class:`Standard` uses :mod:`json`; :class:`Fast` uses
the package ``orjson`` (the extra ``fast``), and leaves to :class:`Standard` what orjson refuses or would
change: surrogates, integers of more than 64 bits, deep nesting, keys that are not text, and all errors, so
that their messages are the same.  Both write the same bytes, except that a number may be spelled ``1e-7`` or
``1e-07``; ``tests/test_json_codec.py`` compares them.  ``RPROXY_PURE=1`` switches orjson off.

``JSONEncoder.encode`` makes a new C encoder in every call, which is half of its time for an event.  Here one
C encoder serves all calls.  It does not look for circular references, which our data does not have; the
recursion limit would end them.  An interpreter without the C encoder uses the standard method.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, Callable, ClassVar, Dict, Iterable, List, Optional, Tuple, Type, Union

from . import PURE
from .types import Json

try:
    orjson: Any = None if PURE else import_module("orjson")
except ImportError:
    orjson = None

Parse = Callable[[Union[str, bytes]], Any]

PIECE = 1 << 16  # characters of a text that are checked together
UNREADABLE = (ValueError, RecursionError)  # what reading JSON raises; a ValueError: integers too long, too
MAX_DEPTH = 254  # orjson's limit; deeper than anything meaningful, far below the interpreter's


def mend(text: str) -> str:
    """``text`` as it can be written in UTF-8: halves of a surrogate pair are joined, and a lone half becomes
    U+FFFD.
    """
    if is_well_formed(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_well_formed(text: str) -> bool:
    """Can the text be written in UTF-8 as it is?  A large text is not copied."""
    try:
        for begin in range(0, len(text), PIECE):
            text[begin : begin + PIECE].encode()
    except UnicodeEncodeError:
        return False
    return True


# ---- Values that are written several times
class Shared:
    """A value with its JSON, which is made once, when it is first needed.  Do not change the value
    afterwards.
    """

    plain: ClassVar[Type[Any]]
    """The class of the value itself."""
    written = False
    """Is there JSON already?"""

    @property
    def json(self) -> bytes:
        if not self.written:
            self.keep(encode_json(self.plain(self)))
        return self._json

    def keep(self, json: bytes) -> None:
        """Keep its JSON, which may have been made in steps."""
        self._json = json
        self.written = True


class SharedText(Shared, str):
    """A text that is written several times."""

    plain = str


class SharedList(Shared, List[Any]):
    """A list that is written several times."""

    plain = list


class SharedDict(Shared, Dict[str, Any]):
    """An object that is written several times."""

    plain = dict


SHARED = frozenset((SharedText, SharedList, SharedDict))
HOLDERS = frozenset(("response", "instructions", "tools"))  # the keys of shared values


# ---- The standard library
def _encoder(make: Optional[Callable[..., Any]]) -> Callable[[Any, int], Iterable[str]]:
    """A function that gives the pieces of a value; its second argument is 0.

    :param make: makes a C encoder; None: there is none
    """
    standard = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
    )
    if make is None:
        return lambda value, _: [standard.encode(value)]
    escape = json.encoder.encode_basestring
    encoder: Callable[[Any, int], Iterable[str]] = make(
        None, standard.default, escape, None, ":", ",", False, False, False
    )
    return encoder


_pieces = _encoder(getattr(json.encoder, "c_make_encoder", None))
_BLANKS = " \t\n\r"
_MARK = "\0shared\0"  # where the JSON of a shared value belongs; in ASCII, which is encoded fastest
_MARK_JSON = b'"\\u0000shared\\u0000"'


class Standard:
    """JSON with the standard library."""

    @classmethod
    def encode(cls, value: Any) -> bytes:
        """``value`` as JSON for others: without surrogates, and with null for NaN and Infinity.

        :raises TypeError: JSON cannot express it
        """
        if type(value) is dict and not HOLDERS.isdisjoint(value):
            return _spliced(value, _readable)
        try:
            return "".join(_pieces(value, 0)).encode()
        except (ValueError, RecursionError):
            return _readable(value)

    @classmethod
    def encode_exactly(cls, value: Any) -> bytes:
        """The same for ourselves, with surrogates as they are; deep nesting is refused.

        :raises TypeError: JSON cannot express it
        :raises RecursionError: it is nested too deeply
        """
        if type(value) is dict and not HOLDERS.isdisjoint(value):
            return _spliced(value, _exact)
        return _exact(value)

    @staticmethod
    def parser(constant: Callable[[str], Any]) -> Parse:
        """A function that reads JSON; bytes are UTF-8, perhaps with a BOM.

        It raises ValueError for anything else, and RecursionError.

        :param constant: makes a value of NaN, Infinity and -Infinity
        """
        decoder = json.JSONDecoder(parse_constant=constant)
        scan: Callable[[str, int], Tuple[Any, int]] = getattr(decoder, "scan_once")  # noqa: B009 - not in its stub

        def parse(data: Union[str, bytes]) -> Any:
            text = data if isinstance(data, str) else data.decode("utf-8-sig")
            # As decode() does it, but without the search for blanks where there are none.
            try:
                value, end = scan(text, 0)
            except StopIteration:
                return decoder.decode(text)
            return value if end == len(text) or not text[end:].strip(_BLANKS) else decoder.decode(text)

        return parse


def _readable(value: Any) -> bytes:
    try:
        text = "".join(_pieces(value, 0))
    except (ValueError, RecursionError):
        text = "".join(_pieces(tamed(value, MAX_DEPTH), 0))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return mend(text).encode()


def _exact(value: Any) -> bytes:
    try:
        text = "".join(_pieces(value, 0))
    except ValueError:
        text = "".join(_pieces(tamed(value, MAX_DEPTH), 0))
    return text.encode("utf-8", "surrogatepass")


def _spliced(value: Json, encode: Callable[[Any], bytes]) -> bytes:
    """``encode(value)``, with the JSON that shared values under :data:`HOLDERS` have already, also within its
    ``response``.
    """
    parts: List[bytes] = []
    marked = _marked(value, parts)
    if parts:
        pieces = encode(marked).split(_MARK_JSON)
        if len(pieces) == len(parts) + 1:  # else the mark was in the data
            spliced = [pieces[0]]
            for part, piece in zip(parts, pieces[1:]):
                spliced += (part, piece)
            return b"".join(spliced)
    return encode(value)


def _marked(value: Json, parts: List[bytes]) -> Json:
    """``value`` with a mark in place of each shared value, whose JSON is appended to ``parts``."""
    marks: Json = {}
    for key in filter(HOLDERS.__contains__, value):  # in the order of the value
        inner = value[key]
        if type(inner) in SHARED:
            parts.append(inner.json)
            marks[key] = _MARK
        elif key == "response" and type(inner) is dict:
            marks[key] = _marked(inner, parts)
    return {**value, **marks} if marks else value


def tamed(value: Any, depth: int) -> Any:
    """A copy with null for numbers that JSON lacks, and for values nested deeper than ``depth``."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {key: tamed(inner, depth - 1) for key, inner in value.items()}
    return [tamed(inner, depth - 1) for inner in value]


# ---- orjson
# orjson silently reads an integer of more than 64 bits as a float; it has at least this many digits.
_LONG = 19
_STRIDE = 4  # every fourth byte is a sample: of so many digits in a row, it has _LONG // _STRIDE
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))  # digits become 0, all else blanks


def _has_long_number(data: bytes) -> bool:
    """Are there this many digits in a row?  A sample nearly always rules it out."""
    sample = data[::_STRIDE].translate(_DIGITS)
    return b"0" * (_LONG // _STRIDE) in sample and b"0" * _LONG in data.translate(_DIGITS)


def _fragment(value: Any) -> Any:
    """The JSON of a value whose class orjson does not know."""
    if type(value) in SHARED:
        return orjson.Fragment(value.json)
    raise TypeError


class Fast(Standard):
    """JSON with orjson, without its support for classes that :mod:`json` does not know."""

    _options = (
        0
        if orjson is None
        else orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    @classmethod
    def encode(cls, value: Any) -> bytes:
        try:
            data: bytes = orjson.dumps(value, _fragment, cls._options)
        except TypeError:
            return Standard.encode(value)
        return data

    @classmethod
    def encode_exactly(cls, value: Any) -> bytes:
        try:
            data: bytes = orjson.dumps(value, _fragment, cls._options)
        except TypeError:
            return Standard.encode_exactly(value)
        return data

    @staticmethod
    def parser(constant: Callable[[str], Any]) -> Parse:
        standard = Standard.parser(constant)

        def parse(given: Union[str, bytes]) -> Any:
            try:
                data = given.encode() if isinstance(given, str) else given
                return standard(given) if _has_long_number(data) else orjson.loads(data)
            except ValueError:
                return standard(given)

        return parse


# ---- The one in use
_implementation: Type[Standard] = Standard if orjson is None else Fast
encode_json = _implementation.encode
encode_exactly = _implementation.encode_exactly
parser = _implementation.parser

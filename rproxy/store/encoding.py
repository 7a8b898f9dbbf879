"""How stores keep a record: as JSON.

Most bytes of a response repeat its request: tools and instructions, which a client sends in every turn.
Continuing a chain of responses does not need them.  So the end of a record says where they are, and a *brief*
reader leaves them out before it decodes the rest::

    {"response":{"id":...,"output":[...],...,"tools":[...],...},"input":[...],...,"cut":[90,30000,31000]}

The numbers say where the part begins (at the first large field behind the output), where it ends (at the end
of the response), and where ``cut`` itself is; this shows that no program that does not know ``cut`` has
changed the record since.  A record without ``cut`` is decoded as a whole.
"""

from __future__ import annotations

import logging
import re
from itertools import takewhile
from typing import Any, Optional, Sequence, Tuple, Union

from ..convert.json_reader import parse_steps
from ..convert.json_steps import is_large, write_large
from ..cooperative import collect, free_later, large_values, run_cooperatively
from ..errors import StoreError
from ..json_codec import SHARED, SharedDict, encode_exactly, encode_json, parser
from ..types import AnyRecord, Json, Record

log = logging.getLogger("rproxy.store")

_parse = parser(float)

ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
NO_JSON = (TypeError, ValueError, RecursionError)  # from the encoder
LARGE = 1 << 16  # bytes; a larger record is decoded in slices
HEAD = b'{"response":'  # of a response's record
LARGE_FIELDS = ("instructions", "tools")  # in the order of a response
WORTH_IT = 1 << 10  # bytes of one of them
CUT = re.compile(rb',"cut":\[(\d+),(\d+),(\d+)\]\}\Z')
CUT_SIZE = 64  # bytes, at most


def valid_id(record_id: str) -> bool:
    """Is this a possible id? Letters, digits, ``_`` and ``-``, at most 128 of them."""
    return ID.match(record_id) is not None


def encode(record_id: str, record: Record) -> bytes:
    """The stored form of a record.

    :raises StoreError: the id is not one, or the record is no JSON
    """
    _check_id(record_id)
    try:
        return encode_exactly(record)
    except NO_JSON as error:
        raise _unwritable(record_id, error) from error


async def encode_cooperatively(record_id: str, record: Record, small: bool = False) -> bytes:
    """:func:`encode` in slices that let other work run.

    :param small: the record is known to be small, so it need not be measured
    """
    if not small and is_large(record):
        _check_id(record_id)
        try:
            blob = await collect(lambda pieces: write_large(record, pieces, encode_exactly))
        except NO_JSON as error:
            raise _unwritable(record_id, error) from error
    else:
        blob = encode(record_id, record)
    part = _repeated(record, blob)
    return b'%b,"cut":[%d,%d,%d]}' % (blob[:-1], *part, len(blob) - 1) if part is not None else blob


def _repeated(record: Record, blob: bytes) -> Optional[Tuple[int, int]]:
    """Where the stored form of a response repeats its request; None if it is not worth leaving out."""
    response = record.get("response")
    if type(response) is not SharedDict or not blob.startswith(HEAD):
        return None
    large = next((name for name in LARGE_FIELDS if _is_large(response.get(name))), None)
    if large is None or is_large(response.get("output")):
        return None
    before = dict(takewhile(lambda field: field[0] != large, response.items()))
    name = b',"%b":' % large.encode()
    begin = len(HEAD) + len(encode_json(before)) - 1
    begins = blob.startswith(name, begin) and "output" in before
    return (begin + len(name), len(HEAD) + len(response.json) - 1) if begins else None


def _is_large(value: Any) -> bool:
    return type(value) in SHARED and len(value.json) > WORTH_IT


def _brief(blob: bytes) -> Tuple[Union[bytes, memoryview], ...]:
    """The stored form, in pieces, without what a response repeats of its request."""
    cut = CUT.search(blob, max(0, len(blob) - CUT_SIZE))
    if cut is None or int(cut[3]) != cut.start() or not int(cut[1]) < int(cut[2]) < cut.start():
        return (blob,)
    whole = memoryview(blob)  # which copies nothing: it may be large
    return whole[: int(cut[1])], b"null", whole[int(cut[2]) :]


def check_size(record_id: str, blob: bytes, max_bytes: int) -> None:
    """Refuse a record that can never fit into a store.

    :raises StoreError: it is larger than all records together may be
    """
    if len(blob) > max_bytes:
        raise StoreError(
            f"response {record_id} has {len(blob)} bytes, more than store.max_bytes ({max_bytes})"
        )


def _check_id(record_id: str) -> None:
    if not valid_id(record_id):
        raise StoreError(f"'{record_id:.40}' is not an id of a response")


def _unwritable(record_id: str, error: Exception) -> StoreError:
    return StoreError(f"response {record_id} cannot be written as JSON: {error}")


async def _parse_large(pieces: Sequence[Union[bytes, memoryview]]) -> Json:
    large_values.begin()
    try:
        record = await run_cooperatively(parse_steps(pieces, float, errors="surrogatepass"))
        free_later([record])
        return record
    finally:
        large_values.end()


async def decode(record_id: str, blob: bytes, brief: bool = False) -> Optional[AnyRecord]:
    """The record of a stored form, decoded in slices; None, with a warning, if it is damaged.

    :param brief: without most of what a response repeats of its request
    """
    try:
        pieces = _brief(blob) if brief else (blob,)
        if sum(map(len, pieces)) > LARGE:
            record: Any = await _parse_large(pieces)
        else:
            record = _parse(b"".join(pieces).decode("utf-8", "surrogatepass"))
        if isinstance(record, dict):
            record.pop("cut", None)
            return record
        problem = "it is not an object"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    log.warning("the stored record %s is damaged and counts as missing: %s", record_id, problem)
    return None

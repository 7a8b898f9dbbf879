"""The public face of the converter: it works as a library, without a server."""

from __future__ import annotations

import doctest
import subprocess
import sys
from typing import Any, Dict

import pytest

from rproxy import convert
from rproxy.convert import (
    ChunkDecoder,
    Ids,
    Profile,
    StreamConverter,
    input_items,
    response_object,
    to_chat_request,
)

Json = Dict[str, Any]
REQUEST: Json = {"model": "m", "input": "What is 2+2?", "instructions": "Be brief."}


def test_the_example_of_the_docstring_runs() -> None:
    ran = doctest.testmod(convert, raise_on_error=False)
    assert ran.attempted >= 8 and ran.failed == 0


def test_every_public_name_is_there_and_imported_names_are_public() -> None:
    assert sorted(convert.__all__, key=lambda name: (not name.isupper(), name)) == convert.__all__
    modules = {name for name in vars(convert) if isinstance(vars(convert)[name], type(sys))}
    assert {name for name in vars(convert) if not name.startswith("_")} - modules == set(convert.__all__)


def answered(body: bytes) -> Json:
    conversion = to_chat_request(REQUEST, input_items(REQUEST), Profile(), downstream_model="d")
    assert [message["role"] for message in conversion.body["messages"]] == ["system", "user"]
    ids, decoder = Ids("0" * 32), ChunkDecoder()
    converter = StreamConverter(
        response_object(REQUEST, id=ids.response, created_at=1),
        conversion.tools,
        ids=ids,
        now=lambda: 2,
        reader=conversion.reader(),
    )
    for chunk in decoder.feed(body) + decoder.close():
        converter.feed(chunk)
    assert converter.failure(decoder.done) is None
    converter.finish()
    return converter.response


def test_a_whole_completion_is_a_stream_of_one_chunk() -> None:
    message = b'{"message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}'
    whole = answered(
        b'{"choices": [' + message + b'], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
    )
    deltas = (
        b'data: {"choices": [{"delta": {"content": "4"}}]}\n\n'
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    )
    assert whole == answered(
        deltas
        + b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    )
    assert whole["status"] == "completed" and whole["usage"]["total_tokens"] == 5


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_large_chunk_is_fed_like_any_other(size: int) -> None:
    text = b"x" * size
    answer = b'{"choices": [{"message": {"content": "%b"}, "finish_reason": "stop"}]}' % text
    for body in (answer, b"data: %b\n\n" % answer.replace(b"message", b"delta")):
        response = answered(body)
        assert response["status"] == "completed"
        assert response["output"][0]["content"][0]["text"] == text.decode()


def test_the_library_needs_no_server() -> None:
    code = (
        "import sys, rproxy.convert;"
        "sys.exit(', '.join({'tornado', 'yaml', 'rproxy.service.service'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

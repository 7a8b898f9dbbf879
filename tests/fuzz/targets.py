"""What is fuzzed: a function that takes any bytes, and raises when rproxy does what it must not do.

Every parser of rproxy either understands what it gets, or raises the one error that its users know; and what
arrives in pieces means the same wherever it was cut.  Each target has seeds of good input, most of them from
the fixtures of other tests, and files in ``tests/corpus/NAME`` that once failed.  Random choices of a target
are drawn from the data, so that the data alone reproduces a failure.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from zlib import crc32

import hostile
import provider_cases
from chat_rules import problems
from grammar import CALLS, HOSTED, TERMINAL, check_stream
from histories import PROFILES
from stream_tools import converter, drive
from test_stream_properties import TOOLS

from rproxy.config.addresses import is_loopback, is_public, parse_listen_address
from rproxy.config.load import parse_config
from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.answer.decoder import ChunkDecoder
from rproxy.convert.answer.responses import EventReader
from rproxy.convert.json_reader import parse_steps
from rproxy.convert.profile import AnswerForm, Profile
from rproxy.convert.request.chat import input_items, to_chat_request
from rproxy.convert.request.responses import to_responses_request
from rproxy.convert.request.validate import check_request, without_nulls
from rproxy.convert.sealed import CHECKSUM
from rproxy.convert.sse import encode_sse
from rproxy.errors import ApiError, ConfigError
from rproxy.json_codec import encode_json
from rproxy.providers.diagnosis import diagnose
from rproxy.providers.provider_errors import Refusal, provider_error, stream_error
from rproxy.server.access import Access
from rproxy.server.body import BodyReader
from rproxy.server.websocket import read_message
from rproxy.service.sealer import AES_GCM, HMAC, KeyedSealer, RecentlyOpened, SealKey
from rproxy.upstream.parser import GzipDecoder, ProtocolError, ResponseParser
from rproxy.upstream.proxy import bypasses, parse_proxy

TESTS = Path(__file__).resolve().parent.parent
CORPUS = TESTS / "corpus"
Json = Dict[str, Any]
KINDS = {"message", "reasoning", "compaction", *CALLS, *HOSTED}  # of items that the grammar knows
CONFIG = b'models: [{model: "*", provider: {base_url: %b}}]\nserver: {listen_addr: %b}\n'


def cuts(data: bytes) -> Iterator[List[bytes]]:
    """``data`` whole, byte by byte, and cut at random places."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    rng = Random(crc32(data))
    for _ in range(2):
        places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 5)))
        yield [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)])]


def same_everywhere(data: bytes, outcome: Callable[[List[bytes]], Any]) -> None:
    """The outcome does not depend on the cuts."""
    whole, *others = map(outcome, cuts(data))
    for other in others:
        assert other == whole, f"it depends on the cuts: {str(whole)[:300]} or {str(other)[:300]}"


# ---- Bytes of providers
def http_response(data: bytes) -> None:
    method = Random(crc32(data)).choice(("POST", "POST", "HEAD", "CONNECT"))

    def outcome(pieces: List[bytes]) -> Any:
        parser, body, problem = ResponseParser(method), b"", ""
        try:
            for piece in pieces:
                body += parser.feed(piece)
            parser.feed_eof()
        except ProtocolError as error:
            body += parser.take_body()
            problem = f"ProtocolError, truncated: {error.truncated}"
        return parser.head, body, parser.done, problem

    same_everywhere(data, outcome)


def gzip_body(data: bytes) -> None:
    def outcome(pieces: List[bytes]) -> Any:
        decoder, plain = GzipDecoder(), b""
        try:
            for piece in pieces:
                plain += decoder.feed(piece)
            decoder.close()
        except ProtocolError:
            return "damaged"
        return plain

    same_everywhere(data, outcome)


def chunks_of(pieces: Sequence[bytes]) -> Tuple[List[Json], bool]:
    decoder, chunks = ChunkDecoder(), []
    for piece in pieces:
        chunks += decoder.feed(piece)
    return chunks + decoder.close(), decoder.done


def decoder(data: bytes) -> None:
    same_everywhere(data, lambda pieces: json.dumps(chunks_of(pieces)))


def chat_answer(data: bytes) -> None:
    rng = Random(crc32(data))
    answer = AnswerForm(think_tags=rng.random() < 0.4, cumulative=rng.random() < 0.2)
    options: Json = {"reasoning": rng.choice(("content", "summary")), "strip_fences": rng.random() < 0.2}
    _stream(data, lambda: ChunkReader(answer), options)


def responses_answer(data: bytes) -> None:
    _stream(data, lambda: EventReader("origin"), {"reasoning": "content"})


def _stream(data: bytes, reader: Callable[[], Any], options: Json) -> None:
    """One answer gives one well-formed stream."""
    chunks, done = chunks_of([data])
    stream = converter(TOOLS, reader=reader(), **options)
    events = drive(stream, chunks, done)
    told = json.loads(encode_json(events))
    added = {event["item"]["type"] for event in told if event["type"] == "response.output_item.added"}
    if added <= KINDS:
        check_stream(told)
    else:  # items of other kinds pass as they are
        assert [event["type"] in TERMINAL for event in told].index(True) == len(told) - 1


def refusal(data: bytes) -> None:
    rng = Random(crc32(data))
    error = provider_error(rng.choice((400, 404, 422, 429, 500, 200)), {"Retry-After": "x"}, data, "p")
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": [], "temperature": 1}
    if isinstance(error, Refusal):
        diagnose(error.complaints, body, Profile(), set())
    json.dumps(error.body())
    for chunk in chunks_of([data])[0]:
        stream_error(chunk.get("error"), "p")


# ---- Bytes of clients
def request(data: bytes) -> None:
    try:
        body = without_nulls(read_message(data.decode("utf-8", "surrogateescape")))
        check_request(body)
        items = input_items(body)
    except ApiError as error:
        return known(error)
    rng = Random(crc32(data))
    profile = PROFILES[rng.choice(sorted(PROFILES))]
    try:
        sent = to_chat_request(body, items, profile, downstream_model="m").chat_request(stream=True)
        encode_json(sent)
        assert problems(sent, profile) == []
    except ApiError as error:
        known(error)
    try:
        encode_json(
            to_responses_request(body, items, profile, downstream_model="m", origin="o").chat_request(True)
        )
    except ApiError as error:
        known(error)


def known(error: ApiError) -> None:
    """The error of a client, in the API's shape."""
    assert 400 <= error.status < 500, error
    encode_json(error.body())


def no_constant(name: str) -> Any:
    raise ValueError(name)


def message(data: bytes) -> None:
    """A WebSocket message; large ones are parsed in steps, with the same result."""
    text = data.decode("utf-8", "surrogateescape")
    value: Optional[Json] = None
    try:
        value = read_message(text)
    except ApiError as error:
        known(error)
    steps = parse_steps(text, no_constant)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        if isinstance(end.value, dict):
            assert json.dumps(end.value) == json.dumps(value), "in steps it is another value"
    except (ValueError, RecursionError):
        assert value is None, "in steps it is an error"


def body(data: bytes) -> None:
    for encoding in ("", "gzip", "zstd"):
        reader = BodyReader(1 << 20, None, encoding)
        try:
            reader.feed(data)
            asyncio.run(reader.parsed())
        except ApiError as error:
            known(error)


PAYLOADS: List[Json] = [{"text": "Hm. ü"}, {"details": [{"n": 1}]}, {}]
SEALERS = [
    KeyedSealer(SealKey(b"k" * 32, scheme), "ann", False, RecentlyOpened()) for scheme in (HMAC, AES_GCM)
]


def sealed(data: bytes) -> None:
    """Nothing opens but what was sealed."""
    blob = data.decode("latin-1")
    CHECKSUM.open(blob)
    for sealer in SEALERS:
        opened = sealer.open(blob)
        assert opened.problem or opened.payload in PAYLOADS, f"a forged blob was opened: {opened}"


# ---- Text of configurations
def config(data: bytes) -> None:
    try:
        parse_config(data, "config.yaml", {"DEEPSEEK_API_KEY": "k", "PROXY_KEY": "k"})
    except ConfigError as error:
        assert str(error).startswith("config.yaml"), error


def address(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse, error in ((parse_listen_address, ValueError), (partial(parse_proxy, source="x"), ConfigError)):
        try:
            parse(text)
        except error as found:
            assert type(found) is error, found
    quoted = json.dumps(text).encode()
    for url, listen in ((quoted, b'"127.0.0.1:1"'), (b"http://x", quoted)):
        config(CONFIG % (url, listen))
    is_loopback(text)
    is_public(text)
    bypasses(text, text, 80)
    access = Access(None, [text], [parse_listen_address("127.0.0.1:1")])
    for check in (
        lambda: access.check_origin(text, text[1:]),
        lambda: access.check_host(text, lambda: (text, 1)),
    ):
        try:
            check()
        except ApiError as error:
            known(error)


# ---- Seeds
def _answers(wire: str) -> List[bytes]:
    cases = [*provider_cases.recorded().values(), *provider_cases.our_own().values()]
    bodies = [case["body"] for case in cases if isinstance(case.get("body"), bytes)]
    events = [body for body in bodies if b"response." in body]
    chat = [body for body in bodies if body not in events]
    if wire == "chat":
        return chat
    ours = (
        drive(converter(TOOLS, reader=ChunkReader(AnswerForm())), *chunks_of([body])) for body in chat[::9]
    )
    return [*events, *map(encode_sse, ours)]  # what rproxy itself says is an answer by that API


def _requests() -> List[bytes]:
    fixtures = TESTS / "fixtures"
    found = [json.loads(path.read_bytes()) for path in sorted((fixtures / "providers").glob("req_*.json"))]
    for path in sorted((fixtures / "codex").glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:2]]
    bodies = [case.get("request", case.get("body", case)) for case in found]
    return [json.dumps(body).encode() for body in bodies if isinstance(body, dict) and "input" in body]


def _errors() -> List[bytes]:
    return [path.read_bytes() for path in sorted((TESTS / "fixtures" / "errors").glob("e*"))]


def _configs() -> List[bytes]:
    example = (TESTS.parent / "etc" / "config.yaml").read_bytes()
    refused = (TESTS / "fixtures" / "refused_configs.txt").read_bytes()
    return [example, *refused.split(b"\n\n")[:80], CONFIG % (b"https://api.deepseek.com", b'"[::1]:3000"')]


def _addresses() -> List[bytes]:
    words = "127.0.0.1:3000 [::1]:3000 *:80 http://user:pa%40ss@proxy:3128 https://api.example.com/v1?a=b&c=d"
    more = (
        "http+unix://%2Frun%2Fllm.sock/v1 localhost.,10.0.0.0/8,*.lan,[fe80::1%25eth0] null ::ffff:127.0.0.1"
    )
    return [word.encode() for word in f"{words} {more}".split()]


def _bodies() -> List[bytes]:
    plain = b'{"model": "m", "input": "Hi"}'
    packed = [gzip.compress(plain, mtime=0), gzip.compress(plain * 9, mtime=0) * 2]
    try:
        import zstandard

        packed.append(zstandard.ZstdCompressor().compress(plain * 9))
    except ImportError:
        pass
    return [plain, *packed]


def _blobs() -> List[bytes]:
    return [
        sealer.seal(kind, payload).encode()
        for sealer in (*SEALERS, CHECKSUM)
        for kind in ("reasoning", "compaction")
        for payload in PAYLOADS
    ]


class Target(NamedTuple):
    """``json``: seeds that are JSON are changed as values, too, not only as bytes."""

    run: Callable[[bytes], None]
    seeds: Callable[[], List[bytes]]
    json: bool = False


TARGETS: Dict[str, Target] = {
    "http_response": Target(http_response, lambda: [form.data for form in hostile.FORMS.values()]),
    "gzip_body": Target(gzip_body, lambda: [body for body in _bodies() if body[:2] == b"\x1f\x8b"]),
    "decoder": Target(decoder, lambda: _answers("chat")),
    "chat_answer": Target(chat_answer, lambda: _answers("chat"), json=True),
    "responses_answer": Target(responses_answer, lambda: _answers("responses"), json=True),
    "refusal": Target(refusal, _errors, json=True),
    "request": Target(request, _requests, json=True),
    "message": Target(message, _requests),
    "body": Target(body, _bodies),
    "sealed": Target(sealed, _blobs),
    "config": Target(config, _configs),
    "address": Target(address, _addresses),
}


@cache
def seeds(name: str) -> List[bytes]:
    """Where the mutations of a target start: good input, and what once failed."""
    return [*TARGETS[name].seeds(), *corpus(name)]


def corpus(name: str) -> List[bytes]:
    """What once failed."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]

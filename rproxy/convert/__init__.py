"""The translation between the Responses API and Chat Completions, as a library: standard library only,
without I/O, clock and randomness.

A request becomes a chat request; the bytes of the answer become chunks, and the chunks become events:

>>> request = {"model": "gpt-5.5", "input": "What is 2+2?"}
>>> items = input_items(request)
>>> conversion = to_chat_request(request, items, Profile(), downstream_model="deepseek-v4-pro")
>>> conversion.chat_request(stream=True)["messages"]
[{'role': 'user', 'content': 'What is 2+2?'}]
>>> ids, decoder = Ids("0123456789abcdef" * 2), ChunkDecoder()
>>> converter = StreamConverter(
...     response_object(request, id=ids.response, created_at=1_700_000_000),
...     conversion.tools,
...     ids=ids,
...     now=lambda: 1_700_000_001,
...     reader=conversion.reader(),
... )
>>> answer = b'data: {"choices": [{"delta": {"content": "4"}, "finish_reason": "stop"}]}\\n\\n'
>>> events = converter.start()
>>> for chunk in decoder.feed(answer + DONE):
...     events += converter.feed(chunk)
>>> events += converter.finish()
>>> encode_sse(events).decode().splitlines()[0], events[-1]["type"]
('event: response.created', 'response.completed')
>>> converter.response["output"][0]["content"][0]["text"]
'4'

A whole completion (the answer to a request without ``stream``) is one chunk: feed it, then call ``finish``;
``converter.response`` is the Response object.  Before ``finish``, ``converter.failure(decoder.done)`` says
why the answer cannot be completed, or is None.  ``Profile()`` is a provider without peculiarities;
``rproxy.providers.profiles.choose_profile`` returns those of known providers.  A request that cannot be
converted raises :class:`rproxy.errors.ApiError`; answers raise nothing, whatever they contain.
"""

from ..json_codec import encode_json
from .answer.decoder import ChunkDecoder
from .events.converter import StreamConverter
from .events.response import response_object, usage_object
from .events.terminal import Failure
from .ids import Ids
from .profile import Profile
from .request.chat import Conversion, input_items, to_chat_request
from .request.validate import check_request, without_nulls
from .sealed import seal, unseal
from .sse import DONE, encode_sse

__all__ = [
    "DONE",
    "ChunkDecoder",
    "Conversion",
    "Failure",
    "Ids",
    "Profile",
    "StreamConverter",
    "check_request",
    "encode_json",
    "encode_sse",
    "input_items",
    "response_object",
    "seal",
    "to_chat_request",
    "unseal",
    "usage_object",
    "without_nulls",
]

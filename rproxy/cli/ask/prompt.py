"""The body of a create request, from arguments, stdin and files."""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ...errors import UsageError
from ...json_codec import UNREADABLE
from ...types import Json
from .json_schema import is_strict

# The first bytes of the image formats that models read.
IMAGES: Tuple[Tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)
NO_QUESTION = (
    'there is no question: rproxy ask "a question", or pipe something in: git diff | rproxy ask "write a '
    'commit message"'
)


class Schema(NamedTuple):
    """A JSON Schema that the answer has to fit, and the file that it is from."""

    path: str
    schema: Json
    strict: bool

    def text_format(self) -> Json:
        """As ``text.format``."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", str(self.schema.get("title") or Path(self.path).stem))
        return {
            "type": "json_schema",
            "name": name[:64] or "answer",
            "schema": self.schema,
            "strict": self.strict,
        }


def user_message(args: argparse.Namespace) -> Json:
    """The message of the user: words, what was piped in, images and files.

    :raises UsageError: there is nothing, or a file cannot be read
    """
    words = os.fsencode(" ".join(args.prompt)).decode("utf-8", "replace").strip()
    text = "\n\n".join(filter(None, [words, _piped()]))
    parts = [*map(_image, args.image), *map(_file, args.file)]
    if not text and not parts:
        raise UsageError(NO_QUESTION)
    if not parts:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [*parts, *([{"type": "input_text", "text": text}] if text else [])]}


def _piped() -> str:
    """The text from stdin, unless that is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    stream = getattr(sys.stdin, "buffer", None)
    text = stream.read().decode("utf-8-sig", "replace") if stream is not None else sys.stdin.read()
    return str(text).strip("\r\n")


def _image(name: str) -> Json:
    data = _read(name)
    kind = next((kind for head, kind in IMAGES if data.startswith(head)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    kind = kind or mimetypes.guess_type(name)[0] or ""
    if not kind.startswith("image/"):
        raise UsageError(f"--image {name}: this is not an image; --file takes other files")
    return {"type": "input_image", "image_url": _data_url(kind, data)}


def _file(name: str) -> Json:
    data, shown = _read(name), os.fsencode(os.path.basename(name)).decode("utf-8", "replace")
    try:
        text: Optional[str] = None if b"\0" in data else data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = None
    if text is not None and not data.startswith(b"%PDF-"):
        return {"type": "input_text", "text": f"{shown}:\n{text}"}
    kind = "application/pdf" if data.startswith(b"%PDF-") else mimetypes.guess_type(name)[0]
    url = _data_url(kind or "application/octet-stream", data)
    return {"type": "input_file", "filename": shown, "file_data": url}


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None


def read_schema(name: Optional[str]) -> Optional[Schema]:
    """The schema in a file.

    :raises UsageError: it cannot be read, or is not a JSON Schema
    """
    if name is None:
        return None
    try:
        schema = json.loads(_read(name).decode("utf-8-sig"))
        strict = is_strict(schema)
    except UNREADABLE as error:
        raise UsageError(f"--schema {name}: this is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise UsageError(f"--schema {name}: a JSON Schema is an object")
    return Schema(name, schema, strict)


def request_body(
    items: List[Json], instructions: Optional[str], effort: Optional[str], schema: Optional[Schema]
) -> Json:
    """The body of the create request, but for the model.

    :param items: the conversation so far, and the new message
    """
    body: Dict[str, Any] = {"input": items, "stream": True, "store": False}
    if instructions is not None:
        body["instructions"] = os.fsencode(instructions).decode("utf-8", "replace")
    if effort is not None:
        body["reasoning"] = {"effort": effort}
    if schema is not None:
        body["text"] = {"format": schema.text_format()}
    return body

"""The parts of Responses messages and tool results as Chat content.

Text becomes a plain string wherever possible, because several providers accept nothing else outside user
messages (DeepSeek, NVIDIA), and some models answer an array in the syntax of an array.  Content that the
model cannot read (an image for a text model) becomes a note and a warning: a picture must not end the
session, since it stays in the history.  A file is passed on unchanged if the provider accepts files, else as
its text.  A file without readable text is refused, because an answer about it would be invented.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from typing import Any, Iterator, List, Optional, Tuple, Union

from ...errors import invalid_value
from ...types import Json
from ..profile import Profile

Content = Union[str, List[Json]]

TEXT_PARTS = (
    "input_text",
    "output_text",
    "text",
    "summary_text",
    "reasoning_text",
    "refusal",
    "encrypted_content",
)
TEXT_KEYS = {"refusal": "refusal", "encrypted_content": "encrypted_content"}  # others: "text"
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=\x80-\U0010ffff]+")
PIECE = 1 << 16  # characters; decoding megabytes at once would keep other threads from working
_BASE64_RUN = re.compile(r"gAAAA[\w+/=-]{35,}|[\w+/=-]{80,}", re.ASCII)
TEXT_TYPES = (
    "text/",
    "application/json",
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/javascript",
    "application/toml",
)
TEXT_SUFFIXES = (
    ".md",
    ".rst",
    ".toml",
    ".yaml",
    ".yml",
    ".ini",
    ".cfg",
    ".log",
    ".sh",
    ".rs",
    ".go",
    ".ts",
    ".tsx",
    ".jsx",
    ".sql",
    ".diff",
    ".patch",
)
IMAGE_PARTS = ("input_image", "image_url", "computer_screenshot", "image")
DETAILS = {"original": "high"}  # Chat knows low, high and auto


def parts_of(content: Any, where: str = "content") -> List[Json]:
    """The parts of a message or of a tool result.

    :raises ApiError: 400, when it is neither text nor a list of parts
    """
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if content is None:
        return []
    if isinstance(content, list):
        if len(content) == 1 and type(content[0]) is dict:  # like most
            return [content[0]]
        parts = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in content]
        if all(isinstance(part, dict) for part in parts):
            return parts
    raise invalid_value(f"{where} must be a string or a list of content parts, not {type(content).__name__}.")


def text_of(part: Json) -> str:
    """The text of a part; "" if it is not text."""
    kind = part.get("type", "text")
    if kind not in TEXT_PARTS:
        return ""
    text = part.get(TEXT_KEYS.get(kind, "text"))
    return text if isinstance(text, str) and not (kind == "encrypted_content" and is_ciphertext(text)) else ""


def is_ciphertext(text: str) -> bool:
    """Is the text of an ``encrypted_content`` part really encrypted, and therefore useless here?

    Codex passes on what the model wrote as an argument that OpenAI would have encrypted; behind this proxy
    that is plain text.  Ciphertext is one long run of base64, such as a Fernet token.
    """
    return _BASE64_RUN.fullmatch(text.strip()) is not None


def output_parts(output: Any) -> List[Json]:
    """The parts of a tool's output, which may also be one part (a screenshot) or the result of an MCP tool.

    :raises ApiError: 400, when it is neither text nor parts
    """
    if isinstance(output, dict):
        if is_part(output):
            return [output]
        if isinstance(output.get("content"), list):
            return parts_of(output["content"], "output")
    return parts_of(output, "output")


def is_part(value: Json) -> bool:
    """Is the object a content part with its text or image?"""
    return bool(text_of(value)) if value.get("type") in TEXT_PARTS else _image_url(value) is not None


class ContentWriter:
    """Writes Chat content for one model and collects the warnings."""

    def __init__(self, profile: Profile, warnings: List[str]) -> None:
        self._profile = profile
        self._warnings = warnings

    def split(self, parts: List[Json]) -> Tuple[List[str], List[Json]]:
        """(texts, other parts): a tool message can hold the former, the latter must follow in a user
        message.
        """
        texts: List[str] = []
        others: List[Json] = []
        for part in parts:
            chat = self._part(part)
            if chat.get("type") == "text":
                if chat["text"]:
                    texts.append(chat["text"])
            else:
                others.append(chat)
        return texts, others

    def user(self, parts: List[Json]) -> Content:
        """The content of a user message: a string, or parts in order if there is more than text."""
        chat = [self._part(part) for part in parts]
        if len(chat) == 1 and chat[0]["type"] == "text":
            text: str = chat[0]["text"]
            return text
        chat = [part for part in chat if part.get("type") != "text" or part["text"]]
        if all(part.get("type") == "text" for part in chat):
            return "\n".join(part["text"] for part in chat)
        return chat

    def _part(self, part: Json) -> Json:
        kind = part.get("type", "text")
        if kind in TEXT_PARTS:
            text = text_of(part)
            if not text and part.get("encrypted_content"):
                self._warnings.append("content that another service encrypted left out")
            return {"type": "text", "text": text}
        if kind in IMAGE_PARTS:
            return self._image(part)
        if kind == "input_file":
            return self._file(part)
        if kind == "input_audio":
            return self._media("audio", {"type": "input_audio", "input_audio": part.get("input_audio") or {}})
        self._warnings.append(f"content part {str(kind)[:40]} left out")
        return {"type": "text", "text": ""}

    def _media(self, modality: str, chat: Json) -> Json:
        if modality in self._profile.modalities:
            return chat
        modalities = self._profile.modalities
        self._warnings.append(f"{modality} left out: the model takes {', '.join(modalities)} only")
        note = f"[{modality} omitted: this model takes {' and '.join(modalities)} only]"
        return {"type": "text", "text": note}

    def _image(self, part: Json) -> Json:
        url = _image_url(part)
        if url is None:
            raise invalid_value(
                f"{part['type']} needs image_url (a data: URL or an address);"
                " rproxy has no file store for file_id."
            )
        image: Json = {"url": url}
        chat_form = part.get("image_url")
        detail = (chat_form if isinstance(chat_form, dict) else part).get("detail")
        if isinstance(detail, str):
            image["detail"] = DETAILS.get(detail, detail)
        return self._media("image", {"type": "image_url", "image_url": image})

    def _file(self, part: Json) -> Json:
        data, name = part.get("file_data"), str(part.get("filename") or "file")
        if not isinstance(data, str) or not data:
            raise invalid_value(
                "input_file needs file_data; rproxy has no file store for file_id and fetches no file_url."
            )
        head, _, encoded = data.rpartition(",")
        mime = head[5:].partition(";")[0] if head.startswith("data:") else mimetypes.guess_type(name)[0] or ""
        is_text = mime.startswith(TEXT_TYPES) or name.lower().endswith(TEXT_SUFFIXES)
        if "file" in self._profile.modalities and not is_text:
            url = data if head else f"data:{mime or 'application/octet-stream'};base64,{data}"
            return {"type": "file", "file": {"filename": name, "file_data": url}}
        if is_text:
            return {"type": "text", "text": f"{name}:\n{_decoded(encoded, name).decode('utf-8', 'replace')}"}
        text = part.get("text")  # see with_texts in files.py
        if not isinstance(text, str) or not text:
            raise invalid_value(
                f"This model's provider takes no files, and no text could be read from {name}"
                f" ({mime or 'unknown type'}). Send its text as input_text."
            )
        self._warnings.append("a PDF file became its text: the provider takes no files")
        return {"type": "text", "text": f"{name}:\n{text}"}


def _image_url(part: Json) -> Optional[str]:
    """The address or data URL of an image part, in the forms of Responses, Chat, MCP and Anthropic."""
    if part.get("type") not in IMAGE_PARTS:
        return None
    image_url, source = part.get("image_url"), part.get("source")
    found = image_url.get("url") if isinstance(image_url, dict) else image_url
    if found is None:
        inline = source if isinstance(source, dict) else part
        data = inline.get("data")
        mime = inline.get("mimeType") or inline.get("media_type") or "image/png"
        found = f"data:{mime};base64,{data}" if isinstance(data, str) and data else inline.get("url")
    return found if isinstance(found, str) and found else None


def _decoded(encoded: str, name: str) -> bytes:
    try:
        return b"".join(_base64_pieces(encoded))
    except (binascii.Error, ValueError):
        raise invalid_value(f"file_data of {name} is not base64.") from None


def _base64_pieces(encoded: str, size: int = PIECE) -> Iterator[bytes]:
    """``base64.b64decode`` of a text, in pieces.

    :param size: the characters of a piece
    :raises ValueError: it is not base64
    """
    rest = ""
    for begin in range(0, len(encoded), size):
        text = rest + _NOT_BASE64.sub("", encoded[begin : begin + size])
        if "=" in text:
            if encoded[begin + size :].strip("= \t\r\n"):
                raise ValueError("padding before the end")
            rest = text
            break
        whole = len(text) & ~3
        rest = text[whole:]
        yield base64.b64decode(text[:whole])
    yield base64.b64decode(rest)

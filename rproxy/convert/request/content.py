"""Content: the parts of Responses messages and tool results as Chat content.

Text becomes a plain string wherever it can, because several providers take nothing else outside user messages
(DeepSeek, NVIDIA), and some models answer an array with the syntax of an array.  What the model cannot take
(an image for a text model) becomes a note and a warning: one picture must not end a session, since it stays
in the history.  A file goes as it is where the provider takes files; else its text goes, and a file without
readable text is refused, because an answer about it would be made up.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from typing import Any, List, Tuple, Union

from ...errors import ApiError
from ...types import Json
from ..profile import Profile
from .pdf import pdf_text

Content = Union[str, List[Json]]

TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal")
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
DETAILS = {"original": "high"}  # Chat knows low, high and auto


def invalid(message: str, param: str = "input") -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")


def parts_of(content: Any, where: str = "content") -> List[Json]:
    """The parts of a message or of a tool result.

    :raises ApiError: 400, when it is neither text nor a list of parts
    """
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if content is None:
        return []
    if not isinstance(content, list) or not all(isinstance(part, (dict, str)) for part in content):
        raise invalid(f"{where} must be a string or a list of content parts, not {type(content).__name__}.")
    return [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in content]


def text_of(part: Json) -> str:
    """The text of a part that is text, "" for any other."""
    if part.get("type", "text") not in TEXT_PARTS:
        return ""
    text = part.get("refusal") if part.get("type") == "refusal" else part.get("text")
    return text if isinstance(text, str) else ""


class ContentWriter:
    """Writes Chat content for one model and collects the warnings."""

    def __init__(self, profile: Profile, warnings: List[str]) -> None:
        self._profile = profile
        self._warnings = warnings

    def split(self, parts: List[Json]) -> Tuple[List[str], List[Json]]:
        """(texts, other parts): what a tool message can say, and what has to follow in a user message."""
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
        """Content of a user message: a string, or parts in their order where there is more than text."""
        chat = [self._part(part) for part in parts]
        chat = [part for part in chat if part.get("type") != "text" or part["text"]]
        if all(part.get("type") == "text" for part in chat):
            return "\n".join(part["text"] for part in chat)
        return chat

    def _part(self, part: Json) -> Json:
        kind = part.get("type", "text")
        if kind in TEXT_PARTS:
            return {"type": "text", "text": text_of(part)}
        if kind in ("input_image", "image_url"):
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
        self._warnings.append(
            "{} left out: the model takes {} only".format(modality, ", ".join(self._profile.modalities))
        )
        return {
            "type": "text",
            "text": "[{} omitted: this model takes {} only]".format(
                modality, " and ".join(self._profile.modalities)
            ),
        }

    def _image(self, part: Json) -> Json:
        url = part.get("image_url")
        if isinstance(url, dict):  # the Chat form, which some clients mix in
            part, url = url, url.get("url")
        if not isinstance(url, str) or not url:
            raise invalid(
                "input_image needs image_url (a data: URL or an address); rproxy has no file store for file_id."
            )
        image: Json = {"url": url}
        if isinstance(part.get("detail"), str):
            image["detail"] = DETAILS.get(part["detail"], part["detail"])
        return self._media("image", {"type": "image_url", "image_url": image})

    def _file(self, part: Json) -> Json:
        data, name = part.get("file_data"), str(part.get("filename") or "file")
        if not isinstance(data, str) or not data:
            raise invalid(
                "input_file needs file_data; rproxy has no file store for file_id and fetches no file_url."
            )
        head, _, encoded = data.rpartition(",")
        mime = head[5:].partition(";")[0] if head.startswith("data:") else mimetypes.guess_type(name)[0] or ""
        is_text = mime.startswith(TEXT_TYPES) or name.lower().endswith(TEXT_SUFFIXES)
        if "file" in self._profile.modalities and not is_text:
            url = data if head else "data:{};base64,{}".format(mime or "application/octet-stream", data)
            return {"type": "file", "file": {"filename": name, "file_data": url}}
        raw = _decoded(encoded, name)
        text = (
            raw.decode("utf-8", "replace") if is_text else pdf_text(raw) if raw.startswith(b"%PDF-") else ""
        )
        if not text and not is_text:
            raise invalid(
                "This model's provider takes no files, and no text could be read from {} ({}). Send its text as input_text.".format(
                    name, mime or "unknown type"
                )
            )
        if not is_text:
            self._warnings.append("a PDF file became its text: the provider takes no files")
        return {"type": "text", "text": f"{name}:\n{text}"}


def _decoded(encoded: str, name: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=False)
    except (binascii.Error, ValueError):
        raise invalid(f"file_data of {name} is not base64.") from None

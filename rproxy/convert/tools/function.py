"""``function``: the kind that Chat Completions also has.

Arguments pass through byte for byte, with one exception: ``1000.0`` becomes ``1000`` where the tool's schema
asks for numbers.  Models that compute in floats write it, and strict clients (Codex reads an unsigned
integer) refuse the call.
"""

from __future__ import annotations

from typing import Tuple

from ...types import Json
from ..request.schema import function_schema
from .kind import ArgumentsReader, Offer, ToolKind, described


class Function(ToolKind):
    types = ("function",)
    call_type = "function_call"
    output_type = "function_call_output"
    needs_name = True
    delta_type = "response.function_call_arguments.delta"
    done_type = "response.function_call_arguments.done"

    def function(self, tool: Json) -> Json:
        function: Json = {
            "description": described(tool),
            "parameters": function_schema(tool.get("parameters")),
        }
        if isinstance(tool.get("strict"), bool):
            function["strict"] = tool["strict"]
        return function

    def describe(self, offer: Offer, item: Json) -> None:
        super().describe(offer, item)
        if offer.encrypted:
            # Codex takes such an argument for OpenAI's ciphertext unless the call says that nothing is
            # encrypted.
            item["encrypted_function_args"] = []

    def reader(self, offer: Offer) -> ArgumentsReader:
        return IntegralReader() if offer.has_numbers else ArgumentsReader()


class IntegralReader(ArgumentsReader):
    """Drops the ``.0`` of integral numbers outside strings, while the arguments stream."""

    def __init__(self) -> None:
        super().__init__()
        self._string = self._escape = self._number = False
        self._held = ""  # a "." and zeros whose meaning the next character decides

    def feed(self, fragment: str) -> str:
        out = []
        for char in fragment:
            if self._held:
                if char == "0":
                    self._held += char
                    continue
                if char.isdigit() or char in "eE" or self._held == ".":
                    out.append(self._held)
                self._held = ""
            if self._string:
                if self._escape:
                    self._escape = False
                elif char == "\\":
                    self._escape = True
                elif char == '"':
                    self._string = False
            elif char == '"':
                self._string = True
            elif char == "." and self._number:
                self._held, self._number = char, False
                continue
            else:
                self._number = char.isdigit()
            out.append(char)
        return super().feed("".join(out))

    def close(self) -> Tuple[str, str]:
        rest, self._held = (self._held if self._held == "." else ""), ""
        return rest, super().close()[1] + rest

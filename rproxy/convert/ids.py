"""The ids that rproxy makes, and what can be read from them.

The items of a response share the 32 hex digits of its id, the *stem*: ``resp_STEM`` has the output items
``msg_STEM0000``, ``fc_STEM0001`` and so on.  So a later request, which contains the items one by one, still
shows which of them belonged to one answer.  When rproxy runs tools itself, a response is made of several
answers, the *rounds*: from the second one on, two more digits after the stem number them
(``msg_STEM010003``).  Input items that came without an id get one with an ``i`` after the stem
(``msg_STEMi000``), which cannot be confused with an output item's.  The caller provides the randomness.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Any, Optional

RESPONSE = "resp_"
CONVERSATION = "conv_"

MAX_ROUNDS = 255
_OUTPUT_ITEM = re.compile(r"[a-z]+_(([0-9a-f]{32})(?:[0-9a-f]{2})?)([0-9a-f]{4})")
_INPUT_ITEM = re.compile(r"[a-z]+_([0-9a-f]{32})i[0-9a-f]+")
_CONVERSATION = re.compile(CONVERSATION + r"[A-Za-z0-9]{1,64}")


class Ids:
    """Makes the ids of one response.

    :param stem: 32 hex digits
    :param number: of the round, from 0 to ``MAX_ROUNDS``
    """

    def __init__(self, stem: str, number: int = 0) -> None:
        self.stem = stem
        self._round = f"{number:02x}" if number else ""
        self._count = itertools.count()

    def in_round(self, number: int) -> Ids:
        """The ids of another round of this response."""
        return Ids(self.stem, number)

    @property
    def response(self) -> str:
        """The id of the response itself."""
        return RESPONSE + self.stem

    def __call__(self, prefix: str) -> str:
        """``msg`` -> ``msg_`` + stem + a running number.

        Call ids are kept short: OpenAI accepts 40 characters.
        """
        number = f"{self._round}{next(self._count):04x}"
        return f"call_{self.stem[:24]}{number}" if prefix == "call" else f"{prefix}_{self.stem}{number}"


def response_stem(response_id: str) -> str:
    """The stem of a response's id."""
    return response_id[len(RESPONSE) :]


def output_stem(item_id: Any) -> Optional[str]:
    """The stem of the response to whose output an item belongs; None if the id is not ours."""
    match = _OUTPUT_ITEM.fullmatch(str(item_id))
    return match.group(2) if match else None


def round_stem(item_id: Any) -> Optional[str]:
    """The part that the ids of one round's output items share; None if the id is not ours."""
    match = _OUTPUT_ITEM.fullmatch(str(item_id))
    return match.group(1) if match else None


def hosted_call_id(item_id: Any, number: int) -> str:
    """The id by which a provider knows the call of a hosted tool, whose item has no call id.

    It follows from the item, so that it is the same in every request, and is short enough for OpenAI.

    :param number: of the call in its history, in place of a missing id
    """
    if not isinstance(item_id, str) or not item_id:
        return f"call_hosted_{number}"
    match = _OUTPUT_ITEM.fullmatch(item_id)
    if match is None:
        return "call_" + hashlib.sha1(item_id.encode("utf-8", "replace")).hexdigest()[:24]
    return f"call_{match[2][:24]}{match[1][32:]}{match[3]}"


def item_stem(item_id: Any) -> Optional[str]:
    """The stem of the response to whose input or output an item belongs; None if the id is not ours."""
    match = _INPUT_ITEM.fullmatch(str(item_id))
    return match.group(1) if match else output_stem(item_id)


def input_item_id(prefix: str, stem: str, number: int) -> str:
    """The id of an input item that came without one.

    :param number: its place in the input
    """
    return f"{prefix}_{stem}i{number:03x}"


def is_conversation_id(text: str) -> bool:
    """Is this a possible id of a conversation?"""
    return _CONVERSATION.fullmatch(text) is not None

"""A shorter history for a summary, when the whole one does not fit into the provider's window.

Only compactions are shortened: the alternative is a thread that can never continue.  The least valuable items
are dropped first, the oldest before others: the outputs of tools, then the model's own items with their
outputs, then the messages of the user.  Earlier summaries, items that act elsewhere and the last item (the
request for the summary) stay.
"""

from __future__ import annotations

import json
from typing import Callable, List, NamedTuple, Sequence, Set, Tuple

from ...types import AnyItem
from .pairing import is_call, is_output, with_call_ids

LEFT_OUT = "[output left out: the history was too long to be summarised whole]"
SHARES = (0.75, 0.55, 0.4, 0.28, 0.18, 0.1)  # of the history's size, for each further attempt


class Shortened(NamedTuple):
    """A shortened history.

    ``note`` is a sentence for the summary: the parts that its writer has not seen.
    """

    items: List[AnyItem]
    note: str


def shortened(items: Sequence[AnyItem], share: float) -> Shortened:
    """The history reduced to about ``share`` of its size as JSON."""
    kept = with_call_ids(items)
    sizes = [_size(item) for item in kept]
    excess = sum(sizes) - int(sum(sizes) * share)
    blanked, dropped = 0, 0
    for number, item in enumerate(kept[:-1]):
        if excess <= 0:
            break
        if is_output(item) and sizes[number] > 2 * len(LEFT_OUT):
            kept[number] = {**item, "output": LEFT_OUT}
            excess -= sizes[number] - _size(kept[number])
            blanked += 1
    for may_go in (_is_the_models, _is_the_users):
        if excess > 0:
            kept, dropped, excess = _without_oldest(kept, may_go, dropped, excess)
    return Shortened(kept, _note(blanked, dropped))


def _without_oldest(
    items: List[AnyItem], may_go: Callable[[AnyItem], bool], dropped: int, excess: int
) -> Tuple[List[AnyItem], int, int]:
    gone: Set[str] = set()  # ids of dropped calls: their outputs go as well
    kept: List[AnyItem] = []
    for item in items[:-1]:
        orphan = is_output(item) and item["call_id"] in gone
        if orphan or excess > 0 and may_go(item) and not is_output(item):
            excess -= _size(item)
            dropped += 1
            if is_call(item):
                gone.add(item["call_id"])
        else:
            kept.append(item)
    return [*kept, items[-1]], dropped, excess


def _is_the_models(item: AnyItem) -> bool:
    return is_call(item) or item.get("type") == "reasoning" or item.get("role") == "assistant"


def _is_the_users(item: AnyItem) -> bool:
    return item.get("role") == "user" or item.get("type") == "agent_message"


def _size(item: AnyItem) -> int:
    return len(json.dumps(item, ensure_ascii=False))


def _note(blanked: int, dropped: int) -> str:
    parts = [f"{blanked} tool outputs"] * bool(blanked) + [f"{dropped} older items"] * bool(dropped)
    if not parts:
        return ""
    return f"(The conversation was too long to be summarised whole: {' and '.join(parts)} were left out.)"

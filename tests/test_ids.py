"""The ids of rproxy: each tells which response an item belongs to."""

from __future__ import annotations

from rproxy.convert.ids import Ids, input_item_id, is_conversation_id, item_stem, output_stem, response_stem

STEM = "0123456789abcdef" * 2


def test_an_id_leads_back_to_its_response() -> None:
    ids = Ids(STEM)
    given = input_item_id("msg", STEM, 3)
    assert response_stem(ids.response) == STEM
    assert output_stem(ids("msg")) == STEM and item_stem(ids("rs")) == STEM
    assert item_stem(given) == STEM and output_stem(given) is None
    assert item_stem("msg_of_somebody_else") is None and output_stem(None) is None
    assert len(ids("call")) <= 40


def test_ids_of_conversations() -> None:
    assert is_conversation_id("conv_" + STEM) and not is_conversation_id("conv_/..")

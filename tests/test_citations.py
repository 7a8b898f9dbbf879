"""Citations in a text: addresses that were found, and no others."""

from __future__ import annotations

from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.hosted.citations import MAX_ANNOTATIONS, Citations

URL = "https://example.com/a_(b)"
SOURCES = [(URL, "A"), ("https://example.org/", "O")]


def cited(text: str) -> List[str]:
    """What is cited, checked against the text."""
    found = Citations(SOURCES).of(text)
    assert all(one["type"] == "url_citation" and one["url"] in dict(SOURCES) for one in found)
    assert all(one["title"] == dict(SOURCES)[one["url"]] for one in found)
    spans = [(one["start_index"], one["end_index"]) for one in found]
    assert spans == sorted(spans)
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    "text, spans",
    [
        (f"See [it]({URL}).", [f"[it]({URL})"]),
        (f'See [it]({URL} "A title").', [f'[it]({URL} "A title")']),
        (f"See [a [nested] one]({URL}#part)!", [f"[a [nested] one]({URL}#part)"]),
        (f"({URL})", [URL]),
        (f"{URL}, https://example.org.", [URL, "https://example.org"]),
        (f"<{URL}>", [f"<{URL}>"]),
        ("[it](https://example.org/)", ["[it](https://example.org/)"]),
        ("[it](https://example.org/other)", []),
        ("https://example.org.evil.com/", []),
        (f"]({URL})", [URL]),
        (f"x\n\n]({URL})", [URL]),
        (f"[it]({URL}\n)", [URL]),
        (f"[it]({URL}", [URL]),
        (f"**{URL}**", [URL]),
        ("nothing", []),
        ("http", []),
        ("", []),
    ],
)
def test_spans(text: str, spans: List[str]) -> None:
    assert cited(text) == spans
    assert cited("Größe 😀 " + text) == spans


def test_nothing_was_found() -> None:
    assert Citations([]).of(f"[it]({URL})") == []


def test_there_are_not_too_many() -> None:
    assert len(cited(f"{URL} " * (MAX_ANNOTATIONS + 5))) == MAX_ANNOTATIONS


@given(st.lists(st.sampled_from(["[", "]", "(", ")", "<", ">", URL, "https://example.org", "\n", "x ", "…"])))
def test_any_text(pieces: List[str]) -> None:
    cited("".join(pieces))

"""Parts of messages and results: text, images, files, audio."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any, Dict, List, Tuple

import pytest
from histories import PNG, image
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.profile import Profile
from rproxy.convert.request.content import ContentWriter, parts_of, text_of
from rproxy.convert.request.pdf import MAX_BYTES, pdf_text
from rproxy.errors import ApiError

Json = Dict[str, Any]
ALL = Profile(modalities=("text", "image", "file", "audio"))
TEXT = Profile(modalities=("text",))


def text(words: str) -> Json:
    return {"type": "input_text", "text": words}


def file(name: str, data: bytes, **more: Any) -> Json:
    return {"type": "input_file", "filename": name, "file_data": base64.b64encode(data).decode(), **more}


def written(parts: List[Json], profile: Profile = ALL) -> Tuple[Any, List[str]]:
    warnings: List[str] = []
    return ContentWriter(profile, warnings).user(parts), warnings


# ---- parts
def test_content_is_a_list_of_parts_or_a_400() -> None:
    assert parts_of("a") == [text("a")]
    assert parts_of(None) == []
    assert parts_of(["a", {"type": "x"}]) == [text("a"), {"type": "x"}]
    for wrong in (5, {"type": "input_text"}, [5], True):
        with pytest.raises(
            ApiError, match="output must be a string or a list of content parts, not"
        ) as caught:
            parts_of(wrong, "output")
        assert (caught.value.status, caught.value.param) == (400, "input")


@pytest.mark.parametrize(
    "part, words",
    [
        (text("a"), "a"),
        ({"type": "output_text", "text": "a"}, "a"),
        ({"type": "text", "text": "a"}, "a"),
        ({"text": "a"}, "a"),
        ({"type": "summary_text", "text": "a"}, "a"),
        ({"type": "reasoning_text", "text": "a"}, "a"),
        ({"type": "refusal", "refusal": "no"}, "no"),
        (image(), ""),
        ({"type": "input_text"}, ""),
        ({"type": "input_text", "text": 5}, ""),
        ({"type": ["input_text"], "text": "a"}, ""),
    ],
)
def test_the_text_of_a_part(part: Json, words: str) -> None:
    assert text_of(part) == words


def test_text_alone_is_a_string() -> None:
    assert written([text("a"), text(""), {"type": "refusal", "refusal": "b"}]) == ("a\nb", [])
    assert written([text("")]) == written([]) == ("", [])


def test_images_keep_their_place() -> None:
    assert written([text("see"), text(""), image(), text("there")]) == (
        [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": PNG}},
            {"type": "text", "text": "there"},
        ],
        [],
    )


@pytest.mark.parametrize(
    "part, chat",
    [
        (image(detail="low"), {"url": PNG, "detail": "low"}),
        (image(detail="original"), {"url": PNG, "detail": "high"}),
        (image(detail=None), {"url": PNG}),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}, {"url": PNG, "detail": "high"}),
    ],
)
def test_images_in_all_their_spellings(part: Json, chat: Json) -> None:
    assert written([part]) == ([{"type": "image_url", "image_url": chat}], [])


def test_what_the_model_cannot_take_becomes_a_note_and_a_warning() -> None:
    assert written([text("see"), image()], TEXT) == (
        "see\n[image omitted: this model takes text only]",
        ["image left out: the model takes text only"],
    )
    assert written(
        [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}],
        replace(TEXT, modalities=("text", "image")),
    ) == (
        "[audio omitted: this model takes text and image only]",
        ["audio left out: the model takes text, image only"],
    )
    assert written([{"type": "input_video"}, text("a")]) == ("a", ["content part input_video left out"])
    assert written([{"type": ["x" * 99]}]) == ("", ["content part {} left out".format(str(["x" * 99])[:40])])


def test_audio_goes_to_models_that_hear() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    assert written([audio]) == ([audio], [])


def test_tool_results_are_split_into_text_and_the_rest() -> None:
    warnings: List[str] = []
    parts = [text("a"), image(), text(""), file("b.txt", b"b")]
    assert ContentWriter(ALL, warnings).split(parts) == (
        ["a", "b.txt:\nb"],
        [{"type": "image_url", "image_url": {"url": PNG}}],
    )
    assert ContentWriter(TEXT, warnings).split(parts) == (
        ["a", "[image omitted: this model takes text only]", "b.txt:\nb"],
        [],
    )


# ---- files
PDF = (
    b"%PDF-1.1\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n3 0 obj\n<< /Type /Page /Contents 4 0 R >>\nendobj\n"
    b"4 0 obj\n<< /Length 44 >>\nstream\nBT\n/F1 12 Tf\n72 72 Td\n(Title: Fixture) Tj\nET\nendstream\nendobj\n"
    b"trailer\n<< /Root 1 0 R >>\n%%EOF"
)


@pytest.mark.parametrize(
    "part",
    [
        file("a.txt", "hä".encode()),
        file("a.md", "hä".encode()),
        file("A.RS", "hä".encode()),
        file("a.json", "hä".encode()),
        {"type": "input_file", "filename": "a.bin", "file_data": "data:text/plain;charset=utf-8;base64,aMOk"},
    ],
)
def test_text_files_are_text(part: Json) -> None:
    for profile in (ALL, TEXT):
        assert written([part], profile) == ("{}:\nhä".format(part["filename"]), [])


def test_text_that_is_not_utf8_is_text_all_the_same() -> None:
    assert written([file("a.txt", b"h\xe4")]) == ("a.txt:\nh\ufffd", [])


@pytest.mark.parametrize(
    "part, url",
    [
        (file("a.pdf", PDF), "data:application/pdf;base64," + base64.b64encode(PDF).decode()),
        (file("a.strange", b"\0"), "data:application/octet-stream;base64,AA=="),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            "data:application/pdf;base64,AA==",
        ),
    ],
)
def test_other_files_go_to_providers_that_take_files(part: Json, url: str) -> None:
    assert written([part]) == (
        [{"type": "file", "file": {"filename": part["filename"], "file_data": url}}],
        [],
    )


def test_a_pdf_file_is_its_text_where_no_files_are_taken() -> None:
    assert written([file("a.pdf", PDF)], TEXT) == (
        "a.pdf:\nTitle: Fixture",
        ["a PDF file became its text: the provider takes no files"],
    )


@pytest.mark.parametrize(
    "part, complaint",
    [
        (file("a.zip", b"PK"), r"takes no files, and no text could be read from a.zip \(application/zip\)"),
        (file("a.strange", b"\0"), r"a.strange \(unknown type\)"),
        (file("a.pdf", b"%PDF-1.7 scanned"), r"from a.pdf \(application/pdf\). Send its text as input_text"),
        ({"type": "input_file", "filename": "a.txt", "file_data": "äää"}, "file_data of a.txt is not base64"),
        ({"type": "input_file", "filename": "a.txt", "file_data": "A"}, "file_data of a.txt is not base64"),
        (
            {"type": "input_file", "file_id": "file_1"},
            "input_file needs file_data; rproxy has no file store for file_id and",
        ),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, "input_file needs file_data"),
        ({"type": "input_image", "file_id": "file_1"}, "input_image needs image_url"),
        ({"type": "input_image", "image_url": {"url": 5}}, "input_image needs image_url"),
    ],
)
def test_files_that_nobody_can_read_are_a_400(part: Json, complaint: str) -> None:
    with pytest.raises(ApiError, match=complaint) as caught:
        written([part], TEXT)
    assert (caught.value.status, caught.value.param) == (400, "input")


# ---- the text of PDF files
def pdf(page: bytes, head: bytes = b"") -> bytes:
    return b"%%PDF-1.4\n1 0 obj\n<</Length %d%s>>\nstream\r\n%s\nendstream\nendobj\n" % (
        len(page),
        head,
        page,
    )


@pytest.mark.parametrize(
    "page, words",
    [
        (b"BT (a) Tj ET", "a"),
        (b"BT (a) Tj 0 -12 Td (b) Tj T* (c) ' 1 2 (d) \" 1 0 0 1 0 0 Tm (e) Tj ET", "a\nb\nc\nd\ne"),
        (b"BT [(Hel) -20 (lo) -300 (you)] TJ ET", "Hello you"),
        (b"BT <48 65 6C6c6F2> Tj ET", "Hello "),
        (b"BT (a \\(b\\) (c) \\101\\t\\\\\\n\\\nd\\q) Tj ET", "a (b) (c) A\t\\\ndq"),
        (b"BT (caf\\351 \x96) Tj ET", "café –"),
        (b"(outside) Tj BT (a) Tj ET (outside) Tj", "a"),
        (b"BT % (comment) Tj\n/Name [(a) 1..2 (b)] TJ ET", "ab"),
        (b"BT (a) Tj ET BT (b) Tj ET", "a\nb"),
        (b"BT (" + b"ligature " * 20 + b"\\002) Tj ET", "ligature " * 20 + "\ufffd"),
        (b"", ""),
        (b"BT ET", ""),
        (b"BT ((( ET", ""),
    ],
)
def test_pdf_strings(page: bytes, words: str) -> None:
    assert pdf_text(pdf(page)) == words.strip()


def test_pdf_pages_may_be_compressed() -> None:
    page = b"BT (a) Tj ET"
    assert (
        pdf_text(
            pdf(zlib.compress(page), b"/Filter /FlateDecode")
            + pdf(page)
            + pdf(b"garbage", b"/Filter /FlateDecode")
        )
        == "a\na"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%PDF-",
        pdf(b"BT (a) Tj ET", b"/Filter /LZWDecode"),
        pdf(b"BT (a) Tj ET", b"/Subtype /Image"),
        pdf(b"BT (a) Tj ET") + b"trailer << /Encrypt 9 0 R >>",
        pdf(b"BT <00410042> Tj ET"),
        pdf(b"BT (\x01\x02) Tj ET"),
        pdf(b"BT (a) Tj ET") + b" " * MAX_BYTES,
        pdf(b"BT (a) Tj ET").replace(b"endstream", b""),
    ],
)
def test_pdf_files_without_readable_text(data: bytes) -> None:
    assert pdf_text(data) == ""


SCRAPS = st.sampled_from(
    b"BT ET ( ) \\ < > [ ] Tj TJ -300 stream\n endstream obj /FlateDecode % ' 4 \xff".split(b" ")
)


@given(st.lists(SCRAPS).map(b" ".join))
def test_any_bytes_are_a_pdf_file_of_some_text(data: bytes) -> None:
    assert isinstance(pdf_text(data) + pdf_text(pdf(data)), str)

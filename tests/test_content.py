"""Parts of messages and results: text, images, files, audio."""

from __future__ import annotations

import base64
import copy
from dataclasses import replace
from typing import Any, Dict, List, Tuple

import pytest
from histories import PNG, image
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.profile import Profile
from rproxy.convert.request.content import ContentWriter, _base64_pieces, _image_url, parts_of, text_of
from rproxy.convert.request.files import pdf_files, with_texts
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


# ---- base64
@given(
    st.binary(max_size=3000),
    st.sampled_from(["", "\n", "\r\n", "-", " !"]),
    st.integers(1, 80),
    st.sampled_from(["", "=", "==", "\n="]),
)
def test_base64_in_pieces_is_what_it_is_at_once(data: bytes, between: str, width: int, end: str) -> None:
    text = base64.b64encode(data).decode()
    text = between.join(text[at : at + width] for at in range(0, len(text), width)) + end
    try:
        whole = base64.b64decode(text)
    except ValueError:
        with pytest.raises(ValueError):
            list(_base64_pieces(text, 64))
        return
    assert b"".join(_base64_pieces(text, 64)) == whole
    assert all(len(piece) <= 64 for piece in _base64_pieces(text, 64))


def test_base64_that_is_not_whole_is_refused_in_pieces_too() -> None:
    with pytest.raises(ValueError):
        list(_base64_pieces("QUJD" * 40 + "A", 64))


def test_base64_ends_at_its_padding() -> None:
    for text in ("QQ==" + "QUJD" * 40, "QUJD" * 16 + "QQ==" + "QUJD" * 40):
        with pytest.raises(ValueError, match="padding"):
            list(_base64_pieces(text, 64))


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
PDF = b"%PDF-1.1\n..."


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
    part = file("a.pdf", PDF, text="Title: Fixture")  # from with_texts
    assert written([part], ALL)[0][0]["type"] == "file"
    assert written([part], TEXT) == (
        "a.pdf:\nTitle: Fixture",
        ["a PDF file became its text: the provider takes no files"],
    )


@pytest.mark.parametrize(
    "part, complaint",
    [
        (file("a.zip", b"PK"), r"takes no files, and no text could be read from a.zip \(application/zip\)"),
        (file("a.strange", b"\0"), r"a.strange \(unknown type\)"),
        (file("a.pdf", PDF), r"from a.pdf \(application/pdf\)"),
        (file("a.pdf", PDF, text=""), r"from a.pdf \(application/pdf\)"),
        (file("a.pdf", PDF, text=5), r"from a.pdf \(application/pdf\). Send its text as input_text"),
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


# ---- PDF files
def test_pdf_files_are_found_and_get_their_texts() -> None:
    one, two = file("a.pdf", PDF), file("b.bin", PDF + b"2")
    two["file_data"] = "data:application/pdf;base64," + two["file_data"]
    nameless = {"type": "input_file", "file_data": " " + file("", PDF + b"3")["file_data"]}
    others = [
        text("hi"),
        "plain",
        None,
        file("c.bin", b"PK"),
        {"type": "input_file", "file_data": 5},
        {"type": "x"},
    ]
    items: List[Json] = [
        {"role": "user", "content": [*others, one]},
        {"role": "user", "content": "words"},
        {"type": "function_call_output", "output": [two]},
        {"type": "function_call_output", "output": {"content": [nameless], "isError": False}},
        {"type": "function_call_output", "output": {"content": 5}, "content": [one]},
    ]
    before = copy.deepcopy(items)
    data = [part["file_data"] for part in (one, two, nameless)]
    assert list(pdf_files(items)) == [
        ("a.pdf", data[0]),
        ("b.bin", data[1]),
        ("file", data[2]),
        ("a.pdf", data[0]),
    ]
    filled = with_texts(items, {data[0]: "A", data[2]: "C"})
    assert items == before
    assert filled[0]["content"] == [*others, {**one, "text": "A"}]
    assert filled[1:3] == items[1:3]
    assert filled[3]["output"] == {"content": [{**nameless, "text": "C"}], "isError": False}
    assert filled[4] == {**items[4], "content": [{**one, "text": "A"}]}


def test_an_image_of_mcp_has_its_own_type() -> None:
    part = {"type": "image", "data": "AA==", "mimeType": "image/jpeg"}
    assert _image_url(part) == "data:image/jpeg;base64,AA=="

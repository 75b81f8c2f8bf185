"""The form for reviewers: nothing from outside becomes markup, and nothing is decided that nobody has decided."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.engine.review_form import (
    APPROVE_REST,
    SHOWN_CHARS,
    escape_markdown,
    make_form,
    read_answers,
    reviewer_of,
)
from airflow_provider_describer.store.reviews import MAX_TEXT_CHARS, Answer, decide_review


def row(call: str = "c1", text: str = "A red bicycle.", uri: str = "/data/bicycle.jpg", **more: Any) -> dict[str, Any]:
    return {"call": call, "text": text, "uri": uri, "status": "described", **more}


def form(*rows: dict[str, Any], base_path: str = "") -> Any:
    return make_form(rows, "/data/store", base_path)


def sent(found: Any, **changed: Any) -> list[Answer]:
    """What a browser sends: every field, changed or as it was."""
    return read_answers({name: about["default"] for name, about in found.fields.items()} | changed)


def test_each_image_is_beside_its_text() -> None:
    found = form(row(failed_rules=["MinWords(8)"]), row("c2", uri="https://shop/a b(1).jpg"), base_path="/airflow/")
    first, second = [line for line in found.body.splitlines() if line.startswith("| ")][1:]
    path = "/airflow/describer/api/thumbnail?store=%2Fdata%2Fstore&row=c1.described"
    assert first == rf"| 1 | ![bicycle\.jpg]({path}) bicycle\.jpg | A red bicycle\. **Fails: MinWords\(8\)** |"
    assert r"[a b\(1\)\.jpg](https://shop/a%20b%281%29.jpg)" in second
    titles = [about["title"] for about in found.fields.values()]
    assert titles == ["1. bicycle.jpg", "1. Text", "2. a b(1).jpg", "2. Text", "Approve all that I left"]


def test_a_click_on_submit_decides_nothing() -> None:
    answers = sent(form(row(), row("c2", '{"colour": "red"}'), row("c3", " padded \n")))
    texts = {"c1": "A red bicycle.", "c2": '{"colour": "red"}', "c3": " padded \n"}
    assert [decide_review(answer, texts[answer.call]) for answer in answers] == [None, None, None]


def test_what_was_decided() -> None:
    found = form(*(row(call) for call in ("a", "b", "c", "d")))
    answers = sent(found, decision_a="approve", text_b="Edited.", decision_c="reject", text_c="Typed.")
    assert [decide_review(one, "A red bicycle.") for one in answers] == ["approved", "edited", "rejected", None]


def test_the_rest_is_approved_on_request_only() -> None:
    found = form(row("a"), row("b"), row("c"))
    answers = sent(found, **{APPROVE_REST: True}, decision_a="reject", text_b="Edited.")
    assert [decide_review(one, "A red bicycle.") for one in answers] == ["rejected", "edited", "approved"]
    assert {one.verdict for one in sent(found, **{APPROVE_REST: "yes"})} == {"leave"}


@pytest.mark.parametrize("empty", [None, "", 7, {}, []])
def test_a_text_that_was_emptied_is_no_approval(empty: object) -> None:
    (answer,) = sent(form(row()), decision_c1="approve", text_c1=empty)
    assert answer.text == "" and decide_review(answer, "A red bicycle.") == "edited"


@pytest.mark.parametrize("verdict", [None, "APPROVE", "edit", 1, [], {}])
def test_an_unknown_decision_is_none(verdict: object) -> None:
    (answer,) = sent(form(row()), decision_c1=verdict)
    assert decide_review(answer, "A red bicycle.") is None


def test_fields_that_are_missing_decide_nothing() -> None:
    assert read_answers({}) == [] and read_answers({"text_c1": "Edited.", "other": 1}) == []
    assert read_answers({"decision_c1": "approve"}) == [Answer("c1", "approve", None)]


def test_a_text_that_is_too_long_is_shown_in_part_and_cannot_be_edited() -> None:
    found = form(row(text="x" * (MAX_TEXT_CHARS + 1)))
    assert list(found.fields) == ["decision_c1", APPROVE_REST]
    assert "x" * SHOWN_CHARS + "…" in found.body and len(found.body) < SHOWN_CHARS + 1000


HOSTILE = [
    "<script>alert(1)</script>",
    "![x](https://evil/pixel.png)",
    "[click](javascript:alert(1))",
    "https://evil.example/a www.evil.example a@evil.example",
    "a | b\n\n# heading\n- list\n```\ncode",
    "\u202egnp.exe\u202c \x00\x1b[31m",
    "&lt;b&gt; &#x3c; \\",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_a_text(text: str) -> None:
    said = escape_markdown(text)
    assert not re.search(r"[!-/:-@\[-`{-~]", re.sub(r"\\[!-/:-@\[-`{-~]", "", said))
    assert not re.search("[\0-\x1f\u202a-\u202e]", said)
    # Airflow's Markdown would make a link of these, escaped or not.
    plain = re.sub(r"\\(.)", r"\1", said)
    assert not re.search(r"https?://|www\.|[\w.+-]@[\w-]+\.", plain, re.IGNORECASE)


@given(st.text(max_size=200))
def test_any_text_is_one_cell_of_the_table(text: str) -> None:
    found = form(row(text=text, uri=f"/data/{text}.jpg"))
    lines = found.body.splitlines()
    assert len(lines) == 5 and re.fullmatch(r"\| 1 \| .*\|", lines[-1])
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[-1])) == 4


@pytest.mark.parametrize(
    "uri",
    ["javascript:alert(1)", "http://shop/a.jpg", "s3://shop/a.jpg", "https://me:hush@shop/a.jpg", "https://[", "//x"],
)
def test_only_web_images_are_linked(uri: str) -> None:
    assert "](" not in form(row(uri=uri)).body.replace("](/describer/", "")


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ({"id": "1", "name": "Ann"}, "Ann"),
        ({"id": "1", "name": "ann@shop.example"}, "ann"),
        ({"id": "7", "name": ""}, "7"),
        ({"id": "@", "name": None}, None),
        (None, None),
    ],
)
def test_the_reviewer_has_a_name_and_no_address(user: Any, name: str | None) -> None:
    assert reviewer_of(user) == name

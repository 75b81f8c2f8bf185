"""Reviews: what people decide about descriptions counts from then on, costs nothing, and is written once."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from airflow_provider_describer.engine.plan import make_plan
from airflow_provider_describer.errors import CorruptShard
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store.audit import check, summarize
from airflow_provider_describer.store.bill import compare
from airflow_provider_describer.store.description_store import DescriptionStore
from airflow_provider_describer.store.index import load_index, read_history
from airflow_provider_describer.store.reviews import (
    MAX_TEXT_CHARS,
    Answer,
    count_reviews,
    decide_review,
    record_reviews,
)
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.samples import SampleTerms, take_sample
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import encode_shard, json_line

TASK = TaskInstanceKey("reviewed", "monday", "review")
LATER = datetime.fromisoformat("2026-02-01T10:00:00+00:00").timestamp()


def put(folder, name, *events):
    folder.create(f"journal/{name}.jsonl", encode_shard(map(json_line, events)))


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path / "store")


@pytest.fixture(params=["in the journal", "settled"])
def settle(request):
    return compact if request.param == "settled" else lambda folder: None


@pytest.fixture
def store(folder, events, settle):
    """Three described images, of which a reviewer is asked."""
    put(folder, "1", *(events.outcome(f"{name}1", name, uri=name, failed_rules=["Short"]) for name in "abc"))
    settle(folder)
    return folder


def review(folder, *answers, by="ann", task=TASK, at=LATER):
    return record_reviews(folder, answers, by, task, lambda: at)


def texts(folder):
    return {row["uri"]: row["text"] for row in DescriptionStore(folder).current().to_pylist()}


def actions(folder, image, **terms):
    return [entry.action for entry in make_plan([image(name) for name in "abc"], load_index(folder), **terms).entries]


def test_what_was_decided_counts_from_then_on(store, settle, image):
    found = review(
        store, Answer("a1", "approve", "a by a1"), Answer("b1", "leave", "A better text."), Answer("c1", "reject")
    )
    settle(store)
    assert found.reviews == {"a1": "approved", "b1": "edited", "c1": "rejected"} and not found.refused
    assert texts(store) == {"a": "a by a1", "b": "A better text."}
    assert actions(store, image) == ["reuse", "reuse", "rejected"]
    assert actions(store, image, retry_rejected=True) == ["reuse", "reuse", "call"]
    index = load_index(store)
    row = index.row(image("b").keys)
    assert row["text"] == "A better text." and row["review"] == "edited" and row["reviewed_by"] == "ann"
    assert row["failed_rules"] is None and row["described_at"] == "2026-02-01T10:00:00.000+00:00"
    row = index.row(image("c").keys)
    assert row["status"] == "withdrawn" and row["text"] is None and row["error"]["kind"] == "rejected_by_reviewer"
    row = index.row(image("a").keys)
    assert row["failed_rules"] == ["Short"] and (row["dag_id"], row["task_id"]) == ("reviewed", "review")
    assert count_reviews(store, TASK) == {"approved": 1, "edited": 1, "rejected": 1}


def test_a_review_is_no_call_and_costs_nothing(store, settle):
    before = summarize(store).to_dict()
    review(store, Answer("a1", "approve"), Answer("b1", "leave", "Better."), Answer("c1", "reject"))
    settle(store)
    assert summarize(store).to_dict() == before and before["total"]["described"] == 3
    found = check(store)
    assert not found.damaged and not found.unknown_images and not found.copies
    day = datetime.fromisoformat("2026-02-01T00:00:00+00:00")
    bill = compare("vendor", day, read_history(store), [])
    assert not bill.differs and not bill.calls_here and not bill.without_id


def test_an_edited_text_is_current_under_its_prompt_alone(store, settle, events):
    put(store, "2", events.outcome("a2", "a", uri="a", prompt="Which colour?", keys=["e0"]))
    review(store, Answer("a1", "leave", "Edited."))
    settle(store)
    prompts = {
        prompt: DescriptionStore(store).current(prompt=prompt).to_pylist()[0]["text"] for prompt in ("Which colour?",)
    }
    assert prompts == {"Which colour?": "a by a2"}
    assert "Edited." in DescriptionStore(store).current(prompt="What is it?")["text"].to_pylist()


def test_a_rejected_text_leaves_the_one_of_another_prompt(store, settle, events):
    put(
        store,
        "2",
        events.outcome(
            "a2", "a", uri="a", prompt="Which colour?", keys=["e0"], described_at="2026-01-02T00:00:00.000+00:00"
        ),
    )
    review(store, Answer("a2", "reject"))
    settle(store)
    assert texts(store)["a"] == "a by a1"


def test_what_is_asked_anew_after_a_rejection_counts(store, settle, events, image):
    review(store, Answer("a1", "reject"))
    put(store, "2", events.outcome("a2", "a", uri="a", described_at="2026-02-01T10:00:00.001+00:00"))
    settle(store)
    assert texts(store)["a"] == "a by a2" and actions(store, image)[0] == "reuse"


def test_an_image_without_an_identity_is_withdrawn_by_its_name(folder, settle, events):
    put(folder, "1", *(events.outcome(f"{name}1", name, uri=f"https://shop/{name}.jpg", keys=[]) for name in "ab"))
    review(folder, Answer("a1", "reject"))
    settle(folder)
    assert texts(folder) == {"https://shop/b.jpg": "b by b1"}


def test_a_second_try_records_nothing_again(store, settle):
    review(store, Answer("a1", "approve"), Answer("b1", "leave", "Better."))
    settle(store)
    calls = len(DescriptionStore(store).history("a"))
    shards = len(store.names("journal"))
    again = TaskInstanceKey("reviewed", "monday", "review", -1, 2)
    found = review(store, Answer("a1", "reject"), Answer("b1", "leave", "Another."), task=again, by="bob")
    assert found.reviews == {"a1": "approved", "b1": "edited"}
    assert len(DescriptionStore(store).history("a")) == calls and len(store.names("journal")) == shards
    assert texts(store)["b"] == "Better." and count_reviews(store, again).total() == 2


def test_another_review_of_the_same_description_counts_if_it_is_later(store, settle):
    review(store, Answer("a1", "leave", "First."))
    review(store, Answer("a1", "leave", "Second."), task=TaskInstanceKey("reviewed", "tuesday", "review"), at=LATER + 1)
    settle(store)
    assert texts(store)["a"] == "Second."


def test_a_reviewers_clock_that_is_behind_makes_no_difference(store, settle, image):
    review(store, Answer("a1", "leave", "Better."), Answer("b1", "reject"), at=0.0)
    settle(store)
    assert texts(store) == {"a": "Better.", "c": "c by c1"}
    assert actions(store, image) == ["reuse", "rejected", "reuse"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("a1", "approve", "  \n"), "empty"),
        (Answer("a1", "leave", "x" * (MAX_TEXT_CHARS + 1)), "characters"),
        (Answer("nowhere", "approve"), "no such description"),
    ],
)
def test_what_cannot_be_taken_decides_nothing(store, answer, why):
    found = review(store, answer, Answer("b1", "approve"))
    assert found.reviews == {"b1": "approved"} and why in found.refused[answer.call]
    assert texts(store)["a"] == "a by a1"


def test_an_image_that_was_described_anew_meanwhile_is_not_reviewed(store, settle, events):
    put(store, "2", events.outcome("a2", "a, changed", uri="a", described_at="2026-01-02T00:00:00.000+00:00"))
    settle(store)
    found = review(store, Answer("a1", "approve"), Answer("a2", "approve"))
    assert found.reviews == {"a2": "approved"} and "anew" in found.refused["a1"]
    assert texts(store)["a"] == "a, changed by a2"


def test_a_review_of_everything_left_writes_nothing(store):
    shards = store.names("journal")
    assert review(store, Answer("a1", "leave", "a by a1"), Answer("b1")).reviews == {}
    assert store.names("journal") == shards


def test_a_store_that_cannot_be_read_is_an_error(store):
    store.create("journal/torn.jsonl", b"{}")
    with pytest.raises(CorruptShard, match="torn"):
        review(store, Answer("a1", "approve"))
    with pytest.raises(CorruptShard, match="torn"):
        take_sample(store, SampleTerms(), TASK)


@pytest.mark.parametrize(
    ("answer", "review"),
    [
        (Answer("a", "leave", "text"), None),
        (Answer("a", "leave"), None),
        (Answer("a", "approve"), "approved"),
        (Answer("a", "approve", "text\r\n"), "approved"),
        (Answer("a", "approve", "Text"), "edited"),
        (Answer("a", "leave", "Text"), "edited"),
        (Answer("a", "reject", "Text"), "rejected"),
    ],
)
def test_a_changed_text_is_an_edit(answer, review):
    assert decide_review(answer, "text\n") == review


def test_the_reviewers_name_is_one_short_line(store):
    review(store, Answer("a1", "approve"), by="ann\nroot " + "x" * 500)
    (line,) = [one for one in store.read(store.names("journal")[-1]).splitlines() if b"review-" in one]
    name = json.loads(line)["reviewed_by"]
    assert name.startswith("ann\\nroot x") and len(name) == 100

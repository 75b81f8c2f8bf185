"""Which descriptions a reviewer is shown: always the same for a seed, none that is reviewed already."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store.results import ResultFiles, write_parquet
from airflow_provider_describer.store.reviews import Answer, record_reviews
from airflow_provider_describer.store.rows import TaskInstanceKey, row_fields
from airflow_provider_describer.store.samples import SampleTerms, author_of, choose, take_sample
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import encode_shard, json_line

REVIEWER = TaskInstanceKey("reviewed", "monday", "review")
OTHER = TaskInstanceKey("reviewed", "sunday", "review")
LATER = datetime.fromisoformat("2026-02-01T10:00:00+00:00").timestamp()
ALL = SampleTerms(most=100)

calls = st.lists(st.tuples(st.text(max_size=8), st.none() | st.lists(st.sampled_from("xyz"))), max_size=40)


@given(calls, st.floats(0.01, 1.0), st.integers(1, 50), st.text(max_size=5), st.randoms())
def test_the_order_of_candidates_makes_no_difference(found, share, most, seed, random):
    # One call has one row.
    found = list(dict(found).items())
    terms = SampleTerms(share, most=most, seed=seed)
    chosen = choose(found, terms)
    assert len(chosen) == len(set(chosen)) <= most
    shuffled = found + found[: len(found) // 2]
    random.shuffle(shuffled)
    assert choose(shuffled, terms) == chosen
    # A smaller share asks about some of the same.
    assert set(choose(found, SampleTerms(share / 2, seed=seed, most=100))) <= set(
        choose(found, SampleTerms(share, seed=seed, most=100))
    )


def test_a_share_is_about_that_share():
    found = [(str(number), None) for number in range(2000)]
    count = len(choose(found, SampleTerms(0.25, most=2000, seed="monday")))
    assert 400 < count < 600
    assert len(choose(found, SampleTerms(1.0, most=2000))) == 2000
    first, second = (choose(found, SampleTerms(0.25, most=50, seed=seed)) for seed in ("monday", "tuesday"))
    assert first != second


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(False, "abcd"), (True, "cd"), (("x",), "c"), (("x", "y"), "cd"), (("z",), ""), (("y(7)",), "d")],
)
def test_only_those_that_failed_a_rule(wanted, found):
    candidates = [("a", None), ("b", []), ("c", ["x"]), ("d", ["y(7)"])]
    assert sorted(choose(candidates, SampleTerms(failed_rules=wanted))) == list(found)


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path / "store")


def put(folder, name, *events):
    folder.create(f"journal/{name}.jsonl", encode_shard(map(json_line, events)))


@pytest.fixture(params=["in the journal", "settled", "settled, with copies"])
def store(request, folder, events):
    by_night = {"dag_id": "catalog", "run_id": "night", "task_id": "describe", "map_index": -1, "try_number": 1}
    shards = [
        [events.outcome(f"{name}1", name, uri=name) for name in "abc"],
        [
            events.outcome("a2", "a, changed", uri="a", described_at="2026-01-02T00:00:00.000+00:00", **by_night),
            events.outcome("d2", "d", "rejected", uri="d", **by_night),
            events.outcome("e2", "e", uri="e", prompt="Which colour?", keys=["e0"], **by_night),
        ],
    ]
    for number, shard in enumerate(shards):
        put(folder, str(number), *shard)
    if request.param != "in the journal":
        compact(folder)
    if request.param.endswith("copies"):
        put(folder, "copies", *shards[0], *shards[1])
    return folder


def asked(folder, terms=ALL, reviewer=REVIEWER, **wanted):
    return sorted(event["call"] for event in take_sample(folder, terms, reviewer, **wanted))


def review(folder, *calls, task=OTHER, verdict="approve"):
    record_reviews(folder, [Answer(call, verdict) for call in calls], "ann", task, lambda: LATER)


def test_the_current_descriptions_of_the_store_are_asked_about(store):
    assert asked(store) == ["a2", "b1", "c1", "e2"]
    assert asked(store, prompt="Which colour?") == ["e2"]
    assert asked(store, SampleTerms(most=2)) == asked(store, SampleTerms(most=2))
    (event,) = take_sample(store, ALL, REVIEWER, prompt="Which colour?")
    assert event["text"] == "e by e2" and event["keys"] == ["e0"]


def test_what_some_tasks_have_described_is_asked_about(store):
    night = TaskInstanceKey("catalog", "night", "describe")
    assert asked(store, made_by=[night]) == ["a2", "e2"]
    assert asked(store, made_by=[night, TaskInstanceKey("catalog", "noon", "describe")]) == ["a2", "e2"]
    assert asked(store, made_by=[]) == []


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_what_others_have_reviewed_is_not_asked_about_again(store, verdict):
    review(store, "b1", verdict=verdict)
    assert asked(store) == ["a2", "c1", "e2"]
    compact(store)
    assert asked(store) == ["a2", "c1", "e2"]


def test_a_description_that_follows_a_rejection_is_asked_about(store, events):
    review(store, "b1", verdict="reject")
    put(store, "9", events.outcome("b9", "b", uri="b", described_at="2026-03-01T00:00:00.000+00:00"))
    assert asked(store) == ["a2", "b9", "c1", "e2"]


def test_another_try_asks_about_the_same_images(store):
    terms = SampleTerms(most=2, seed="monday")
    first = asked(store, terms)
    review(store, first[0], task=REVIEWER)
    assert asked(store, terms) == first[1:]
    review(store, first[1], task=REVIEWER, verdict="reject")
    assert asked(store, terms) == []
    assert asked(store, terms, OTHER) == sorted({"a2", "b1", "c1", "e2"} - set(first))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_result_file_names_its_task(tmp_path, kind):
    row = dict.fromkeys(row_fields()) | {"uri": "a", "described_at": "2026-01-01T00:00:00.000+00:00"}
    row |= {"dag_id": "catalog", "run_id": "night", "task_id": "describe", "map_index": 3, "try_number": 1}
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps(row) + "\n")
    path = tmp_path / f"results.{kind}"
    if kind == "parquet":
        write_parquet(lines, path)
    else:
        lines.rename(path)
    assert author_of(str(path)) == TaskInstanceKey("catalog", "night", "describe", 3)


def test_a_result_file_without_rows_names_no_task(folder):
    with ResultFiles(folder, TaskInstanceKey("catalog", "night", "describe")) as files:
        pass
    assert author_of(files.results) is None


def test_what_is_no_result_file_is_an_error(tmp_path):
    other = tmp_path / "list.jsonl"
    other.write_text('{"uri": "a.jpg"}\n')
    for path in (other, tmp_path / "missing.jsonl"):
        with pytest.raises(BadInput, match=r"^results is .*result file"):
            author_of(str(Path(path)))

"""Pages of a store: newest first, each row once, filtered and searched by values that are never taken for SQL."""

from __future__ import annotations

import gc
import json
import random
from datetime import UTC, datetime

import lance
import pytest

from airflow_provider_describer.errors import BadInput, CorruptShard, StoreError
from airflow_provider_describer.gallery.search import Filter, StoreGallery
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.description_store import DescriptionStore
from airflow_provider_describer.store.table import NAME as TABLE
from airflow_provider_describer.store.table import SettledTable

ALL = Filter()


def pages(gallery, wanted=ALL, limit=7):
    """All rows, page by page."""
    rows, after = [], None
    while True:
        page = gallery.page(wanted, after=after, limit=limit)
        assert len(page.rows) == limit or page.next is None
        rows += page.rows
        if page.next is None:
            return rows
        after = page.next


def calls(rows):
    return [row["call"] for row in rows]


def test_all_outcomes_come_newest_first_and_once(store_of, outcome):
    numbers = list(range(40))
    random.Random(1).shuffle(numbers)
    # Every five of them in one moment.
    gallery = StoreGallery(store_of(outcome(f"c{number:02}", number // 5) for number in numbers))
    expected = [f"c{number:02}" for number in reversed(range(40))]
    for limit in (1, 3, 7, 40, 500):
        assert calls(pages(gallery, limit=limit)) == expected


def test_a_row_has_json_values(store_of, outcome):
    event = outcome("c", id="sku 1", error={"kind": "k", "message": "m"}, cost_usd=float("nan"))
    gallery = StoreGallery(store_of([event]))
    [row] = gallery.page(ALL).rows
    assert json.loads(json.dumps(row, allow_nan=False)) == row == gallery.row(row["row_id"])
    assert row["described_at"] == "2026-01-01T00:00:00.000+00:00" and row["cost_usd"] is None
    assert row["row_id"] == "c.described" and row["id"] == "sku 1" and row["error"]["message"] == "m"


def test_facts_are_no_rows(store_of, outcome):
    lost = {"event": "lost", "call": "l", "keys": ["1" * 32], "uri": "u", "at": 1.8e9, "why": "ambiguous"}
    same = {"event": "same", "call": "s", "keys": ["1" * 32, "2" * 32], "uri": "u", "at": 1.8e9}
    gallery = StoreGallery(store_of([outcome("c"), lost, same, outcome("d", 1)]))
    assert calls(pages(gallery)) == ["d", "c"]
    assert gallery.page(Filter(status="lost")).rows == []
    assert gallery.row("l.lost") is None and gallery.row("nothing") is None and gallery.row("") is None
    assert gallery.totals(ALL).count == 2


def test_filters(store_of, outcome):
    gallery = StoreGallery(
        store_of(
            [
                outcome("a", 1, run_id="night 1"),
                outcome("b", 2, run_id="night 2", status="rejected", text=None),
                outcome("c", 3, vendor="segmind", prompt=None, map_index=3),
                outcome("d", 4, dag_id="art", task_id="other", prompt="What's '' OR 1=1 --?"),
            ]
        )
    )
    for wanted, found in {
        Filter(run_id="night 2"): "b",
        Filter(status="rejected"): "b",
        Filter(status="described", dag_id="shop"): "ca",
        Filter(vendor="segmind"): "c",
        Filter(prompt=""): "c",
        Filter(prompt="What is it?"): "ba",
        Filter(prompt="What's '' OR 1=1 --?"): "d",
        Filter(map_index=3): "c",
        Filter(map_index=-1): "dba",
        Filter(dag_id="art", task_id="other"): "d",
        Filter(dag_id="art", run_id="night 2"): "",
        Filter(vendor="' OR 1=1 --"): "",
        Filter(task_id="describe\0"): "",
        Filter(run_id="\ud800"): "",
    }.items():
        assert calls(pages(gallery, wanted)) == list(found), wanted
        assert gallery.totals(wanted).count == len(found)


def test_rules_and_reviews(store_of, outcome):
    reviewed = {"billed": "no", "cost_usd": 0.0, "reviewed_by": "ada"}
    gallery = StoreGallery(
        store_of(
            [
                outcome("a", 1, failed_rules=[]),
                outcome("b", 2, failed_rules=["MinWords", "it's '') OR 1=1"]),
                outcome("c", 3, failed_rules=["MaxChars"]),
                outcome("review-1", 4, review="edited", content="b", **reviewed),
                outcome("review-2", 5, review="rejected", status="withdrawn", content="c", **reviewed),
            ]
        )
    )
    for wanted, found in {
        Filter(rule="MinWords"): "b",
        Filter(rule="it's '') OR 1=1"): "b",
        Filter(rule="Min"): "",
        Filter(rule="any"): "c b",
        Filter(review="edited"): "review-1",
        Filter(review="any"): "review-2 review-1",
        Filter(review="any", text="REVIEW-2"): "review-2",
        Filter(review="' OR 1=1 --"): "",
    }.items():
        assert calls(pages(gallery, wanted)) == found.split(), wanted
        assert gallery.totals(wanted).count == len(found.split())
    totals = gallery.totals(ALL)
    assert (totals.count, totals.calls, totals.cost_usd) == (5, 3, 0.045)
    assert totals.by_status == {"described": 4, "withdrawn": 1}


TEXTS = {
    "plain": "A Red SHOE on the floor",
    "quotes": "it's a \"shoe\" -- or isn't it; DROP TABLE descriptions",
    "like": "100% of a_b\\c [x] (y)* .+?",
    "unicode": "Eine grüne ÄHRE \u202eltr\u202c und 图片",
    "null": None,
    "half": "\ud800 half a character",
    "script": "<script>alert(1)</script>\0",
}


SEARCHES = {
    "shoe": "quotes plain",
    "RED shoe": "plain",
    "it's": "quotes",
    "'": "quotes",
    "%": "like",
    "_": "like",
    "a_b\\C": "like",
    ".*": "",
    "[x]": "like",
    ".+?": "like",
    "Ähre": "unicode",
    "\u202e": "unicode",
    "图片": "unicode",
    "\ud800": "half",
    "\0": "script",
    "<script>": "script",
    "' OR '1'='1": "",
    "; DROP TABLE": "quotes",
    "/IMAGES/plain": "plain",
    "sku-like": "like",
    " ": "half unicode like quotes plain",
}


def test_a_search_takes_its_text_literally(store_of, outcome):
    events = [
        outcome(name, minute, text=text, id=f"SKU-{name}", uri=f"/images/{name}")
        for minute, (name, text) in enumerate(TEXTS.items())
    ]
    gallery = StoreGallery(store_of(events))
    for text, found in SEARCHES.items():
        assert calls(pages(gallery, Filter(text=text), limit=10)) == found.split(), text
        assert gallery.totals(Filter(text=text)).count == len(found.split()), text


def test_a_search_goes_on_where_its_time_was_over(folder, writer, outcome, monkeypatch):
    writer.journal(
        outcome(f"c{number:03}", number, text="needle" if number % 100 == 0 else "hay") for number in range(400)
    )
    writer.settle()
    monkeypatch.setattr("airflow_provider_describer.gallery.search.SEARCH_S", 0.0)
    gallery, after, found, looked = StoreGallery(folder), None, [], []
    while True:
        page = gallery.page(Filter(text="NEEDLE"), after=after)
        found += calls(page.rows)
        looked.append(page.searched_to)
        after = page.next
        if after is None:
            break
    assert found == ["c300", "c200", "c100", "c000"]
    moments = [moment for moment in looked if moment]
    assert looked == [*sorted(moments, reverse=True), None] and len(moments) > 2


def test_long_texts_are_cut_in_a_page_and_whole_alone(store_of, outcome):
    long = "word " * 200_000
    gallery = StoreGallery(
        store_of([outcome(f"c{number}", number, text=f"{long} end {number}") for number in range(4)])
    )
    page = gallery.page(Filter(text="END 2"))
    [row] = page.rows
    assert row["text_is_cut"] and len(row["text"]) == 20_000
    whole = gallery.row(row["row_id"])
    assert whole and whole["text"] == f"{long} end 2"
    assert len(json.dumps(gallery.page(ALL).rows)) < 100_000


@pytest.mark.parametrize("steps", [1, 3, 32])
def test_pages_go_on_while_rows_are_added_and_settled(folder, writer, outcome, monkeypatch, steps):
    monkeypatch.setattr("airflow_provider_describer.gallery.snapshot.MOST_STEPS", steps)
    writer.journal(outcome(f"c{number:02}", number) for number in range(20))
    gallery = StoreGallery(folder)
    seen, after = [], None
    for step in range(10):
        page = gallery.page(ALL, after=after, limit=2)
        seen += calls(page.rows)
        after = page.next
        writer.journal([outcome(f"new {step}", 100 + step), outcome(f"old {step}", -step - 1)])
        if step % 3 == 0:
            writer.settle()
    while after:
        page = gallery.page(ALL, after=after, limit=2)
        seen += calls(page.rows)
        after = page.next
    assert seen == [f"c{number:02}" for number in reversed(range(20))] + [f"old {step}" for step in range(10)]
    assert calls(gallery.page(ALL, limit=3).rows) == ["new 9", "new 8", "new 7"]
    assert gallery.totals(ALL).count == 40


def test_copies_count_once(folder, writer, outcome):
    events = [outcome(f"c{number}", number) for number in range(4)]
    for _ in range(2):
        # A writer that was taken for dead, and was not.
        SettledTable(folder).add(events, is_new=True)
    writer.journal(events)
    gallery = StoreGallery(folder)
    assert calls(pages(gallery, limit=3)) == ["c3", "c2", "c1", "c0"]
    for wanted in (ALL, Filter(text="picture")):
        assert (gallery.totals(wanted).count, gallery.totals(wanted).cost_usd) == (4, 0.06)


def test_totals(store_of, outcome):
    day = 24 * 60
    events = [
        outcome("a", 0, run_id="night 1"),
        outcome("b", day, run_id="night 2", cost_usd=0.5, prompt="Which colour?"),
        outcome("c", day + 1, run_id="night 2", status="rejected", cost_usd=None, billed="no"),
        outcome("d", 2 * day, run_id="night 3", dag_id="art", vendor="segmind", prompt=None),
        outcome("e", 2 * day, run_id="", dag_id="", vendor="segmind", prompt="x" * 2000),
    ]
    totals = StoreGallery(store_of(events)).totals(Filter(dag_id="shop"))
    assert (totals.count, totals.calls, totals.cost_usd) == (3, 3, 0.515)
    assert totals.by_status == {"described": 2, "rejected": 1}
    assert totals.by_day == [
        {"day": "2026-01-01", "calls": 1, "cost_usd": 0.015},
        {"day": "2026-01-02", "calls": 2, "cost_usd": 0.5},
    ]
    assert totals.vendors == ["vendor", "segmind"]
    assert totals.prompts == ["What is it?", None, "Which colour?"]
    assert [(run["dag_id"], run["run_id"]) for run in totals.runs] == [
        ("art", "night 3"),
        ("shop", "night 2"),
        ("shop", "night 1"),
    ]
    assert totals.runs[0]["newest"] == datetime(2026, 1, 3, tzinfo=UTC).isoformat(timespec="milliseconds")
    assert totals.searched_to is None


def test_a_table_of_an_older_version(folder, writer, outcome):
    writer.journal(outcome(f"c{number}", number) for number in range(3))
    writer.settle()
    table = lance.dataset(folder.location(TABLE).uri)
    table.drop_columns(list(columns.ADDED))
    table.update_schema_metadata({columns.VERSION_NAME.decode(): "1"})
    # A change of its columns is not what this test is about.
    SettledTable(folder)._make_durable()
    # What is in the journal has the new columns.
    writer.journal([outcome("c3", 3, failed_rules=["MinWords"], review="approved")])
    gallery = StoreGallery(folder)
    assert calls(pages(gallery, limit=2)) == ["c3", "c2", "c1", "c0"]
    assert calls(pages(gallery, Filter(text="picture"), limit=3)) == ["c3", "c2", "c1", "c0"]
    for wanted in (Filter(review="any"), Filter(rule="any"), Filter(rule="MinWords", text="picture")):
        assert calls(pages(gallery, wanted)) == ["c3"]
        assert gallery.totals(wanted).count == 1
    assert (gallery.totals(ALL).count, gallery.totals(ALL).calls) == (4, 3)
    row = gallery.row("c1.described")
    assert row and row["review"] is None and gallery.history("/images/c1.jpg") == [row]


def test_what_a_reader_may_see_is_limited_to_dags(store_of, outcome):
    events = [
        outcome("a", 1, dag_id="shop", vendor="v1", prompt="p1", run_id="r1"),
        outcome("b", 2, dag_id="it's", vendor="v2", prompt="p2", run_id="r2"),
        outcome("c", 3, dag_id="", vendor="v3", prompt="p3", run_id=""),
        outcome("d", 4, dag_id=None, vendor="v3", prompt="p3", run_id=None),
    ]
    gallery = StoreGallery(store_of(events))
    assert gallery.dag_ids() == {"shop", "it's", ""}
    for dag_ids, found, runs in (
        ({"shop"}, "a", ["r1"]),
        ({"it's", ""}, "dcb", ["r2"]),
        ({""}, "dc", []),
        (set(), "", []),
        ({"') OR (1=1"}, "", []),
        (None, "dcba", ["r2", "r1"]),
    ):
        wanted = Filter(dag_ids=dag_ids if dag_ids is None else frozenset(dag_ids))
        assert calls(pages(gallery, wanted)) == list(found)
        totals = gallery.totals(wanted)
        assert totals.count == len(found)
        assert [run["run_id"] for run in totals.runs] == runs
        # Nothing of other rows is among what can be chosen.
        assert (
            len(totals.vendors)
            == len(totals.prompts)
            == len({event["vendor"] for event in events if event["call"] in found})
        )
    assert gallery.totals(Filter(dag_ids=frozenset({"shop"}), vendor="v2")).vendors == ["v1"]


def test_totals_follow_the_store(folder, writer, outcome):
    gallery = StoreGallery(folder)
    for number in range(6):
        writer.journal([outcome(f"c{number}", number)])
        if number % 2:
            writer.settle()
        assert gallery.totals(ALL).count == gallery.totals(Filter(text="picture")).count == number + 1


def test_history_is_that_of_the_store(store_of, outcome):
    events = [
        outcome("a", 1, uri="/images/a b?.jpg", content="x"),
        outcome("b", 2, uri="/images/other.jpg", content="x", prompt="Which colour?"),
        outcome("c", 3, uri="/images/unlike.jpg"),
    ]
    folder = store_of(events)
    gallery = StoreGallery(folder)
    for uri in ("/images/a b?.jpg", "/images/other.jpg"):
        history = gallery.history(uri)
        assert calls(history) == ["a", "b"] == DescriptionStore(folder).history(uri)["call"].to_pylist()
    assert gallery.history("/images/' OR 1=1 --") == []


def test_an_empty_store_has_an_empty_page(tmp_path):
    gallery = StoreGallery(open_folder(tmp_path / "nothing"))
    assert gallery.page(ALL).rows == [] and gallery.page(ALL).next is None
    assert gallery.totals(ALL).count == 0 and gallery.history("u") == []


@pytest.mark.parametrize("after", ["x", "1", "1e5.a", ".a", "99999999999999999999.a", "--1.a", "\0"])
def test_an_after_that_no_page_has_given_is_refused(folder, after):
    with pytest.raises(BadInput, match="after is"):
        StoreGallery(folder).page(ALL, after=after)


def test_every_after_of_that_form_is_answered(store_of, outcome):
    gallery = StoreGallery(store_of([outcome("c", 1)]))
    for after, found in {
        "99999999999999.": ["c"],
        "99999999999999.' OR 1=1 --": ["c"],
        "-99999999999999.x": [],
        "0.": [],
        "0.\0\ud800": [],
    }.items():
        assert calls(gallery.page(ALL, after=after).rows) == found, after


@pytest.mark.parametrize("number", [-2, 2**31, 10**30, -(10**30)])
def test_a_map_index_that_none_has_is_refused(folder, number):
    with pytest.raises(BadInput, match="map_index is"):
        StoreGallery(folder).page(Filter(map_index=number))


def test_values_that_are_too_long_are_refused(folder):
    for wanted in (Filter(text="x" * 1001), Filter(run_id="x" * 20_000)):
        for ask in (StoreGallery(folder).page, StoreGallery(folder).totals):
            with pytest.raises(BadInput, match="expected at most"):
                ask(wanted)


def ask_all(gallery):
    return [
        lambda: gallery.page(ALL),
        lambda: gallery.page(Filter(text="picture")),
        lambda: gallery.totals(ALL),
        lambda: gallery.history("/images/c1.jpg"),
    ]


@pytest.mark.parametrize("damage", ["torn shard", "no table", "no data", "torn data", "changed text"])
def test_a_damaged_store_is_an_error_and_no_empty_page(folder, writer, outcome, tmp_path, damage):
    writer.journal(outcome(f"c{number}", number, text="one and the same picture" * 50) for number in range(50))
    writer.settle()
    writer.journal([outcome("last", 100)])
    root = tmp_path / "store"
    [data] = (root / TABLE / "data").iterdir()
    match damage:
        case "torn shard":
            shard = max((root / "journal").iterdir())
            shard.write_bytes(shard.read_bytes()[:-9])
        case "no table":
            (root / TABLE).rename(root / "away")
        case "no data":
            data.unlink()
        case "torn data":
            data.write_bytes(data.read_bytes()[:-200])
        case "changed text":
            content = bytearray(data.read_bytes())
            for place in range(0, len(content) // 2, 40):
                content[place] ^= 1
            data.write_bytes(content)
    gallery = StoreGallery(folder)
    for ask in ask_all(gallery)[: 1 if damage == "changed text" else None]:
        with pytest.raises((StoreError, CorruptShard)) as caught:
            ask()
        assert str(tmp_path) in str(caught.value)


def test_a_damaged_shard_stops_the_page_until_it_is_restored(folder, writer, outcome, tmp_path):
    writer.journal([outcome("c1", 1)])
    gallery = StoreGallery(folder)
    assert calls(gallery.page(ALL).rows) == ["c1"]
    writer.journal([outcome("c2", 2), outcome("c3", 3)])
    shard = max((tmp_path / "store" / "journal").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-5])
    for _ in range(2):
        with pytest.raises(CorruptShard, match=shard.name):
            gallery.page(ALL)
    shard.write_bytes(whole)
    assert calls(gallery.page(ALL).rows) == ["c3", "c2", "c1"]


def test_nothing_is_left_of_a_gallery(folder, writer, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    gallery = StoreGallery(folder)
    for number in range(3):
        writer.journal([outcome(f"c{number}", number)])
        assert gallery.totals(ALL).count == number + 1
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del gallery
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_damage_after_the_store_was_opened_is_an_error_too(folder, writer, outcome, tmp_path):
    writer.journal(outcome(f"c{number}", number) for number in range(5))
    writer.settle()
    gallery = StoreGallery(folder)
    assert len(gallery.page(ALL).rows) == 5
    (tmp_path / "store" / TABLE).rename(tmp_path / "away")
    with pytest.raises(StoreError, match=TABLE):
        gallery.page(ALL)


def test_a_store_in_a_bucket(cloud, outcome, writer_to):
    folder = open_folder(f"{cloud.uri}/catalog", cloud.open_bucket)
    writer = writer_to(folder)
    writer.journal(outcome(f"c{number}", number) for number in range(5))
    writer.settle()
    writer.journal([outcome("c5", 5)])
    gallery = StoreGallery(folder)
    assert calls(pages(gallery, limit=4)) == [f"c{number}" for number in reversed(range(6))]
    assert gallery.totals(Filter(text="c3")).count == 1
    assert all(secret not in repr(gallery.page(ALL)) for secret in cloud.secrets())

"""What people are shown of a store: the same before it is settled, when half of it is, and afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from airflow_provider_describer.emulator.process import child_environment
from airflow_provider_describer.errors import BadInput, CorruptShard, StoreError
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store import columns, open_store
from airflow_provider_describer.store import export as export_module
from airflow_provider_describer.store.__main__ import main
from airflow_provider_describer.store.audit import summarize
from airflow_provider_describer.store.description_store import DescriptionStore, shown_schema
from airflow_provider_describer.store.export import export
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import SETTLED, encode_shard, json_line, settled_mark
from airflow_provider_describer.store.table import NAME as TABLE
from airflow_provider_describer.store.table import SettledTable


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def folder(path):
    return LocalFolder(path)


def put(folder, name, events):
    folder.create(f"journal/{name}.jsonl", encode_shard(map(json_line, events)))


def day(number):
    return f"2026-01-{number:02d}T00:00:00.000+00:00"


def nights(events):
    """Three nights of a catalog, with all that may become of an image."""
    yield [
        events.sent("a1", "a", uri="a"),
        events.outcome("a1", "a", uri="a", described_at=day(1)),
        events.outcome("b1", "b", uri="b", described_at=day(1)),
        events.outcome("c1", "c", "rejected", uri="c", cost_usd=None, billed="no", described_at=day(1)),
        events.sent("open", "open", uri="open"),
    ]
    yield [
        events.outcome("a2", "a, changed", uri="a", described_at=day(2)),
        events.outcome("a2 de", "a", uri="a", described_at=day(2), lang="de", keys=["d0"]),
        events.lost("b0", "b"),
        events.outcome("b2", "b, broken", "rejected", uri="b", cost_usd=None, billed="no", described_at=day(2)),
        {"event": "same", "call": "s1", "keys": [events.key("a"), "77"], "uri": "a under a new name", "at": 1.8e9},
    ]
    yield [
        events.outcome("a3", "a", uri="a", described_at=day(3), prompt="Which colour?", keys=["e0"]),
        events.outcome("d1", "d", uri="d", described_at=day(3), vendor="segmind", prompt=None, model="v1"),
        events.outcome("f1", "f", "unknown", uri="f", cost_usd=None, billed="unknown", described_at=day(3)),
    ]


@pytest.fixture(params=["in the journal", "half settled", "settled", "settled, and copies of it in the journal"])
def store(request, folder, events):
    """One store, however far it is settled."""
    shards = list(nights(events))
    put(folder, "1", shards[0])
    if request.param == "half settled":
        compact(folder)
    for number, shard in enumerate(shards[1:], 2):
        put(folder, str(number), shard)
    if request.param.startswith("settled"):
        compact(folder)
    if request.param.endswith("journal"):
        # So a kill leaves it; and in the table, a writer that was taken for dead and was not.
        for number, shard in enumerate(shards):
            put(folder, f"copy-{number}", shard)
        SettledTable(folder).add([event for event in shards[2] if event["event"] == "outcome"], is_new=True)
    return DescriptionStore(folder)


def calls(table):
    return sorted(table["call"].to_pylist())


def test_the_newest_description_of_each_image_and_language_is_current(store):
    current = store.current()
    assert calls(current) == ["a2 de", "a3", "b1", "d1"]
    row = {row["call"]: row for row in current.to_pylist()}["a3"]
    assert row["uri"] == "a" and row["text"] == "a by a3" and row["prompt"] == "Which colour?"
    assert row["cost_usd"] == 0.015 and row["described_at"] == datetime(2026, 1, 3, tzinfo=UTC)
    assert current.schema.equals(shown_schema())


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"prompt": "What is it?"}, ["a2", "a2 de", "b1"]),
        ({"prompt": "What is it?", "lang": "en"}, ["a2", "b1"]),
        ({"lang": "de"}, ["a2 de"]),
        ({"vendor": "segmind"}, ["d1"]),
        ({"model": "v1"}, ["d1"]),
        ({"vendor": "segmind", "lang": "de"}, []),
        ({"prompt": "it's '' OR 1=1 --"}, []),
    ],
)
def test_current_of_one_prompt_language_vendor_or_model(store, wanted, found):
    assert calls(store.current(**wanted)) == found
    assert store.current(**wanted).schema.equals(shown_schema())


def test_history_is_all_that_an_image_had_the_newest_last(store):
    history = store.history("a")
    assert history["call"].to_pylist() == ["a1", "a2", "a2 de", "a3"]
    assert history["prompt"].to_pylist() == ["What is it?"] * 3 + ["Which colour?"]
    assert history.schema.equals(shown_schema()) and not set(columns.INDEXED) & set(history.column_names)


def test_history_tells_lost_calls(store):
    assert store.history("b").select(["call", "status"]).to_pylist() == [
        {"call": "b0", "status": "lost"},
        {"call": "b1", "status": "described"},
        {"call": "b2", "status": "rejected"},
    ]
    assert store.history("f")["status"].to_pylist() == ["unknown"]


def test_history_of_content_under_another_name(store):
    assert store.history("a under a new name")["call"].to_pylist() == ["a1", "a2 de", "a3"]


def test_history_of_an_image_that_is_not_known(store):
    assert store.history("nowhere").num_rows == 0
    assert store.history("open").num_rows == 0
    assert store.history("nowhere").schema.equals(shown_schema())


def test_totals_count_each_call_once(store):
    summary = summarize(store._folder)
    total = {"described": 6, "rejected": 2, "unknown": 1, "unpriced": 1, "cost_usd": 0.09}
    assert {name: getattr(summary.total, name) for name in total} == pytest.approx(total)
    days = {name: one.described for name, one in summary.by_day.items()}
    assert days == {"2026-01-01": 2, "2026-01-02": 2, "2026-01-03": 2}
    # b0 was lost and b has a description; f1 is unknown; one call is open.
    assert summary.lost_calls == 3 and summary.perhaps_twice == 1


def test_export_is_what_is_current(store, tmp_path, run):
    folder, expected = store._folder.where(), store.current().sort_by("call")
    files = {suffix: tmp_path / f"out{suffix}" for suffix in (".parquet", ".csv", ".jsonl")}
    for file in files.values():
        code, out, _ = run("export", folder, file)
        assert code == 0 and out == f"{file}: 4 descriptions\n"
    assert parquet.read_table(files[".parquet"]).sort_by("call").equals(expected)
    table = csv.read_csv(files[".csv"]).sort_by("call")
    assert table.column_names == [name for name in expected.column_names if name != "error"]
    assert table["text"].equals(expected["text"]) and table["uri"].equals(expected["uri"])
    rows = sorted(map(json.loads, files[".jsonl"].read_text().splitlines()), key=lambda row: row["call"])
    assert [row["text"] for row in rows] == expected["text"].to_pylist() and rows[0]["described_at"] == day(2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.csv", "out.jsonl", "out.parquet", "store"]


def test_export_of_one_language(store, tmp_path, run):
    code, out, _ = run("export", store._folder.where(), tmp_path / "de.jsonl", "--lang", "de", "--json")
    assert code == 0 and json.loads(out)["descriptions"] == 1


def test_history_for_people_and_for_programs(store, run):
    code, out, _ = run("history", store._folder.where(), "a")
    assert code == 0 and ": 4 calls have ended for this image" in out
    assert out.index("a by a1") < out.index("Which colour?") < out.index("a by a3") and "$0.015" in out
    code, out, _ = run("history", store._folder.where(), "b", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0 and [row["status"] for row in rows] == ["lost", "described", "rejected"]
    assert rows[1]["described_at"] == day(1)
    code, out, _ = run("history", store._folder.where(), "nowhere")
    assert code == 0 and ": 0 calls have ended" in out


def test_check_of_a_store_however_far_it_is_settled(store, run):
    code, out, _ = run("check", store._folder.where(), "--json")
    found = json.loads(out)
    assert (code, found["damaged"]) == (0, [])
    assert [call["call"] for call in found["open_calls"]] == ["open"]
    assert found["unknown_calls"] == 2 and found["unknown_images"] == 2


@pytest.mark.parametrize(
    "uri", ["it's", '"', "\\", "new\nline", "ü/\udcff.jpg", "100%_a", "-- x", "https://h/a.jpg?sig=x"]
)
@pytest.mark.parametrize("settled", [False, True])
def test_any_name_has_its_history(folder, events, uri, settled):
    put(folder, "1", [events.outcome("c1", "c", uri=masked(uri)), events.outcome("c2", "other", uri="other")])
    if settled:
        compact(folder)
    assert DescriptionStore(folder).history(uri)["call"].to_pylist() == ["c1"]


def test_a_kill_between_table_and_mark_shows_each_call_once(folder, events):
    shards = list(nights(events))
    for number, shard in enumerate(shards):
        put(folder, str(number), shard)
    ended = [event for shard in shards for event in shard if event["event"] == "outcome"]
    SettledTable(folder).add(ended, is_new=True)
    assert folder.read(SETTLED) is None
    store = DescriptionStore(folder)
    assert calls(store.current()) == ["a2 de", "a3", "b1", "d1"] and len(store.history("a")) == 4
    assert summarize(folder).total.described == 6


def test_a_store_is_opened_where_it_is(path, folder, events, monkeypatch):
    put(folder, "1", [events.outcome("c1")])
    monkeypatch.chdir(path.parent)
    assert calls(open_store("store").current()) == ["c1"] and calls(open_store(str(path)).current()) == ["c1"]
    assert repr(open_store("store")) == f"DescriptionStore('{path}')"
    for wrong in ("nowhere", "", "store/journal"):
        with pytest.raises(BadInput):
            open_store(wrong)
    assert not (path.parent / "nowhere").exists()


def test_an_empty_store_has_no_descriptions(folder):
    folder.create(SETTLED, settled_mark())
    put(folder, "1", [])
    with pytest.raises(CorruptShard, match=f"{TABLE} is not there"):
        DescriptionStore(folder).current()
    folder.delete(SETTLED)
    assert len(DescriptionStore(folder).current()) == 0 and len(DescriptionStore(folder).history("a")) == 0


def test_the_public_name_is_imported_without_anything_heavy():
    code = "import sys; from airflow_provider_describer.store import open_store; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=child_environment(), check=True
    )
    assert not {"lance", "pyarrow", "numpy", "httpx", "airflow"} & set(done.stdout.split())


# Files of exports


def batches(events, count=3):
    records = [next(iter(columns.to_records(events.outcome(f"c{number}")))) for number in range(count)]
    yield pa.RecordBatch.from_pylist(records, columns.schema()).select(list(columns.SHOWN))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_an_export_that_fails_leaves_what_was_there(tmp_path, events, suffix):
    target = tmp_path / f"out{suffix}"
    assert export(batches(events), target) == 3
    before = target.read_bytes()

    def broken():
        yield from batches(events)
        raise StoreError("the table cannot be read")

    with pytest.raises(StoreError, match="the table cannot be read"):
        export(broken(), target)
    assert target.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_an_export_of_nothing_is_a_file_of_no_rows(tmp_path, suffix):
    assert export([], tmp_path / f"out{suffix}") == 0
    assert (tmp_path / f"out{suffix}").exists()


def test_an_export_is_gathered_into_larger_groups(tmp_path, events, monkeypatch):
    monkeypatch.setattr(export_module, "GROUP_ROWS", 4)
    many = (batch for _ in range(5) for batch in batches(events))
    assert export(many, tmp_path / "out.parquet") == 15
    assert parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("out.xlsx", "may end in .parquet, .csv, .jsonl"),
        ("out", "may end in"),
        ("nowhere/out.csv", "is in no folder that exists"),
        ("folder.csv", "is a folder"),
        ("s3://bucket/out.csv", "is in no folder that exists on this machine"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path, folder, events, run, monkeypatch, out, words
):
    put(folder, "1", [events.outcome("c1")])
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DescriptionStore, "current_batches", None)
    code, shown, err = run("export", folder.where(), out)
    assert code == 2 and shown == "" and words in err

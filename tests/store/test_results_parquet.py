"""Result files as Parquet: the rows of JSONL in typed columns, whole or not at all, a group at a time in memory."""

from __future__ import annotations

import importlib
import importlib.util
import json
import tracemalloc
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_describer.errors import BadInput, RejectedImage, StoreError, UnexpectedAnswer
from airflow_provider_describer.models import Description
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store import results as results_module
from airflow_provider_describer.store.results import ResultFiles, check_results_format
from airflow_provider_describer.store.rows import Row, TaskInstanceKey, new_row

RUN = TaskInstanceKey("d", "r", "t", 3, 2)
TEXT = 'A "bear"\r\nand a 🐻\u2028, Ä\ud83d.'
needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


@pytest.fixture
def rows(image):
    ask = image("a", uri="/photos/\udcff.jpg").request
    done = Description(TEXT, "vendor", "model", cost_usd=0.015, request_id="r-1", elapsed_s=3.14159)
    answer = UnexpectedAnswer("no description of \udcff.jpg", answer="<html>", billed="yes")
    return [
        new_row(ask, RUN, "described", 1.7e9 + 0.123, description=done, sha256="abc", lost_calls=1),
        new_row(ask, RUN, "rejected", 1.7e9, error=RejectedImage("too dark", kind="dark")),
        new_row(ask, RUN, "rejected", 1.7e9, error=answer),
        new_row(ask, RUN, "pending", 1.7e9),
    ]


@pytest.fixture
def publish(tmp_path):
    """Publish the rows; return where results and failures are."""

    def publish(rows):
        with ResultFiles(LocalFolder(tmp_path / "store"), RUN, "parquet") as files:
            for row in rows:
                files.write(row)
            assert not (tmp_path / "store").exists()
        return files.results, files.failures

    return publish


def table_of(path):
    return importlib.import_module("pyarrow.parquet").read_table(path)


def as_columns_hold(row):
    """What must come back: broken characters spelt out, a moment for its text, and an error with all its fields."""
    values = json.loads(row.to_line())
    error = values["error"] and {"answer": None, **json.loads(json.dumps(values["error"]).replace(r"\ud", r"\\ud"))}
    return {**values, "described_at": datetime.fromisoformat(values["described_at"]), "error": error}


@needs_pyarrow
def test_every_row_and_the_failures_once_more(publish, rows, tmp_path):
    results, failures = publish(rows)
    assert results == str(tmp_path / "store/results/d/r/t-3.parquet")
    assert failures == str(tmp_path / "store/results/d/r/t-3.failures.parquet")
    assert {path.name for path in Path(results).parent.iterdir()} == {Path(results).name, Path(failures).name}
    assert table_of(results).to_pylist() == [as_columns_hold(row) for row in rows]
    assert table_of(failures).to_pylist() == [as_columns_hold(row) for row in rows[1:]]
    first, *_, unread, _ = table_of(results).to_pylist()
    assert first["uri"] == r"/photos/\udcff.jpg" and first["text"] == TEXT.replace("\ud83d", r"\ud83d")
    assert first["described_at"] == datetime(2023, 11, 14, 22, 13, 20, 123000, UTC) and first["error"] is None
    assert unread["error"]["answer"] == "<html>" and r"\udcff.jpg" in unread["error"]["message"]


@needs_pyarrow
def test_columns_are_the_fields_of_a_row_and_typed(publish, rows):
    pa = importlib.import_module("pyarrow")
    # Not a price, a text nor an error in any row: the types are not guessed from what is there.
    for path in publish(rows[3:]):
        schema = table_of(path).schema
        assert schema.names == [field.name for field in fields(Row)]
        typed = {name: schema.field(name).type for name in schema.names}
        assert typed["text"] == typed["request_id"] == typed["id"] == pa.string()
        assert typed["cost_usd"] == typed["elapsed_s"] == pa.float64()
        assert typed["map_index"] == typed["try_number"] == typed["lost_calls"] == pa.int64()
        assert typed["described_at"] == pa.timestamp("ms", "UTC")
        assert typed["error"] == pa.struct({"kind": pa.string(), "message": pa.string(), "answer": pa.string()})


@needs_pyarrow
def test_without_failures_their_file_is_empty_and_has_its_columns(publish, rows):
    results, failures = publish(rows[:1])
    assert (table_of(results).num_rows, table_of(failures).num_rows) == (1, 0)
    assert table_of(failures).schema == table_of(results).schema


@needs_pyarrow
@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas_reads_it_as_it_is(publish, rows):
    pandas = importlib.import_module("pandas")
    table = pandas.read_parquet(publish(rows)[0])
    assert list(table.columns) == list(rows[0].to_dict()) and len(table) == 4
    assert table["cost_usd"].sum() == pytest.approx(0.015) and table["cost_usd"].isna().sum() == 3
    assert table["described_at"].max() == pandas.Timestamp("2023-11-14T22:13:20.123Z")
    assert table["error"][1]["kind"] == "dark"


@needs_pyarrow
def test_many_rows_in_groups(publish, rows):
    results, failures = publish(rows[number % 2] for number in range(5000))
    file = importlib.import_module("pyarrow.parquet").ParquetFile(results)
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [results_module.GROUP_ROWS, results_module.GROUP_ROWS, 5000 - 2 * results_module.GROUP_ROWS]
    assert table_of(results)["status"].to_pylist() == ["described", "rejected"] * 2500
    assert table_of(failures)["status"].to_pylist() == ["rejected"] * 2500


@needs_pyarrow
def test_no_more_than_a_group_of_rows_is_in_memory(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(results_module, "GROUP_ROWS", 50)

    def peak(count):
        lines = tmp_path / "rows.jsonl"
        lines.write_text(rows[0].to_line() * count, encoding="utf-8")
        tracemalloc.start()
        results_module.write_parquet(lines, tmp_path / "rows.parquet")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(50)  # what is imported and made once
    assert peak(2000) < 2 * peak(100)


@needs_pyarrow
def test_they_are_there_when_the_run_fails(tmp_path, rows):
    files = ResultFiles(LocalFolder(tmp_path), RUN, "parquet")

    def work():
        with files:
            files.write(rows[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert table_of(files.results).num_rows == 1


@needs_pyarrow
def test_a_later_try_replaces_them(publish, rows, tmp_path):
    for part in (rows, rows[:1]):
        with ResultFiles(LocalFolder(tmp_path), RUN, "parquet") as files:
            for row in part:
                files.write(row)
    assert table_of(files.results).num_rows == 1 and table_of(files.failures).num_rows == 0


@needs_pyarrow
def test_a_full_temporary_disk_is_named_and_nothing_is_published(tmp_path, rows, monkeypatch):
    def fail(lines, target):
        target.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("airflow_provider_describer.store.results.write_parquet", fail)

    def work():
        with ResultFiles(LocalFolder(tmp_path), RUN, "parquet") as files:
            for row in rows:
                files.write(row)

    with pytest.raises(StoreError, match=r"temporary file .*\.parquet .*No space left"):
        work()
    assert not list(tmp_path.iterdir())


@needs_pyarrow
def test_a_job_writes_them_and_its_manifest_says_where(shop, pictures):
    job = shop.job(pictures(3), results_format="parquet")
    manifest = job.run().manifest
    assert manifest["results"].endswith(".parquet") and manifest["failures"].endswith(".failures.parquet")
    assert table_of(manifest["results"])["status"].to_pylist() == ["described"] * 3
    assert table_of(manifest["failures"]).num_rows == 0
    again = shop.job(pictures(3), results_format="parquet").run().manifest
    assert table_of(again["results"])["status"].to_pylist() == ["reused"] * 3


@pytest.mark.parametrize("form", ["csv", "", "Parquet", None, 7, ["jsonl"]])
def test_another_format_is_refused_by_name_before_anything_is_called(shop, pictures, form):
    with pytest.raises(BadInput, match="results_format") as refused:
        shop.describe(pictures(1), results_format=form)
    assert repr(form) in str(refused.value) and "jsonl, parquet" in str(refused.value)
    assert shop.emulator.ledger()["requests"] == 0 and not shop.store.exists()


def test_without_pyarrow_the_extra_is_named_before_anything_is_called(shop, pictures, monkeypatch):
    monkeypatch.setattr("airflow_provider_describer.store.results.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"results_format='parquet'.*airflow-provider-describer\[parquet\]"):
        shop.describe(pictures(1), results_format="parquet")
    assert shop.emulator.ledger()["requests"] == 0 and not shop.store.exists()
    check_results_format("jsonl")

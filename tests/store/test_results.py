"""Result files: a row for every image, readable line by line, there when the run ends however it ends."""

from __future__ import annotations

import importlib
import importlib.util
import json
import tempfile
from pathlib import Path

import pytest

from airflow_provider_describer.errors import RejectedImage, StoreError, UnexpectedAnswer
from airflow_provider_describer.models import Description
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store.results import ResultFiles
from airflow_provider_describer.store.rows import TaskInstanceKey, new_row

TEXT = 'A "bear"\nand a 🐻\u2028, Ä\ud83d.'


@pytest.fixture
def rows(image):
    ask, run = image("a", uri="/photos/\udcff.jpg").request, TaskInstanceKey("d", "r", "t", 3, 2)
    done = Description(TEXT, "vendor", "model", cost_usd=0.015, request_id="r-1", elapsed_s=3.14159)
    answer = UnexpectedAnswer("no description", answer="<html>", billed="yes")
    return [
        new_row(ask, run, "described", 1.7e9, description=done, sha256="abc"),
        new_row(ask, run, "rejected", 1.7e9, error=RejectedImage("too dark", kind="dark")),
        new_row(ask, run, "rejected", 1.7e9, error=answer),
        new_row(ask, run, "pending", 1.7e9),
    ]


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]]


def as_written(row):
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.to_dict().items()
    }


def test_every_row_and_the_failures_once_more(tmp_path, rows):
    run = TaskInstanceKey("my_dag", "manual__2026-01-01T00:00:00+00:00", "group.task", 3)
    with ResultFiles(LocalFolder(tmp_path), run) as files:
        for row in rows:
            files.write(row)
        assert not Path(files.results).exists()
    assert files.results == str(tmp_path / "results/my_dag" / run.run_id / "group.task-3.jsonl")
    assert files.failures == str(tmp_path / "results/my_dag" / run.run_id / "group.task-3.failures.jsonl")
    assert read(files.results) == [as_written(row) for row in rows]
    assert read(files.failures) == [as_written(row) for row in rows[1:]]
    # What no text can hold is spelt out, so that one odd name makes no file unreadable.
    assert read(files.results)[0]["uri"] == r"/photos/\udcff.jpg" and r"\ud83d" in read(files.results)[0]["text"]


def test_a_row_says_what_came_of_an_image(rows):
    described, rejected, unread, pending = (row.to_dict() for row in rows)
    assert described["text"] == TEXT and described["cost_usd"] == 0.015 and described["billed"] == "yes"
    assert described["elapsed_s"] == 3.142 and described["described_at"] == "2023-11-14T22:13:20.000+00:00"
    assert rejected["error"] == {"kind": "dark", "message": "too dark"} and rejected["billed"] == "no"
    assert unread["error"]["answer"] == "<html>" and unread["billed"] == "yes"
    assert pending["error"] is None and pending["billed"] == "no" and pending["cost_usd"] is None
    assert described["dag_id"] == "d" and described["map_index"] == 3 and described["try_number"] == 2


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas_reads_it_as_it_is(tmp_path, rows):
    pandas = importlib.import_module("pandas")
    with ResultFiles(LocalFolder(tmp_path), TaskInstanceKey()) as files:
        for row in rows[1:]:
            files.write(row)
    table = pandas.read_json(files.results, lines=True)
    assert list(table.columns) == list(rows[0].to_dict()) and len(table) == 3


def test_they_are_there_when_the_run_fails(tmp_path, rows):
    files = ResultFiles(LocalFolder(tmp_path), TaskInstanceKey())

    def work():
        with files:
            files.write(rows[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert read(files.results) == [as_written(rows[0])]
    assert files.results == str(tmp_path / "results/no_dag/no_run/no_task.jsonl")


def test_a_later_try_replaces_them(tmp_path, rows):
    for part in (rows, rows[:1]):
        with ResultFiles(LocalFolder(tmp_path), TaskInstanceKey("d", "r", "t")) as files:
            for row in part:
                files.write(row)
    assert len(read(files.results)) == 1 and read(files.failures) == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", ".", "a\\b", "a\0b", "x" * 400, "ü" * 250])
def test_any_name_is_a_file_below_the_store(tmp_path, rows, name):
    with ResultFiles(LocalFolder(tmp_path / "store"), TaskInstanceKey(name, name, name)) as files:
        files.write(rows[0])
    path = Path(files.results).resolve()
    assert path.is_relative_to(tmp_path / "store/results") and len(path.relative_to(tmp_path).parts) == 5
    assert read(path)


def test_long_names_stay_apart(tmp_path):
    names = {ResultFiles(LocalFolder(tmp_path), TaskInstanceKey("d", "r", "x" * 300 + end)).results for end in "ab"}
    assert len(names) == 2


def test_a_full_temporary_disk_is_named(tmp_path, rows, monkeypatch):
    def fail(text):
        raise OSError(28, "No space left on device")

    with ResultFiles(LocalFolder(tmp_path), TaskInstanceKey()) as files:
        monkeypatch.setattr(files._temporary[0], "write", fail)
        with pytest.raises(StoreError, match=rf"{tempfile.gettempdir()}.*No space left"):
            files.write(rows[0])

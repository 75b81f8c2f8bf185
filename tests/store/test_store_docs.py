"""The Python of docs/store.md runs as it stands: on a store that is settled, and on one that is partly so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.description_store import shown_schema
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import encode_shard, json_line
from airflow_provider_describer.store.table import KEEP_VERSIONS_FOR

PAGE = (Path(__file__).resolve().parents[2] / "docs/store.md").read_text(encoding="utf-8")
BLOCKS = [
    code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if not re.search("duckdb|polars|pandas", code)
]
"""Those that need nothing but this package and what it brings."""


@pytest.fixture
def path(tmp_path, events):
    folder = LocalFolder(tmp_path / "descriptions")
    for name in ("1", "2"):
        row = events.outcome(f"c{name}", uri="s3://catalog/a.jpg")
        folder.create(f"journal/{name}.jsonl", encode_shard([json_line(row)]))
        if name == "1":
            compact(folder)
    return folder.where()


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_python_runs(path, code):
    exec(compile(code.replace("/data/descriptions", path), "store.md", "exec"), {})


def test_some_python_is_run():
    assert len(BLOCKS) >= 3


def test_every_column_is_explained():
    section = PAGE.partition("## Columns")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in re.findall("`(\\w+)`", cell)} == set(shown_schema().names)
    hidden = set(columns.schema().names) - set(shown_schema().names) - set(columns.INDEXED)
    assert all(f"`{name}`" in section for name in hidden)


def test_how_long_versions_stay_is_said():
    assert f"for {KEEP_VERSIONS_FOR.days} days at least" in PAGE

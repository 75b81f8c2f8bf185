"""A table that is damaged, newer or partly gone: a plan stops, and `check` names what is wrong, all of it."""

from __future__ import annotations

import json
import shutil

import lance
import pyarrow as pa
import pytest

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store import columns
from airflow_provider_describer.store.__main__ import main
from airflow_provider_describer.store.description_store import DescriptionStore
from airflow_provider_describer.store.index import open_index
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import SETTLED, encode_shard, json_line
from airflow_provider_describer.store.table import NAME as TABLE
from airflow_provider_describer.store.table import SettledTable


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def table(path):
    return path / TABLE


@pytest.fixture
def folder(path, events):
    """A store whose table has two files of rows, the first of them indexed."""
    folder = LocalFolder(path)
    for first in (0, 50):
        outcomes = [events.outcome(f"c{number}", f"{number}") for number in range(first, first + 50)]
        folder.create(f"journal/{first}.jsonl", encode_shard(map(json_line, outcomes)))
        if not first:
            compact(folder)
    SettledTable(folder).add(outcomes, is_new=True)
    folder.delete("journal/50.jsonl")
    return folder


@pytest.fixture
def check(folder, capsys):
    def check(*arguments):
        code = main(["check", folder.where(), "--json"])
        found = json.loads(capsys.readouterr().out)
        assert code == (1 if found["damaged"] else 0)
        return found

    return check


def newest(folder, pattern):
    return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns)


def cut(*files):
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(*folders):
    for folder in folders:
        shutil.rmtree(folder)


def make_it_a_file(table):
    shutil.rmtree(table)
    table.write_text("")


def newer(folder):
    dataset = lance.dataset(folder.location(TABLE).uri)
    dataset.update_schema_metadata({columns.VERSION_NAME.decode(): str(columns.VERSION + 1)}, replace=True)


DAMAGES = {
    "a file of rows is gone": lambda folder, table: newest(table, "data/*").unlink(),
    "a file of rows is cut": lambda folder, table: cut(newest(table, "data/*")),
    "the newest manifest is cut": lambda folder, table: cut(newest(table, "_versions/*.manifest")),
    "a newer format": lambda folder, table: newer(folder),
    "no versions": lambda folder, table: shutil.rmtree(table / "_versions"),
    "an index is gone": lambda folder, table: remove(*(table / "_indices").iterdir()),
    "indexes are cut": lambda folder, table: cut(*(table / "_indices").glob("*/page_data.lance")),
    "no table": lambda folder, table: shutil.rmtree(table),
    "a table that is a file": lambda folder, table: make_it_a_file(table),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_plan_stops_and_check_names_the_table(folder, table, check, events, capsys, tmp_path, damage):
    assert check()["damaged"] == []
    DAMAGES[damage](folder, table)
    with pytest.raises(StoreError, match=str(table)):
        open_index(folder, [events.key(str(number)) for number in range(100)])
    [*named] = check()["damaged"]
    assert named and all(str(table) in one for one in named)
    if "index" in damage:
        # Nobody asks an index for these.
        assert len(DescriptionStore(folder).current()) == 1
        return
    for ask in (DescriptionStore(folder).current, lambda: DescriptionStore(folder).history("u")):
        with pytest.raises(StoreError, match=str(table)):
            ask()
    for command in (["export", folder.where(), str(tmp_path / "out.csv")], ["show", folder.where()]):
        assert main(command) == 1 and str(table) in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_check_goes_on_behind_what_is_damaged(folder, table, check, path):
    newest(table, "data/*").unlink()
    (path / "journal/9.jsonl").write_bytes(b"torn")
    found = check()
    assert found["table"]["rows"] == 50 and found["table"]["files"] == 2 and found["damaged_shards"] == 1
    assert "journal/9.jsonl is damaged" in found["damaged"][0] and str(table) in found["damaged"][1]


def test_a_row_that_a_lookup_would_not_find(folder, table, check):
    dataset = lance.dataset(str(table))
    dataset.update({"key_1": "key_1 + 1"}, where="call = 'c7'")
    dataset.update({"call_key": "5"}, where="call = 'c60'")
    named = check()["damaged"]
    assert any("'c7' has the wrong key_1" in one for one in named)
    assert any("'c60' has the wrong call_key" in one for one in named) or "wrong call_key" in str(named)


def test_an_index_that_misses_rows(folder, table, check, path):
    """Its files are those of a table with other rows."""
    other = LocalFolder(path.parent / "other")
    row = {"event": "outcome", "uri": "u", "status": "described", "described_at": "2026-01-01T00:00:00+00:00"}
    rows = [{**row, "call": f"x{number}", "keys": [f"{number:032x}"]} for number in range(50)]
    SettledTable(other).add(rows, is_new=True)
    SettledTable(other).maintain(at_once=True)
    own, foreign = (indexes_of(one) for one in (table, path.parent / "other" / TABLE))
    for file in foreign["key_1"].iterdir():
        shutil.copy(file, own["key_1"] / file.name)
    assert any("its index of key_1 finds 50 of 100 rows" in one for one in check()["damaged"])


def indexes_of(table):
    """The folder of each index, by its column."""
    found = lance.dataset(str(table)).describe_indices()
    return {one.field_names[0]: table / "_indices" / str(one.segments[0].uuid) for one in found}


def test_rows_that_are_there_twice_are_told_and_are_no_damage(folder, check, events, capsys):
    SettledTable(folder).add([events.outcome(f"c{number}", f"{number}") for number in range(3)], is_new=True)
    found = check()
    assert found["copies"] == 3 and found["damaged"] == [] and found["table"]["rows"] == 103
    main(["check", folder.where()])
    assert "3 rows are there twice and count once" in capsys.readouterr().out


def test_a_mark_that_is_missing(folder, check):
    """Without it an older release does not know that there is a table."""
    assert check()["damaged"] == []
    folder.delete(SETTLED)
    [named] = check()["damaged"]
    assert f"{SETTLED} is missing" in named


def test_a_column_that_is_missing(folder, table, check):
    lance.dataset(str(table)).drop_columns(["sha256"])
    assert "sha256" in check()["damaged"][0]
    assert pa.types.is_string(lance.dataset(str(table)).schema.field("uri").type)

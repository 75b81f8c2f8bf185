"""A table of an older version: read as it is, and brought up to date by the first that writes to it."""

from __future__ import annotations

import json

import lance
import pytest

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.store import columns, table_version
from airflow_provider_describer.store.description_store import DescriptionStore
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.table import NAME, SettledTable
from airflow_provider_describer.store.table_check import check_table


def dataset(disk):
    return lance.dataset(disk.location(NAME).uri)


@pytest.fixture(params=[1, 2])
def old(request, disk, events):
    """A store with two descriptions in a table as an older version wrote it."""
    disk.put("1", events.outcome("c1", "a", text="a cat"), events.outcome("c2", "b", text="a dog", uri="v"))
    compact(disk)
    later = [name for version, names in columns.ADDED_IN.items() if version > request.param for name in names]
    dataset(disk).drop_columns(later)
    dataset(disk).update_schema_metadata({columns.VERSION_NAME.decode(): str(request.param)})
    # A change of its columns is not what these tests are about.
    SettledTable(disk)._make_durable()
    return disk


def texts(disk):
    return {row["text"]: row["failed_rules"] for row in DescriptionStore(disk).current().to_pylist()}


def test_it_is_read_without_being_changed(old, plans_of):
    before = dataset(old).version
    assert texts(old) == {"a cat": None, "a dog": None}
    assert [event["text"] for event in SettledTable(old).events([columns.call_key("c1")])] == ["a cat"]
    assert [action for _, _, action, *_ in plans_of(old)[:3]] == ["reuse", "reuse", "call"]
    assert check_table(SettledTable(old)).damaged == []
    assert dataset(old).version == before


def test_the_first_writer_brings_it_up_to_date(old, events):
    rated = events.outcome("c3", "c", text="a bird", uri="w", failed_rules=["MinWords(8)"], review="edited")
    SettledTable(old).add([rated | {"reviewed_by": "Ada"}], is_new=True)
    assert table_version.is_old(dataset(old).schema) is False
    assert texts(old) == {"a cat": None, "a dog": None, "a bird": ["MinWords(8)"]}
    (event,) = SettledTable(old).events([columns.call_key("c3")])
    assert (event["failed_rules"], event["review"], event["reviewed_by"]) == (["MinWords(8)"], "edited", "Ada")
    assert check_table(SettledTable(old)).damaged == []


def test_objects_are_texts_in_the_table_and_objects_in_the_journal(old, events):
    fields = {"title": "Ein Vogel ü", "tags": ["a", "b"], "score": 0.25, "empty": {}}
    fallback = {"instead_of": "segmind", "model": "m", "kind": "model_retired", "message": "gone"}
    SettledTable(old).add([events.outcome("c3", "c", uri="w", fields=fields, fallback=fallback)], is_new=True)
    (event,) = SettledTable(old).events([columns.call_key("c3")])
    assert (event["fields"], event["fallback"]) == (fields, fallback)
    (row,) = [row for row in DescriptionStore(old).current().to_pylist() if row["uri"] == "w"]
    assert row["fields"] == '{"title":"Ein Vogel ü","tags":["a","b"],"score":0.25,"empty":{}}'
    assert json.loads(row["fallback"]) == fallback
    assert check_table(SettledTable(old)).damaged == []


def test_a_writer_that_was_killed_halfway_is_followed_by_another(old, events):
    lacking = [field for field in columns.schema() if field.name not in dataset(old).schema.names]
    dataset(old).add_columns(lacking[:1])
    assert texts(old) == {"a cat": None, "a dog": None}
    SettledTable(old).add([events.outcome("c3", "c", text="a bird", uri="w", failed_rules=[])], is_new=True)
    assert texts(old) == {"a cat": None, "a dog": None, "a bird": []}


def test_two_writers_at_once_lose_no_row(old, events):
    first, second = SettledTable(old), SettledTable(old)
    assert first.exists and second.exists
    first.add([events.outcome("c3", "c", text="a bird", uri="w")], is_new=True)
    second.add([events.outcome("c4", "d", text="a fish", uri="x")], is_new=False)
    assert texts(old).keys() == {"a cat", "a dog", "a bird", "a fish"}


def test_one_that_was_changed_after_it_was_written_is_damage(old, events):
    SettledTable(old).add([events.outcome("c3", "c", failed_rules=["MinWords(8)"])], is_new=True)
    dataset(old).update({"failed_rules": "NULL"}, where="call = 'c3'")
    with pytest.raises(StoreError, match="checksum"):
        list(SettledTable(old).events([columns.call_key("c3")]))

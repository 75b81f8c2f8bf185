"""The table on a local disk: whatever happens to one of its files, the plan is the right one or an error names it."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path

import pytest
from thoroughness import FULL

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store import table as table_module
from airflow_provider_describer.store.checksums import FOLDER, Checksums
from airflow_provider_describer.store.index import open_index
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.shard import SETTLED, encode_shard, json_line, settled_mark
from airflow_provider_describer.store.table import NAME, SettledTable

RUN = TaskInstanceKey("dag", "run", "task", -1)
MANY, FEW = 200, 20
"""Rows that the indexes have, and rows that they lack."""


@pytest.fixture(scope="module")
def make_events(events):
    def make(first, count):
        for number in range(first, first + count):
            content = f"content {number}"
            if number % 20 == 7:
                yield events.lost(f"c{number}", content)
            elif number % 20 == 8:
                # Linked to what the row before the last one is of.
                keys = [events.key(f"content {number - 2}"), events.key(content)]
                yield {"event": "same", "call": f"c{number}", "keys": keys, "uri": "u", "at": 1.0}
            else:
                status = "rejected" if number % 20 == 9 else "described"
                run = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1}
                yield events.outcome(f"c{number}", content, status, **run)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_events):
    """A store with a table, all its indexes, rows that they lack, and older versions."""
    store = tmp_path_factory.mktemp("whole")
    folder = open_folder(store)
    table = SettledTable(folder)
    table.add(make_events(0, MANY), is_new=True)
    table.maintain(at_once=True)
    table.add(make_events(MANY, FEW), is_new=True)
    folder.create(SETTLED, settled_mark())
    return store


@pytest.fixture
def told(events, plans):
    """Return all that a store says: the plan, the rows and the spending."""
    contents = [f"content {number}" for number in range(MANY + FEW + 3)]
    keys = [(events.key(content),) for content in contents]

    def tell(store):
        index = open_index(open_folder(store), [key for (key,) in keys], RUN)
        known = [one for one in keys if index.outcome(one)]
        rows = [{name: value for name, value in row.items() if value is not None} for row in index.rows(known)]
        return plans(index, contents), rows, index.spending()

    return tell


@pytest.fixture(params=["by index", "by scan"])
def way(request, monkeypatch):
    """Both ways of a lookup."""
    if request.param == "by scan":
        monkeypatch.setattr(table_module, "SCAN_KEYS", 1)


@pytest.fixture
def copied(whole, tmp_path):
    numbers = iter(range(10**6))

    def copy():
        # Hard links: a damaged file is written anew.
        return Path(shutil.copytree(whole, tmp_path / f"{next(numbers)}", copy_function=os.link))

    return copy


def files_of(store):
    return sorted(file.relative_to(store) for file in store.rglob("*") if file.is_file())


def write(path, content):
    path.unlink()
    path.write_bytes(content)


def flipped(content, position, bit):
    return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :]


def newest_checksums(store):
    sums = Checksums()
    sums.load(str(store / NAME))
    return sums.version


def is_right_or_names_it(store, expected, told):
    try:
        return told(store) == expected
    except StoreError as error:
        return str(store) in str(error)


def test_a_scan_finds_what_the_indexes_find(whole, told, monkeypatch):
    expected = told(whole)
    monkeypatch.setattr(table_module, "SCAN_KEYS", 1)
    assert told(whole) == expected


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.99])
def test_any_file_that_is_gone_or_cut_off(whole, copied, told, share, way):
    expected = told(whole)
    for name in files_of(whole):
        store = copied()
        if share is None:
            (store / name).unlink()
        else:
            content = (store / name).read_bytes()
            write(store / name, content[: int(len(content) * share)])
        assert is_right_or_names_it(store, expected, told), name
        shutil.rmtree(store)


def test_any_flipped_bit(whole, copied, told, way):
    flips = 10 if FULL else 2
    expected, dice = told(whole), random.Random(flips)
    for name in files_of(whole):
        content = (whole / name).read_bytes()
        for position in dice.sample(range(len(content)), min(flips, len(content))):
            store = copied()
            write(store / name, flipped(content, position, dice.randrange(8)))
            assert is_right_or_names_it(store, expected, told), (name, position)
            shutil.rmtree(store)


def test_the_table_does_not_fall_back_to_an_older_version(whole, copied, told):
    store = copied()
    newest = min((store / NAME / "_versions").glob("*.manifest"))
    newest.unlink()
    with pytest.raises(CorruptShard, match=rf"{newest.name} is damaged: it is missing"):
        told(store)
    # Nor does anybody write on from there.
    with pytest.raises(CorruptShard, match="it is missing"):
        SettledTable(open_folder(store)).maintain(at_once=True)


def test_a_table_is_read_without_the_mark_that_says_so(whole, copied, told):
    store = copied()
    (store / SETTLED).unlink()
    assert told(store) == told(whole)


def test_without_checksums_the_table_is_read_as_it_is(whole, copied, told):
    store = copied()
    shutil.rmtree(store / NAME / FOLDER)
    assert told(store) == told(whole)


def test_damage_is_not_carried_into_new_files(whole, copied, make_events):
    """Those would get checksums of their own: what is merged or indexed is checked before."""
    for kind in ("data", "_indices"):
        for file in sorted((whole / NAME / kind).rglob("*.lance")):
            store = copied()
            content = file.read_bytes()
            write(store / file.relative_to(whole), flipped(content, len(content) // 3, 2))
            with pytest.raises(StoreError, match=rf"{file.name} is damaged: its checksum"):
                SettledTable(open_folder(store)).maintain(at_once=True)
            shutil.rmtree(store)


def test_all_damaged_files_are_listed(whole, copied):
    store = copied()
    assert SettledTable(open_folder(store)).damaged_files() == []
    first, second = sorted((store / NAME / "data").iterdir())
    index = next((store / NAME / "_indices").rglob("page_data.lance"))
    first.unlink()
    index.unlink()
    write(second, second.read_bytes()[:-1])
    found = SettledTable(open_folder(store)).damaged_files()
    damaged = [path for path in (first, second, index) if any(str(path) in str(error) for error in found)]
    assert damaged == [first, second, index] and len(found) == 3


def test_killed_between_the_rows_and_their_checksums(tmp_path, make_events, told, monkeypatch, killed):
    """The shards are still there then, so neither a flipped bit nor a lost version loses what they tell."""
    folder = open_folder(tmp_path)
    folder.create("journal/1.jsonl", encode_shard(map(json_line, make_events(0, MANY))))
    compact(folder)
    folder.create("journal/2.jsonl", encode_shard(map(json_line, make_events(MANY, FEW))))
    expected = told(tmp_path)

    def dies(self, dataset):
        raise killed

    with monkeypatch.context() as patched:
        patched.setattr(Checksums, "write", dies)
        with pytest.raises(killed):
            compact(folder)
    assert "journal/2.jsonl" in folder.names("journal") and told(tmp_path) == expected
    newest = min((tmp_path / NAME / "_versions").glob("*.manifest"))
    content = newest.read_bytes()
    newest.unlink()
    assert told(tmp_path) == expected
    newest.write_bytes(content)
    # The next one that settles adds the checksums.
    compact(folder)
    assert told(tmp_path) == expected and len(folder.names("journal")) == 1
    assert newest_checksums(tmp_path) == SettledTable(folder).version


def test_readers_beside_writers_that_merge_and_remove(tmp_path, make_events, told, monkeypatch):
    """Two write, merge, index and remove old versions all the time; a reader sees neither damage nor less."""
    monkeypatch.setattr("airflow_provider_describer.store.table.CLEAN_EVERY", 1)
    folder = open_folder(tmp_path)
    SettledTable(folder).add(make_events(0, MANY + FEW), is_new=True)
    folder.create(SETTLED, settled_mark())
    expected, failed, done = told(tmp_path), [], threading.Event()

    def settle(first):
        try:
            table = SettledTable(folder)
            for number in range(6):
                table.add(make_events(first + number, 1), is_new=True)
                try:
                    table.maintain(at_once=True)
                except StoreError as error:
                    # Of two that never stop, one may have to give way for good.
                    if "conflict" not in str(error).lower():
                        raise
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    def read():
        while not done.is_set():
            try:
                assert told(tmp_path)[:2] == expected[:2]
            except Exception as error:  # noqa: BLE001
                failed.append(error)
                return

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=settle, args=(first,)) for first in (1000, 2000)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failed == []
    assert SettledTable(folder).damaged_files() == []
    assert newest_checksums(tmp_path) == SettledTable(folder).version

"""A journal in a bucket: written, merged, read and looked at, while the store throttles, cuts and refuses."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.__main__ import main
from airflow_provider_describer.store.audit import check
from airflow_provider_describer.store.description_store import DescriptionStore
from airflow_provider_describer.store.index import load_index, open_index, read_history
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.settling import compact, shard_names
from airflow_provider_describer.store.table import NAME as TABLE


@pytest.fixture
def folder(cloud):
    return open_folder(f"{cloud.uri}/catalog", cloud.open_bucket)


@pytest.fixture
def write(folder, events):
    """Have so many calls journaled, each in a shard of its own."""

    def write(calls, writer=folder):
        async def work():
            async with Journal(writer, window=0) as journal:
                for call in calls:
                    await journal.commit(events.sent(call, call))
                    await journal.commit(events.outcome(call, call))

        asyncio.run(work())

    return write


def calls(folder):
    return sorted(event["call"] for event in read_history(folder) if event["event"] == "outcome")


def test_what_is_journaled_is_remembered(folder, write, events):
    write(["1", "2", "3"])
    assert calls(folder) == ["1", "2", "3"]
    assert load_index(folder).row((events.key("2"),))["text"] == "2 by 2"


def test_merging_beside_writers_and_readers(folder, write, plans_of):
    write([f"first {number}" for number in range(5)])
    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, [f"{writer} {number}" for number in range(5)]) for writer in range(2)]
        merges = [threads.submit(compact, folder) for _ in range(2)]
        for future in (*writers, *merges):
            future.result()
    plans_before = plans_of(folder)
    assert len(calls(folder)) >= 15 and len(set(calls(folder))) == 15
    compact(folder)
    assert not shard_names(folder) and plans_of(folder) == plans_before


def test_a_store_that_throttles_and_cuts_now_and_then(cloud, folder, write):
    cloud.server.slow_down(method="PUT", times=2)
    cloud.server.lose_answers(method="PUT", path="journal", times=1)
    cloud.server.slow_down(method="GET", times=1)
    write(["1", "2"])
    assert calls(folder) == ["1", "2"]


def test_nothing_is_durable_that_was_refused(cloud, folder, write):
    cloud.server.deny(method="PUT")
    with pytest.raises(StoreError, match=f"{cloud.uri}/catalog/journal/.* cannot be written"):
        write(["1"])
    cloud.server.reset()
    assert calls(folder) == []


def open_shard(folder, events):
    """Write a shard with a call that has not ended; return its name."""

    async def work():
        async with Journal(folder) as journal:
            await journal.commit(events.sent("open", "open"))

    asyncio.run(work())
    [name] = shard_names(folder)
    return name


def test_a_shard_that_may_not_be_read_stops_everything(cloud, folder, write, events):
    write(["1"])
    name = open_shard(folder, events)
    cloud.server.deny(method="GET", path=name)
    for act in (load_index, compact):
        with pytest.raises(StoreError, match=name):
            act(folder)


def test_a_table_that_may_not_be_read_stops_everything(cloud, folder, write, events):
    write(["1"])
    cloud.server.deny(method="GET", path=TABLE)
    with pytest.raises(StoreError, match=TABLE):
        open_index(folder, [events.key("1")])
    for ask in (DescriptionStore(folder).current, lambda: DescriptionStore(folder).history("u")):
        with pytest.raises(StoreError, match=TABLE):
            ask()
    assert any(TABLE in one for one in check(folder).damaged)


def test_a_table_that_is_gone_stops_everything(cloud, folder, write, events):
    write(["1"])
    for page in list(cloud.bucket().entries(f"catalog/{TABLE}/")):
        cloud.bucket().delete(*(entry.key for entry in page))
    with pytest.raises(CorruptShard, match=f"{TABLE} is not there"):
        open_index(folder, [events.key("1")])


def test_a_damaged_shard_is_named(cloud, folder, write, events):
    write(["1"])
    name = open_shard(folder, events)
    cloud.bucket().put(f"catalog/{name}", folder.read(name)[:-1])
    with pytest.raises(CorruptShard, match=name):
        calls(folder)


@pytest.fixture
def command(cloud, monkeypatch, capsys):
    """The command, with the credentials in the environment."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "STORAGE_EMULATOR_HOST"))]:
        monkeypatch.delenv(name)
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)

    def command(*arguments):
        code = main(arguments)
        return code, capsys.readouterr()

    return command


def test_the_command_looks_at_buckets(cloud, folder, write, command, tmp_path):
    write(["1", "2"])
    for uri in (f"{cloud.uri}/catalog", f"{cloud.uri}/catalog/"):
        code, shown = command("check", uri, "--json")
        assert code == 0 and json.loads(shown.out)["store"] == f"{cloud.uri}/catalog"
    code, shown = command("compact", f"{cloud.uri}/catalog")
    assert code == 0 and shown.out.startswith(f"{cloud.uri}/catalog: ") and not shard_names(folder)
    write(["3"])
    code, shown = command("show", f"{cloud.uri}/catalog", "--json")
    assert code == 0 and json.loads(shown.out)["total"]["described"] == 3
    code, shown = command("history", f"{cloud.uri}/catalog", "u", "--json")
    assert code == 0 and sorted(row["call"] for row in json.loads(shown.out)["rows"]) == ["1", "2", "3"]
    code, shown = command("export", f"{cloud.uri}/catalog", str(tmp_path / "all.jsonl"))
    # All three are of the uri "u".
    assert code == 0 and len((tmp_path / "all.jsonl").read_text().splitlines()) == 1


def test_the_command_where_there_is_no_store(cloud, command):
    code, shown = command("check", f"{cloud.uri}/nothing")
    assert code == 2 and f"'{cloud.uri}/nothing' is no description store" in shown.err
    code, shown = command("check", f"{cloud.uri}/catalog/journal")
    assert code == 2
    code, shown = command("check", f"{cloud.uri[:5]}no-such-bucket/catalog")
    assert code == 1 and "no such bucket" in shown.err and "Traceback" not in shown.err

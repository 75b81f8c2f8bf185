"""Real processes, killed while they settle, merge and compact: what they have called durable is there, once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from thoroughness import FULL

from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import open_index, read_history
from airflow_provider_describer.store.journal import read_events
from airflow_provider_describer.store.settling import compact, shard_names
from airflow_provider_describer.store.table import SettledTable

SETTLER = Path(__file__).with_name("settler.py")
KILLS, CLOUD_KILLS = (20, 8) if FULL else (8, 4)
COUNT = 60


def run(store, number, environment, kill_after):
    """Start a process and kill it after that many lines; return the calls that it has called durable."""
    process = subprocess.Popen(
        [sys.executable, SETTLER, store, str(number), str(COUNT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout and process.stderr
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if kill_after is not None and len(lines) > kill_after:
            process.kill()
            break
    # What it has said before it died is still in the pipe.
    lines += [line.strip() for line in process.stdout]
    process.wait(60)
    reader.join()
    process.stdout.close()
    process.stderr.close()
    if kill_after is None:
        assert process.returncode == 0 and lines[-1] == "done", "".join(errors)[-3000:]
    return {line for line in lines if line not in ("settled", "done")}


def check(folder, durable):
    events = [event for event in read_history(folder) if event["event"] == "outcome"]
    found = {event["call"]: event for event in events}
    assert durable <= set(found)
    index = open_index(folder, [key for event in events for key in event["keys"]])
    for call in durable:
        (key,) = found[call]["keys"]
        outcome = index.outcome((key,))
        assert outcome is not None and outcome.described
    # Each call of the table once.
    rows = Counter(row for batch in SettledTable(folder).batches(["row_id"]) for row in batch.column(0).to_pylist())
    assert set(rows.values()) <= {1}, rows.most_common(3)


def assert_nothing_is_left_but_open_calls(folder):
    assert len(shard_names(folder)) <= 1
    assert {event["event"] for *_, event in read_events(folder)} <= {"sent"}


@pytest.mark.slow
def test_many_kills_lose_nothing_and_add_nothing_twice(tmp_path):
    store, dice, durable = str(tmp_path / "store"), random.Random(7), set()
    folder = open_folder(store)
    for number in range(KILLS):
        durable |= run(store, number, {}, dice.randrange(COUNT))
        check(folder, durable)
    durable |= run(store, KILLS, {}, None)
    check(folder, durable)
    compact(folder)
    check(folder, durable)
    assert len(durable) >= COUNT + KILLS
    assert_nothing_is_left_but_open_calls(folder)


@pytest.mark.slow
def test_kills_and_a_store_that_throttles_and_loses_answers(cloud):
    store, dice, durable = f"{cloud.uri}/store", random.Random(8), set()
    folder = open_folder(store, cloud.open_bucket)
    for number in range(CLOUD_KILLS):
        cloud.server.reset()
        for path in ("descriptions", "journal"):
            cloud.server.slow_down(path=path, times=dice.randrange(4))
            cloud.server.lose_answers(method="PUT", path=path, times=dice.randrange(4))
            cloud.server.lose_answers(method="GET", path=path, times=dice.randrange(2))
        durable |= run(store, number, cloud.environment, dice.randrange(COUNT))
        cloud.server.reset()
        check(folder, durable)
    durable |= run(store, CLOUD_KILLS, cloud.environment, None)
    compact(folder)
    check(folder, durable)
    assert_nothing_is_left_but_open_calls(folder)

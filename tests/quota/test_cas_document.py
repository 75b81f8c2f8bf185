"""Compare-and-swap on disk, in a bucket, on a Redis: one winner, old content or new; "cannot read" is not "absent"."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import child_environment
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.storage.cas_document import (
    BucketDocument,
    Changed,
    LocalDocument,
    MemoryDocument,
    is_transient,
)
from airflow_provider_describer.storage.redis_document import open_shared_document

HAMMER = """
import sys
from airflow_provider_describer.storage.cas_document import Changed
from airflow_provider_describer.storage.redis_document import open_shared_document
document = open_shared_document("place", sys.argv[1], "shop.json", None)
own, rounds = int(sys.argv[2]), int(sys.argv[3])
padding = b" " * 20000
while rounds:
    content, token = document.load()
    counts = [int(word) for word in (content or b"0 0 0 0 0 0 0 0").split()]
    counts[own] += 1
    try:
        document.swap(" ".join(map(str, counts)).encode() + padding, token)
    except Changed:
        continue
    rounds -= 1
    print(counts[own], flush=True)
"""


@pytest.fixture(params=["memory", "local", "bucket", "redis"])
def document(request: pytest.FixtureRequest, tmp_path: Path, bucket: Any) -> Any:
    made = {
        "memory": MemoryDocument,
        "local": lambda: LocalDocument(tmp_path / "deep" / "er" / "shop.json"),
        "bucket": lambda: BucketDocument(bucket, "limits/shop.json"),
        "redis": lambda: open_shared_document("place", request.getfixturevalue("redis").url, "shop.json", None),
    }
    document: Any = made[request.param]()
    yield document
    document.close()


def test_a_document_is_created_read_and_replaced(document):
    assert document.load()[0] is None
    token = document.swap(b"one", document.load()[1])
    assert document.load() == (b"one", token)
    assert document.load() == (b"one", document.load()[1])
    newer = document.swap(b"two", token)
    assert newer != token and document.load() == (b"two", newer)


@pytest.mark.parametrize("stale", [False, True])
def test_a_stale_token_replaces_nothing(document, stale):
    _, none = document.load()
    old = document.swap(b"one", none)
    document.swap(b"two", old)
    with pytest.raises(Changed):
        document.swap(b"mine", old if stale else none)
    assert document.load()[0] == b"two"


def test_one_of_many_concurrent_writers_wins_each_round(document):
    def race(name):
        try:
            document.swap(name, token)
        except Changed:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            token = document.load()[1]
            assert sum(threads.map(race, [b"%d by %d" % (number, racer) for racer in range(8)])) == 1


def hammer(place: str, own: int, rounds: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", HAMMER, place, str(own), str(rounds)],
        stdout=subprocess.PIPE,
        env=child_environment(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "redis"])
def test_eight_processes_lose_no_update_although_some_are_killed_during_a_write(tmp_path, request, place):
    place = str(tmp_path) if place == "local" else request.getfixturevalue("redis").url
    steady = [hammer(place, own, 60) for own in range(5)]
    # These run until they are killed.
    killed = [hammer(place, own, 10**9) for own in range(5, 8)]
    printed = {}
    for own, child in enumerate(killed, 5):
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(15 + own)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.read().splitlines()
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        printed[own] = max(int(line) for line in lines if line.strip())
    for child in steady:
        assert len(child.communicate()[0].split()) == 60 and child.returncode == 0
    with closing(open_shared_document("place", place, "shop.json", None)) as document:
        counts = [int(word) for word in (document.load()[0] or b"").split()]
    assert counts[:5] == [60] * 5
    for own, count in printed.items():
        assert count <= counts[own] <= count + 1, "one may have been written and not yet printed"
    if place == str(tmp_path):
        names = {entry.name for entry in tmp_path.iterdir()}
        assert names <= {"shop.json", ".shop.json.lock", ".shop.json.new"}


def test_a_half_written_file_of_a_killed_process_is_overwritten(tmp_path):
    document = LocalDocument(tmp_path / "shop.json")
    token = document.swap(b"whole", None)
    (tmp_path / ".shop.json.new").write_bytes(b"ha" * 1000)
    assert document.load()[0] == b"whole"
    document.swap(b"new", token)
    assert document.load()[0] == b"new"


def test_an_unreadable_document_is_an_error_and_not_an_absent_one(tmp_path):
    (tmp_path / "shop.json").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "shop.json", tmp_path / "file" / "shop.json"):
        document = LocalDocument(path)
        with pytest.raises(StoreError, match=r"cannot be read") as raised:
            document.load()
        assert str(path) in str(raised.value) and not is_transient(raised.value)


def test_a_failed_write_names_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"shop\.json cannot be written"):
        LocalDocument(tmp_path / "file" / "shop.json").swap(b"x", None)


def test_a_full_disk_leaves_the_old_document(tmp_path, monkeypatch):
    document = LocalDocument(tmp_path / "shop.json")
    token = document.swap(b"old", None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space left"):
        document.swap(b"new", token)
    assert document.load() == (b"old", token)


@pytest.mark.parametrize(
    ("kind", "passes"), [("unreachable", True), ("throttled", True), ("denied", False), ("no_such_bucket", False)]
)
def test_a_refusal_by_the_bucket_keeps_its_kind(bucket, kind, passes):
    document = BucketDocument(bucket, "limits/shop.json")
    for action in (document.load, lambda: document.swap(b"x", None)):
        bucket.fails = [kind]
        with pytest.raises(StoreError, match=f"the bucket is {kind}") as raised:
            action()
        assert raised.value.kind == kind and is_transient(raised.value) is passes
    assert bucket.data is None


def test_a_store_without_versions_is_refused(bucket):
    bucket.data, bucket.versioned = b"x", False
    with pytest.raises(StoreError, match=r"s3://bucket/limits/shop\.json.*no version") as raised:
        BucketDocument(bucket, "limits/shop.json").load()
    assert not is_transient(raised.value)


def test_google_cloud_storage_is_written_less_often(bucket):
    bucket.scheme = "gs"
    assert BucketDocument(bucket, "x").write_interval >= 1.0 > LocalDocument(Path("x")).write_interval

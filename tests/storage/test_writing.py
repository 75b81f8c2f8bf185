"""Writing in both clouds: created once, replaced by one writer, and what a lost answer leaves behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.storage.bucket import Signed


def kind_of(act, *arguments):
    """Return the kind of its error, or None."""
    try:
        act(*arguments)
    except BucketError as error:
        return error.kind
    return None


def test_create_writes_once(bucket, cloud):
    bucket.create("a/b", b"first")
    with pytest.raises(BucketError, match=f"{cloud.uri}/a/b exists already") as caught:
        bucket.create("a/b", b"second")
    assert caught.value.kind == "exists"
    assert bucket.read("a/b").data == b"first"
    bucket.create("a/b", b"first")


def test_many_creates_at_once_have_one_winner(bucket):
    start = Barrier(8)

    def create(number):
        start.wait()
        return kind_of(bucket.create, "x", b"%d" % number)

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(create, range(8)))
    assert sorted(map(str, ended)) == ["None", *["exists"] * 7]
    assert bucket.read("x").data == b"%d" % ended.index(None)


@pytest.mark.parametrize("times", [1, 99])
def test_create_whose_answer_is_lost(bucket, cloud, times):
    cloud.server.lose_answers(method="PUT", times=times)
    bucket.create("x", b"mine")
    assert bucket.read("x").data == b"mine"


def test_create_whose_answer_is_lost_after_another_writer_won(bucket, cloud):
    bucket.put("x", b"theirs")
    cloud.server.lose_answers(method="PUT", times=99)
    assert kind_of(bucket.create, "x", b"mine") in ("exists", "unreachable")
    assert bucket.read("x").data == b"theirs"


def test_create_that_never_arrives(bucket, cloud):
    cloud.server.cut(method="PUT", times=99)
    assert kind_of(bucket.create, "x", b"mine") == "unreachable"
    assert bucket.read("x") is None


def test_create_whose_answer_is_lost_and_cannot_be_checked(bucket, cloud):
    cloud.server.lose_answers(method="PUT", times=99)
    cloud.server.deny(method="GET")
    assert kind_of(bucket.create, "x", b"mine") == "unreachable"


def test_a_store_without_conditional_writes_creates_but_does_not_replace(bucket, cloud):
    cloud.server.fail(501, "NotImplemented", "A header you provided implies functionality.", method="PUT", times=3)
    bucket.create("journal/a", b"shard")
    assert bucket.read("journal/a").data == b"shard"
    cloud.server.reset()
    bucket.create("journal/b", b"shard")
    [asked] = cloud.server.requests
    assert not {"If-None-Match", "x-goog-if-generation-match"} & set(asked.headers)
    cloud.server.fail(501, "NotImplemented", method="PUT", times=99)
    for version in (None, bucket.read("journal/a").version):
        with pytest.raises(
            BucketError, match=r"no conditional writes, which limits_path and state_path need"
        ) as caught:
            bucket.replace("journal/c" if version is None else "journal/a", b"tally", version)
        assert caught.value.kind == "unsupported"


# -- replacing ---------------------------------------------------------------------------------------------------------


def test_replace_what_was_read(bucket):
    first = bucket.replace("tally", b"1", None)
    assert bucket.read("tally").version == first
    second = bucket.replace("tally", b"2", first)
    assert bucket.read("tally").version == second != first
    assert kind_of(bucket.replace, "tally", b"3", first) == "changed"
    assert kind_of(bucket.replace, "tally", b"3", None) == "changed"
    assert kind_of(bucket.replace, "none", b"3", first) == "changed"
    assert bucket.read("tally").data == b"2" and bucket.read("none") is None


@pytest.mark.parametrize("there", [False, True])
def test_many_replaces_at_once_have_one_winner(bucket, there):
    version = bucket.replace("tally", b"start", None) if there else None
    start = Barrier(8)

    def replace(number):
        start.wait()
        return kind_of(bucket.replace, "tally", b"%d" % number, version)

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(replace, range(8)))
    assert sorted(map(str, ended)) == ["None", *["changed"] * 7]
    assert bucket.read("tally").data == b"%d" % ended.index(None)


def test_a_counter_loses_nothing_between_threads(bucket):
    bucket.replace("tally", b"0", None)

    def add(_):
        for _ in range(200):
            content = bucket.read("tally")
            ended = kind_of(bucket.replace, "tally", b"%d" % (int(content.data) + 1), content.version)
            if ended != "changed":
                return ended
        return "never"

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(add, range(20))) == [None] * 20
    assert bucket.read("tally").data == b"20"


def test_replace_whose_answer_is_lost_never_counts_as_done(bucket, cloud):
    """Another writer may have written the same bytes, so contents are not compared here."""
    version = bucket.replace("tally", b"1", None)
    cloud.server.lose_answers(method="PUT", times=99)
    assert kind_of(bucket.replace, "tally", b"2", version) in ("changed", "unreachable")
    assert kind_of(bucket.replace, "new", b"1", None) in ("changed", "unreachable")


# -- putting, removing, signing ----------------------------------------------------------------------------------------


def test_put_replaces(bucket):
    bucket.put("x", b"first")
    bucket.put("x", b"second")
    assert bucket.read("x").data == b"second"


@pytest.mark.parametrize("size", [0, 1, 12_000_000])
def test_put_a_file(bucket, cloud, tmp_path, size):
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    (tmp_path / "spool").write_bytes(content)
    cloud.server.reset()
    bucket.put("results/r.jsonl", tmp_path / "spool")
    parts = [len(asked.body) for asked in cloud.server.received("PUT")]
    assert sum(parts) == size and (len(parts) > 1) == (size > 10_000_000)
    assert bucket.read("results/r.jsonl").data == content


def test_put_a_file_that_cannot_be_read(bucket, cloud, tmp_path):
    with pytest.raises(FileNotFoundError):
        bucket.put("x", tmp_path / "none")
    assert cloud.server.requests == []


def test_an_upload_whose_part_fails_leaves_the_old_object(bucket, cloud, tmp_path):
    bucket.put("x", b"before")
    (tmp_path / "spool").write_bytes(b"y" * 12_000_000)
    cloud.server.deny(method="PUT")
    assert kind_of(bucket.put, "x", tmp_path / "spool") == "denied"
    cloud.server.reset()
    assert bucket.read("x").data == b"before"
    assert [entry.key for page in bucket.entries() for entry in page] == ["x"]


def test_put_whose_answer_is_lost_is_repeated(bucket, cloud):
    cloud.server.lose_answers(method="PUT")
    bucket.put("x", b"x")
    assert bucket.read("x").data == b"x"


def test_delete_of_present_and_absent_objects(bucket, cloud):
    bucket.put("x", b"x")
    bucket.put("x/y", b"y")
    bucket.delete("x")
    bucket.delete("x")
    assert bucket.read("x") is None and bucket.read("x/y").data == b"y"
    cloud.server.deny(method="DELETE|POST")
    with pytest.raises(BucketError, match=f"{cloud.uri}/x/y cannot be removed"):
        bucket.delete("x/y")


def test_signing(cloud):
    with pytest.raises(BucketError, match=f"{cloud.uri}/x cannot be presigned") as caught:
        cloud.bucket().sign("x", 60)
    assert caught.value.kind == "unsupported"
    signed = cloud.bucket(signer=lambda key, seconds: Signed(f"https://h/{key}?secret", seconds)).sign("x", 60)
    assert signed == Signed("https://h/x?secret", 60)
    assert "secret" not in repr(signed)

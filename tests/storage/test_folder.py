"""Folders: a file is there whole and durably, or not at all; "cannot read" is never "not there"."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import LocalFolder, open_folder

NAME = "journal/a.jsonl"
DESCRIPTORS = Path("/proc/self/fd")
linux = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="looks at Linux's list of open files")


@pytest.fixture
def store(tmp_path):
    return LocalFolder(tmp_path / "deep" / "store")


@pytest.fixture(params=["local", "s3", "gcs"])
def folder(request, store):
    """A folder of each kind."""
    if request.param == "local":
        return store
    cloud = request.getfixturevalue(request.param)
    return open_folder(f"{cloud.uri}/deep/store/", cloud.open_bucket)


def names_in(path):
    return [entry.name for entry in path.iterdir()]


def path_of(descriptor):
    return (DESCRIPTORS / str(descriptor)).readlink()


def test_a_file_is_created_read_listed_and_deleted(folder):
    assert folder.names("journal") == [] and folder.read(NAME) is None
    folder.create("journal/b.jsonl", b"")
    folder.create(NAME, b"0123456789")
    folder.create("journal-of-others/x.jsonl", b"x")
    assert folder.names("journal") == [NAME, "journal/b.jsonl"]
    assert folder.read(NAME) == b"0123456789"
    assert folder.read(NAME, 2, 3) == b"234" and folder.read(NAME, 8) == b"89" and folder.read(NAME, 8, 99) == b"89"
    assert folder.read(NAME, 10) == b"" and folder.read(NAME, 99, 5) == b"" and folder.read(NAME, 3, 0) == b""
    assert folder.read("journal/b.jsonl") == b"" and folder.read("journal/b.jsonl", 0, 5) == b""
    folder.delete(NAME)
    folder.delete(NAME)
    assert folder.read(NAME) is None
    assert folder.where(NAME).endswith("deep/store/journal/a.jsonl") and folder.where().endswith("deep/store")


def test_publish_replaces_what_is_there(folder, tmp_path):
    spool = tmp_path / "spool"
    for text in ("first", "second"):
        spool.write_text(text)
        folder.publish(spool, "results/r.jsonl")
        assert folder.read("results/r.jsonl") == text.encode()
    with pytest.raises(StoreError, match=r"results/n\.jsonl cannot be written"):
        folder.publish(tmp_path / "not there", "results/n.jsonl")
    assert folder.names("results") == ["results/r.jsonl"]


def test_replace_writes_a_small_file_over_what_is_there(folder):
    for content in (b"first", b"", b"second"):
        folder.replace("claims/a.alive", content)
        assert folder.read("claims/a.alive") == content
    assert folder.names("claims") == ["claims/a.alive"]


def test_hidden_files_of_a_killed_writer_are_not_listed(store, tmp_path):
    store.create(NAME, b"x")
    (tmp_path / "deep/store/journal/.a.jsonl.1234abcd").write_bytes(b"half")
    assert store.names("journal") == [NAME]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_write_that_fails_leaves_nothing(store, tmp_path, monkeypatch, step):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    store.create("journal/first.jsonl", b"x")
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif step == "rename":
        monkeypatch.setattr("pathlib.Path.rename", fail)
    else:
        monkeypatch.setattr("pathlib.Path.open", fail)
    with pytest.raises(StoreError, match=r"journal/a\.jsonl cannot be written: .*No space left"):
        store.create(NAME, b"y")
    monkeypatch.undo()
    assert names_in(tmp_path / "deep/store/journal") == ["first.jsonl"]


def test_a_file_appears_whole(store, tmp_path):
    """Concurrent readers see nothing or everything."""
    seen, over = set(), threading.Event()

    def look():
        while not over.is_set():
            content = store.read(NAME)
            seen.add(None if content is None else len(content))

    reader = threading.Thread(target=look)
    reader.start()
    store.create(NAME, b"x" * 5_000_000)
    over.set()
    reader.join()
    assert seen <= {None, 5_000_000}


@linux
def test_file_and_folders_are_synced(store, tmp_path, monkeypatch):
    """The new folders too: a synced file is lost with a folder that was not synced."""
    synced = []
    real = os.fsync

    def fsync(fd):
        synced.append(str(path_of(fd)))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store.create(NAME, b"x")
    root = str(tmp_path)
    assert synced[:3] == [root, f"{root}/deep", f"{root}/deep/store"]
    assert synced[3].startswith(f"{root}/deep/store/journal/.a.jsonl.")
    assert synced[4] == f"{root}/deep/store/journal"


@linux
def test_a_share_that_cannot_sync_folders_is_accepted(store, monkeypatch):
    real = os.fsync

    def fsync(fd):
        if path_of(fd).is_dir():
            raise OSError(22, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store.create(NAME, b"x")
    assert store.read(NAME) == b"x"


def test_an_unreadable_file_is_an_error_and_not_absent(store, tmp_path):
    (tmp_path / "deep/store/journal/a.jsonl").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"journal/a\.jsonl cannot be read"):
        store.read(NAME)
    with pytest.raises(StoreError, match=r"journal/a\.jsonl cannot be removed"):
        store.delete(NAME)
    (tmp_path / "deep/store/results").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"results cannot be listed"):
        store.names("results")
    with pytest.raises(StoreError, match=r"results/r\.jsonl cannot be written"):
        store.create("results/r.jsonl", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_error(store, tmp_path):
    store.create(NAME, b"x")
    (tmp_path / "deep/store/journal/a.jsonl").chmod(0)
    with pytest.raises(StoreError, match="cannot be read"):
        store.read(NAME)


def test_a_publish_that_fails_leaves_nothing(store, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        store.publish(tmp_path / "not there", "results/r.jsonl")
    assert names_in(tmp_path / "deep/store/results") == []


@pytest.mark.parametrize(
    "store", ["", "  ", "None", "x", "x/y", "./x", "../x", "~/x", Path("x"), "ftp://host/x", "https://host/x?secret"]
)
def test_an_impossible_store_is_bad_input(store):
    """A relative path is another folder for each process."""
    with pytest.raises(BadInput, match=r"store(:| is) ") as caught:
        open_folder(store)
    assert "secret" not in str(caught.value)


def test_a_store_that_is_a_file_is_bad_input(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(BadInput, match="which is a file"):
        open_folder(tmp_path / "x")


def test_a_file_address_is_a_path(tmp_path):
    open_folder(f"file://{tmp_path}/a%20b").create(NAME, b"x")
    assert (tmp_path / "a b" / NAME).read_bytes() == b"x"


@linux
def test_no_descriptor_is_left_open(store):
    before = len(names_in(DESCRIPTORS))
    for number in range(20):
        store.create(f"journal/{number}.jsonl", b"x")
        store.read(f"journal/{number}.jsonl")
    assert len(names_in(DESCRIPTORS)) == before


# -- in buckets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["s3://bucket/x", "gs://bucket"])
def test_a_bucket_that_cannot_be_opened_here_is_bad_input(store):
    with pytest.raises(BadInput, match="pass open_bucket="):
        open_folder(store)


@pytest.mark.parametrize("prefix", ["/x", "x//", "x//y", "./x", "x/../y", "x\n"])
def test_an_impossible_prefix_is_bad_input_and_no_bucket_is_opened(prefix):
    def open_bucket(scheme, name):
        raise AssertionError

    with pytest.raises(BadInput, match="expected no empty parts"):
        open_folder(f"s3://bucket/{prefix}", open_bucket)


def test_a_whole_bucket_is_a_store(cloud):
    for address in (cloud.uri, f"{cloud.uri}/"):
        folder = open_folder(address, cloud.open_bucket)
        folder.create(NAME, b"x") if folder.read(NAME) is None else None
        assert folder.names("journal") == [NAME]
        assert folder.where(NAME) == f"{cloud.uri}/{NAME}"
    assert cloud.bucket().read(NAME).data == b"x"


def test_only_this_level_of_a_bucket_is_listed(cloud):
    bucket = cloud.bucket()
    for key in ("s/results/a", "s/results/dag/b", "s/results", "s/results.bak/c", "results/d"):
        bucket.put(key, b"x")
    assert open_folder(f"{cloud.uri}/s", cloud.open_bucket).names("results") == ["results/a"]


def test_an_unreachable_bucket_is_an_error_and_not_an_empty_folder(cloud, tmp_path):
    folder = open_folder(f"{cloud.uri}/s", cloud.open_bucket)
    folder.create(NAME, b"x")
    (tmp_path / "spool").write_bytes(b"x")
    cloud.server.deny()
    for act in (
        lambda: folder.names("journal"),
        lambda: folder.read(NAME),
        lambda: folder.create("journal/b.jsonl", b""),
        lambda: folder.publish(tmp_path / "spool", NAME),
        lambda: folder.delete(NAME),
    ):
        with pytest.raises(StoreError, match=f"{cloud.uri}/s/journal.* cannot be "):
            act()
    cloud.server.reset()
    assert folder.names("journal") == [NAME] and folder.read(NAME) == b"x"


def test_a_file_whose_answer_is_lost_is_created_once(cloud):
    folder = open_folder(f"{cloud.uri}/s", cloud.open_bucket)
    cloud.server.lose_answers(method="PUT", times=99)
    folder.create(NAME, b"rows")
    assert folder.names("journal") == [NAME] and folder.read(NAME) == b"rows"
    with pytest.raises(StoreError, match="journal/a"):
        folder.create(NAME, b"other rows")
    assert folder.read(NAME) == b"rows"

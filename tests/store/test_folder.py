"""A local folder: a file is there whole and durably, or not at all; what cannot be read is not what is not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.store.folder import LocalFolder, open_folder

NAME = "journal/a.jsonl"
DESCRIPTORS = Path("/proc/self/fd")
linux = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="looks at Linux's list of open files")


@pytest.fixture
def store(tmp_path):
    return LocalFolder(tmp_path / "deep" / "store")


def names_in(path):
    return [entry.name for entry in path.iterdir()]


def path_of(descriptor):
    return (DESCRIPTORS / str(descriptor)).readlink()


def test_a_file_is_created_read_listed_and_deleted(store):
    assert store.names("journal") == [] and store.read(NAME) is None
    store.create(NAME, b"0123456789")
    store.create("journal/b.jsonl", b"")
    assert store.names("journal") == [NAME, "journal/b.jsonl"]
    assert store.read(NAME) == b"0123456789"
    assert store.read(NAME, 2, 3) == b"234" and store.read(NAME, 8) == b"89"
    assert store.read("journal/b.jsonl") == b""
    store.delete(NAME)
    store.delete(NAME)
    assert store.read(NAME) is None


def test_hidden_leftovers_of_a_killed_writer_are_no_files(store, tmp_path):
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


def test_it_appears_whole(store, tmp_path):
    """Readers who look all the time see nothing or everything."""
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
    """Also the new folders' own entries: a synced file is lost with a folder that was not."""
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
def test_a_share_that_cannot_sync_folders_is_taken(store, monkeypatch):
    real = os.fsync

    def fsync(fd):
        if path_of(fd).is_dir():
            raise OSError(22, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store.create(NAME, b"x")
    assert store.read(NAME) == b"x"


def test_what_cannot_be_read_is_an_error_and_not_nothing(store, tmp_path):
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
def test_what_may_not_be_read_is_an_error(store, tmp_path):
    store.create(NAME, b"x")
    (tmp_path / "deep/store/journal/a.jsonl").chmod(0)
    with pytest.raises(StoreError, match="cannot be read"):
        store.read(NAME)


def test_publish_replaces_what_is_there(store, tmp_path):
    spool = tmp_path / "spool"
    for text in ("first", "second"):
        spool.write_text(text)
        store.publish(spool, "results/r.jsonl")
        assert store.read("results/r.jsonl") == text.encode()
    assert store.names("results") == ["results/r.jsonl"]
    with pytest.raises(StoreError, match="cannot be written"):
        store.publish(tmp_path / "not there", "results/r.jsonl")
    assert names_in(tmp_path / "deep/store/results") == ["r.jsonl"]


@pytest.mark.parametrize("store", ["", "  ", "s3://bucket/x", "ftp://host/x"])
def test_a_store_that_cannot_be_is_bad_input(store):
    with pytest.raises(BadInput, match="store is "):
        open_folder(store)


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

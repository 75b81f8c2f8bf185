"""The folder of a store, on a local disk or in a bucket: files are created, listed, read and deleted whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from airflow_provider_describer.errors import BadInput, BucketError, StoreError
from airflow_provider_describer.storage.address import ObjectKey, parse_shared_folder
from airflow_provider_describer.storage.bucket import Bucket
from airflow_provider_describer.storage.open_bucket import OpenBucket


@dataclass(frozen=True, slots=True)
class Location:
    """Where a library that reads and writes by itself finds a file or a folder of a store.

    :param options: the settings and credentials of a bucket as the Rust crate object_store names them; empty for a
        local path. Secret, and valid for as long as the credentials are: ask again before each piece of work.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


class Folder(Protocol):
    """A place for files, each written whole. Names are relative, with ``/``. Every method raises `StoreError`."""

    def where(self, name: str = "") -> str:
        """Return the address of a file, for messages."""

    def names(self, under: str) -> Sequence[str]:
        """Return the names of all files right below the folder ``under``, sorted; none where it does not exist."""

    def read(self, name: str, start: int = 0, length: int = -1) -> bytes | None:
        """Return a file's bytes, or a part of them; None only where there is no such file."""

    def create(self, name: str, content: bytes) -> None:
        """Write a new file: it is there whole and durably, or not at all."""

    def replace(self, name: str, content: bytes) -> None:
        """Write a small file, whole and durably. It replaces what is there."""

    def publish(self, spool: Path, name: str) -> None:
        """Put a finished local file at that name, whole and durably. It replaces what is there."""

    def delete(self, *names: str) -> None:
        """Remove files, in this order; no error where one is gone already."""

    def location(self, name: str) -> Location:
        """Return where another library finds a file or a folder."""


def open_folder(store: str | os.PathLike[str], open_bucket: OpenBucket | None = None) -> Folder:
    """Return the folder that ``store`` names; ``open_bucket`` opens the bucket of an s3:// or gs:// address.

    :raises BadInput: as `parse_shared_folder`, and where it is a file, or a bucket that cannot be opened here.
    """
    place = parse_shared_folder("store", os.fspath(store))
    if isinstance(place, ObjectKey):
        if open_bucket is None:
            raise BadInput(
                f"store is {str(place)!r}, and nothing here opens buckets; in Airflow the operators do, elsewhere "
                "pass open_bucket=airflow_provider_describer.storage.open_bucket.bucket_from_environment."
            )
        return BucketFolder(open_bucket(place.scheme, place.bucket), place.key.removesuffix("/"))
    if place.exists() and not place.is_dir():
        raise BadInput(f"store is {str(place)!r}, which is a file; expected a folder, or a name for a new one.")
    return LocalFolder(place)


class LocalFolder:
    """A folder on this machine's disks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def where(self, name: str = "") -> str:
        return str(self._path / name)

    def names(self, under: str) -> Sequence[str]:
        try:
            found = [entry.name for entry in (self._path / under).iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"The store {self.where(under)} cannot be listed: {error}.") from None
        # Names with a dot are files that are still being written.
        return sorted(f"{under}/{name}" for name in found if not name.startswith("."))

    def read(self, name: str, start: int = 0, length: int = -1) -> bytes | None:
        try:
            with (self._path / name).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.where(name)} cannot be read: {error}.") from None

    def create(self, name: str, content: bytes) -> None:
        self._write(name, [content])

    def replace(self, name: str, content: bytes) -> None:
        self._write(name, [content])

    def publish(self, spool: Path, name: str) -> None:
        self._write(name, _chunks(spool))

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write under a hidden name, sync, then rename: a kill leaves no half file under the name."""
        target = self._path / name
        hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            _make_folder(target.parent)
            with hidden.open("xb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            hidden.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise StoreError(f"{self.where(name)} cannot be written: {error}.") from None

    def delete(self, *names: str) -> None:
        for name in names:
            try:
                (self._path / name).unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{self.where(name)} cannot be removed: {error}.") from None

    def location(self, name: str) -> Location:
        return Location(str(self._path / name))


class BucketFolder:
    """A folder in a bucket, below a prefix without a slash at its end; an empty prefix is the whole bucket."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix and name else self._prefix or name

    def where(self, name: str = "") -> str:
        return self._bucket.address(self._key(name))

    def names(self, under: str) -> Sequence[str]:
        above = f"{self._key(under)}/"
        with _as_store_error():
            names = [entry.key.removeprefix(above) for page in self._bucket.entries(above) for entry in page]
        return sorted(f"{under}/{name}" for name in names if "/" not in name)

    def read(self, name: str, start: int = 0, length: int = -1) -> bytes | None:
        with _as_store_error():
            content = self._bucket.read(self._key(name), start, None if length < 0 else length)
        return content.data if content else None

    def create(self, name: str, content: bytes) -> None:
        with _as_store_error():
            self._bucket.create(self._key(name), content)

    def replace(self, name: str, content: bytes) -> None:
        with _as_store_error():
            self._bucket.put(self._key(name), content)

    def publish(self, spool: Path, name: str) -> None:
        try:
            with _as_store_error():
                self._bucket.put(self._key(name), spool)
        except OSError as error:
            raise StoreError(f"{self.where(name)} cannot be written: {error}.") from None

    def delete(self, *names: str) -> None:
        with _as_store_error():
            self._bucket.delete(*map(self._key, names))

    def location(self, name: str) -> Location:
        with _as_store_error():
            return Location(self.where(name), self._bucket.options())


@contextlib.contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except BucketError as error:
        raise StoreError(str(error)) from None


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _make_folder(path: Path) -> None:
    """Make the folder and its parents, each durably: a synced file is lost with a folder that was not synced."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network shares sync files but cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)

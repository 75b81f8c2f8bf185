"""Where the document lies: read whole, and replaced whole if nobody else has replaced it meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_provider_describer.errors import BucketError, StoreError
from airflow_provider_describer.storage.folder import sync_folder

if TYPE_CHECKING:
    from airflow_provider_describer.storage.bucket import Bucket

Token = bytes | str | None
"""What tells one content from another; None where there is no document yet."""


class Changed(Exception):  # no error: somebody else was faster
    """The document is not, or not for certain, the one that was read: read it again."""


class CasDocument(Protocol):
    """One document with compare-and-swap, shared by processes."""

    write_interval: float
    """Seconds that all users together should leave between two swaps."""
    poll_interval: float
    """Seconds after which one user may look again at what others have written."""

    @property
    def where(self) -> str:
        """The document's address, for people."""

    def load(self) -> tuple[bytes | None, Token]:
        """Return the document (None only where there is none) and its token.

        :raises StoreError: where it cannot be read; its ``kind`` says whether that may pass (`is_transient`).
        """

    def swap(self, content: bytes, token: Token) -> Token:
        """Replace the document that has this token, durably, and return the new token.

        :raises Changed: where it has another one by now.
        :raises StoreError: where it could not be written, or nobody knows whether it was.
        """


def is_transient(error: StoreError) -> bool:
    """Whether trying again may help."""
    return error.kind in ("unreachable", "throttled")


class MemoryDocument:
    """A document of this process alone."""

    write_interval, poll_interval, where = 0.02, 0.25, "memory"

    def __init__(self) -> None:
        self._content: bytes | None = None
        self._lock = threading.Lock()

    def load(self) -> tuple[bytes | None, Token]:
        """Return the document, which is its own token."""
        content = self._content
        return content, content

    def swap(self, content: bytes, token: Token) -> Token:
        """Replace the document."""
        with self._lock:
            if self._content != token:
                raise Changed
            self._content = content
        return content


class LocalDocument:
    """A file, shared by the processes of this machine, and of others where their file system carries ``flock``.

    A process that is killed leaves the old document or the new one; the kernel lets go of its lock.
    """

    write_interval, poll_interval = 0.05, 0.25

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self._path)

    def load(self) -> tuple[bytes | None, Token]:
        """Return the file's content, which is its own token."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None, None
        except OSError as error:
            raise StoreError(f"{self.where} cannot be read: {error}.", kind="limits") from None
        return content, content

    def swap(self, content: bytes, token: Token) -> Token:
        """Write the new content beside the file, sync it, and give it the file's name."""
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if self.load()[1] != token:
                    raise Changed
                # Left over by a process that was killed, it is overwritten.
                with beside.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                beside.rename(self._path)
                sync_folder(self._path.parent)
        except OSError as error:
            raise StoreError(f"{self.where} cannot be written: {error}.", kind="limits") from None
        return content

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Of its own: a lock on the file itself would stay with the old one when it is replaced. Never removed.
        with self._path.with_name(f".{self._path.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class BucketDocument:
    """An object of a bucket with conditional writes, shared by all machines."""

    poll_interval = 1.0

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        # Google Cloud Storage takes about one write a second of any one object.
        self.write_interval = 1.5 if bucket.scheme == "gs" else 0.5

    @property
    def where(self) -> str:
        """The object's address."""
        return self._bucket.address(self._key)

    def load(self) -> tuple[bytes | None, Token]:
        """Return the object's content; its token is its version."""
        try:
            found = self._bucket.read(self._key)
        except BucketError as error:
            raise _store_error(error) from None
        if found is None:
            return None, None
        if not found.version:
            raise StoreError(
                f"{self.where}: the object store names no version (ETag) of it, so nobody could tell who wrote last. "
                "Use S3, Google Cloud Storage or a local disk instead.",
                kind="unsupported",
            )
        return found.data, found.version

    def swap(self, content: bytes, token: Token) -> Token:
        """Replace the object, if it still has this version."""
        try:
            return self._bucket.replace(self._key, content, None if token is None else str(token))
        except BucketError as error:
            if error.kind in ("changed", "exists"):
                raise Changed from None
            raise _store_error(error) from None


def _store_error(error: BucketError) -> StoreError:
    return StoreError(f"The limits of this connection cannot be kept: {error}", kind=error.kind)

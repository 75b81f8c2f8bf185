"""One document that processes share: read whole, and replaced whole only if it has not changed meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from airflow_provider_describer.errors import BadInput, BucketError, StoreError
from airflow_provider_describer.storage.address import parse_shared_folder
from airflow_provider_describer.storage.bucket import Bucket
from airflow_provider_describer.storage.folder import sync_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket

Token = bytes | str | None
"""Tells one content from another; None where there is no document yet."""
MAX_TRIES = 20
"""Writes in a row that others may get ahead of before a change is left for later."""
_WRITE_INTERVALS = {"s3": 0.5, "gs": 1.5}
"""Google Cloud Storage takes about one write a second for any one object."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""What a file system without ``flock`` says."""


class Changed(Exception):  # no error: another process was faster
    """The document is not, or not for certain, the one that was read: read it again."""


class CasDocument(Protocol):
    """One document with compare-and-swap.

    ``where`` is its address, for messages. ``write_interval`` is the number of seconds that all processes together
    should leave between two writes, ``poll_interval`` after how many seconds one process may read it again.
    """

    where: str
    write_interval: float
    poll_interval: float

    def load(self) -> tuple[bytes | None, Token]:
        """Return the document (None only where there is none) and its token.

        :raises StoreError: where it cannot be read; `is_transient` tells whether trying again may help.
        """

    def swap(self, content: bytes, token: Token) -> Token:
        """Replace the document that has this token, durably, and return the new token.

        :raises Changed: where it has another token by now.
        :raises StoreError: where it could not be written, or it is unknown whether it was.
        """

    def close(self) -> None:
        """Close its connection, if it has one."""


def is_transient(error: StoreError) -> bool:
    """Whether trying again may help."""
    return error.kind in ("unreachable", "throttled")


def change_document(
    document: CasDocument,
    change: Callable[[bytes | None], bytes | None],
    *,
    tries: int = MAX_TRIES,
    again: Callable[[StoreError], bool] = lambda error: error.kind == "throttled",
) -> tuple[bytes | None, Token]:
    """Change the document, again where another process was faster; return its content and its token. Blocking.

    :param change: from the content to the new one; None leaves it as it is.
    :param tries: writes in a row that others may get ahead of.
    :param again: after which errors to try again. Where it is unknown whether the document was written, ``change`` must
        then find out.
    :raises StoreError: where it cannot be read; where it cannot be written, or it is unknown whether it was; kind
        ``throttled`` after so many tries.
    """
    pause = 0.0
    for number in range(tries):
        if number:
            time.sleep(pause * random.random())  # noqa: S311  # no secret
        content, token = document.load()
        new = change(content)
        if new is None:
            return content, token
        try:
            return new, document.swap(new, token)
        except Changed:
            pause = max(0.002, document.write_interval / 20) * 2.0 ** min(number, 5)
        except StoreError as error:
            if not again(error):
                raise
            pause = 2 * document.write_interval
    raise StoreError(f"{document.where} was changed by other processes {tries} times in a row.", kind="throttled")


def open_document(
    argument: str, folder: str, name: str, open_bucket: OpenBucket | None, *, others: Sequence[str] = ()
) -> CasDocument:
    """Return the document of that name in a folder that all processes find; nothing is read yet.

    :param argument: what messages call the folder.
    :param others: schemes that messages name too.
    :raises BadInput: as `parse_shared_folder`, and for a bucket without ``open_bucket``.
    """
    parent = parse_shared_folder(argument, folder, others)
    if isinstance(parent, Path):
        return LocalDocument(parent / name)
    if open_bucket is None:
        raise BadInput(f"{argument} is {folder!r}, but no bucket can be opened here; expected a local folder.")
    key = f"{parent.key.rstrip('/')}/{name}".lstrip("/")
    return BucketDocument(open_bucket(parent.scheme, parent.bucket), key)


class MemoryDocument:
    """A document of this process alone, for all of its threads. Its content is its token."""

    write_interval, poll_interval, where = 0.02, 0.25, "memory"

    def __init__(self) -> None:
        self._content: bytes | None = None
        self._lock = threading.Lock()

    def load(self) -> tuple[bytes | None, Token]:
        content = self._content
        return content, content

    def swap(self, content: bytes, token: Token) -> Token:
        with self._lock:
            if self._content != token:
                raise Changed
            self._content = content
        return content

    def close(self) -> None:
        pass


class LocalDocument:
    """A file, shared by the processes of this machine, and by other machines where their file system carries ``flock``.

    Its content is its token. A process that is killed leaves the old document or the new one, and the kernel releases
    its lock.
    """

    write_interval, poll_interval = 0.05, 0.25

    def __init__(self, path: Path) -> None:
        self._path, self.where = path, str(path)

    def load(self) -> tuple[bytes | None, Token]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None, None
        except OSError as error:
            raise StoreError(f"{self.where} cannot be read: {error}.") from None
        return content, content

    def swap(self, content: bytes, token: Token) -> Token:
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A file of its own, never removed: a lock on the document would stay with the old file when it is replaced.
            with self._path.with_name(f".{self._path.name}.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.load()[1] != token:
                    raise Changed
                # A process that was killed may have left one; it is overwritten.
                with new.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                new.rename(self._path)
                sync_folder(self._path.parent)
        except OSError as error:
            kind = "unsupported" if error.errno in _NO_LOCKS else ""
            raise StoreError(f"{self.where} cannot be written: {error}.", kind=kind) from None
        return content

    def close(self) -> None:
        pass


class BucketDocument:
    """An object in a bucket with conditional writes, shared by all machines. Its token is its version."""

    poll_interval = 1.0

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        self.where = bucket.address(key)
        self.write_interval = _WRITE_INTERVALS[bucket.scheme]

    def load(self) -> tuple[bytes | None, Token]:
        with _as_store_error():
            found = self._bucket.read(self._key)
        if found is None:
            return None, None
        if not found.version:
            raise StoreError(
                f"{self.where}: the object store names no version (ETag) of it, so it cannot be told who wrote last. "
                "Use S3, Google Cloud Storage or a local disk instead.",
                kind="unsupported",
            )
        return found.data, found.version

    def swap(self, content: bytes, token: Token) -> Token:
        with _as_store_error():
            return self._bucket.replace(self._key, content, None if token is None else str(token))

    def close(self) -> None:
        pass


@contextlib.contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except BucketError as error:
        if error.kind in ("changed", "exists"):
            raise Changed from None
        raise StoreError(str(error), kind=error.kind) from None

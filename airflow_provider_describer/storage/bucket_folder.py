"""A store's folder in a bucket. Each file is one object, which is there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BucketError, StoreError

if TYPE_CHECKING:
    from airflow_provider_describer.storage.bucket import Bucket


class BucketFolder:
    """A `Folder` in a bucket, below a prefix without a slash at its end; an empty prefix is the whole bucket."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix and name else self._prefix or name

    def where(self, name: str = "") -> str:
        """Return the address."""
        return self._bucket.address(self._key(name))

    def names(self, under: str) -> Sequence[str]:
        """Return the names of the files right below, as a local folder does."""
        above = f"{self._key(under)}/"
        with _as_store_error():
            keys = [entry.key for page in self._bucket.entries(above) for entry in page]
        return sorted(f"{under}/{key[len(above) :]}" for key in keys if "/" not in key[len(above) :])

    def read(self, name: str, start: int = 0, length: int = -1) -> bytes | None:
        """Return the bytes; None only where the object is not there."""
        with _as_store_error():
            content = self._bucket.read(self._key(name), start, None if length < 0 else length)
        return content.data if content else None

    def create(self, name: str, content: bytes) -> None:
        """Write a new object; a store's answer means that it is durable."""
        with _as_store_error():
            self._bucket.create(self._key(name), content)

    def publish(self, spool: Path, name: str) -> None:
        """Upload the file; what was there is replaced once all of it has arrived."""
        try:
            with _as_store_error():
                self._bucket.put(self._key(name), spool)
        except OSError as error:
            raise StoreError(f"{self.where(name)} cannot be written: {error}.") from None

    def delete(self, name: str) -> None:
        """Remove the object."""
        with _as_store_error():
            self._bucket.delete(self._key(name))


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except BucketError as error:
        raise StoreError(error.message) from None

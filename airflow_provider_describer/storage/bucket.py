"""One bucket: its objects are read, listed, created, replaced and deleted whole.

A `Bucket` is used in the process that made it: obstore hangs in a child that is forked after its first use.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.storage import bucket_errors as messages
from airflow_provider_describer.storage.address import ObjectKey, Scheme, is_plain, just_before
from airflow_provider_describer.storage.bucket_errors import bucket_error, is_beyond_the_end

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode, UpdateVersion
    from obstore.store import GCSStore, S3Store

PAGE = 1000
"""Objects in a page of a listing: as many as both clouds return at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing. ``modified`` is in epoch seconds; ``version`` is the same as when it is read."""

    key: str
    size: int
    version: str | None
    modified: float


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of an object. ``size`` is that of the whole object, ``version`` that of what was read."""

    data: bytes = field(repr=False)
    version: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Signed:
    """An address at which an object can be read without credentials until ``expires_at`` (epoch seconds)."""

    url: str = field(repr=False)
    expires_at: float


Signer = Callable[[str, float], Signed]
"""``(key, seconds) -> Signed``. ``hooks/storage.py`` makes them from the credentials of a connection."""


class Bucket:
    """A bucket of S3 or GCS. Every failure is a `BucketError` that names the object.

    A version is the object's ETag without its quotes: both clouds return it in a listing as well as in a read.
    """

    def __init__(self, scheme: Scheme, name: str, store: S3Store | GCSStore, *, signer: Signer | None = None) -> None:
        self.scheme = scheme
        self.name = name
        self._store = store
        self._signer = signer
        self._can_create = True

    def __repr__(self) -> str:
        return f"Bucket({self.address()!r})"

    def address(self, key: str = "") -> str:
        """Return the address of an object, for messages and rows."""
        return str(ObjectKey(self.scheme, self.name, key))

    async def aread(self, key: str, *, max_bytes: int | None, start: int = 0, length: int | None = None) -> Content:
        """Read an object, or a part of it, in one request.

        :raises BucketError: ``no_such_object``; ``too_large`` for an object of more than ``max_bytes``, whose body is
            then not read; or another kind.
        """
        with self._bucket_errors("read", key):
            try:
                found = await self._store.get_async(key, options=_range(start, length))
            except Exception as error:
                if not is_beyond_the_end(error):
                    raise
                return _content(await self._store.head_async(key), b"")
            size = found.meta["size"]
            if max_bytes is not None and size > max_bytes:
                message = f"{{address}} has {size:,} bytes, more than the {max_bytes:,} allowed."
                raise self._error(key, "too_large", message)
            return _content(found.meta, bytes(await found.bytes_async()))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """Read an object, or a part of it; None only where there is no such object."""
        try:
            with self._bucket_errors("read", key):
                try:
                    found = self._store.get(key, options=_range(start, length))
                except Exception as error:
                    if not is_beyond_the_end(error):
                        raise
                    return _content(self._store.head(key), b"")
                return _content(found.meta, bytes(found.bytes()))
        except BucketError as error:
            if error.kind == "no_such_object":
                return None
            raise

    def entries(self, prefix: str = "", *, after: str | None = None) -> Iterator[Sequence[Entry]]:
        """List the objects whose keys begin with ``prefix`` (and sort after ``after``), page by page, on demand.

        Keys are sorted by their bytes. The marker of a folder, an empty object whose key ends in ``/``, is listed
        without that slash.

        :raises BucketError: also in the middle of a listing.
        """
        # obstore lists whole folders: of the prefix "a/b", list "a/" from just before "a/b" to the first key behind.
        folder, _, tail = prefix.rpartition("/")
        offset = max(filter(None, (after, just_before(prefix) if tail else None)), default=None)
        empty = True
        with self._bucket_errors("listed", prefix, must_be_plain=folder):
            for page in self._store.list(folder or None, offset=offset, chunk_size=PAGE):
                empty = False
                entries = [_entry(meta) for meta in page]
                found = [entry for entry in entries if entry.key.startswith(prefix) and entry.key > (after or "")]
                if found:
                    yield found
                if tail and entries[-1].key > prefix and not entries[-1].key.startswith(prefix):
                    return
        if empty:
            self._check_endpoint(prefix)

    def _check_endpoint(self, prefix: str) -> None:
        """Refuse an empty listing by a server that answers every request, as a proxy's login page does."""
        try:
            found = self.read(f"nothing-{secrets.token_hex(8)}")
        except BucketError as error:
            if error.kind == "denied":
                # The credentials may allow listing and not reading.
                return
            raise
        if found is not None:
            raise self._error(prefix, "unreachable", messages.NOT_AN_OBJECT_STORE)

    def create(self, key: str, data: bytes) -> None:
        """Write a new object. Where the answer is lost, the same bytes under that key count as success.

        In a store without conditional writes this replaces what is there; that is safe for names that are unique to
        their writer, such as those of journal shards.

        :raises BucketError: ``exists``, where something else is there; or another kind.
        """
        self._check_key(key)
        if not self._can_create:
            self.put(key, data)
            return
        try:
            with self._bucket_errors("written", key):
                self._store.put(key, data, mode="create", use_multipart=False)
        except BucketError as error:
            if error.kind == "unsupported":
                self._can_create = False
                self.put(key, data)
            elif error.kind not in ("exists", "unreachable", "throttled") or not self._holds(key, data):
                raise

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            content = self.read(key)
        except BucketError:
            return False
        return content is not None and content.data == data

    def put(self, key: str, source: bytes | Path) -> None:
        """Write an object, replacing what is there: bytes, or a file, which is streamed and in parts where large.

        :raises OSError: where the file cannot be read.
        """
        if isinstance(source, bytes):
            with self._bucket_errors("written", key):
                self._store.put(key, source)
            return
        with source.open("rb") as file, self._bucket_errors("written", key):
            self._store.put(key, file)

    def replace(self, key: str, data: bytes, version: str | None) -> str:
        """Replace an object of that version (None: create one where there is none); return its new version.

        Where an answer was lost, ``changed`` may be due to this very write: read again to see.

        :raises BucketError: ``changed``; ``unsupported`` by a store without conditional writes; or another kind.
        """
        self._check_key(key)
        try:
            mode: PutMode = "create" if version is None else self._condition(key, version)
            with self._bucket_errors("written", key):
                written = self._store.put(key, data, mode=mode, use_multipart=False)
        except BucketError as error:
            if error.kind in ("exists", "no_such_object"):
                raise self._error(key, "changed", messages.CHANGED) from None
            if error.kind == "unsupported":
                raise self._error(key, "unsupported", messages.NO_CONDITIONAL_WRITES) from None
            raise
        new = _version(written["e_tag"])
        if new is None:
            raise self._error(key, "unsupported", messages.NO_CONDITIONAL_WRITES)
        return new

    def _condition(self, key: str, version: str) -> UpdateVersion:
        """Return the condition that the object has this version. GCS compares generations, which no listing has."""
        quoted = f'"{version}"'
        if self.scheme == "s3":
            return {"e_tag": quoted}
        with self._bucket_errors("read", key):
            meta = self._store.head(key)
        if meta["e_tag"] != quoted:
            raise self._error(key, "changed", messages.CHANGED)
        if meta["version"] is None:
            raise self._error(key, "unsupported", messages.NO_CONDITIONAL_WRITES)
        return {"e_tag": quoted, "version": meta["version"]}

    def delete(self, key: str) -> None:
        """Remove an object; no error where it is gone already."""
        try:
            with self._bucket_errors("removed", key):
                self._store.delete(key)
        except BucketError as error:
            if error.kind != "no_such_object":
                raise

    def sign(self, key: str, seconds: float) -> Signed:
        """Return an address at which the object can be read for that long, or until the credentials expire.

        :raises BucketError: ``unsupported``, where these credentials cannot sign.
        """
        self._check_key(key)
        if self._signer is None:
            raise self._error(key, "unsupported", "{address} cannot be presigned: these credentials cannot sign.")
        return self._signer(key, seconds)

    def _error(self, key: str, kind: str, message: str) -> BucketError:
        return BucketError(message.format(address=self.address(key)), kind=kind)

    def _check_key(self, key: str) -> None:
        if not is_plain(key):
            raise self._error(key, "unsupported", messages.UNSUPPORTED_KEY)

    @contextmanager
    def _bucket_errors(self, doing: str, key: str, *, must_be_plain: str | None = None) -> Iterator[None]:
        """Check the key, or the part of it that ``must_be_plain``, and raise all that goes wrong as `BucketError`."""
        if must_be_plain != "":
            self._check_key(key if must_be_plain is None else must_be_plain)
        try:
            yield
        except BucketError:
            raise
        except Exception as error:  # noqa: BLE001  # obstore's errors have no common base class
            raise bucket_error(error, self.address(key), doing) from None


def _range(start: int, length: int | None) -> GetOptions:
    if length is not None:
        return {"range": (start, start + length)}
    return {"range": {"offset": start}} if start else {}


def _content(meta: ObjectMeta, data: bytes) -> Content:
    return Content(data, _version(meta["e_tag"]), meta["size"])


def _entry(meta: ObjectMeta) -> Entry:
    return Entry(meta["path"], meta["size"], _version(meta["e_tag"]), meta["last_modified"].timestamp())


def _version(e_tag: str | None) -> str | None:
    return e_tag.strip('"') if e_tag else None

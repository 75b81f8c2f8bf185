"""One bucket: its objects are read, listed, created, replaced and deleted whole.

A `Bucket` is used in the process that made it: obstore hangs in a child that is forked after its first use.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.storage import bucket_errors as messages
from airflow_provider_describer.storage.address import ObjectKey, Scheme, is_plain, just_before
from airflow_provider_describer.storage.bucket_errors import (
    bucket_error,
    is_beyond_the_end,
    is_unpacked_underway,
)

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ObjectMeta, PutMode, UpdateVersion
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
    """Bytes of an object. ``size`` is that of the whole object, ``version`` that of what was read.

    ``encoding`` is its Content-Encoding: how its bytes are packed, in storage as here; empty for not at all.
    """

    data: bytes = field(repr=False)
    version: str | None
    size: int
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """An address at which an object can be read without credentials until ``expires_at`` (epoch seconds)."""

    url: str = field(repr=False)
    expires_at: float


Signer = Callable[[str, float], Signed]
"""``(key, seconds) -> Signed``. ``hooks/storage.py`` makes them from the credentials of a connection."""


class AnyKey(Protocol):
    """Lists and reads objects of any key; a `RestClient`. Blocking."""

    def pages(self, prefix: str, after: str | None) -> Iterator[Sequence[Entry]]: ...

    def read(self, key: str, *, max_bytes: int | None, start: int = 0, length: int | None = None) -> Content: ...


class Bucket:
    """A bucket of S3 or GCS. Every failure is a `BucketError` that names the object.

    A version is the object's ETag without its quotes: both clouds return it in a listing as well as in a read.
    """

    def __init__(
        self,
        scheme: Scheme,
        name: str,
        store: S3Store | GCSStore,
        *,
        signer: Signer | None = None,
        rest: AnyKey | None = None,
        anonymous: bool = False,
        options: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self.scheme = scheme
        self.name = name
        self._store = store
        self._signer = signer
        self._rest = rest
        self._anonymous = anonymous
        self._options = options
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
        self._check_readable(key)
        with self._bucket_errors("read", key):
            if not is_plain(key):
                return await asyncio.to_thread(self._read_plainly, key, start, length, max_bytes)
            try:
                found = await self._store.get_async(key, options=_range(start, length))
            except Exception as error:
                if self._rest and is_unpacked_underway(error):
                    return await asyncio.to_thread(self._read_plainly, key, start, length, max_bytes)
                if not is_beyond_the_end(error):
                    raise
                return _content(await self._store.head_async(key), b"")
            self._check_size(key, found.meta["size"], max_bytes)
            return _content(found.meta, bytes(await found.bytes_async()), found.attributes)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """Read an object, or a part of it; None only where there is no such object."""
        self._check_readable(key)
        try:
            with self._bucket_errors("read", key):
                if not is_plain(key):
                    return self._read_plainly(key, start, length)
                try:
                    found = self._store.get(key, options=_range(start, length))
                except Exception as error:
                    if self._rest and is_unpacked_underway(error):
                        return self._read_plainly(key, start, length)
                    if not is_beyond_the_end(error):
                        raise
                    return _content(self._store.head(key), b"")
                return _content(found.meta, bytes(found.bytes()), found.attributes)
        except BucketError as error:
            if error.kind == "no_such_object":
                return None
            raise

    def _read_plainly(
        self, key: str, start: int = 0, length: int | None = None, max_bytes: int | None = None
    ) -> Content:
        """Read an object of any key, or one that is unpacked on its way unless a request says otherwise."""
        assert self._rest
        found = self._rest.read(key, max_bytes=max_bytes, start=start, length=length)
        self._check_size(key, max(found.size, len(found.data)), max_bytes)
        return found

    def _check_size(self, key: str, size: int, max_bytes: int | None) -> None:
        if max_bytes is not None and size > max_bytes:
            message = f"{{address}} has {size:,} bytes, more than the {max_bytes:,} allowed."
            raise self._error(key, "too_large", message)

    def entries(self, prefix: str = "", *, after: str | None = None) -> Iterator[Sequence[Entry]]:
        """List the objects whose keys begin with ``prefix`` (and sort after ``after``), page by page, on demand.

        Keys are sorted by their bytes, and are what they are: with slashes at either end, ``//`` or a newline.

        :raises BucketError: also in the middle of a listing.
        """
        if self._rest:
            with self._bucket_errors("listed", prefix):
                for listed in self._rest.pages(prefix, after):
                    # Some servers ignore where a listing is to begin.
                    if found := [one for one in listed if one.key.startswith(prefix) and one.key > (after or "")]:
                        yield found
            return
        # obstore lists whole folders: of the prefix "a/b", list "a/" from just before "a/b" to the first key behind.
        folder, _, tail = prefix.rpartition("/")
        offset = max(filter(None, (after, just_before(prefix) if tail else None)), default=None)
        empty = True
        if folder:
            self._check_key(folder)
        with self._bucket_errors("listed", prefix):
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

    def folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders right below ``prefix`` (empty, or ending in a slash), sorted.

        Names that obstore cannot express are left out.
        """
        if prefix:
            self._check_key(prefix.removesuffix("/"))
        with self._bucket_errors("listed", prefix):
            found = self._store.list_with_delimiter(prefix or None)["common_prefixes"]
        return sorted(one.removesuffix("/").rpartition("/")[2] for one in found)

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
        self._check_key(key)
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

    def delete(self, *keys: str) -> None:
        """Remove objects; no error where one is gone already. S3 removes a thousand at a time."""
        for key in keys:
            self._check_key(key)
        for group in (keys[start : start + PAGE] for start in range(0, len(keys), PAGE)):
            try:
                with self._bucket_errors("removed", group[0]):
                    self._store.delete(group[0] if len(group) == 1 else list(group))
            except BucketError as error:
                if error.kind != "no_such_object":
                    raise
                if len(group) > 1:
                    # At GCS they are removed one by one, up to one that is gone.
                    for key in group:
                        self.delete(key)

    def options(self) -> dict[str, str]:
        """Return how other libraries built on object_store open this bucket, with credentials. Secret.

        :raises BucketError: where there are no credentials.
        """
        with self._bucket_errors("opened", ""):
            return self._options()

    def sign(self, key: str, seconds: float) -> Signed:
        """Return an address at which the object can be read for that long, or until the credentials expire.

        :raises BucketError: ``unsupported``, where these credentials cannot sign.
        """
        self._check_readable(key)
        if self._signer is None:
            raise self._error(key, "unsupported", "{address} cannot be presigned: these credentials cannot sign.")
        return self._signer(key, seconds)

    def _error(self, key: str, kind: str, message: str) -> BucketError:
        return BucketError(message.format(address=self.address(key)), kind=kind)

    def _check_key(self, key: str) -> None:
        if not is_plain(key):
            raise self._error(key, "unsupported", messages.UNSUPPORTED_KEY)

    def _check_readable(self, key: str) -> None:
        if self._rest is None and not is_plain(key):
            why = ", as these credentials are known to obstore only"
        elif not key or any("\ud800" <= c <= "\udfff" for c in key):
            why = ", which is empty or not Unicode"
        else:
            return
        raise BucketError(messages.UNREADABLE_KEY.format(address=self.address(key), why=why), kind="bad_key")

    @contextmanager
    def _bucket_errors(self, doing: str, key: str) -> Iterator[None]:
        """Raise all that goes wrong as `BucketError`."""
        try:
            yield
        except BucketError:
            raise
        except Exception as error:  # noqa: BLE001  # obstore's errors have no common base class
            raised = bucket_error(error, self.address(key), doing)
            if self._anonymous and raised.kind == "bad_credentials":
                # Without any, this is how GCS refuses what is not public.
                raised.kind = "denied"
            raise raised from None


def _range(start: int, length: int | None) -> GetOptions:
    if length is not None:
        return {"range": (start, start + length)}
    return {"range": {"offset": start}} if start else {}


def _content(meta: ObjectMeta, data: bytes, attributes: Attributes | None = None) -> Content:
    encoding = str((attributes or {}).get("Content-Encoding", ""))
    return Content(data, _version(meta["e_tag"]), meta["size"], encoding)


def _entry(meta: ObjectMeta) -> Entry:
    return Entry(meta["path"], meta["size"], _version(meta["e_tag"]), meta["last_modified"].timestamp())


def _version(e_tag: str | None) -> str | None:
    return e_tag.strip('"') if e_tag else None

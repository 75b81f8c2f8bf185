"""One bucket: its objects are read, listed, created, replaced and deleted whole.

A `Bucket` is used in the process that has made it: the library hangs in a child that is forked after its first use.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BucketError
from airflow_provider_describer.storage.address import ObjectKey, Scheme, is_plain, just_before
from airflow_provider_describer.storage.bucket_errors import (
    bucket_error,
    changed,
    is_beyond_the_end,
    no_conditional_writes,
    no_store,
    unsupported_key,
)

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta, PutMode, UpdateVersion
    from obstore.store import GCSStore, S3Store

PAGE = 1000
"""How many objects a page of a listing holds; as many as both stores return at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing. ``modified`` is in epoch seconds; ``version`` is the one that reading it tells, too."""

    key: str
    size: int
    version: str | None
    modified: float


@dataclass(frozen=True, slots=True)
class Content:
    """What was read. ``size`` is that of the whole object, ``version`` that of what was really read."""

    data: bytes = field(repr=False)
    version: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Signed:
    """An address that anybody may GET until ``expires_at`` (epoch seconds)."""

    url: str = field(repr=False)
    expires_at: float


Signer = Callable[[str, float], Signed]
"""``(key, seconds) -> Signed``."""


class Bucket:
    """A bucket of S3 or GCS. Whatever goes wrong is a `BucketError` that names the object.

    A version is the object's ETag without its quotes, which both stores tell in a listing as well as when it is read.
    """

    def __init__(self, scheme: Scheme, name: str, store: S3Store | GCSStore, *, signer: Signer | None = None) -> None:
        self.scheme = scheme
        self.name = name
        self._store = store
        self._signer = signer
        self._creates = True

    def __repr__(self) -> str:
        return f"Bucket({self.address()!r})"

    def address(self, key: str = "") -> str:
        """Return the address of an object, for people and for rows."""
        return str(ObjectKey(self.scheme, self.name, key))

    # -- reading -----------------------------------------------------------------------------------------------------

    async def aread(self, key: str, *, max_bytes: int | None, start: int = 0, length: int | None = None) -> Content:
        """Read an object, or a part of it, in one request.

        :raises BucketError: ``no_such_object``, or ``too_large`` for an object of more than ``max_bytes``, of which the
            body is not taken then; or another kind.
        """
        with self._doing("read", key):
            try:
                found = await self._store.get_async(key, options=_part(start, length))
            except Exception as error:
                if not is_beyond_the_end(error):
                    raise
                return _empty(await self._store.head_async(key))
            self._check_size(key, found, max_bytes)
            return _content(found, bytes(await found.bytes_async()))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """Read an object, or a part of it; None where there is no such object, and only there."""
        try:
            with self._doing("read", key):
                try:
                    found = self._store.get(key, options=_part(start, length))
                except Exception as error:
                    if not is_beyond_the_end(error):
                        raise
                    return _empty(self._store.head(key))
                return _content(found, bytes(found.bytes()))
        except BucketError as error:
            if error.kind == "no_such_object":
                return None
            raise

    def _check_size(self, key: str, found: GetResult, max_bytes: int | None) -> None:
        size = found.meta["size"]
        if max_bytes is not None and size > max_bytes:
            raise BucketError(
                f"{self.address(key)} has {size:,} bytes, more than the {max_bytes:,} allowed.", kind="too_large"
            )

    def entries(self, prefix: str = "", *, after: str | None = None) -> Iterator[Sequence[Entry]]:
        """List the objects whose keys begin with ``prefix`` (and come after ``after``), a page at a time, as asked for.

        Keys come in the order of their bytes. A folder's marker, an object of no bytes whose key ends in ``/``, is
        listed without that slash, so what lists images passes by what is empty.

        :raises BucketError: also in the middle of a listing.
        """
        # The library lists whole folders: of "a/b" it takes "a/", from just before "a/b" to the first key behind.
        folder, _, tail = prefix.rpartition("/")
        offset = max(filter(None, (after, just_before(prefix) if tail else None)), default=None)
        empty = True
        with self._doing("listed", prefix, checked=folder):
            for page in self._store.list(folder or None, offset=offset, chunk_size=PAGE):
                empty = False
                entries = [_entry(meta) for meta in page]
                found = [entry for entry in entries if entry.key.startswith(prefix) and entry.key > (after or "")]
                if found:
                    yield found
                if tail and entries[-1].key > prefix and not entries[-1].key.startswith(prefix):
                    return
        if empty:
            self._check_that_it_is_a_store(prefix)

    def _check_that_it_is_a_store(self, prefix: str) -> None:
        """Refuse an empty listing of whatever says yes to all: to the library, a page to log in at looks like one."""
        try:
            found = self.read(f"nothing-{secrets.token_hex(8)}")
        except BucketError as error:
            if error.kind == "denied":
                # Who may list need not be one who may read.
                return
            raise
        if found is not None:
            raise no_store(self.address(prefix))

    # -- writing -----------------------------------------------------------------------------------------------------

    def create(self, key: str, data: bytes) -> None:
        """Write a new object. Where an answer is lost, what lies there is compared: the same bytes are a success.

        A store without conditional writes takes a plain write in its place, which replaces what is there: names that
        are their writer's own, as those of journal shards are, are as safe that way.

        :raises BucketError: ``exists``, where something else lies there; or another kind.
        """
        self._check_key(key)
        if not self._creates:
            self.put(key, data)
            return
        try:
            with self._doing("written", key):
                self._store.put(key, data, mode="create", use_multipart=False)
        except BucketError as error:
            if error.kind == "unsupported":
                self._creates = False
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
        """Write an object, replacing what is there: bytes, or a file, which is streamed, in parts where it is large.

        :raises OSError: where the file cannot be read.
        """
        if isinstance(source, bytes):
            with self._doing("written", key):
                self._store.put(key, source)
            return
        with source.open("rb") as file, self._doing("written", key):
            self._store.put(key, file)

    def replace(self, key: str, data: bytes, version: str | None) -> str:
        """Write an object if it still is the one of that version (of None: if there is none); return its new version.

        Where an answer is lost, ``changed`` may tell of this very write: whoever reads again sees.

        :raises BucketError: ``changed``; ``unsupported`` by a store without conditional writes; or another kind.
        """
        self._check_key(key)
        mode: PutMode = "create" if version is None else self._still(key, version)
        try:
            with self._doing("written", key):
                written = self._store.put(key, data, mode=mode, use_multipart=False)
        except BucketError as error:
            if error.kind == "exists":
                raise changed(self.address(key)) from None
            if error.kind == "unsupported":
                raise no_conditional_writes(self.address(key)) from None
            raise
        new = _version(written["e_tag"])
        if new is None:
            raise no_conditional_writes(self.address(key))
        return new

    def _still(self, key: str, version: str) -> UpdateVersion:
        """The condition that the object is of this version. GCS compares generations, which no listing tells."""
        quoted = f'"{version}"'
        if self.scheme == "s3":
            return {"e_tag": quoted}
        try:
            with self._doing("read", key):
                meta = self._store.head(key)
        except BucketError as error:
            if error.kind == "no_such_object":
                raise changed(self.address(key)) from None
            raise
        if meta["e_tag"] != quoted:
            raise changed(self.address(key))
        if meta["version"] is None:
            raise no_conditional_writes(self.address(key))
        return {"e_tag": quoted, "version": meta["version"]}

    def delete(self, key: str) -> None:
        """Remove an object; no error where it is gone already."""
        try:
            with self._doing("removed", key):
                self._store.delete(key)
        except BucketError as error:
            if error.kind != "no_such_object":
                raise

    def sign(self, key: str, seconds: float) -> Signed:
        """Return an address at which anybody may GET the object for so long, or shorter where the credentials end.

        :raises BucketError: ``unsupported``, where these credentials cannot sign.
        """
        self._check_key(key)
        if self._signer is None:
            raise BucketError(
                f"{self.address(key)} cannot be handed out: these credentials do not sign addresses.",
                kind="unsupported",
            )
        return self._signer(key, seconds)

    def _check_key(self, key: str) -> None:
        if not is_plain(key):
            raise unsupported_key(self.address(key))

    @contextmanager
    def _doing(self, doing: str, key: str, *, checked: str | None = None) -> Iterator[None]:
        """Let what is raised meanwhile be a `BucketError`. ``checked``: the part of the key that must be a key."""
        if checked != "":
            self._check_key(key if checked is None else checked)
        try:
            yield
        except BucketError:
            raise
        except Exception as error:  # noqa: BLE001  # the library has no base class of all that it raises
            raise bucket_error(error, self.address(key), doing) from None


def _part(start: int, length: int | None) -> GetOptions:
    if length is not None:
        return {"range": (start, start + length)}
    return {"range": {"offset": start}} if start else {}


def _content(found: GetResult, data: bytes) -> Content:
    return Content(data, _version(found.meta["e_tag"]), found.meta["size"])


def _empty(meta: ObjectMeta) -> Content:
    return Content(b"", _version(meta["e_tag"]), meta["size"])


def _entry(meta: ObjectMeta) -> Entry:
    return Entry(meta["path"], meta["size"], _version(meta["e_tag"]), meta["last_modified"].timestamp())


def _version(e_tag: str | None) -> str | None:
    return e_tag.strip('"') if e_tag else None

"""Small pictures of images, made when they are looked at.

An image's uri comes from a row, which may say anything: it is read only where the administrator allows it (`Allowed`),
and what is not an image is never passed on. Bounded in bytes, pixels, time and how many are made at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_describer.errors import BucketError, DescriberError
from airflow_provider_describer.gallery.allowed import Allowed, NotAllowed, Place
from airflow_provider_describer.gallery.stores import StoreEntry
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.scaling import thumbnail
from airflow_provider_describer.images.trust import guard_of
from airflow_provider_describer.storage.address import ObjectKey
from airflow_provider_describer.storage.open_bucket import OpenBucket

LONGEST_SIDE = 320
"""Pixels."""
MOST_BYTES = 32 * 1024 * 1024
"""Of an image that is read."""
CACHE_BYTES = 64 * 1024 * 1024
"""Of thumbnails that are kept: some 5 000."""
AT_ONCE = 2
FAILED_FOR_S, MOST_FAILURES = 60.0, 2000
"""Seconds for which a failure is remembered, and how many are."""
WAIT_S = 20.0
"""Seconds that one waits for its turn, and then for the image's bytes."""


class NoThumbnail(DescriberError):
    """There is no picture to show. ``reason`` is one line for people, without any credential."""

    kind = "no_thumbnail"

    def __init__(self, reason: str, **about: Any) -> None:
        super().__init__(reason, **about)
        self.reason = str(self)


class Thumbnails:
    """Makes and keeps thumbnails. Blocking, and thread-safe.

    :param open_buckets: opens buckets with a connection, by its id: `hooks.storage.buckets_of`.
    :param allowed: what may be shown beside the images in a store's own bucket.
    """

    def __init__(
        self,
        open_buckets: Callable[[str | None], OpenBucket],
        allowed: Allowed,
        *,
        cache_bytes: int = CACHE_BYTES,
        at_once: int = AT_ONCE,
        wait_s: float = WAIT_S,
    ) -> None:
        self._open_buckets, self._allowed, self._wait_s = open_buckets, allowed, wait_s
        self._turns = threading.BoundedSemaphore(at_once)
        self._kept = _Kept(cache_bytes)
        self._failures = _Failures()

    def get(self, row: Mapping[str, Any], store: StoreEntry) -> bytes:
        """Return a picture of a row's image as WebP, its longest side at most 320 pixels.

        :param row: with ``uri``, ``version`` and ``sha256``, as `StoreGallery` returns it.
        :param store: the store that the row is in, as `NamedStores.find` returns it.
        :raises NoThumbnail: with the reason; ``kind`` is that of the reading's error, ``not_allowed``, ``changed`` or
            ``busy``.
        """
        try:
            place = self._allowed.place(row.get("uri"), store)
        except NotAllowed as error:
            raise NoThumbnail(str(error), kind="not_allowed") from None
        # The store's connection, too: what one of them may read, another one may not.
        key = (store.address, place.conn_id, str(row.get("uri")), row.get("version"), row.get("sha256"))
        if (kept := self._kept.get(key)) is not None:
            return kept
        self._failures.check(key)
        if not self._turns.acquire(timeout=self._wait_s):
            raise NoThumbnail("Too many thumbnails are being made at once; try again.", kind="busy")
        try:
            made = self._made(place, row.get("sha256"))
        except NoThumbnail as error:
            self._failures.note(key, error)
            raise
        finally:
            self._turns.release()
        self._kept.put(key, made)
        return made

    def _made(self, place: Place, sha256: object) -> bytes:
        try:
            content = self._read(place)
            if sha256 and hashlib.sha256(content).hexdigest() != sha256:
                raise NoThumbnail("The image was changed since it was described.", kind="changed")
            return thumbnail(content, LONGEST_SIDE, uri=place.name)
        except NoThumbnail:
            raise
        except BucketError as error:
            # Its message may quote the cloud's answer.
            raise NoThumbnail(f"{place.name}: the bucket cannot be read ({error.kind}).", kind=error.kind) from None
        except DescriberError as error:
            raise NoThumbnail(str(error), kind=error.kind) from None
        except TimeoutError:
            raise NoThumbnail(f"{place.name}: not read within {self._wait_s:g} s.", kind="unreadable") from None

    def _read(self, place: Place) -> bytes:
        open_bucket = self._open_buckets(place.conn_id)
        if isinstance(place.location, ObjectKey):
            # Before the event loop runs, as reading a connection blocks.
            open_bucket(place.location.scheme, place.location.bucket)

        async def read() -> bytes:
            guard = guard_of(place.trust.allow_private_hosts)
            async with AsyncClient(timeout=self._wait_s, guard=guard) as client, asyncio.timeout(self._wait_s):
                reader = Reader(client, trust=place.trust, open_bucket=open_bucket)
                return (await reader.read(place.location, MOST_BYTES)).data

        return asyncio.run(read())


class _Failures:
    """What could not be made a moment ago: not every card of a page waits for a server that is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: OrderedDict[object, tuple[float, NoThumbnail]] = OrderedDict()

    def check(self, key: object) -> None:
        """Raise what went wrong, if that was less than `FAILED_FOR_S` ago."""
        with self._lock:
            failed_at, error = self._failed.get(key, (float("-inf"), None))
        if error is not None and time.monotonic() < failed_at + FAILED_FOR_S:
            raise NoThumbnail(error.reason, kind=error.kind)

    def note(self, key: object, error: NoThumbnail) -> None:
        with self._lock:
            self._failed[key] = (time.monotonic(), error.with_traceback(None))
            self._failed.move_to_end(key)
            if len(self._failed) > MOST_FAILURES:
                self._failed.popitem(last=False)


class _Kept:
    """The thumbnails that were asked for last, of at most so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, bytes] = OrderedDict()

    def get(self, key: object) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: object, content: bytes) -> None:
        with self._lock:
            self._bytes += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._kept.popitem(last=False)[1])

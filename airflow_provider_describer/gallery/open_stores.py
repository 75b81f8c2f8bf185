"""The stores that the page has opened: those of the setting only, each once, and each reader's view of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.gallery.allowed import Allowed, NotAllowed, parse_allowed
from airflow_provider_describer.gallery.host import Host, Reader
from airflow_provider_describer.gallery.search import StoreGallery
from airflow_provider_describer.gallery.stores import NamedStores, StoreEntry, parse_stores, stores_below
from airflow_provider_describer.gallery.thumbnails import Thumbnails
from airflow_provider_describer.storage.folder import Folder, open_folder

log = logging.getLogger(__name__)

KEPT = 32
"""Stores that are kept open."""
OPEN_FOR_S = 600
"""Seconds after which a store is opened anew, with its connection as it is then."""


class BadSetting(BadInput):
    """A setting of the administrator's cannot be read. Who reads the page is not told what is in it."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store of the setting, opened."""

    entry: StoreEntry
    folder: Folder
    gallery: StoreGallery

    def readable(self, reader: Reader) -> frozenset[str] | None:
        """Return the DAGs of this store whose rows the reader may see; None if these are all.

        Rows that no DAG has made are seen by everybody who may see the page.
        """
        dag_ids = self.gallery.dag_ids()
        allowed = reader.readable(dag_ids - {""}) | {""}
        return None if dag_ids <= allowed else allowed

    def visible(self, rows: Iterable[dict[str, Any]], reader: Reader) -> list[dict[str, Any]]:
        """Return the rows that the reader may see, in their order."""
        given = list(rows)
        allowed = reader.readable({row["dag_id"] for row in given if row["dag_id"]})
        return [row for row in given if not row["dag_id"] or row["dag_id"] in allowed]


class OpenStores:
    """Opens the stores that ``[describer] stores`` names, and keeps them. Thread-safe."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._open: OrderedDict[StoreEntry, tuple[float, OpenStore]] = OrderedDict()
        self._thumbnails: tuple[str, Thumbnails] | None = None

    def addresses(self) -> list[str]:
        """Return the addresses of all named stores, and of those below a prefix.

        :raises BadSetting: if the setting cannot be read.
        """
        return _named(self._host.stores()).addresses(self._below)

    def _below(self, entry: StoreEntry) -> list[str]:
        try:
            return stores_below(entry, self._host.open_bucket(entry.conn_id))
        except DescriberError as error:
            # One prefix that cannot be listed hides no other store.
            log.warning("The page lists no store below %s: %s", entry.address, error)
            return []

    def open(self, address: str) -> OpenStore:
        """Return the store at this address.

        :raises StoreNotNamed: if it is none of the setting's; nothing is opened then.
        :raises DescriberError: if it cannot be opened, or the setting cannot be read.
        """
        entry = _named(self._host.stores()).find(address)
        with self._lock:
            opened_at, store = self._open.get(entry, (0.0, None))
            if store is not None and time.monotonic() < opened_at + OPEN_FOR_S:
                self._open.move_to_end(entry)
                return store
        # Not under the lock: a bucket that does not answer holds up nobody else.
        folder = open_folder(entry.address, self._host.open_bucket(entry.conn_id))
        store = OpenStore(entry, folder, StoreGallery(folder))
        with self._lock:
            self._open[entry] = (time.monotonic(), store)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return store

    def has_thumbnail(self, row: Mapping[str, Any], store: OpenStore) -> bool:
        """Whether the image of a row may be shown. It is not looked at."""
        try:
            _allowed(self._host.images()).place(row["uri"], store.entry)
        except NotAllowed:
            return False
        return True

    def thumbnail(self, row: Mapping[str, Any], store: OpenStore) -> bytes:
        """Return a small picture of a row's image, as WebP.

        :raises NoThumbnail: with the reason, if there is none.
        """
        setting = self._host.images()
        with self._lock:
            if self._thumbnails is None or self._thumbnails[0] != setting:
                self._thumbnails = (setting, Thumbnails(self._host.open_bucket, _allowed(setting)))
            thumbnails = self._thumbnails[1]
        return thumbnails.get(row, store.entry)


@lru_cache(maxsize=4)
def _named(setting: str) -> NamedStores:
    with _of_the_administrator("stores"):
        return parse_stores(setting)


@lru_cache(maxsize=4)
def _allowed(setting: str) -> Allowed:
    with _of_the_administrator("images"):
        return parse_allowed(setting)


@contextmanager
def _of_the_administrator(name: str) -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        log.error("The page Descriptions shows nothing: %s", error)
        raise BadSetting(
            f"The setting [describer] {name} cannot be read, so nothing is shown. The API server's log says why."
        ) from None

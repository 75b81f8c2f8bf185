"""Which stores may be shown: those that the administrator has named in ``[describer] stores``. Pure, but for links.

An address comes from a browser's query. It is compared after it was parsed, by whole parts, and a store below a local
prefix is where its symbolic links lead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_provider_describer.errors import BadInput, BucketError, StoreError
from airflow_provider_describer.storage.address import ObjectKey, masked, parse_shared_folder
from airflow_provider_describer.storage.bucket import Bucket
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.shard import FOLDER
from airflow_provider_describer.store.table import NAME

SETTING = "[describer] stores"
MOST_BELOW = 200
"""Folders below one prefix that are looked at: each takes a request to a bucket."""
_BELOW = "/*"
_PARTS = frozenset({FOLDER, NAME})
"""A folder with any of these is a store."""
_LONGEST = 2048
"""Characters of an address that are looked at."""
# A library may take these for something else than a part of a name: an escape, a query, a fragment, a separator.
_AMBIGUOUS = re.compile(r"[\0-\x1f\x7f\\%?#*\ud800-\udfff]")


class StoreNotNamed(BadInput):
    """The administrator has not named this store, so it is not opened."""

    kind = "store_not_named"


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A store, or with ``is_prefix`` every store below an address, and the connection that opens it.

    :param conn_id: a ``storage_conn_id``; None for the cloud's default connection, or a local folder.
    """

    address: str
    conn_id: str | None = None
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class NamedStores:
    """The entries of ``[describer] stores``, in their order."""

    entries: tuple[StoreEntry, ...] = ()

    def find(self, address: str) -> StoreEntry:
        """Return the store at this address, as it is to be opened: its own address, normalised, and its connection.

        An entry of its own counts before a prefix, and a long prefix before a short one.

        :raises StoreNotNamed: for every other address; nothing is opened or read to find that out.
        """
        place = _place(address)
        for entry in self.entries:
            if place is not None and not entry.is_prefix and str(place) == entry.address:
                return entry
        for entry in sorted(self.entries, key=lambda entry: -len(entry.address)):
            if place is not None and entry.is_prefix and not _AMBIGUOUS.search(address) and _is_below(place, entry):
                return replace(entry, address=str(place), is_prefix=False)
        raise StoreNotNamed(
            f"The store {_shown(address)} may not be shown here: it is not named in {SETTING}. An administrator can "
            "add it, or a prefix of it that ends in /*."
        )

    def addresses(self, list_below: Callable[[StoreEntry], Iterable[str]]) -> list[str]:
        """Return the addresses of all named stores, in the order of the entries, each once.

        :param list_below: returns the addresses of the stores right below a prefix, such as `stores_below`.
        """
        found: dict[str, None] = {}
        for entry in self.entries:
            found |= dict.fromkeys(list_below(entry) if entry.is_prefix else (entry.address,))
        return list(found)


def stores_below(entry: StoreEntry, open_bucket: OpenBucket) -> list[str]:
    """Return the addresses of the stores right below a prefix, sorted: at most `MOST_BELOW` folders are looked at.

    :param open_bucket: opens buckets with the entry's connection.
    :raises StoreError: where the prefix cannot be listed; a local one that does not exist has no stores.
    """
    place = parse_shared_folder("store", entry.address)
    try:
        if isinstance(place, ObjectKey):
            return _below_in_bucket(place, open_bucket(place.scheme, place.bucket))
        return [
            str(path) for path in sorted(place.iterdir())[:MOST_BELOW] if _is_store(path) and _is_below(path, entry)
        ]
    except FileNotFoundError:
        return []
    except (OSError, BucketError) as error:
        raise StoreError(f"The stores below {entry.address} cannot be listed: {error}") from None


def _below_in_bucket(above: ObjectKey, bucket: Bucket) -> list[str]:
    prefix = f"{above.key}/" if above.key else ""
    names = bucket.folders(prefix)[:MOST_BELOW]
    found = [name for name in names if _PARTS.intersection(bucket.folders(f"{prefix}{name}/"))]
    return [bucket.address(f"{prefix}{name}") for name in found]


def _is_store(path: Path) -> bool:
    return any((path / part).is_dir() for part in _PARTS)


def parse_stores(text: str) -> NamedStores:
    """Return the stores that a setting names: entries ``ADDRESS [storage_conn_id]``, separated by commas or line ends.

    An address is a local path, or ``s3://…`` or ``gs://…``. One that ends in ``/*`` allows every store below it.

    :raises BadInput: naming the entry that cannot work.
    """
    return NamedStores(tuple(parse_entries(text, SETTING, _entry)))


def parse_entries(text: str, setting: str, parse: Callable[[str, str | None], StoreEntry]) -> Iterable[StoreEntry]:
    """Yield the entries of a setting; ``parse`` is given an address and a connection id, and says what is wrong."""
    for number, written in enumerate(filter(None, map(str.strip, re.split(r"[,\n]", text))), 1):
        address, *others = written.split()
        try:
            if len(others) > 1:
                raise BadInput(f"it has {len(others) + 1} words, expected an address and at most a storage_conn_id.")
            yield parse(address, others[0] if others else None)
        except BadInput as error:
            raise BadInput(f"{setting}, entry {number} ({_shown(address)}): {error}") from None


def _entry(address: str, conn_id: str | None) -> StoreEntry:
    is_prefix = address.endswith(_BELOW)
    place = parse_shared_folder("the address", address.removesuffix(_BELOW) or "/")
    if isinstance(place, Path):
        place = Path(os.path.normpath(place))
        if is_prefix and place == Path("/"):
            raise BadInput("it would allow every folder of this machine; name a folder.")
    entry = StoreEntry(_text(place), conn_id, is_prefix)
    if "*" in entry.address:
        raise BadInput("'*' stands at the end only, as in 's3://bucket/stores/*'.")
    return entry


def _place(address: object) -> ObjectKey | Path | None:
    """Return where an address from outside leads; None where it is no address of a store, or could be two."""
    if not isinstance(address, str) or len(address) > _LONGEST or "\0" in address or "\\" in address:
        return None
    try:
        place = parse_shared_folder("store", address)
    except (BadInput, ValueError):
        return None
    if isinstance(place, Path):
        return None if ".." in place.parts else Path(os.path.normpath(place))
    return ObjectKey(place.scheme, place.bucket, place.key.removesuffix("/"))


def _is_below(place: ObjectKey | Path, entry: StoreEntry) -> bool:
    above = parse_shared_folder("store", entry.address)
    if isinstance(place, ObjectKey) and isinstance(above, ObjectKey):
        prefix = f"{above.key}/" if above.key else ""
        same_bucket = (place.scheme, place.bucket) == (above.scheme, above.bucket)
        return same_bucket and place.key.startswith(prefix) and len(place.key) > len(prefix)
    if isinstance(place, Path) and isinstance(above, Path):
        real, real_above = Path(os.path.realpath(place)), Path(os.path.realpath(above))
        return above in place.parents and real_above in real.parents
    return False


def _text(place: ObjectKey | Path) -> str:
    return str(place).removesuffix("/") if isinstance(place, ObjectKey) else str(place)


def _shown(address: object) -> str:
    """Return an address for a message: without what may be a secret, and short."""
    text = masked(address) if isinstance(address, str) else f"a {type(address).__name__}"
    if "@" in text:
        text = "…@" + text.rpartition("@")[2]
    return repr(text if len(text) <= 200 else f"{text[:200]}…")

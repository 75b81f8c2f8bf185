"""Which images may be read for a thumbnail: those in the store's own bucket, and below ``[describer] images``.

A uri comes from a row, so it may name anything that this machine can reach.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from airflow_provider_describer.errors import BadInput, RejectedImage
from airflow_provider_describer.gallery.stores import StoreEntry, parse_entries
from airflow_provider_describer.images.trust import Trust
from airflow_provider_describer.storage.address import (
    LocalFile,
    Location,
    ObjectKey,
    WebUrl,
    bucket_address,
    is_web,
    masked,
    parse_shared_folder,
    parse_uri,
)

SETTING = "[describer] images"
_LONGEST = 4096
_SIGNED = "?…"
"""What a row has in place of a web address's query."""
# An escaped dot or slash: some servers take it for a part of the path.
_ESCAPED = re.compile(r"%(2e|2f|5c)", re.IGNORECASE)


class NotAllowed(BadInput):
    """This image may not be read for a thumbnail."""

    kind = "not_allowed"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is read, with which connection, and what that may lead to. ``name`` is for messages."""

    location: Location
    conn_id: str | None
    trust: Trust
    name: str


@dataclass(frozen=True, slots=True)
class WebTrust(Trust):
    """Web addresses below some prefixes, at each redirect too."""

    prefixes: tuple[str, ...] = ()

    def check_web(self, url: str, name: str | None = None) -> None:
        """Check an address before it is requested.

        :raises RejectedImage: ``not_allowed`` outside the prefixes; and as `Trust.check_web`.
        """
        if not any(_is_below_web(url, prefix) for prefix in self.prefixes):
            raise RejectedImage(
                f"{name or masked(url)}: leads to an address that is not named in {SETTING}.", kind="not_allowed"
            )
        Trust.check_web(self, url, name)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The prefixes of ``[describer] images``.

    :param allow_private_hosts: whether web addresses may lead into this network.
    """

    prefixes: tuple[StoreEntry, ...] = ()
    allow_private_hosts: bool = False

    def place(self, uri: object, store: StoreEntry) -> Place:
        """Return where to read an image of a store.

        :raises NotAllowed: for an image that may not be read, without any look at whether it is there.
        """
        if not isinstance(uri, str) or not uri or len(uri) > _LONGEST:
            raise NotAllowed("The row names no image that could be read.")
        if uri.endswith(_SIGNED):
            raise NotAllowed("The image's address was signed, and signatures are not kept.")
        try:
            location = parse_uri(uri)
        except (BadInput, ValueError):
            raise NotAllowed("The row's uri is no address of an image.") from None
        if isinstance(location, ObjectKey):
            return self._object(location, store)
        return self._web(location) if isinstance(location, WebUrl) else self._file(location)

    def _object(self, location: ObjectKey, store: StoreEntry) -> Place:
        # A server or a proxy may resolve such a path, and end in another bucket.
        if not location.key or {".", ".."} & set(location.key.split("/")):
            raise _not_allowed()
        place, trust = bucket_address(store.address), Trust(base="s3://nothing/")
        if place is not None and _bucket(place) == _bucket(location):
            return Place(location, store.conn_id, trust, str(location))
        for entry in self.prefixes:
            above = bucket_address(entry.address)
            if above is None or _bucket(above) != _bucket(location):
                continue
            if location.key.startswith(f"{above.key}/" if above.key else ""):
                return Place(location, entry.conn_id or store.conn_id, trust, str(location))
        raise _not_allowed()

    def _web(self, location: WebUrl) -> Place:
        prefixes = tuple(entry.address for entry in self.prefixes if is_web(entry.address))
        if not any(_is_below_web(location.url, prefix) for prefix in prefixes):
            raise _not_allowed()
        trust = WebTrust("s3://nothing/", self.allow_private_hosts, prefixes)
        return Place(location, None, trust, str(location))

    def _file(self, location: LocalFile) -> Place:
        for entry in self.prefixes:
            if "://" in entry.address or not location.path.is_absolute():
                continue
            trust = Trust(base=entry.address)
            try:
                trust.check_local(location.uri, location.path)
            except (RejectedImage, ValueError):
                continue
            return Place(location, None, trust, location.uri)
        raise _not_allowed()


def parse_allowed(text: str) -> Allowed:
    """Return what a setting allows: entries ``ADDRESS [storage_conn_id]``, separated by commas or line ends.

    An address is a local folder, ``s3://…``, ``gs://…`` or ``https://…``; what is below it may be shown. Without a
    connection, the store's is used for a bucket.

    :raises BadInput: naming the entry that cannot work.
    """
    return Allowed(tuple(parse_entries(text, SETTING, _entry)))


def _entry(address: str, conn_id: str | None) -> StoreEntry:
    address = address.removesuffix("*").rstrip("/") or "/"
    if is_web(address):
        if _parts(address) is None:
            raise BadInput("expected an address such as 'https://images.example.com/shop': https, a host and a path.")
        return StoreEntry(address, conn_id, is_prefix=True)
    place = parse_shared_folder("the address", address)
    if str(place) == "/":
        raise BadInput("it would allow every file of this machine; name a folder.")
    return StoreEntry(str(place).rstrip("/"), conn_id, is_prefix=True)


def _is_below_web(url: str, prefix: str) -> bool:
    found, above = _parts(url), _parts(prefix)
    if found is None or above is None:
        return False
    (server, path), (server_above, path_above) = found, above
    return server == server_above and path[: len(path_above)] == path_above and len(path) > len(path_above)


def _parts(url: str) -> tuple[tuple[str, int], Sequence[str]] | None:
    """Return server and path of a plain https address; None where programs could disagree on what it means."""
    try:
        parts = urlsplit(url)
        server = ((parts.hostname or "").rstrip("."), parts.port or 443)
    except ValueError:
        return None
    if parts.scheme != "https" or not server[0] or "@" in parts.netloc or _ESCAPED.search(parts.path):
        return None
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part] if parts.path.strip("/") else []
    return None if {".", ".."} & set(path) or "\\" in url else (server, path)


def _bucket(address: ObjectKey) -> tuple[str, str]:
    return address.scheme, address.bucket


def _not_allowed() -> NotAllowed:
    return NotAllowed(
        f"The image may not be shown here: it is not in the store's own bucket, nor below an address of {SETTING}."
    )

"""Prepares an image for one call: checked, scaled down if asked, and as bytes or an address, as the vendor takes it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadInput, DescriberError, RejectedImage, UnreadableImage
from airflow_provider_describer.http.client import ascii_address
from airflow_provider_describer.images.checks import HEAD, check_content, check_head
from airflow_provider_describer.images.reading import Head, Reader, Visibility
from airflow_provider_describer.images.scaling import scale_down
from airflow_provider_describer.images.trust import is_private_host
from airflow_provider_describer.models import DescribeRequest, Image, Picture, Spec
from airflow_provider_describer.storage.address import LocalFile, Location, ObjectKey, WebUrl, is_web, masked, parse_uri
from airflow_provider_describer.vendors.vendor import Vendor

SIGNED_FOR_S = 2 * 3600.0
"""Lifetime of a presigned address: a vendor's queue may take an hour before it fetches."""
SHORTEST_S = 600.0
"""An address that lives shorter, as the signing credentials end, could expire in the vendor's queue."""
LARGEST_TO_SCALE = 200_000_000
"""Bytes of the largest image that is read to be scaled down."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A picture ready for one call, and what is known of its content.

    ``upload``: its bytes go to the vendor's storage first. ``sha256`` is None where the vendor fetches the image;
    ``version`` is then its server's name for the content, if any. ``size`` is that of what is stored. ``saved`` is the
    bytes saved by scaling down.
    """

    picture: Picture
    upload: bool
    sha256: str | None
    version: str | None
    size: int | None
    saved: int = 0


@dataclass(frozen=True, slots=True)
class Transport:
    """How an image reaches the vendor (``url``, ``file``, ``inline`` or ``upload``), and the reason, for the log."""

    way: str
    why: str


def choose_transport(
    vendor: Vendor, account: Account, location: Location, visibility: Visibility, *, scaled: bool = False
) -> Transport:
    """Return how the image reaches the vendor.

    ``auto`` lets the vendor fetch what it can, which is one transfer instead of two: public web images, and for a
    vendor that otherwise needs an upload also objects, by a presigned address. One that may stand in a network of its
    own (`Vendor.fetches_addresses`) gets bytes.

    :param visibility: needed only where `needs_visibility` says so.
    :param scaled: whether the image is scaled down first, so that its address shows another image.
    :raises BadInput: where the connection's ``image_transport`` does not fit the vendor or the image; of the kind
        ``no_address`` for a local file that the vendor is to fetch.
    """
    wanted = account.image_transport
    if wanted == "auto":
        return _auto_transport(vendor, account, location, visibility, scaled)
    if wanted != "url" and wanted not in vendor.transports:
        raise BadInput(
            f"Connection {account.conn_id!r}: image_transport is {wanted!r}, which {vendor.title} does not take; "
            f"expected auto, url, {' or '.join(vendor.transports)}."
        )
    if wanted == "url" and (visibility is None or scaled):
        because = f"{str(location)!r} has no address that the vendor could fetch"
        if scaled:
            because = "max_pixels asks for another image than the one at its address"
        elif isinstance(location, ObjectKey):
            because += " (the storage connection's credentials cannot sign one)"
        message = f"Connection {account.conn_id!r}: image_transport is 'url', but {because}. Choose auto."
        # Where others of its list have an address, only a local file is at fault.
        raise BadInput(message, kind="no_address" if isinstance(location, LocalFile) and not scaled else None)
    return Transport(wanted, "the connection says so")


def _auto_transport(
    vendor: Vendor, account: Account, location: Location, visibility: Visibility, scaled: bool
) -> Transport:
    preferred = vendor.transports[0]
    if scaled:
        return Transport(preferred, "they are scaled down first")
    is_reachable = visibility == "public" or (visibility == "private" and is_private_host(account.base_url))
    if is_reachable and vendor.fetches_addresses:
        if isinstance(location, WebUrl):
            return Transport("url", f"{vendor.title} fetches public addresses itself")
        if preferred == "upload":
            return Transport("url", f"{vendor.title} fetches them by addresses that are signed for it")
    if visibility is None and needs_visibility(vendor, account, location):
        return Transport(preferred, "they have no address")
    return Transport(preferred, f"it is how {vendor.title} takes bytes")


def needs_visibility(vendor: Vendor, account: Account, location: Location) -> bool:
    """Whether `choose_transport` needs the image's visibility, which for an object takes a signature to find out."""
    return isinstance(location, WebUrl) or account.image_transport == "url" or vendor.transports[0] == "upload"


@contextmanager
def one_image(uri: str) -> Iterator[None]:
    """Make an error that nobody expected one of this image: no fault of ours in one image's bytes may end a run.

    :raises RejectedImage: ``no_memory`` or ``internal_error``, naming the image, the error's class and where it arose.
    :raises DescriberError: as the work inside does.
    """
    try:
        yield
    except DescriberError:
        raise
    except Exception as error:  # noqa: BLE001  # any other class is the unexpected
        # Its text may quote a signed address.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {PurePosixPath(frame.filename).name}:{frame.lineno}"
        kind = "no_memory" if isinstance(error, MemoryError) else "internal_error"
        raise RejectedImage(
            f"{masked(uri)}: could not be prepared ({where}); nothing was sent. Unless the worker lacks memory, report "
            "this as a fault of this package.",
            kind=kind,
        ) from None


async def prepare(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> PreparedImage:
    """Read and check the image and return it ready for a call; nothing is billed here.

    :raises RejectedImage: naming the image and what is wrong with it.
    :raises UnreadableImage: where it cannot be read now.
    """
    with one_image(request.image.uri):
        return await _prepare(reader, vendor, account, request)


async def _prepare(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> PreparedImage:
    image, location, scaled = request.image, parse_uri(request.image.uri), bool(request.spec.preprocessing)
    max_bytes = max_bytes_to_read(vendor, request.spec)
    if isinstance(location, LocalFile):
        try:
            transport = choose_transport(vendor, account, location, None, scaled=scaled)
        except BadInput as error:
            if error.kind != "no_address":
                raise
            raise RejectedImage(str(error), kind=error.kind) from None

        def prepare_file() -> PreparedImage:
            content = reader.read_file(location, max_bytes)
            return _prepare_bytes(vendor, request, transport.way, content, image.version)

        return await reader.in_thread(prepare_file)
    visibility: Visibility = None
    if needs_visibility(vendor, account, location):
        known = reader.knows_visibility(location)
        visibility = reader.visibility(location) if known else await asyncio.to_thread(reader.visibility, location)
    transport = choose_transport(vendor, account, location, visibility, scaled=scaled)
    way = transport.way
    if way == "url":
        head = await reader.read_head(location, vendor.max_bytes)
        if account.image_transport != "auto" or not _needs_bytes(location, head):
            return await _prepare_address(reader, vendor, image, location, head)
        way = vendor.transports[0]
    content = await reader.read(location, max_bytes)
    version = choose_version(image.version, content.version)
    make = partial(_prepare_bytes, vendor, request, way, content.data, version, content.size)
    # Scaling takes a while and releases the interpreter's lock; the rest takes microseconds.
    return await reader.in_thread(make) if scaled else make()


def _needs_bytes(location: ObjectKey | WebUrl, head: Head) -> bool:
    """Whether another program could fetch something else, or nothing, at the image's address.

    Not all of them unpack what they fetch, most take ``a/../b`` for ``b``, which is another key, and few make a login
    of ``user:password@host``, which is no business of the vendor's either.
    """
    if isinstance(location, WebUrl):
        return head.packed or "@" in urlsplit(location.url).netloc
    parts = location.key.split("/")
    return head.packed or "." in parts or ".." in parts


async def _prepare_address(
    reader: Reader, vendor: Vendor, image: Image, location: ObjectKey | WebUrl, head: Head
) -> PreparedImage:
    """Check the image's first bytes only; the vendor fetches the rest."""
    size, version = head.size, head.version
    kind = check_head(vendor, str(location), head.data, size)
    if isinstance(location, ObjectKey):
        picture = Picture(kind, sign=partial(_sign, reader, location))
        return PreparedImage(picture, False, None, choose_version(image.version, version), size)
    version, sha256 = image.version or version, None
    if not version:
        # Only its bytes tell whether it is the image that was described before.
        sha256 = hashlib.sha256((await reader.read(location, vendor.max_bytes)).data).hexdigest()
    return PreparedImage(Picture(kind, url=ascii_address(location.url)), False, sha256, version, size)


_ETAG = re.compile(r"[0-9a-f]{32}(-\d+)?")


def choose_version(listed: str | None, read: str | None) -> str | None:
    """Return the version that identifies an image: the one that was read, where the listing's is of the same kind.

    A catalog's own token, a generation and an ETag differ even for the same content.
    """
    if listed is None or read is None:
        return read or listed
    same_kind = bool(_ETAG.fullmatch(listed)) == bool(_ETAG.fullmatch(read)) and listed.isdigit() == read.isdigit()
    return read if same_kind else listed


def _sign(reader: Reader, location: ObjectKey) -> str:
    try:
        with one_image(str(location)):
            signed = reader.sign(location, SIGNED_FOR_S)
    except RejectedImage as error:
        # The call is admitted by now, and only this class says that it was not sent.
        raise UnreadableImage(str(error), kind=error.kind) from None
    left = signed.expires_at - time.time()
    if left < SHORTEST_S:
        raise UnreadableImage(
            f"{location}: an address signed now would live for {max(0.0, left):.0f} s only, as the storage "
            f"connection's credentials end then; the vendor may need {SHORTEST_S:.0f} s. Use longer-lived "
            "credentials, or image_transport 'upload'.",
            kind="credentials_end",
        )
    return signed.url


def _prepare_bytes(
    vendor: Vendor,
    request: DescribeRequest,
    transport: str,
    content: bytes,
    version: str | None,
    stored_size: int | None = None,
) -> PreparedImage:
    """Return the image as it is sent; ``stored_size`` is that of a packed object."""
    uri, size = masked(request.image.uri), len(content)
    sha256 = hashlib.sha256(content).hexdigest()
    kind = check_whole(vendor, request, content)
    if max_pixels := _max_pixels(request.spec):
        content = scale_down(content, max_pixels, uri=uri)
        kind = check_head(vendor, uri, content[:HEAD], len(content))
    picture = Picture(kind, content, filename=_filename(request.image.uri, kind), inline=transport == "inline")
    stored = size if stored_size is None else stored_size
    return PreparedImage(picture, transport == "upload", sha256, version, stored, size - len(content))


def max_bytes_to_read(vendor: Vendor, spec: Spec) -> int:
    """Return the size of the largest image that is read for this vendor and spec."""
    return LARGEST_TO_SCALE if spec.preprocessing else vendor.max_bytes


def check_whole(vendor: Vendor, request: DescribeRequest, content: bytes) -> str:
    """Return the media type of the whole image, or raise `RejectedImage`. One to be scaled down may be of any size."""
    uri = masked(request.image.uri)
    kind = check_head(vendor, uri, content[:HEAD], None if _max_pixels(request.spec) else len(content))
    check_content(vendor, uri, content, kind)
    return kind


def _max_pixels(spec: Spec) -> int:
    return int(spec.preprocessing.partition("=")[2] or 0)


def _filename(uri: str, kind: str) -> str:
    """Return the image's own name, with the suffix of its real type: vendors may look at it."""
    name = PurePosixPath(urlsplit(uri).path if is_web(uri) else uri)
    suffixes = _SUFFIXES.get(kind, (f".{kind.removeprefix('image/')}",))
    return name.name if name.suffix.lower() in suffixes else f"{name.stem or 'image'}{suffixes[0]}"


_SUFFIXES = {
    "image/jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "image/png": (".png",),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
}

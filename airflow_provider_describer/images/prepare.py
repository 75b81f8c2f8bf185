"""How an image is shown to a vendor: as bytes in the call, by an address, or on the vendor's storage."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadInput, UnreadableImage
from airflow_provider_describer.images.checks import HEAD, check_content, check_image
from airflow_provider_describer.images.reading import Reader, Visibility, is_private_host, read_file
from airflow_provider_describer.images.scaling import scale_down
from airflow_provider_describer.models import DescribeRequest, Image, Picture, Spec
from airflow_provider_describer.storage.address import bucket_address, is_local, is_web, masked
from airflow_provider_describer.storage.bucket import Signed
from airflow_provider_describer.vendors.vendor import Vendor

SIGNED_FOR_S = 2 * 3600.0
"""How long a presigned address lives: a vendor's queue may take an hour before it fetches."""
SHORTEST_S = 600.0
"""One that lives shorter, as the credentials that sign it end, would die in the vendor's queue."""
LARGEST_TO_SCALE = 200_000_000
"""Bytes of an image that is scaled down before it is sent."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A picture ready for one call, and what is known of the content it shows.

    ``upload`` says that its bytes go to the vendor's storage first. ``sha256`` is None where the vendor fetches the
    image itself; ``version`` is then what the image's server calls its content, if anything. ``saved`` counts the bytes
    that scaling it down has saved.
    """

    picture: Picture
    upload: bool
    sha256: str | None
    version: str | None
    size: int | None
    saved: int = 0


@dataclass(frozen=True, slots=True)
class Transport:
    """How an image reaches the vendor (``url``, ``file``, ``inline`` or ``upload``), and why so, for the log."""

    way: str
    why: str


def choose_transport(
    vendor: Vendor, account: Account, uri: str, reach: Visibility, *, scaled: bool = False
) -> Transport:
    """Return how the image reaches the vendor.

    ``auto`` lets the vendor fetch what it can (one transfer instead of two): public web addresses, and for a vendor
    that takes bytes only by way of an upload also objects, by an address that is signed for it.

    :param reach: who could fetch the image by an address.
    :param scaled: whether it is scaled down, which an address knows nothing of.
    :raises BadInput: where the connection's ``image_transport`` does not fit the vendor or the image.
    """
    wanted, preferred = account.image_transport, vendor.transports[0]
    fetchable = reach == "public" or (reach == "private" and is_private_host(account.base_url))
    if wanted == "auto":
        if scaled:
            return Transport(preferred, "they are scaled down first")
        if is_web(uri) and fetchable:
            return Transport("url", f"{vendor.title} fetches public addresses itself")
        if fetchable and preferred == "upload":
            return Transport("url", f"{vendor.title} fetches them by addresses that are signed for it")
        unfetchable = reach is None and reach_matters(vendor, account, uri)
        return Transport(preferred, "they have no address" if unfetchable else f"it is how {vendor.title} takes bytes")
    if wanted != "url" and wanted not in vendor.transports:
        raise BadInput(
            f"Connection {account.conn_id!r}: image_transport is {wanted!r}, which {vendor.title} does not take; "
            f"expected auto, url, {' or '.join(vendor.transports)}."
        )
    if wanted == "url" and (reach is None or scaled):
        because = (
            "max_pixels asks for another image than the one at its address"
            if scaled
            else (
                f"{masked(uri)!r} has no address that the vendor could fetch"
                + (" (the storage connection's credentials cannot sign one)" if bucket_address(uri) else "")
            )
        )
        raise BadInput(f"Connection {account.conn_id!r}: image_transport is 'url', but {because}. Choose auto.")
    return Transport(wanted, "the connection says so")


def reach_matters(vendor: Vendor, account: Account, uri: str) -> bool:
    """Whether `choose_transport` asks who could fetch the image: of an object it takes a signature to tell."""
    return is_web(uri) or account.image_transport == "url" or vendor.transports[0] == "upload"


async def prepare(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> PreparedImage:
    """Read and check the image and return it ready for a call; nothing that is billed happens here.

    :raises RejectedImage: naming the image and what is wrong with it.
    :raises UnreadableImage: where it cannot be read now.
    """
    image, spec = request.image, request.spec
    if is_local(image.uri):
        return await reader.in_thread(_show_file, reader, vendor, account, request)
    reach: Visibility = None
    if reach_matters(vendor, account, image.uri):
        reach = reader.reach(image.uri) if reader.knows(image.uri) else await asyncio.to_thread(reader.reach, image.uri)
    transport = choose_transport(vendor, account, image.uri, reach, scaled=bool(spec.preprocessing)).way
    if transport == "url":
        return await _show_address(reader, vendor, image)
    content = await reader.read(image, most_bytes(vendor, spec))
    version = read_version(image.version, content.version)
    make = partial(_shown, vendor, request, transport, content.data, version)
    # Decoding takes a while and lets other threads run; the rest takes microseconds.
    return await reader.in_thread(make) if spec.preprocessing else make()


async def _show_address(reader: Reader, vendor: Vendor, image: Image) -> PreparedImage:
    """Look at the first bytes only, and let the vendor fetch the rest."""
    head, size, version = await reader.look(image, vendor.max_bytes)
    kind = check_head(vendor, image, head, size)
    if bucket_address(image.uri) is not None:
        version = read_version(image.version, version)
        sign = partial(_signed, image.uri, reader.signer(image.uri))
        return PreparedImage(Picture(kind, sign=sign), False, None, version, size)
    version, sha256 = image.version or version, None
    if not version:
        # Without a token of its server's, only the bytes tell whether the image is the one described before.
        sha256 = hashlib.sha256((await reader.read(image, vendor.max_bytes)).data).hexdigest()
    return PreparedImage(Picture(kind, url=image.uri), False, sha256, version, size)


_ETAG = re.compile(r"[0-9a-f]{32}(-\d+)?")


def read_version(listed: str | None, read: str | None) -> str | None:
    """Return the version that an image is known by: the one that was read, where it can be told from the listing's.

    A catalog's own token, or a generation, is another kind of name than an ETag: that they differ says nothing.
    """
    if listed is None or read is None:
        return read or listed
    same_kind = bool(_ETAG.fullmatch(listed)) == bool(_ETAG.fullmatch(read)) and listed.isdigit() == read.isdigit()
    return read if same_kind else listed


def _signed(uri: str, sign: Callable[[float], Signed]) -> str:
    signed = sign(SIGNED_FOR_S)
    left = signed.expires_at - time.time()
    if left < SHORTEST_S:
        raise UnreadableImage(
            f"{uri}: an address signed now would live for {max(0.0, left):.0f} s only, as the storage connection's "
            f"credentials end then; the vendor may need {SHORTEST_S:.0f} s. Use longer-lived credentials, or "
            "image_transport 'upload'.",
            kind="credentials_end",
        )
    return signed.url


def _show_file(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> PreparedImage:
    uri = request.image.uri
    content = read_file(uri, reader.path(uri), most_bytes(vendor, request.spec))
    transport = choose_transport(vendor, account, uri, None, scaled=bool(request.spec.preprocessing))
    return _shown(vendor, request, transport.way, content, request.image.version)


def most_bytes(vendor: Vendor, spec: Spec) -> int:
    return LARGEST_TO_SCALE if spec.preprocessing else vendor.max_bytes


def _shown(
    vendor: Vendor, request: DescribeRequest, transport: str, content: bytes, version: str | None
) -> PreparedImage:
    image, size = request.image, len(content)
    sha256 = hashlib.sha256(content).hexdigest()
    kind = check(vendor, request, content)
    if max_pixels := _max_pixels(request.spec):
        content = scale_down(content, max_pixels, uri=masked(image.uri)).content
        kind = check_head(vendor, image, content[:HEAD], len(content))
    picture = Picture(kind, content, filename=_filename(image.uri, kind), inline=transport == "inline")
    return PreparedImage(picture, transport == "upload", sha256, version, size, size - len(content))


def check(vendor: Vendor, request: DescribeRequest, content: bytes) -> str:
    """Return the media type of the whole image; one that is to be scaled down may be too large as it is."""
    kind = check_head(vendor, request.image, content[:HEAD], None if _max_pixels(request.spec) else len(content))
    check_content(masked(request.image.uri), content, kind, taker=vendor.title)
    return kind


def _max_pixels(spec: Spec) -> int:
    return int(spec.preprocessing.partition("=")[2] or 0)


def check_head(vendor: Vendor, image: Image, head: bytes, size: int | None) -> str:
    return check_image(
        masked(image.uri),
        head,
        size,
        accepted=vendor.media_types,
        max_bytes=vendor.max_bytes,
        taker=vendor.title,
    )


def _filename(uri: str, kind: str) -> str:
    """The image's own name, with the ending of what it is now: vendors may look at it."""
    name = PurePosixPath(urlsplit(uri).path if is_web(uri) else uri)
    if name.suffix.lower() in _SUFFIXES.get(kind, (name.suffix.lower(),)) and name.suffix:
        return name.name
    return f"{name.stem or 'image'}{_SUFFIXES.get(kind, ('.' + kind.removeprefix('image/'),))[0]}"


_SUFFIXES = {
    "image/jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "image/png": (".png",),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
}

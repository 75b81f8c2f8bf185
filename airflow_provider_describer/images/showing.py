"""How an image is shown to a vendor: as bytes in the call, by its own address, or on the vendor's storage."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_describer.account import Account
from airflow_provider_describer.description import Image, Picture
from airflow_provider_describer.errors import BadInput, RejectedImage, UnreadableImage
from airflow_provider_describer.images.checking import HEAD, check_image
from airflow_provider_describer.images.reading import Reader, is_private_host, is_web, local_path, masked, read_file
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.store.identity import keys_of
from airflow_provider_describer.store.plan import Identified
from airflow_provider_describer.vendors.vendor import Vendor


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture ready for one call, and what is known of the content it shows.

    ``upload`` says that its bytes go to the vendor's storage first. ``sha256`` is None where the vendor fetches the
    image itself; ``version`` is then what the image's server calls its content, if anything.
    """

    picture: Picture
    upload: bool
    sha256: str | None
    version: str | None
    size: int | None


def choose_transport(vendor: Vendor, account: Account, uri: str) -> str:
    """Return how the image reaches the vendor: ``url``, ``file``, ``inline`` or ``upload``.

    ``auto`` passes a public web address through (the vendor fetches it; one transfer instead of two), unless it is one
    that only this network reaches, and sends bytes in the vendor's preferred way otherwise.

    :raises BadInput: where the connection's ``image_transport`` does not fit the vendor or the image.
    """
    wanted = account.image_transport
    if wanted == "auto":
        reachable = is_web(uri) and (is_private_host(account.base_url) or not is_private_host(uri))
        return "url" if reachable else vendor.transports[0]
    if wanted != "url" and wanted not in vendor.transports:
        raise BadInput(
            f"Connection {account.conn_id!r}: image_transport is {wanted!r}, which {vendor.title} does not take; "
            f"expected auto, url, {' or '.join(vendor.transports)}."
        )
    if wanted == "url" and not is_web(uri):
        raise BadInput(
            f"Connection {account.conn_id!r}: image_transport is 'url', but {uri!r} has no address that the vendor "
            "could fetch. Choose auto."
        )
    return wanted


async def show(reader: Reader, vendor: Vendor, account: Account, image: Image) -> Shown:
    """Read and check the image and return it ready for a call; nothing that is billed happens here.

    :raises RejectedImage: naming the image and what is wrong with it.
    :raises UnreadableImage: where it cannot be read now.
    """
    transport = choose_transport(vendor, account, image.uri)
    if not is_web(image.uri):
        return await asyncio.to_thread(_show_file, vendor, account, image)
    if transport != "url":
        content = await reader.read(image, vendor.max_bytes)
        return _shown(vendor, image, transport, content)
    head, size, version = await reader.look(image, vendor.max_bytes)
    kind = _checked(vendor, image, head, size)
    sha256 = None
    if not (version or image.version):
        # Without a token of its server's, only the bytes tell whether the image is the one described before.
        sha256 = hashlib.sha256(await reader.read(image, vendor.max_bytes)).hexdigest()
    return Shown(Picture(kind, url=image.uri), False, sha256, image.version or version, size)


async def identify(reader: Reader, vendor: Vendor, account: Account, asks: Sequence[Ask]) -> list[Identified]:
    """Look at images as `show` does and keep only what they are known by, or why they cannot be described.

    Local files are looked at together in one thread, so a handful at a time is faster than one by one.

    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    if not any(is_web(ask.image.uri) for ask in asks):
        return await asyncio.to_thread(_identify_files, vendor, account, asks)
    found = []
    for ask in asks:
        try:
            shown = await show(reader, vendor, account, ask.image)
        except (RejectedImage, UnreadableImage) as error:
            found.append(Identified(ask, error=error))
        else:
            found.append(_known_by(ask, shown))
    return found


def _identify_files(vendor: Vendor, account: Account, asks: Sequence[Ask]) -> list[Identified]:
    found = []
    for ask in asks:
        try:
            found.append(_known_by(ask, _show_file(vendor, account, ask.image)))
        except (RejectedImage, UnreadableImage) as error:
            found.append(Identified(ask, error=error))
    return found


def _known_by(ask: Ask, shown: Shown) -> Identified:
    return Identified(ask, keys_of(ask.spec, ask.image.uri, shown.sha256, shown.version), shown.sha256, shown.version)


def _show_file(vendor: Vendor, account: Account, image: Image) -> Shown:
    path = local_path(image.uri)
    assert path is not None, "web addresses are shown by show()"
    content = read_file(image.uri, path, vendor.max_bytes)
    return _shown(vendor, image, choose_transport(vendor, account, image.uri), content)


def _shown(vendor: Vendor, image: Image, transport: str, content: bytes) -> Shown:
    kind = _checked(vendor, image, content[:HEAD], len(content))
    picture = Picture(kind, content, filename=_filename(image.uri, kind), inline=transport == "inline")
    sha256 = hashlib.sha256(content).hexdigest()
    return Shown(picture, transport == "upload", sha256, image.version, len(content))


def _checked(vendor: Vendor, image: Image, head: bytes, size: int | None) -> str:
    return check_image(
        masked(image.uri),
        head,
        size,
        accepted=vendor.media_types,
        max_bytes=vendor.max_bytes,
        taker=vendor.title,
    )


def _filename(uri: str, kind: str) -> str:
    name = PurePosixPath(urlsplit(uri).path if is_web(uri) else uri).name or "image"
    return name if "." in name else f"{name}.{kind.removeprefix('image/')}"

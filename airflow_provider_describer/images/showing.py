"""How an image is shown to a vendor: as bytes in the call, by its own address, or on the vendor's storage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_describer.account import Account
from airflow_provider_describer.description import Image, Picture
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.checking import HEAD, check_image
from airflow_provider_describer.images.reading import Reader, is_private_host, is_web
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import mask_query


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
    if transport == "url":
        head, size, version = await reader.look(image)
        content = None
    else:
        content = await reader.read(image, vendor.max_bytes)
        head, size, version = content[:HEAD], len(content), image.version
    kind = check_image(
        mask_query(image.uri),
        head,
        size,
        accepted=vendor.media_types,
        max_bytes=vendor.max_bytes,
        taker=vendor.title,
    )
    picture = Picture(
        media_type=kind,
        content=content,
        url=image.uri if content is None else None,
        filename=_filename(image.uri, kind),
        inline=transport == "inline",
    )
    sha256 = hashlib.sha256(content).hexdigest() if content is not None else None
    return Shown(picture, transport == "upload", sha256, image.version or version, size)


def _filename(uri: str, kind: str) -> str:
    name = PurePosixPath(urlsplit(uri).path if is_web(uri) else uri).name or "image"
    return name if "." in name else f"{name}.{kind.removeprefix('image/')}"

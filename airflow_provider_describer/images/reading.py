"""The bytes of an image, wherever it lies: read once, bounded, and never more than the vendor would take."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from airflow_provider_describer.client.flow import Flow
from airflow_provider_describer.client.transport import AsyncClient
from airflow_provider_describer.description import Image
from airflow_provider_describer.errors import (
    BadInput,
    RejectedImage,
    UnexpectedAnswer,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.images.checking import HEAD
from airflow_provider_describer.vendors.wire import Request, Response, mask_query

REDIRECTS = 5


def local_path(uri: str) -> Path | None:
    """Return the path that a local reference names (``/a/b.jpg``, ``b.jpg``, ``file:///a/b.jpg``), or None.

    :raises BadInput: for a scheme that cannot be read, naming those that can.
    """
    scheme, colons, _ = uri.partition("://")
    if not colons:
        return Path(uri)
    if scheme == "file":
        parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
        if parts.netloc not in ("", "localhost"):
            raise BadInput(f"{uri!r} names the host {parts.netloc!r}; a file is written file:///path (three slashes).")
        return Path(unquote(parts.path))
    if is_web(uri):
        return None
    raise BadInput(f"{uri!r}: images are read from local paths, file:// and https:// addresses, not {scheme}://.")


def is_web(uri: str) -> bool:
    """Whether the reference is an http(s) address."""
    return uri.startswith(("https://", "http://"))


def is_private_host(url: str) -> bool:
    """Whether the address names a host that only this network can reach; looks nothing up."""
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


class Reader:
    """Reads images. ``client`` is for web addresses only and carries no vendor's key."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def read(self, image: Image, max_bytes: int) -> bytes:
        """Return the image's bytes.

        :raises RejectedImage: ``missing`` or ``too_large``: nothing that reading again would mend.
        :raises UnreadableImage: it cannot be read now; that says nothing about whether it is there.
        """
        path = local_path(image.uri)
        if path is not None:
            return await asyncio.to_thread(_read_file, image.uri, path, max_bytes)
        try:
            response = await self._client.arun(_get(image.uri, {}, max_bytes))
        except UnexpectedAnswer as error:
            raise _too_large(image.uri, None, max_bytes) from error
        return response.content

    async def look(self, image: Image) -> tuple[bytes, int | None, str | None]:
        """Return a web image's first 4 KiB, its size and its version token (ETag or Last-Modified) where told."""
        response = await self._client.arun(_get(image.uri, {"range": f"bytes=0-{HEAD - 1}"}, 64 * 1024 * 1024))
        headers = response.headers
        total = headers.get("content-range", "").rpartition("/")[2]
        size = int(total) if total.isdigit() else len(response.content) if response.status == 200 else None
        return response.content[:HEAD], size, headers.get("etag") or headers.get("last-modified")


def _get(url: str, headers: dict[str, str], max_bytes: int) -> Flow[Response]:
    shown, target = mask_query(url), url
    for _ in range(REDIRECTS + 1):
        try:
            response: Response = yield Request(
                "GET", target, {"accept": "image/*,*/*;q=0.5", **headers}, max_answer=max_bytes
            )
        except VendorUnavailable as error:
            raise UnreadableImage(f"{shown}: {error}") from None
        if response.status in (200, 206):
            return response
        location = response.headers.get("location")
        if response.status not in (301, 302, 303, 307, 308) or not location:
            raise _refused(shown, response.status)
        target = urljoin(target, location)
        if not is_web(target):
            raise RejectedImage(f"{shown}: redirects to {mask_query(target)}, which is no web address.", kind="missing")
    raise RejectedImage(f"{shown}: more than {REDIRECTS} redirects.", kind="missing")


def _refused(shown: str, status: int) -> RejectedImage | UnreadableImage:
    if status in (404, 410):
        return RejectedImage(f"{shown}: there is no such image (HTTP {status}).", kind="missing")
    if status in (401, 403):
        return UnreadableImage(f"{shown}: access denied (HTTP {status}); a presigned URL may have expired.")
    if status == 416:
        return RejectedImage(f"{shown}: the file is empty (0 bytes); expected an image.", kind="empty")
    return UnreadableImage(f"{shown}: HTTP {status}.")


def _read_file(uri: str, path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than allowed shows that there is more, without reading all of a huge file.
            content = file.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise _too_large(uri, path.stat().st_size, max_bytes)
            return content
    except FileNotFoundError:
        raise RejectedImage(f"{uri}: there is no such file.", kind="missing") from None
    except IsADirectoryError:
        raise RejectedImage(
            f"{uri}: is a directory, expected an image. List its files first.", kind="not_an_image"
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"{uri}: cannot be read: {type(error).__name__}: {error}") from None


def _too_large(uri: str, size: int | None, max_bytes: int) -> RejectedImage:
    found = f"{size / 1e6:.1f} MB is" if size else "is"
    return RejectedImage(
        f"{mask_query(uri)}: {found} more than the {max_bytes / 1e6:.1f} MB that are taken. Scale it down.",
        kind="too_large",
    )

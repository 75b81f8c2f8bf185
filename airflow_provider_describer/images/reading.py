"""The bytes of an image, wherever it lies: read once, bounded, and never more than the vendor would take."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import stat
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
    scheme, colons, rest = uri.partition("://")
    if not colons:
        return Path(uri)
    if scheme.lower() == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise BadInput(f"{uri!r} names the host {host!r}; a file is written file:///path (three slashes).")
        return Path(unquote(slash + path))
    if is_web(uri):
        _check_address(uri)
        return None
    raise BadInput(
        f"{mask_query(uri)!r}: images are read from local paths, file:// and https:// addresses, not {scheme}://."
    )


def _check_address(uri: str) -> None:
    """Refuse what no request could be sent to, such as a port of 99999, before the run and not in its middle."""
    try:
        parts = urlsplit(uri)
        good = bool(parts.hostname) and parts.port != 0 and not any(c < " " or c == "\x7f" for c in uri)
    except ValueError:
        good = False
    if not good:
        raise BadInput(f"{mask_query(uri)!r} is no address; expected something like 'https://example.com/a.jpg'.")


def is_web(uri: str) -> bool:
    """Whether the reference is an http(s) address."""
    return uri[:8].lower().startswith(("https://", "http://"))


def masked(uri: str) -> str:
    """Return the reference as messages and rows name it: a web address without its query, which may be a secret.

    A path keeps its ``?`` and ``#``: there they are part of the name.
    """
    return uri if local_or_file(uri) else mask_query(uri)


def local_or_file(uri: str) -> bool:
    """Whether the reference names a local file."""
    return "://" not in uri or uri[:7].lower() == "file://"


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
            return await asyncio.to_thread(read_file, image.uri, path, max_bytes)
        return (await self._client.arun(_get(image.uri, {}, max_bytes))).content

    async def look(self, image: Image, max_bytes: int) -> tuple[bytes, int | None, str | None]:
        """Return a web image's first 4 KiB, its size and its version token (ETag or Last-Modified) where told.

        :raises RejectedImage, UnreadableImage: as `read`; a server that knows no ranges sends it all.
        """
        response = await self._client.arun(_get(image.uri, {"range": f"bytes=0-{HEAD - 1}"}, max_bytes))
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
        except BadInput as error:
            if error.kind != "bad_address":
                raise
            raise RejectedImage(f"{shown}: {error}", kind="missing") from None
        except UnexpectedAnswer:
            raise _too_large(url, None, max_bytes) from None
        if response.status in (200, 206):
            return response
        location = response.headers.get("location")
        if response.status not in (301, 302, 303, 307, 308) or not location:
            raise _refused(shown, response.status)
        try:
            target = urljoin(target, location)
            is_address = local_path(target) is None
        except ValueError:
            target, is_address = location, False
        if not is_address:
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


def read_file(uri: str, path: str | Path, max_bytes: int) -> bytes:
    """Return a local file's bytes; blocking. Errors as `Reader.read`'s."""
    try:
        # Not waiting: opening a pipe would wait for a writer, for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _content(uri, descriptor, max_bytes)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise RejectedImage(f"{uri}: there is no such file.", kind="missing") from None
    except IsADirectoryError:
        raise RejectedImage(
            f"{uri}: is a directory, expected an image. List its files first.", kind="not_an_image"
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"{uri}: cannot be read: {type(error).__name__}: {error}") from None


def _content(uri: str, descriptor: int, max_bytes: int) -> bytes:
    about = os.fstat(descriptor)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError
    if stat.S_ISFIFO(about.st_mode):
        raise RejectedImage(f"{uri}: is a pipe, expected an image.", kind="not_an_image")
    if about.st_size > max_bytes:
        raise _too_large(uri, about.st_size, max_bytes)
    content = b""
    # The size is what the file says of itself (0 below /proc); its end is what counts.
    while part := os.read(descriptor, max(about.st_size - len(content), 0) + 65536):
        content = content + part if content else part
        if len(content) > max_bytes:
            raise _too_large(uri, None, max_bytes)
    return content


def _too_large(uri: str, size: int | None, max_bytes: int) -> RejectedImage:
    found = f"{size / 1e6:.1f} MB is" if size else "is"
    return RejectedImage(
        f"{masked(uri)}: {found} more than the {max_bytes / 1e6:.1f} MB that are taken. Scale it down.",
        kind="too_large",
    )

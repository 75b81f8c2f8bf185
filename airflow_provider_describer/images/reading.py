"""The bytes of an image, wherever it lies: read once, bounded, and never more than the vendor would take."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urljoin, urlsplit

from airflow_provider_describer.errors import (
    BadInput,
    BucketError,
    RejectedImage,
    UnexpectedAnswer,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.http.flow import Flow
from airflow_provider_describer.images.checks import HEAD
from airflow_provider_describer.images.trust import Trust, is_public_host
from airflow_provider_describer.models import Image
from airflow_provider_describer.storage.address import (
    Address,
    bucket_address,
    is_plain,
    is_web,
    local_path,
    mask_query,
    masked,
)
from airflow_provider_describer.storage.bucket import Bucket, Content, Signed
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.vendors.wire import Request, Response

REDIRECTS = 5
THREADS = 3
"""For files: more of them read no faster from one disk, and each keeps memory of images that it has read."""

T = TypeVar("T")

Visibility = Literal["public", "private"] | None
"""Who could fetch an image by an address: anybody, this network alone, or nobody as it has none."""


def check_reference(uri: str) -> None:
    """Let pass what can be read: a local path, ``file://``, ``http(s)://``, ``s3://`` and ``gs://``.

    :raises BadInput: naming what is wrong with it.
    """
    address = bucket_address(uri)
    if address is None:
        local_path(uri)
    elif not address.key.strip("/"):
        raise BadInput(f"{uri!r} names a bucket and no image in it; list it first (ListImagesOperator).")


def is_private_host(url: str) -> bool:
    """Whether the address names a host that only this network can reach; looks nothing up."""
    return not is_public_host(urlsplit(url).hostname or "")


class Reader:
    """Reads images: each at most once, none larger than the vendor takes.

    :param client: for web addresses only; carries no vendor's key.
    :param trust: what the listing may lead to; None for whatever it likes.
    :param open_bucket: for s3:// and gs://.
    """

    def __init__(
        self, client: AsyncClient, *, trust: Trust | None = None, open_bucket: OpenBucket | None = None
    ) -> None:
        self._client = client
        self._trust = trust
        self._open_bucket = open_bucket
        self._reaches: dict[tuple[str, str], Visibility] = {}
        self._threads = ThreadPoolExecutor(THREADS, "images")

    def in_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Do blocking work on images, such as reading a file, beside the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def path(self, uri: str) -> Path:
        """Return the path of a local image.

        :raises RejectedImage: for one outside the folder that the listing is for.
        """
        path = local_path(uri)
        assert path is not None, "only of local references"
        return self._trust.check_local(uri, path) if self._trust else path

    async def read(self, image: Image, max_bytes: int) -> Content:
        """Return an image's bytes, and of an object the version of what was read.

        :raises RejectedImage: ``missing`` or ``too_large``: nothing that reading again would mend.
        :raises UnreadableImage: it cannot be read now; that says nothing about whether it is there.
        """
        if (address := bucket_address(image.uri)) is not None:
            return await self._read_object(address, max_bytes)
        if is_web(image.uri):
            content = (await self._client.arun(_get(image.uri, {}, max_bytes, self._trust))).content
        else:
            content = await self.in_thread(read_file, image.uri, self.path(image.uri), max_bytes)
        return Content(content, None, len(content))

    async def look(self, image: Image, max_bytes: int) -> tuple[bytes, int | None, str | None]:
        """Return an image's first 4 KiB, its size and its version token (ETag or Last-Modified) where told.

        :raises RejectedImage, UnreadableImage: as `read`; a server that knows no ranges sends it all.
        """
        if (address := bucket_address(image.uri)) is not None:
            found = await self._read_object(address, None, HEAD)
            return found.data, found.size, found.version
        response = await self._client.arun(_get(image.uri, {"range": f"bytes=0-{HEAD - 1}"}, max_bytes, self._trust))
        headers = response.headers
        total = headers.get("content-range", "").rpartition("/")[2]
        size = int(total) if total.isdigit() else len(response.content) if response.status == 200 else None
        return response.content[:HEAD], size, headers.get("etag") or headers.get("last-modified")

    def reach(self, uri: str) -> Visibility:
        """Return who could fetch the image by an address: blocking for an object, as one is signed to see its host.

        :raises UnreadableImage: where it cannot be told now.
        """
        if is_web(uri):
            return "private" if is_private_host(uri) else "public"
        address = bucket_address(uri)
        if address is None:
            return None
        if (address.scheme, address.bucket) not in self._reaches:
            try:
                # Of any key: the image's own may be one that cannot be signed, which says nothing about the others.
                reach = self.reach(self._bucket(address).sign("image", 60).url)
            except BucketError as error:
                if error.kind not in ("unsupported", "denied"):
                    raise UnreadableImage(str(error), kind=error.kind) from None
                reach = None
            self._reaches[address.scheme, address.bucket] = reach
        return self._reaches[address.scheme, address.bucket]

    def knows(self, uri: str) -> bool:
        """Whether `reach` would have nothing to ask."""
        address = bucket_address(uri)
        return address is None or (address.scheme, address.bucket) in self._reaches

    def signer(self, uri: str) -> Callable[[float], Signed]:
        """Return what signs an address of the object, for that many seconds. Blocking: it may ask the cloud."""
        address = bucket_address(uri)
        assert address is not None, "only of objects"

        def sign(seconds: float) -> Signed:
            try:
                return self._bucket(address).sign(address.key, seconds)
            except BucketError as error:
                raise UnreadableImage(str(error), kind=error.kind) from None

        return sign

    async def _read_object(self, address: Address, max_bytes: int | None, length: int | None = None) -> Content:
        try:
            return await self._bucket(address).aread(address.key, max_bytes=max_bytes, length=length)
        except BucketError as error:
            raise _unread(address, error, max_bytes) from None

    def _bucket(self, address: Address) -> Bucket:
        if self._open_bucket is None:
            raise BadInput(f"{address}: nothing here knows how to open buckets; give a storage_conn_id.")
        return self._open_bucket(address.scheme, address.bucket)


def _unread(address: Address, error: BucketError, max_bytes: int | None) -> Exception:
    """What a bucket's refusal means for one image, and where it means as much for all of them."""
    match error.kind:
        case "no_such_object":
            return RejectedImage(f"{address}: there is no such object.", kind="missing")
        case "too_large":
            return _too_large(str(address), None, max_bytes or 0)
        case "unsupported" if not is_plain(address.key):
            return RejectedImage(str(error), kind="unsupported_key")
        case "no_such_bucket" | "wrong_region":
            return BadInput(str(error), kind=error.kind)
    return UnreadableImage(str(error), kind=error.kind)


def _get(url: str, headers: dict[str, str], max_bytes: int, trust: Trust | None) -> Flow[Response]:
    shown, target = mask_query(url), url
    for _ in range(REDIRECTS + 1):
        if trust:
            trust.check_web(target, shown)
        try:
            response: Response = yield Request(
                "GET", target, {"accept": "image/*,*/*;q=0.5", **headers}, max_answer=max_bytes
            )
        except VendorUnavailable as error:
            raise UnreadableImage(f"{shown}: {error}") from None
        except BadInput as error:
            if error.kind not in ("bad_address", "forbidden_address"):
                raise
            kind = "missing" if error.kind == "bad_address" else error.kind
            raise RejectedImage(f"{shown}: {error}", kind=kind) from None
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
    if status == 400:
        return UnreadableImage(f"{shown}: HTTP 400; if it is a presigned URL, it may have expired.")
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
    # One byte more than the file says it has: where none comes, that was its end.
    content = os.read(descriptor, about.st_size + 1) if about.st_size else b""
    if about.st_size and len(content) == about.st_size:
        return content
    # It grows, or says nothing of its size, as below /proc: its end is what counts.
    while part := os.read(descriptor, 65536):
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

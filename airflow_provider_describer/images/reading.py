"""Reads the bytes of an image from disk, bucket or web: once, and never more than the vendor takes."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import urljoin

from airflow_provider_describer.errors import (
    BadInput,
    BucketError,
    RejectedImage,
    UnexpectedAnswer,
    UnreadableImage,
    VendorUnavailable,
)
from airflow_provider_describer.http.client import LASTING_FAILURES, AsyncClient
from airflow_provider_describer.http.flow import Flow
from airflow_provider_describer.images.checks import HEAD
from airflow_provider_describer.images.encoding import packings, unpack_object
from airflow_provider_describer.images.trust import Trust, is_private_host
from airflow_provider_describer.storage.address import (
    LocalFile,
    Location,
    ObjectKey,
    WebUrl,
    mask_query,
    parse_uri,
)
from airflow_provider_describer.storage.bucket import Bucket, Content, Signed
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.vendors.wire import Request, Response

REDIRECTS = 5
THREADS = 3
"""For files: more threads read no faster from one disk, and each holds an image in memory."""

_MAY_PASS = (408, 425, 429)
"""HTTP statuses below 500 after which a later request may succeed."""
_BAD_PATHS = (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
"""Errors of a path that leads to no file, whenever it is opened."""

T = TypeVar("T")

Visibility = Literal["public", "private"] | None
"""Who can fetch an image by an address: anyone, only this network, or no one as it has no address."""


class Head(NamedTuple):
    """An image's first 4 KiB, its size and its version (ETag or Last-Modified); None for what is not told.

    ``packed``: it is stored or sent with a Content-Encoding, which not every program undoes.
    """

    data: bytes
    size: int | None
    version: str | None
    packed: bool = False


class Reader:
    """Reads images, none larger than a limit.

    :param client: for web images only; it carries no vendor's key.
    :param trust: what the listing may lead to; None to allow anything.
    :param open_bucket: opens the buckets of s3:// and gs:// images.
    """

    def __init__(
        self, client: AsyncClient, *, trust: Trust | None = None, open_bucket: OpenBucket | None = None
    ) -> None:
        self._client = client
        self._trust = trust
        self._open_bucket = open_bucket
        self._visibilities: dict[tuple[str, str], Visibility] = {}
        self._threads = ThreadPoolExecutor(THREADS, "images")

    def in_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Run blocking work on images, such as reading a file, outside the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def read(self, location: Location, max_bytes: int) -> Content:
        """Return an image's bytes, unpacked, and of an object the version and the size of what is stored.

        :raises RejectedImage: ``missing``, ``denied``, ``too_large`` and other kinds that waiting would not change.
        :raises UnreadableImage: it cannot be read now, and may be read later: a time-out, a 5xx, a throttled store.
        :raises BucketError: ``bad_credentials``: no object can be read with this connection.
        """
        if isinstance(location, ObjectKey):
            return await self._read_object(location, max_bytes)
        if isinstance(location, WebUrl):
            content = (await self._fetch(location, max_bytes)).content
        else:
            content = await self.in_thread(self.read_file, location, max_bytes)
        return Content(content, None, len(content))

    async def read_head(self, location: ObjectKey | WebUrl, max_bytes: int) -> Head:
        """Return the beginning of an image.

        Of a packed image no part can be unpacked: it is read whole, and checked to be no larger than ``max_bytes``.

        :raises RejectedImage, UnreadableImage, BucketError: as `read`; a web server without ranges sends the whole
            image.
        """
        if isinstance(location, ObjectKey):
            found = await self._read_object(location, max_bytes, HEAD)
            return Head(found.data[:HEAD], found.size, found.version, bool(packings(found.encoding)))
        try:
            response = await self._fetch(location, max_bytes, {"range": f"bytes=0-{HEAD - 1}"})
        except RejectedImage as error:
            if error.kind != "undecodable":
                raise
            response = await self._fetch(location, max_bytes)
        packed = bool(packings(response.headers.get("content-encoding", "")))
        if response.status == 206 and packed:
            response = await self._fetch(location, max_bytes)
        headers = response.headers
        total = headers.get("content-range", "").rpartition("/")[2]
        size = int(total) if total.isdigit() else len(response.content) if response.status == 200 else None
        return Head(response.content[:HEAD], size, headers.get("etag") or headers.get("last-modified"), packed)

    def read_file(self, file: LocalFile, max_bytes: int) -> bytes:
        """Return a local file's bytes; blocking. Raises as `read`, and ``outside_base`` as `Trust.check_local`."""
        path = self._trust.check_local(file.uri, file.path) if self._trust else file.path
        return _read_file(file.uri, path, max_bytes)

    def visibility(self, location: Location) -> Visibility:
        """Return who can fetch the image by an address. Blocks for an object: one address is signed to see its host.

        :raises UnreadableImage: where it cannot be found out now.
        :raises BucketError: ``bad_credentials``.
        """
        if isinstance(location, WebUrl):
            return "private" if is_private_host(location.url) else "public"
        if isinstance(location, LocalFile):
            return None
        bucket = (location.scheme, location.bucket)
        if bucket not in self._visibilities:
            try:
                # A made-up key: the image's own may be one that cannot be signed, unlike the others in the bucket.
                url = self._bucket(location).sign("image", 60).url
                self._visibilities[bucket] = "private" if is_private_host(url) else "public"
            except BucketError as error:
                if error.kind == "bad_credentials":
                    raise
                if error.kind not in ("unsupported", "denied"):
                    raise UnreadableImage(str(error), kind=error.kind) from None
                self._visibilities[bucket] = None
        return self._visibilities[bucket]

    def knows_visibility(self, location: Location) -> bool:
        """Whether `visibility` would not block."""
        return not isinstance(location, ObjectKey) or (location.scheme, location.bucket) in self._visibilities

    def sign(self, location: ObjectKey, seconds: float) -> Signed:
        """Return an address of the object for this many seconds, or raise `UnreadableImage`; may block on the cloud."""
        try:
            return self._bucket(location).sign(location.key, seconds)
        except BucketError as error:
            raise UnreadableImage(str(error), kind=error.kind) from None

    async def _read_object(self, location: ObjectKey, max_bytes: int, length: int | None = None) -> Content:
        """Read an object, unpacked; of one that is not packed only the first ``length`` bytes."""
        bucket, key = self._bucket(location), location.key
        try:
            found = await bucket.aread(key, max_bytes=max_bytes if length is None else None, length=length)
            if not packings(found.encoding):
                return found
            if length is not None and found.size > len(found.data):
                found = await bucket.aread(key, max_bytes=max_bytes)
        except BucketError as error:
            raise _object_error(location, error, max_bytes) from None
        data = await self.in_thread(unpack_object, str(location), found.data, found.encoding, max_bytes)
        return Content(data, found.version, found.size, found.encoding)

    async def _fetch(self, location: WebUrl, max_bytes: int, headers: dict[str, str] | None = None) -> Response:
        return await self._client.arun(_fetch(location, headers or {}, max_bytes, self._trust))

    def _bucket(self, location: ObjectKey) -> Bucket:
        if self._open_bucket is None:
            raise BadInput(f"{location}: no bucket can be opened here; give a storage_conn_id.")
        try:
            return self._open_bucket(location.scheme, location.bucket)
        except BadInput as error:
            raise RejectedImage(f"{location}: {error}", kind="bucket_not_opened") from None
        except BucketError as error:
            raise _object_error(location, error, None) from None


def _object_error(location: ObjectKey, error: BucketError, max_bytes: int | None) -> Exception:
    match error.kind:
        case "no_such_object":
            return RejectedImage(f"{location}: there is no such object.", kind="missing")
        case "too_large":
            return _too_large(str(location), None, max_bytes or 0)
        case "bad_credentials":
            # It concerns all images of the connection and is recorded against none.
            return error
        case "throttled" | "unreachable":
            return UnreadableImage(str(error), kind=error.kind)
    return RejectedImage(str(error), kind=error.kind)


def _fetch(location: WebUrl, headers: dict[str, str], max_bytes: int, trust: Trust | None) -> Flow[Response]:
    name, target = str(location), location.url
    for _ in range(REDIRECTS + 1):
        if trust:
            trust.check_web(target, name)
        response = yield from _get(name, target, headers, max_bytes)
        if response.status in (200, 206):
            return response
        redirect = response.headers.get("location")
        if response.status not in (301, 302, 303, 307, 308) or not redirect:
            raise _status_error(name, response.status)
        try:
            to = parse_uri(urljoin(target, redirect))
        except ValueError:
            to = None
        target = to.url if isinstance(to, WebUrl) else redirect
        if not isinstance(to, WebUrl):
            raise RejectedImage(f"{name}: redirects to {mask_query(target)}, which is no web address.", kind="missing")
    raise RejectedImage(f"{name}: more than {REDIRECTS} redirects.", kind="missing")


def _get(name: str, url: str, headers: dict[str, str], max_bytes: int) -> Flow[Response]:
    try:
        # A range of a packed image could not be unpacked.
        headers = {"accept": "image/*,*/*;q=0.5", "accept-encoding": "identity", **headers}
        response: Response = yield Request("GET", url, headers, max_answer=max_bytes)
    except VendorUnavailable as error:
        if error.kind in LASTING_FAILURES:
            raise RejectedImage(f"{name}: {error}", kind=error.kind) from None
        raise UnreadableImage(f"{name}: {error}") from None
    except BadInput as error:
        if error.kind not in ("bad_address", "forbidden_address"):
            raise
        raise RejectedImage(f"{name}: {error}", kind=error.kind) from None
    except UnexpectedAnswer:
        raise _too_large(name, None, max_bytes) from None
    return response


def _status_error(name: str, status: int) -> RejectedImage | UnreadableImage:
    """Return the error for an answer that is no image: `UnreadableImage` only for what may pass by itself."""
    match status:
        case 404 | 410:
            return RejectedImage(f"{name}: there is no such image (HTTP {status}).", kind="missing")
        case 416:
            return RejectedImage(f"{name}: the file is empty (0 bytes); expected an image.", kind="empty")
        case 400 | 401 | 403:
            message = f"{name}: access denied (HTTP {status}); a presigned URL may have expired: list it anew."
            return RejectedImage(message, kind="denied")
    if 500 <= status < 600 or status in _MAY_PASS:
        return UnreadableImage(f"{name}: HTTP {status}.")
    return RejectedImage(f"{name}: the server sends no image (HTTP {status}).", kind="refused")


def _read_file(name: str, path: Path, max_bytes: int) -> bytes:
    try:
        # Opening a pipe would otherwise wait for a writer.
        with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            about = os.fstat(file.fileno())
            if stat.S_ISFIFO(about.st_mode):
                raise RejectedImage(f"{name}: is a pipe, expected an image.", kind="not_an_image")
            if about.st_size > max_bytes:
                raise _too_large(name, about.st_size, max_bytes)
            # One byte more than the file's size: if no more comes than its size, the file ended there.
            content = file.read(about.st_size + 1) if about.st_size else b""
            if about.st_size and len(content) == about.st_size:
                return content
            # The file grows, or reports no size, as below /proc: read to its end.
            while part := file.read(65536):
                content = content + part if content else part
                if len(content) > max_bytes:
                    raise _too_large(name, None, max_bytes)
            return content
    except FileNotFoundError:
        raise RejectedImage(f"{name}: there is no such file.", kind="missing") from None
    except IsADirectoryError:
        message = f"{name}: is a directory, expected an image. List its files first."
        raise RejectedImage(message, kind="not_an_image") from None
    except (OSError, ValueError) as error:
        message = f"{name}: cannot be read: {type(error).__name__}: {error}"
        if isinstance(error, PermissionError):
            raise RejectedImage(message, kind="denied") from None
        if isinstance(error, ValueError) or error.errno in _BAD_PATHS:
            raise RejectedImage(message, kind="bad_path") from None
        raise UnreadableImage(message) from None


def _too_large(name: str, size: int | None, max_bytes: int) -> RejectedImage:
    found = f"{size / 1e6:.1f} MB is" if size else "is"
    return RejectedImage(
        f"{name}: {found} more than the {max_bytes / 1e6:.1f} MB that are taken. Scale it down.", kind="too_large"
    )

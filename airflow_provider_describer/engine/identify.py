"""The identities of images, found before any call is made."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from airflow_provider_describer.account import Account
from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.errors import RejectedImage, UnreadableImage
from airflow_provider_describer.images.checks import check_head
from airflow_provider_describer.images.prepare import check_whole, max_bytes_to_read, one_image, prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.storage.address import LocalFile, ObjectKey, is_local, parse_uri
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.vendors.vendor import Vendor

CHUNK = 16
"""Images that are identified together: a thread for each local file would cost more than reading it."""
_STOPPED = UnreadableImage("The run was stopped before it looked at this image.", kind="stopped")


async def identify_all(
    reader: Reader,
    vendor: Vendor,
    account: Account,
    requests: Sequence[DescribeRequest],
    *,
    concurrency: int,
    stopped: Callable[[], bool] = lambda: False,
) -> list[IdentifiedImage]:
    """Identify all images as `identify` does; return them in the order given.

    :param concurrency: chunks of images that are identified at a time.
    :param stopped: once true, every image that is left gets an error that says so.
    :raises DescriberError: if it is not about one image.
    """
    chunks = [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]
    identified: list[list[IdentifiedImage]] = [[]] * len(chunks)
    queue = iter(enumerate(chunks))

    async def work() -> None:
        for number, chunk in queue:
            if stopped():
                identified[number] = [IdentifiedImage(request, error=_STOPPED) for request in chunk]
            else:
                identified[number] = await identify(reader, vendor, account, chunk)

    if all(is_local(request.image.uri) for request in requests):
        # More threads that read from one disk slow each other down.
        concurrency = min(concurrency, 2)
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(chunks))):
                workers.create_task(work())
    except BaseExceptionGroup as group:
        # Callers expect one of our errors, not a group.
        raise group.exceptions[0] from None
    return [image for chunk in identified for image in chunk]


async def identify(
    reader: Reader, vendor: Vendor, account: Account, requests: Sequence[DescribeRequest]
) -> list[IdentifiedImage]:
    """Read and check images as `prepare` does; keep only their identities, or why they cannot be described.

    An object or web image whose listing names its version is not read: its name and version are enough. Local files
    are read together in one thread.

    :raises DescriberError: if it is not about one image.
    """
    if all(is_local(request.image.uri) for request in requests):
        return await reader.in_thread(_identify_files, reader, vendor, requests)
    return [await _identify_one(reader, vendor, account, request) for request in requests]


async def _identify_one(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> IdentifiedImage:
    try:
        with one_image(request.image.uri):
            return await _identified(reader, vendor, account, request)
    except (RejectedImage, UnreadableImage) as error:
        return _unusable(request, error)


async def _identified(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> IdentifiedImage:
    if request.flaw:
        raise request.flaw
    image = request.image
    if image.version and not is_local(image.uri):
        return identified_image(request, None, image.version, image.size)
    location = parse_uri(image.uri)
    if not isinstance(location, ObjectKey):
        prepared = await prepare(reader, vendor, account, request)
        return identified_image(request, prepared.sha256, prepared.version, prepared.size)
    head = await reader.read_head(location, max_bytes_to_read(vendor, request.spec))
    if not request.spec.preprocessing:
        check_head(vendor, str(location), head.data, head.size)
    return identified_image(request, None, head.version, head.size)


def _identify_files(reader: Reader, vendor: Vendor, requests: Sequence[DescribeRequest]) -> list[IdentifiedImage]:
    found = []
    for request in requests:
        try:
            with one_image(request.image.uri):
                found.append(_identified_file(reader, vendor, request))
        except (RejectedImage, UnreadableImage) as error:
            found.append(_unusable(request, error))
    return found


def _identified_file(reader: Reader, vendor: Vendor, request: DescribeRequest) -> IdentifiedImage:
    if request.flaw:
        raise request.flaw
    file = parse_uri(request.image.uri)
    assert isinstance(file, LocalFile), "only local images are identified together"
    content = reader.read_file(file, max_bytes_to_read(vendor, request.spec))
    check_whole(vendor, request, content)
    return identified_image(request, hashlib.sha256(content).hexdigest(), request.image.version, len(content))


def _unusable(request: DescribeRequest, error: RejectedImage | UnreadableImage) -> IdentifiedImage:
    # Its traceback would hold the whole image in memory for as long as the plan lives.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return IdentifiedImage(request, error=error)


def identified_image(
    request: DescribeRequest, sha256: str | None, version: str | None, size: int | None
) -> IdentifiedImage:
    """Return the image with the identities that its content has."""
    uri = request.image.uri
    keys = identity_keys(request.spec, uri, sha256, version, size)
    # One that cannot be asked has no identities.
    chain = (identity_keys(one.spec, uri, sha256, version, size) if one else () for one in request.chain)
    return IdentifiedImage(request, keys, sha256, version, chain_keys=tuple(chain))

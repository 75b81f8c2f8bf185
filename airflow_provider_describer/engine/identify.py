"""What images are known by, found out before anything is asked about them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from airflow_provider_describer.account import Account
from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.errors import RejectedImage, UnreadableImage
from airflow_provider_describer.images.prepare import check_head, check_whole, max_bytes_to_read, prepare
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.storage.address import LocalFile, ObjectKey, is_local, parse_uri
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.vendors.vendor import Vendor

TOGETHER = 16
"""Images that are looked at in one go: handing each to a thread of its own costs more than reading it."""
_STOPPED = UnreadableImage("The run was stopped before it looked at this image.", kind="stopped")


async def identify_all(
    reader: Reader,
    vendor: Vendor,
    account: Account,
    requests: Sequence[DescribeRequest],
    *,
    together: int,
    stopped: Callable[[], bool] = lambda: False,
) -> list[IdentifiedImage]:
    """Look at all images as `identify` does, and return what is known of each, in their order.

    :param together: handfuls of images that are looked at at a time.
    :param stopped: once true, no further image is looked at: each gets an error that says so.
    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    identified: list[list[IdentifiedImage]] = [[]] * (-(-len(requests) // TOGETHER))
    queue = iter(range(len(identified)))

    async def work() -> None:
        for number in queue:
            handful = requests[number * TOGETHER : (number + 1) * TOGETHER]
            if stopped():
                identified[number] = [IdentifiedImage(request, error=_STOPPED) for request in handful]
            else:
                identified[number] = await identify(reader, vendor, account, handful)

    if all(is_local(request.image.uri) for request in requests):
        # More threads on one disk's files only stand in each other's way.
        together = min(together, 2)
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(together, len(identified))):
                workers.create_task(work())
    except BaseExceptionGroup as group:
        # The first one says it; whoever catches errors of ours expects no group of them.
        raise group.exceptions[0] from None
    return [image for handful in identified for image in handful]


async def identify(
    reader: Reader, vendor: Vendor, account: Account, requests: Sequence[DescribeRequest]
) -> list[IdentifiedImage]:
    """Look at images as `prepare` does and keep only what they are known by, or why they cannot be described.

    An object or web image whose listing names its version is not looked at: its name and version are enough. Local
    files are looked at together in one thread, so a handful at a time is faster than one by one.

    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    if all(is_local(request.image.uri) for request in requests):
        return await reader.in_thread(_identify_files, reader, vendor, requests)
    return [await _identified(reader, vendor, account, request) for request in requests]


async def _identified(reader: Reader, vendor: Vendor, account: Account, request: DescribeRequest) -> IdentifiedImage:
    image = request.image
    try:
        if image.version and not is_local(image.uri):
            return _identity(request, None, image.version, image.size)
        location = parse_uri(image.uri)
        if not isinstance(location, ObjectKey):
            shown = await prepare(reader, vendor, account, request)
            return _identity(request, shown.sha256, shown.version, shown.size)
        head, size, version = await reader.read_head(location, vendor.max_bytes)
        if not request.spec.preprocessing:
            check_head(vendor, image, head, size)
        return _identity(request, None, version, size)
    except (RejectedImage, UnreadableImage) as error:
        return IdentifiedImage(request, error=_alone(error))


def _identify_files(reader: Reader, vendor: Vendor, requests: Sequence[DescribeRequest]) -> list[IdentifiedImage]:
    found = []
    for request in requests:
        try:
            file = parse_uri(request.image.uri)
            assert isinstance(file, LocalFile), "only local images are identified together"
            content = reader.read_file(file, max_bytes_to_read(vendor, request.spec))
            check_whole(vendor, request, content)
            found.append(_identity(request, hashlib.sha256(content).hexdigest(), request.image.version, len(content)))
        except (RejectedImage, UnreadableImage) as error:
            found.append(IdentifiedImage(request, error=_alone(error)))
    return found


def _alone(error: RejectedImage | UnreadableImage) -> RejectedImage | UnreadableImage:
    """The error without where it came from: that holds the whole image in memory for as long as the plan lives."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _identity(request: DescribeRequest, sha256: str | None, version: str | None, size: int | None) -> IdentifiedImage:
    return IdentifiedImage(
        request, identity_keys(request.spec, request.image.uri, sha256, version, size), sha256, version
    )

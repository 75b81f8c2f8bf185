"""What images are known by, found out before anything is asked about them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from airflow_provider_describer.account import Account
from airflow_provider_describer.buckets.address import bucket_address
from airflow_provider_describer.errors import RejectedImage, UnreadableImage
from airflow_provider_describer.images.reading import Reader, is_local, read_file
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.images.showing import check, check_head, most_bytes, show
from airflow_provider_describer.store.identity import keys_of
from airflow_provider_describer.store.plan import Identified
from airflow_provider_describer.vendors.vendor import Vendor

TOGETHER = 16
"""Images that are looked at in one go: handing each to a thread of its own costs more than reading it."""
_STOPPED = UnreadableImage("The run was stopped before it looked at this image.", kind="stopped")


async def identify_all(
    reader: Reader,
    vendor: Vendor,
    account: Account,
    asks: Sequence[Ask],
    *,
    together: int,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Identified]:
    """Look at all images as `identify` does, and return what is known of each, in their order.

    :param together: handfuls of images that are looked at at a time.
    :param stopped: once true, no further image is looked at: each gets an error that says so.
    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    identified: list[list[Identified]] = [[]] * (-(-len(asks) // TOGETHER))
    queue = iter(range(len(identified)))

    async def work() -> None:
        for number in queue:
            handful = asks[number * TOGETHER : (number + 1) * TOGETHER]
            if stopped():
                identified[number] = [Identified(ask, error=_STOPPED) for ask in handful]
            else:
                identified[number] = await identify(reader, vendor, account, handful)

    if all(is_local(ask.image.uri) for ask in asks):
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


async def identify(reader: Reader, vendor: Vendor, account: Account, asks: Sequence[Ask]) -> list[Identified]:
    """Look at images as `show` does and keep only what they are known by, or why they cannot be described.

    An object or web image whose listing names its version is not looked at: its name and version are enough. Local
    files are looked at together in one thread, so a handful at a time is faster than one by one.

    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    if all(is_local(ask.image.uri) for ask in asks):
        return await reader.in_thread(_identify_files, reader, vendor, asks)
    return [await _identified(reader, vendor, account, ask) for ask in asks]


async def _identified(reader: Reader, vendor: Vendor, account: Account, ask: Ask) -> Identified:
    image = ask.image
    try:
        if image.version and not is_local(image.uri):
            return _identity(ask, None, image.version, image.size)
        if bucket_address(image.uri) is None:
            shown = await show(reader, vendor, account, ask)
            return _identity(ask, shown.sha256, shown.version, shown.size)
        head, size, version = await reader.look(image, vendor.max_bytes)
        if not ask.spec.preprocessing:
            check_head(vendor, image, head, size)
        return _identity(ask, None, version, size)
    except (RejectedImage, UnreadableImage) as error:
        return Identified(ask, error=_alone(error))


def _identify_files(reader: Reader, vendor: Vendor, asks: Sequence[Ask]) -> list[Identified]:
    found = []
    for ask in asks:
        try:
            content = read_file(ask.image.uri, reader.path(ask.image.uri), most_bytes(vendor, ask.spec))
            check(vendor, ask, content)
            found.append(_identity(ask, hashlib.sha256(content).hexdigest(), ask.image.version, len(content)))
        except (RejectedImage, UnreadableImage) as error:
            found.append(Identified(ask, error=_alone(error)))
    return found


def _alone(error: RejectedImage | UnreadableImage) -> RejectedImage | UnreadableImage:
    """The error without where it came from: that holds the whole image in memory for as long as the plan lives."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _identity(ask: Ask, sha256: str | None, version: str | None, size: int | None) -> Identified:
    return Identified(ask, keys_of(ask.spec, ask.image.uri, sha256, version, size), sha256, version)

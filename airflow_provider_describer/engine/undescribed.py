"""Which images a run would have to do something about: those that the store has no outcome of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.engine.identify import identify_all
from airflow_provider_describer.engine.plan import decide
from airflow_provider_describer.http.client import AsyncClient, run
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.store.index import JournalIndex

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

TOGETHER = 1000
"""Listed images that are looked up in one go; as many as a page of a bucket has."""
_WORKERS = 8


async def undescribed_requests(
    requests: Sequence[DescribeRequest], index: JournalIndex, vendor_calls: VendorCalls, reader: Reader
) -> list[DescribeRequest]:
    """Return those asks that have been neither described nor rejected before, in their order.

    An object whose listing names a version is not read. Any other image, such as a local file, is. One that cannot be
    read or used is pending: describing it says what is wrong.

    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    images = await identify_all(reader, vendor_calls.vendor, vendor_calls.account, requests, together=_WORKERS)
    return [image.request for image in images if decide(image, index).action not in ("reuse", "rejected")]


def list_undescribed(
    path: str,
    open_bucket: OpenBucket | None,
    wanted: ImageFilter,
    request: Callable[[Sequence[dict[str, Any]]], Sequence[DescribeRequest]],
    index: JournalIndex,
    vendor_calls: VendorCalls,
) -> Iterator[ListedImage]:
    """Yield the images of a listing that are pending; blocking, a page at a time. ``wanted.limit`` counts these alone.

    :raises DescriberError: as `list_images` and `undescribed_images`, which see.
    """
    listed = list_images(path, open_bucket, replace(wanted, limit=None))
    return islice(undescribed_images(listed, open_bucket, request, index, vendor_calls), wanted.limit)


def undescribed_images(
    listed: Iterator[ListedImage],
    open_bucket: OpenBucket | None,
    request: Callable[[Sequence[dict[str, Any]]], Sequence[DescribeRequest]],
    index: JournalIndex,
    vendor_calls: VendorCalls,
) -> Iterator[ListedImage]:
    """Yield those of the listed images that are pending; blocking, a page at a time.

    :param request: what is asked about a list of images, as by `parse_images`; with several languages, an image that
        lacks one of them is pending.
    :raises DescriberError: as ``request`` and `undescribed_requests`.
    """

    async def pending(requests: Sequence[DescribeRequest]) -> set[str]:
        async with AsyncClient(timeout=vendor_calls.account.timeout, connections=_WORKERS) as client:
            reader = Reader(client, open_bucket=open_bucket)
            return {one.image.uri for one in await undescribed_requests(requests, index, vendor_calls, reader)}

    while page := list(islice(listed, TOGETHER)):
        uris = run(pending(request([image.to_dict() for image in page])))
        yield from (image for image in page if image.uri in uris)

"""Which listed images the store has no outcome of: those that a run would have to describe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from airflow_provider_describer.engine.identify import identify_all
from airflow_provider_describer.engine.plan import decide
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.http.client import AsyncClient, run
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import StoreIndex

TOGETHER, MOST_TOGETHER = 1000, 64_000
"""Listed images that are looked up at once: a page of a bucket first, then four times as many each time. A lookup reads
most of the index, whatever it asks, and one of very many images reads the narrow columns once instead."""
_CONCURRENCY = 8

ToRequests = Callable[[Sequence[dict[str, Any]]], Sequence[DescribeRequest]]
"""From listed images to what is asked about each, as `parse_images`; with several languages, more than one request."""


def list_undescribed(
    path: str,
    open_bucket: OpenBucket | None,
    wanted: ImageFilter,
    to_requests: ToRequests,
    index: StoreIndex,
    vendor_calls: VendorCalls,
) -> Iterator[ListedImage]:
    """Yield the undescribed images of a listing; blocking. ``wanted.limit`` counts only these.

    :raises DescriberError: as `list_images` and `undescribed_images`.
    """
    listed = list_images(path, open_bucket, replace(wanted, limit=None))
    # With a limit, no page is listed that is not needed.
    most = TOGETHER if wanted.limit is not None else MOST_TOGETHER
    return islice(undescribed_images(listed, open_bucket, to_requests, index, vendor_calls, most), wanted.limit)


def undescribed_images(
    listed: Iterator[ListedImage],
    open_bucket: OpenBucket | None,
    to_requests: ToRequests,
    index: StoreIndex,
    vendor_calls: VendorCalls,
    most_together: int = MOST_TOGETHER,
) -> Iterator[ListedImage]:
    """Yield those of the listed images of which a request was neither described nor rejected; blocking, page by page.

    What a page's images are known by is forgotten with it: memory does not grow with the listing.

    An object whose listing names a version is not read; other images, such as local files, are. An image that cannot be
    read or used is undescribed: the run that describes it reports why.

    :raises DescriberError: as ``to_requests``, or as `identify_all`.
    """

    async def undescribed(requests: Sequence[DescribeRequest]) -> set[str]:
        vendor, account = vendor_calls.vendor, vendor_calls.account
        async with AsyncClient(timeout=account.timeout, connections=_CONCURRENCY) as client:
            reader = Reader(client, open_bucket=open_bucket)
            images = await identify_all(reader, vendor, account, requests, concurrency=_CONCURRENCY)
        page = index.copy()
        await asyncio.to_thread(page.look_up, [key for image in images for key in image.keys])
        new = (image for image in images if decide(image, page).action not in ("reuse", "rejected"))
        return {image.request.image.uri for image in new}

    together = TOGETHER
    while page := list(islice(listed, together)):
        together = min(4 * together, most_together)
        try:
            requests = to_requests([image.to_dict() for image in page])
        except BadInput:
            if not _can_ask(to_requests):
                raise
            # No image of this page has a name that can be used.
            yield from page
            continue
        uris = run(undescribed(requests))
        yield from (image for image in page if image.uri in uris)


def _can_ask(to_requests: ToRequests) -> bool:
    try:
        to_requests([{"uri": "image.jpg"}])
    except BadInput:
        return False
    return True

"""Which images a run would have to do something about: those that the store has no outcome of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.client.flow import Caller
from airflow_provider_describer.client.transport import AsyncClient, run
from airflow_provider_describer.images.identifying import identify_all
from airflow_provider_describer.images.listing import ImageFilter, Listed, list_images
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.reference import Ask
from airflow_provider_describer.store.index import Memory
from airflow_provider_describer.store.plan import decide

if TYPE_CHECKING:
    from airflow_provider_describer.buckets.opening import OpenBucket

TOGETHER = 1000
"""Listed images that are looked up in one go; as many as a page of a bucket has."""
_WORKERS = 8


async def pending_of(asks: Sequence[Ask], memory: Memory, caller: Caller, reader: Reader) -> list[Ask]:
    """Return those asks that have been neither described nor rejected before, in their order.

    An object whose listing names a version is not read. Any other image, such as a local file, is. One that cannot be
    read or used is pending: describing it says what is wrong.

    :raises DescriberError: where it is neither an image's fault nor one of reading it.
    """
    images = await identify_all(reader, caller.vendor, caller.account, asks, together=_WORKERS)
    return [image.ask for image in images if decide(image, memory).action not in ("reuse", "rejected")]


def new_images(
    path: str,
    open_bucket: OpenBucket | None,
    wanted: ImageFilter,
    ask: Callable[[Sequence[dict[str, Any]]], Sequence[Ask]],
    memory: Memory,
    caller: Caller,
) -> Iterator[Listed]:
    """Yield the images of a listing that are pending; blocking, a page at a time. ``wanted.limit`` counts these alone.

    :raises DescriberError: as `list_images` and `pending_images`, which see.
    """
    listed = list_images(path, open_bucket, replace(wanted, limit=None))
    return islice(pending_images(listed, open_bucket, ask, memory, caller), wanted.limit)


def pending_images(
    listed: Iterator[Listed],
    open_bucket: OpenBucket | None,
    ask: Callable[[Sequence[dict[str, Any]]], Sequence[Ask]],
    memory: Memory,
    caller: Caller,
) -> Iterator[Listed]:
    """Yield those of the listed images that are pending; blocking, a page at a time.

    :param ask: what is asked about a list of images, as by `asks_of`; with several languages, an image that lacks one
        of them is pending.
    :raises DescriberError: as ``ask`` and `pending_of`.
    """

    async def pending(asks: Sequence[Ask]) -> set[str]:
        async with AsyncClient(timeout=caller.account.timeout, connections=_WORKERS) as client:
            reader = Reader(client, open_bucket=open_bucket)
            return {one.image.uri for one in await pending_of(asks, memory, caller, reader)}

    while page := list(islice(listed, TOGETHER)):
        uris = run(pending(ask([image.to_dict() for image in page])))
        yield from (image for image in page if image.uri in uris)

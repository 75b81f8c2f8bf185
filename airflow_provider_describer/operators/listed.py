"""From a task's arguments to images that it returns: what the operator and the sensor that list them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import conf

from airflow_provider_describer.arguments import as_path, parse_int
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.operators.planning import run_of
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.listings import write_listing

if TYPE_CHECKING:
    from airflow.sdk import Context


class Listing(Protocol):
    """A task that lists images, with the arguments of ``ListImagesOperator`` that say where and for which question."""

    path: Any
    chunk_size: int | str | None
    describer_conn_id: str
    prompt: str | None
    lang: str | list[str]
    max_pixels: int | None
    inline_limit: int


def path_of(task: Listing) -> str:
    """Return what is listed.

    :raises BadInput: where it is no text.
    """
    path = as_path(task.path)
    if not isinstance(path, str):
        raise BadInput(f"path is a {type(path).__name__}, expected something like 's3://bucket/catalog/**'.")
    return path


def asking(task: Listing) -> tuple[Callable[[Sequence[dict[str, Any]]], Sequence[DescribeRequest]], VendorCalls]:
    """Return what is asked about images, by which a store knows them, and who would ask."""
    vendor_calls = DescriberHook(task.describer_conn_id).vendor_calls()
    request = partial(
        parse_images, vendor=vendor_calls.vendor, prompt=task.prompt, lang=task.lang, max_pixels=task.max_pixels
    )
    return request, vendor_calls


def returned(
    task: Listing, context: Context, images: Iterator[dict[str, Any]], folder: Folder | None
) -> list[Any] | str:
    """Return what the task returns for its images; errors as `write_listing`."""
    return write_listing(
        images,
        folder,
        run_of(context),
        inline=task.inline_limit,
        chunk_size=parse_int("chunk_size", task.chunk_size, 1),
        max_chunks=conf.getint("core", "max_map_length", fallback=1024),
    )

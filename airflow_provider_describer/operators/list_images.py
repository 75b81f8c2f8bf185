"""The operator that lists the images of a bucket or a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator

from airflow_provider_describer.arguments import as_path, parse_int, parse_time
from airflow_provider_describer.engine.undescribed import list_undescribed
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.images.listing import IMAGE_SUFFIXES, ImageFilter, ListedImage, list_images
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.operators.listed import asking, path_of, returned
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import load_index

if TYPE_CHECKING:
    from airflow.sdk import Context

Time = datetime | timedelta | str | None


class ListImagesOperator(BaseOperator):
    """
    List the images of a bucket or a folder, all of them or only those that are new or changed.

    Returns ``[{"uri", "version", "size"}, …]``, which ``DescribeImagesOperator(images=…)`` takes as it is; with
    ``chunk_size`` a list of such lists, for ``DescribeImagesOperator.partial(…).expand(images=…)``. Of more than
    ``inline_limit`` images it returns the path of a file that lists them (or of one a chunk), below
    ``listings/`` of the store: ``images=`` takes these as well.

    :param path: ``s3://bucket/catalog``, ``gs://…`` or a folder: everything below it; or a pattern such as
        ``s3://bucket/catalog/**/front-??.jpg``: ``**`` stands for folders of any depth, ``*`` for any text within a
        name, ``?`` for one character. (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform``; by default ``aws_default`` or
        ``google_cloud_default``. (templated)
    :param types: suffixes of names, such as ``["jpg", "png"]``; ``["*"]`` for every name. By default those of images.
        (templated)
    :param min_size: bytes at least. (templated)
    :param max_size: bytes at most. (templated)
    :param modified_after: only images last changed at that time or later: a datetime, an ISO 8601 text (in UTC where it
        names no zone; blank or ``None`` for no limit) or a timedelta before now. (templated)
    :param modified_before: only images last changed before that time. (templated)
    :param limit: images at most; no more of the bucket is listed than that takes. (templated)
    :param chunk_size: images in a chunk, for mapped tasks. (templated)
    :param only_new: leave out images that the store has described or rejected, asked the same. Objects of a bucket are
        known by their ETag and not read; local files are. Where none is left, the task is skipped.
    :param store: folder of the description store. (templated)
    :param describer_conn_id: with ``only_new``, the connection that the images are described with. (templated)
    :param prompt: with ``only_new``, what is said about them, as for ``DescribeImagesOperator``. (templated)
    :param lang: with ``only_new``, the language or languages; an image without one of them is new. (templated)
    :param max_pixels: with ``only_new``, the pixels that they are scaled down to, as for ``DescribeImagesOperator``.
    :param inline_limit: images that are returned in XCom; about 150 bytes each.
    """

    template_fields: Sequence[str] = (
        "path",
        "storage_conn_id",
        "types",
        "min_size",
        "max_size",
        "modified_after",
        "modified_before",
        "limit",
        "chunk_size",
        "store",
        "describer_conn_id",
        "prompt",
        "lang",
    )
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        path: Any,
        storage_conn_id: str | None = None,
        types: Sequence[str] | None = None,
        min_size: int | str | None = None,
        max_size: int | str | None = None,
        modified_after: Time = None,
        modified_before: Time = None,
        limit: int | str | None = None,
        chunk_size: int | str | None = None,
        only_new: bool = False,
        store: str | None = None,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str | list[str] = "en",
        max_pixels: int | None = None,
        inline_limit: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.storage_conn_id = storage_conn_id
        self.types = types
        self.min_size = min_size
        self.max_size = max_size
        self.modified_after = modified_after
        self.modified_before = modified_before
        self.limit = limit
        self.chunk_size = chunk_size
        self.only_new = only_new
        self.store = store
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.max_pixels = max_pixels
        self.inline_limit = inline_limit

    def execute(self, context: Context) -> list[Any] | str:
        """Return the images, or the paths of files that list them."""
        with airflow_errors():
            open_bucket = buckets_of(self.storage_conn_id or None)
            folder = open_folder(self.store, open_bucket) if self.store is not None else None
            found = returned(self, context, self._counted(self._images(open_bucket, folder)), folder)
        if self.only_new and not found:
            raise AirflowSkipException(f"No image of {as_path(self.path)} is new or changed.")
        return found

    def _images(self, open_bucket: OpenBucket, folder: Folder | None) -> Iterator[ListedImage]:
        path = path_of(self)
        now = time.time()
        wanted = ImageFilter(
            IMAGE_SUFFIXES if self.types is None else self.types,
            min_size=parse_int("min_size", self.min_size),
            max_size=parse_int("max_size", self.max_size),
            modified_after=parse_time("modified_after", self.modified_after, now),
            modified_before=parse_time("modified_before", self.modified_before, now),
            limit=parse_int("limit", self.limit, 1),
        )
        if not self.only_new:
            return list_images(path, open_bucket, wanted)
        if folder is None:
            raise BadInput("only_new needs a store (a folder): it says which images are known.")
        request, vendor_calls = asking(self)
        return list_undescribed(path, open_bucket, wanted, request, load_index(folder), vendor_calls)

    def _counted(self, images: Iterator[ListedImage]) -> Iterator[dict[str, Any]]:
        count = 0
        for count, image in enumerate(images, 1):  # noqa: B007  # the last one is the count
            yield image.to_dict()
        self.log.info("%d %simages: %s", count, "new " if self.only_new else "", self.path)

"""The operator that lists the images of a bucket or a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_describer.engine.undescribed import list_undescribed
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.models import plural
from airflow_provider_describer.operators.arguments import check_arguments
from airflow_provider_describer.operators.base import ListImagesBaseOperator
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import open_index

if TYPE_CHECKING:
    from airflow.sdk import Context

Time = datetime | timedelta | str | None
FILTERS = {field.name for field in fields(ImageFilter)}
_NEEDS_STORE = "only_new needs a store (a folder): it says which images are known."


class ListImagesOperator(ListImagesBaseOperator):
    """List the images of a bucket or a folder, all of them or only those that are new or changed.

    Returns ``[{"uri", "version", "size"}, …]``, which ``DescribeImagesOperator(images=…)`` takes as it is; with
    ``chunk_size`` a list of such lists, for ``DescribeImagesOperator.partial(…).expand(images=…)``. If there are more
    than ``inline_limit`` images, it returns the path of a file that lists them (or one path for each chunk), below
    ``listings/`` in the store; ``images=`` takes these as well.

    It also takes the arguments of :class:`~airflow_provider_describer.operators.base.ListImagesBaseOperator` and
    :class:`~airflow_provider_describer.operators.base.DescriberBaseOperator`. ``describer_conn_id``, ``prompt``,
    ``lang`` and ``max_pixels`` matter with ``only_new`` alone: set them as for the task that describes the images.

    :param min_size: the smallest size in bytes. (templated)
    :param max_size: the largest size in bytes. (templated)
    :param modified_after: list only images that were last changed at this time or later: a datetime, an ISO 8601 text
        (in UTC if it names no zone; blank or ``None`` for no limit) or a timedelta before now. (templated)
    :param modified_before: list only images that were last changed before this time. (templated)
    :param limit: the most images that are returned; the listing ends there. (templated)
    :param only_new: leave out images that the store has described or rejected with the same question; an image that
        lacks one of several languages is new. Objects of a bucket are known by their ETag and not read; local files
        are read. If no image is left, the task is skipped. (templated)
    :param skip_if_empty: skip the task if no image is listed. By default it returns an empty list. (templated)
    """

    template_fields: Sequence[str] = (
        "min_size",
        "max_size",
        "modified_after",
        "modified_before",
        "limit",
        "only_new",
        "skip_if_empty",
        *ListImagesBaseOperator.template_fields,
    )

    def __init__(
        self,
        *,
        min_size: int | str | None = None,
        max_size: int | str | None = None,
        modified_after: Time = None,
        modified_before: Time = None,
        limit: int | str | None = None,
        only_new: bool | str = False,
        skip_if_empty: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.min_size = min_size
        self.max_size = max_size
        self.modified_after = modified_after
        self.modified_before = modified_before
        self.limit = limit
        self.only_new = only_new
        self.skip_if_empty = skip_if_empty
        known = check_arguments(self)
        if getattr(known, "only_new", False) and getattr(known, "store", "") is None:
            raise BadInput(_NEEDS_STORE)
        if vars(known).keys() >= FILTERS:
            _filter(known)

    def execute(self, context: Context) -> list[Any] | str:
        with airflow_errors():
            self.show_links(context)
            open_bucket, folder = self.open_store()
            found = self.xcom_value(context, self._counted(self._images(open_bucket, folder)), folder)
        given = self.given
        if (given.only_new or given.skip_if_empty) and not found:
            missing = "is new or changed" if given.only_new else "was found"
            raise AirflowSkipException(f"No image of {given.path} {missing}.")
        return found

    def _images(self, open_bucket: OpenBucket, folder: Folder | None) -> Iterator[ListedImage]:
        given, wanted = self.given, _filter(self.given)
        if not given.only_new:
            return list_images(given.path, open_bucket, wanted)
        if folder is None:
            raise BadInput(_NEEDS_STORE)
        request, vendor_calls = self.question()
        return list_undescribed(given.path, open_bucket, wanted, request, open_index(folder), vendor_calls)

    def _counted(self, images: Iterator[ListedImage]) -> Iterator[dict[str, Any]]:
        count = 0
        for count, image in enumerate(images, 1):  # noqa: B007  # the last one is the count
            yield image.to_dict()
        new = "new " if self.given.only_new else ""
        self.log.info("%s: %d %s%s", self.given.path, count, new, plural(count, "image"))


def _filter(arguments: Any) -> ImageFilter:
    """Return the filter that these arguments describe; raises `BadInput` where it cannot match anything."""
    return ImageFilter(**{name: getattr(arguments, name) for name in FILTERS})

"""Sensors for images: those that wait until some have come, and those that describe them a slice at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_describer.arrivals.snapshot import ArrivalTerms, ListingPass, SeenImages, filter_of
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.plan import OnUnknown
from airflow_provider_describer.engine.slices import (
    check_slices,
    clear_totals,
    goes_on,
    is_transient,
    load_totals,
    save_totals,
    slice_of,
)
from airflow_provider_describer.engine.undescribed import undescribed_images
from airflow_provider_describer.errors import BucketError, StoreError, UnreadableImage
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.images.listing import ListedImage, list_images
from airflow_provider_describer.operators.assets import announce_manifest
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.operators.listed import asking, path_of, returned
from airflow_provider_describer.operators.planning import plan_job, run_of
from airflow_provider_describer.sensors.deferring import DeferringSensor
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import load_index
from airflow_provider_describer.store.results import ResultsFormat
from airflow_provider_describer.triggers.images import ListingTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

SEEN = "seen"
"""Under this key of XCom a sensor without a store keeps what it has seen, for the next DAG run."""
REMEMBERED = 2000
"""Images that are remembered there each, 15 bytes for one."""


class NewImagesSensor(DeferringSensor):
    """
    Wait until there are new or changed images in a bucket or a folder; return them.

    With a ``store`` those are new that it has neither described nor rejected, asked the same: what a run could not
    describe comes again in the next one. Without, those that this task had not seen when it last succeeded, in an
    earlier run of its DAG; in the first run all of them. Of a folder with more than 2000 images, one is not noticed
    then that appears, or is changed, with a time before that of the 2000 latest.

    Returns what ``ListImagesOperator`` returns: ``[{"uri", "version", "size"}, …]``, with ``chunk_size`` lists of that,
    and of more than ``inline_limit`` images the paths of files that list them, below ``listings/`` of the store.

    Storage that cannot be reached at one look is looked at again. Waiting costs nothing, in any mode.

    :param path: ``s3://bucket/catalog``, ``gs://…``, a folder or a pattern, as for ``ListImagesOperator``. (templated)
    :param store: folder of the description store. (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform``; by default ``aws_default`` or
        ``google_cloud_default``. (templated)
    :param types: suffixes of names, such as ``["jpg", "png"]``; ``["*"]`` for every name. By default those of images.
        (templated)
    :param min_images: so many new images at least.
    :param settle_seconds: and none of them younger than that, nor, of local files, growing between two looks.
    :param chunk_size: images in a chunk, for mapped tasks. (templated)
    :param describer_conn_id: with a store, the connection that the images are described with. (templated)
    :param prompt: with a store, what is said about them, as for ``DescribeImagesOperator``. (templated)
    :param lang: with a store, the language or languages; an image without one of them is new. (templated)
    :param max_pixels: with a store, the pixels that they are scaled down to, as for ``DescribeImagesOperator``.
    :param inline_limit: images that are returned in XCom; about 150 bytes each.
    :param deferrable: wait in the triggerer and not in a worker. By default as ``[operators] default_deferrable`` says.
    """

    template_fields: Sequence[str] = (
        "path",
        "store",
        "storage_conn_id",
        "types",
        "chunk_size",
        "describer_conn_id",
        "prompt",
        "lang",
    )
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        path: Any,
        store: str | None = None,
        storage_conn_id: str | None = None,
        types: Sequence[str] | None = None,
        min_images: int = 1,
        settle_seconds: float = 0.0,
        chunk_size: int | str | None = None,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str | list[str] = "en",
        max_pixels: int | None = None,
        inline_limit: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.store = store
        self.storage_conn_id = storage_conn_id
        self.types = types
        self.min_images = min_images
        self.settle_seconds = settle_seconds
        self.chunk_size = chunk_size
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.max_pixels = max_pixels
        self.inline_limit = inline_limit
        self._fingerprint = ""
        self._until: float | None = None

    def look(self, context: Context) -> PokeReturnValue:
        """List, and return the images once they are as many, and as old, as they must be."""
        self._fingerprint, self._until = "", None
        with airflow_errors():
            try:
                return self._look(context)
            except (BucketError, StoreError, UnreadableImage) as error:
                if not isinstance(error, UnreadableImage) and error.kind not in ("unreachable", "throttled"):
                    raise
                self.log.warning("It is not known now what is new: %s", error)
                return PokeReturnValue(is_done=False)

    def waits(self, deadline: float) -> ListingTrigger:
        """Return what waits for the listing to change, or for the youngest image to settle."""
        return ListingTrigger(
            path=path_of(self),
            fingerprint=self._fingerprint,
            types=self.types,
            storage_conn_id=self.storage_conn_id,
            poll_interval=self.poke_interval,
            until=self._until,
            deadline=deadline,
        )

    def _look(self, context: Context) -> PokeReturnValue:
        terms, began, look = ArrivalTerms(self.min_images, self.settle_seconds), time.time(), ListingPass(REMEMBERED)
        open_bucket = buckets_of(self.storage_conn_id)
        folder = None if self.store is None else open_folder(self.store, open_bucket)
        listed = look.over(list_images(path_of(self), open_bucket, filter_of(self.types)))
        images = list(self._new(context, listed, open_bucket, folder))
        if why_not := terms.held_back(images, began, time.sleep):
            self.log.info("%s: %s", self.path, why_not)
            self._fingerprint, self._until = look.fingerprint, terms.settled_at(images)
            return PokeReturnValue(is_done=False)
        found = returned(self, context, (image.to_dict() for image in images), folder)
        self.log.info("%s: %d new images", self.path, len(images))
        if folder is None:
            # Last of all: with it they count as handed over.
            context["ti"].xcom_push(key=SEEN, value=look.seen.to_dict())
        return PokeReturnValue(is_done=True, xcom_value=found)

    def _new(
        self, context: Context, listed: Iterator[ListedImage], open_bucket: OpenBucket, folder: Folder | None
    ) -> Iterator[ListedImage]:
        if folder is None:
            ti = context["ti"]
            last = ti.xcom_pull(
                task_ids=ti.task_id, key=SEEN, include_prior_dates=True, map_indexes=run_of(context).map_index
            )
            seen = SeenImages.from_dict(last) if last else SeenImages()
            return (image for image in listed if not seen.has(image))
        request, vendor_calls = asking(self)
        return undescribed_images(listed, open_bucket, request, load_index(folder), vendor_calls)


class DescribeImagesSensor(BaseSensorOperator):
    """
    Describe many images a slice at a time, one at each poke, until none is pending; return the manifest.

    For calendars in which no task may take long: with ``mode="reschedule"`` no worker is held between two slices. A
    slice makes ``slice_size`` calls at most, within the connection's rate and budgets, and ends where it would have to
    wait. The manifest, the rows and the bill are those of ``DescribeImagesOperator``, as if it had been one; until then
    XCom has what is done so far as ``manifest``.

    What ends an operator ends the sensor too, such as an account that is at fault; a vendor that cannot be reached, a
    budget of the day that others share, and images that cannot be read now are waited for. Where ``max_calls``,
    ``max_cost`` or a budget of the day that nobody shares is used up, it is done, and the rest stays pending.

    :param images: as for ``DescribeImagesOperator``. (templated)
    :param store: folder of the description store, local or ``s3://``, ``gs://``. (templated)
    :param slice_size: calls that one poke may make.
    :param images_base: folder or address before relative names in ``images``. (templated)
    :param describer_conn_id: connection of type ``image_describer`` or ``segmind``. (templated)
    :param prompt: what to say about each image. (templated)
    :param lang: language, or a list of them for one description each. (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for images and store. (templated)
    :param concurrency: calls under way at a time.
    :param max_calls: billable calls that this task may make, over all its slices.
    :param max_cost: USD that it may spend, over all its slices; needs ``price_per_call`` to be known.
    :param max_failure_ratio: share of rejected images past which the task fails.
    :param on_unknown: what to do about a call that was sent and whose answer was never seen: ``retry``, ``hold`` or
        ``fail``, as for ``DescribeImagesOperator``.
    :param retry_rejected: ask again about images that the vendor has rejected before.
    :param max_pixels: larger images are scaled down to so many pixels before they are sent.
    :param results_format: of the result files in the store: ``jsonl`` or ``parquet``.
    """

    template_fields: Sequence[str] = (
        "images",
        "store",
        "images_base",
        "describer_conn_id",
        "prompt",
        "lang",
        "storage_conn_id",
    )
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        images: Any,
        store: str,
        slice_size: int = 100,
        images_base: str | None = None,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str | list[str] = "en",
        storage_conn_id: str | None = None,
        concurrency: int = 32,
        max_calls: int | None = None,
        max_cost: float | None = None,
        max_failure_ratio: float = 0.1,
        on_unknown: OnUnknown = "retry",
        retry_rejected: bool = False,
        max_pixels: int | None = None,
        results_format: ResultsFormat = "jsonl",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.store: str | None = store
        self.slice_size = slice_size
        self.images_base = images_base
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.storage_conn_id = storage_conn_id
        self.concurrency = concurrency
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.max_failure_ratio = max_failure_ratio
        self.on_unknown = on_unknown
        self.retry_rejected = retry_rejected
        self.max_pixels = max_pixels
        self.results_format = results_format
        self._job: Job | None = None

    @cached_property
    def hook(self) -> DescriberHook:
        """The hook of the connection."""
        return DescriberHook(self.describer_conn_id)

    def poke(self, context: Context) -> PokeReturnValue:
        """Describe one slice, going on from where the last one says."""
        run, limits = (
            run_of(context),
            TaskLimits(self.concurrency, self.max_calls, self.max_cost, self.max_failure_ratio),
        )
        with airflow_errors():
            account = self.hook.account
            check_slices(self.slice_size, self._longest_pause(), account)
            folder = open_folder(self.store or "", buckets_of(self.storage_conn_id))
            carried = load_totals(folder, run)
            part = slice_of(limits, self.slice_size, carried)
            self._job = plan_job(self, run, part, carried=carried)
            outcome = self._job.work()
            save_totals(folder, run, outcome.carried)
            manifest = outcome.manifest
            if goes_on(outcome, limits, part, account):
                context["ti"].xcom_push(key="manifest", value=manifest)
                if outcome.error is not None and not is_transient(outcome.error):
                    raise outcome.error
                self.log.info("%s; %s", manifest["counts"], outcome.error or "going on at the next poke")
                return PokeReturnValue(is_done=False)
            clear_totals(folder, run)
        announce_manifest(self, context, manifest)
        return PokeReturnValue(is_done=True, xcom_value=manifest)

    def on_kill(self) -> None:
        """Start no further call; answers under way are awaited and recorded."""
        if self._job:
            self._job.stop()

    def _longest_pause(self) -> float:
        """Seconds between two pokes at most."""
        if not self.exponential_backoff:
            return float(self.poke_interval)
        return self.max_wait.total_seconds() if self.max_wait else float("inf")

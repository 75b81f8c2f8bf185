"""Sensors for images: one waits for new images, the other describes many images a slice at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_describer.arrivals.snapshot import ArrivalTerms, ListingPass, SeenImages
from airflow_provider_describer.engine import slices
from airflow_provider_describer.engine.undescribed import undescribed_images
from airflow_provider_describer.errors import BadInput, BucketError, StoreError, UnreadableImage
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.models import plural
from airflow_provider_describer.operators.arguments import check_arguments
from airflow_provider_describer.operators.assets import announce_manifest
from airflow_provider_describer.operators.base import (
    DescribeImagesBaseOperator,
    ListImagesBaseOperator,
    push_limit,
    task_instance_key,
)
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.sensors.deferring import DeferringSensor
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.index import open_index
from airflow_provider_describer.triggers.images import ListingTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

SEEN = "seen"
"""The XCom key under which a sensor without a store keeps what it has seen, for the next DAG run."""
REMEMBERED = 2000
"""How many images it remembers there, 15 bytes each."""


class NewImagesSensor(ListImagesBaseOperator, DeferringSensor):
    """Wait until there are new or changed images in a bucket or a folder; return them as ``ListImagesOperator`` does.

    With a ``store``, an image is new if the store has neither described nor rejected it with the same question: what a
    run could not describe comes again in the next one. Without a store, an image is new if this task had not seen it
    when it last succeeded in an earlier run of its DAG; in the first run all images are. It remembers the 2000 images
    that were changed last: in a larger folder, an image that appears or is changed with an older time is missed.

    If storage cannot be reached, the sensor looks again later. Waiting costs nothing, in any mode.

    It also takes the arguments of :class:`~airflow_provider_describer.operators.base.ListImagesBaseOperator`,
    :class:`~airflow_provider_describer.operators.base.DescriberBaseOperator` and
    :class:`~airflow_provider_describer.sensors.deferring.DeferringSensor`. ``describer_conn_id``, ``prompt``, ``lang``
    and ``max_pixels`` matter with a store alone: set them as for the task that describes the images.

    :param min_images: wait for at least this many new images. (templated)
    :param settle_seconds: wait until each of them is at least this old, and no local file grows between two looks.
        (templated)
    """

    template_fields: Sequence[str] = (
        "min_images",
        "settle_seconds",
        *ListImagesBaseOperator.template_fields,
        *DeferringSensor.template_fields,
    )

    def __init__(self, *, min_images: int | str = 1, settle_seconds: float | str = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.min_images = min_images
        self.settle_seconds = settle_seconds
        check_arguments(self)
        self._fingerprint = ""
        self._until: float | None = None

    def look(self, context: Context) -> PokeReturnValue:
        """List, and return the new images once there are enough of them and they have settled."""
        self._fingerprint, self._until = "", None
        with airflow_errors():
            self.show_links(context)
            try:
                return self._look(context)
            except (BucketError, StoreError, UnreadableImage) as error:
                if not isinstance(error, UnreadableImage) and error.kind not in ("unreachable", "throttled"):
                    raise
                self.log.warning("It is not known now what is new: %s", error)
                return PokeReturnValue(is_done=False)

    def make_trigger(self, deadline: float) -> ListingTrigger:
        """Return what waits until the listing changes or the youngest image has settled."""
        return ListingTrigger(
            path=self.given.path,
            fingerprint=self._fingerprint,
            types=self.given.types,
            storage_conn_id=self.given.storage_conn_id,
            poll_interval=self.poke_interval,
            until=self._until,
            deadline=deadline,
        )

    def _look(self, context: Context) -> PokeReturnValue:
        given, began, listing = self.given, time.time(), ListingPass(REMEMBERED)
        terms = ArrivalTerms(given.min_images, given.settle_seconds)
        open_bucket, folder = self.open_store()
        listed = listing.record(list_images(given.path, open_bucket, ImageFilter(given.types)))
        images = list(self._new(context, listed, open_bucket, folder))
        if reason := terms.reason_to_wait(images, began, time.sleep):
            self.log.info("%s: %s", given.path, reason)
            self._fingerprint, self._until = listing.fingerprint, terms.settles_at(images)
            return PokeReturnValue(is_done=False)
        found = self.xcom_value(context, (image.to_dict() for image in images), folder)
        self.log.info("%s: %d new %s", given.path, len(images), plural(len(images), "image"))
        if folder is None:
            # Last, because what is seen is not returned again.
            context["ti"].xcom_push(key=SEEN, value=listing.seen.to_dict())
        return PokeReturnValue(is_done=True, xcom_value=found)

    def _new(
        self, context: Context, listed: Iterator[ListedImage], open_bucket: OpenBucket, folder: Folder | None
    ) -> Iterator[ListedImage]:
        if folder is not None:
            request, vendor_calls = self.question()
            return undescribed_images(listed, open_bucket, request, open_index(folder), vendor_calls)
        ti, map_index = context["ti"], task_instance_key(context).map_index
        last = ti.xcom_pull(task_ids=ti.task_id, key=SEEN, include_prior_dates=True, map_indexes=map_index)
        seen = SeenImages.from_dict(last) if last else SeenImages()
        return (image for image in listed if not seen.has(image))


class DescribeImagesSensor(DescribeImagesBaseOperator, BaseSensorOperator):
    """Describe many images a slice at a time, one slice at each poke, until none is pending; return the manifest.

    It is for installations in which no task may take long: with ``mode="reschedule"`` no worker is held between two
    slices. A slice ends after ``slice_size`` calls, or where it would have to wait for the connection's rate or budget.
    The manifest, the rows and the bill are those of one ``DescribeImagesOperator``; until the end, XCom has the
    manifest so far under the key ``manifest``.

    What fails ``DescribeImagesOperator`` fails the sensor too, such as a problem of the account. The sensor waits for a
    vendor that cannot be reached, for a shared budget of the day, and for images that cannot be read now. When
    ``max_calls``, ``max_cost`` or an unshared budget of the day is used up, the sensor is done and the rest stays
    pending.

    It also takes the arguments of :class:`~airflow_provider_describer.operators.base.DescribeImagesBaseOperator` and
    :class:`~airflow_provider_describer.operators.base.DescriberBaseOperator`; it needs a ``store``. ``max_calls`` and
    ``max_cost`` count over all slices.

    :param slice_size: the most calls that one poke makes. (templated)
    """

    template_fields: Sequence[str] = ("slice_size", *DescribeImagesBaseOperator.template_fields)

    def __init__(self, *, store: Any, slice_size: int | str = 100, **kwargs: Any) -> None:
        super().__init__(store=store, **kwargs)
        self.slice_size = slice_size
        _check_store(check_arguments(self))

    def poke(self, context: Context) -> PokeReturnValue:
        run = task_instance_key(context)
        with airflow_errors():
            given, account = self.given, self.hook.account
            _check_store(given)
            slices.check_slices(given.slice_size, self._longest_pause(), account)
            folder = open_folder(given.store, buckets_of(given.storage_conn_id))
            carried = slices.load_totals(folder, run)
            self.show_links(context, self.hook.vendor, has_results=carried is not None)
            part = slices.slice_of(self.limits, given.slice_size)
            outcome = self.plan_job(run, part, carried=carried).run()
            slices.save_totals(folder, run, outcome.carried)
            manifest = outcome.manifest
            self.show_links(context, self.hook.vendor, has_results=True)
            if slices.goes_on(outcome, account):
                context["ti"].xcom_push(key="manifest", value=manifest)
                if outcome.error is not None and not slices.is_transient(outcome.error):
                    raise outcome.error
                self.log.info("%s; %s", manifest["counts"], outcome.error or "going on at the next poke")
                return PokeReturnValue(is_done=False)
            slices.clear_totals(folder, run)
        if outcome.warning:
            self.log.warning("%s", outcome.warning)
        push_limit(context, outcome)
        announce_manifest(self, context, manifest)
        return PokeReturnValue(is_done=True, xcom_value=manifest)

    def _longest_pause(self) -> float:
        if not self.exponential_backoff:
            return float(self.poke_interval)
        return self.max_wait.total_seconds() if self.max_wait else float("inf")


def _check_store(arguments: Any) -> None:
    if getattr(arguments, "store", "") is None:
        raise BadInput("store is None, expected a folder: a DescribeImagesSensor goes on from its store at each poke.")

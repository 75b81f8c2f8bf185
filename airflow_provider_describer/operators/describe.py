"""Operators that describe one image, or many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf

from airflow_provider_describer.engine.deferral import SHORTEST_S, CarriedTotals, ResumeCondition
from airflow_provider_describer.engine.job import Job, Outcome
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.plan import OnUnknown
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.images.reference import parse_image
from airflow_provider_describer.operators.assets import announce, announce_manifest
from airflow_provider_describer.operators.failures import airflow_error, airflow_errors
from airflow_provider_describer.operators.planning import plan_job, run_of
from airflow_provider_describer.store.results import ResultsFormat
from airflow_provider_describer.triggers.describe import VendorTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class DescribeImageOperator(BaseOperator):
    """
    Describe one image; fits ``.expand(image=[...])``. For many, ``DescribeImagesOperator`` is far faster.

    Returns the description's row: ``text``, ``cost_usd``, ``request_id``, ``uri``, ``sha256``, ``status``, …

    :param image: a path or uri (local, ``file://``, ``https://``, ``s3://``, ``gs://``), or a dict
        ``{"uri", "prompt"?, "lang"?, "fields"?}``. (templated)
    :param describer_conn_id: connection of type ``image_describer`` or ``segmind``. (templated)
    :param prompt: what to say about the image; ``{name}`` is filled from its ``fields``. By default the vendor's own
        wording; Segmind's model takes none. (templated)
    :param lang: language of the description. (templated)
    :param store: folder of the description store: an image that it has is not paid for again. (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for the image and the store; by
        default ``aws_default`` or ``google_cloud_default``. (templated)
    :param max_pixels: a larger image is scaled down to so many pixels (width times height) before it is sent.
    :param on_unknown: what to do about a call that was sent and whose answer was never seen: ``fail`` leaves it to a
        human, ``retry`` sends it again at the risk of paying twice, ``hold`` does without. A call of an earlier try is
        known only where there is a store.
    """

    template_fields: Sequence[str] = ("image", "describer_conn_id", "prompt", "lang", "store", "storage_conn_id")
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        image: Any,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str = "en",
        store: str | None = None,
        storage_conn_id: str | None = None,
        max_pixels: int | None = None,
        on_unknown: OnUnknown = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.store = store
        self.storage_conn_id = storage_conn_id
        self.max_pixels = max_pixels
        self.on_unknown = on_unknown
        self._job: Job | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Make one billable call at most and return the description's row."""
        with airflow_errors():
            self._job = self._plan(context)
            outcome = self._job.work()
        if outcome.error is not None:
            raise airflow_error(outcome.error) from outcome.error
        (row,) = outcome.manifest["descriptions"]
        if row["status"] == "rejected":
            raise AirflowFailException(f"{row['error']['kind']}: {row['error']['message']}")
        about = {name: row[name] for name in ("uri", "vendor", "cost_usd")}
        announce(self, context, self.store, int(row["status"] == "described"), about)
        return dict(row)

    def on_kill(self) -> None:
        """Start no call any more; an answer under way is awaited and recorded."""
        if self._job:
            self._job.stop()

    def _plan(self, context: Context) -> Job:
        hook = DescriberHook(self.describer_conn_id)
        vendor_calls = hook.vendor_calls()
        hook.warn_of_ignored(self.prompt)
        open_bucket = buckets_of(self.storage_conn_id)
        request = parse_image(
            self.image, vendor_calls.vendor, prompt=self.prompt, lang=self.lang, max_pixels=self.max_pixels
        )
        open_ahead(open_bucket, [self.store, vendor_calls.account.limits_path, request.image.uri])
        return Job(
            vendor_calls=vendor_calls,
            requests=[request],
            limits=TaskLimits(concurrency=1, max_failure_ratio=1.0),
            store=self.store,
            run=run_of(context),
            on_unknown=self.on_unknown,
            report=lambda line: self.log.info("%s", line),
            new_client=hook.new_client,
            return_rows=True,
            open_bucket=open_bucket,
        )


class DescribeImagesOperator(BaseOperator):
    """
    Describe many images in one task: one event loop, bounded concurrency.

    Returns a small manifest: ``{"store", "results", "failures", "vendor", "counts": {"requested", "described",
    "reused", "rejected", "unknown", "pending"}, "calls", "cost_usd", "elapsed_s", …}``, and without a store the rows
    too, under ``"descriptions"``. Where the task fails after calls were made, the manifest is in XCom as ``manifest``.

    An image that is at fault is recorded in its row and does not stop the others. An account that is at fault (key,
    credits, permission) stops the run at once and keeps what is done.

    Where the vendor makes it wait longer than ``defer_after``, for its rate limit or for requests that run there, a
    deferrable task gives its worker slot back and goes on later from where its store says.

    ``outlets=[store_asset(store)]`` (of ``operators.assets``) gets an event where something was described, only then.

    :param images: list of uris or paths (local, ``file://``, ``https://``, ``s3://``, ``gs://``), or of dicts ``{"uri",
        "prompt"?, "lang"?, "fields"?, "id"?, "version"?, "size"?}``; also the output of an upstream task such as
        ``ListImagesOperator`` or ``S3ListOperator``, or the path of a JSONL, CSV or Parquet file that lists them.
        (templated)
    :param images_base: folder or address before relative names in ``images``, such as ``s3://bucket/``. No local file
        outside it is read. (templated)
    :param describer_conn_id: connection of type ``image_describer`` or ``segmind``. (templated)
    :param prompt: what to say about each image; ``{name}`` is filled from the image's ``fields``. By default the
        vendor's own wording; Segmind's model takes none. (templated)
    :param lang: language, or a list of them for one description each. (templated)
    :param store: folder of the description store, local or ``s3://``, ``gs://``; None returns at most 500 rows inline.
        (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for images and store; by default
        ``aws_default`` or ``google_cloud_default``. (templated)
    :param concurrency: calls under way at a time; a Segmind v2 request is until its result is there.
    :param max_calls: billable calls that this task may make.
    :param max_cost: USD that this task may spend; needs ``price_per_call`` to be known.
    :param max_failure_ratio: share of rejected images past which the task fails, early where it can. Images that an
        earlier run has rejected are not counted again.
    :param on_unknown: what to do about a call that was sent and whose answer was never seen: ``retry`` sends it again,
        at the risk of paying twice; ``hold`` leaves the image alone; ``fail`` stops and leaves it to a human.
    :param retry_rejected: ask again about images that the vendor has rejected before.
    :param dry_run: only look and plan: log and return what would be called, and call nothing.
    :param max_pixels: larger images are scaled down to so many pixels (width times height) before they are sent.
    :param results_format: of the result files in the store: ``jsonl`` or ``parquet``.
    :param deferrable: give the worker slot back during long waits; needs a store. By default as
        ``[operators] default_deferrable`` says.
    :param defer_after: seconds; shorter waits are sat out in the worker. At least 15.
    """

    template_fields: Sequence[str] = (
        "images",
        "images_base",
        "describer_conn_id",
        "prompt",
        "lang",
        "store",
        "storage_conn_id",
    )
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        images: Any,
        images_base: str | None = None,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str | list[str] = "en",
        store: str | None = None,
        storage_conn_id: str | None = None,
        concurrency: int = 32,
        max_calls: int | None = None,
        max_cost: float | None = None,
        max_failure_ratio: float = 0.1,
        on_unknown: OnUnknown = "retry",
        retry_rejected: bool = False,
        dry_run: bool = False,
        max_pixels: int | None = None,
        results_format: ResultsFormat = "jsonl",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.images_base = images_base
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.store = store
        self.storage_conn_id = storage_conn_id
        self.concurrency = concurrency
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.max_failure_ratio = max_failure_ratio
        self.on_unknown = on_unknown
        self.retry_rejected = retry_rejected
        self.only_plan = dry_run
        self.max_pixels = max_pixels
        self.results_format = results_format
        self.deferrable = deferrable
        self.defer_after = defer_after
        self._job: Job | None = None
        self._began = 0.0

    @cached_property
    def hook(self) -> DescriberHook:
        """The hook of the connection."""
        return DescriberHook(self.describer_conn_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Describe the images and return the manifest, or defer."""
        self._began = time.time()
        return self._work(context, None)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after a wait: plan again from the store."""
        self._began = event["began"]
        return self._work(context, CarriedTotals.from_dict(event["carried"]))

    def on_kill(self) -> None:
        """Start no further call; answers under way are awaited and recorded."""
        if self._job:
            self._job.stop()

    def _work(self, context: Context, carried: CarriedTotals | None) -> dict[str, Any]:
        with airflow_errors():
            limits = TaskLimits(
                self.concurrency, self.max_calls, self.max_cost, self.max_failure_ratio, self._patience()
            )
            self._job = plan_job(self, run_of(context), limits, carried=carried, dry_run=self.only_plan)
            outcome = self._job.work()
        for name in ("counts", "results", "failures"):
            self.log.info("%s: %s", name, outcome.manifest[name])
        if outcome.wait is not None:
            self._defer(outcome, outcome.wait)
        if outcome.error is not None:
            context["ti"].xcom_push(key="manifest", value=outcome.manifest)
            raise airflow_error(outcome.error) from outcome.error
        announce_manifest(self, context, outcome.manifest)
        return outcome.manifest

    def _defer(self, outcome: Outcome, wait: ResumeCondition) -> None:
        self.log.info("Waiting outside the worker: %s", wait)
        self.defer(
            trigger=VendorTrigger(
                describer_conn_id=self.describer_conn_id,
                until=wait.until,
                requests=wait.requests,
                carried=outcome.carried.to_dict(),
                began=self._began,
            ),
            method_name="resume",
            timeout=self._time_left(),
        )

    def _time_left(self) -> timedelta | None:
        """Return what is left of ``execution_timeout``, by which Airflow itself ends nothing but work in a worker."""
        if self.execution_timeout is None:
            return None
        ends_at = self._began + self.execution_timeout.total_seconds()
        return timedelta(seconds=max(0.0, ends_at - time.time()))

    def _patience(self) -> float | None:
        """Return how long a wait is sat out here; any where nothing could be gone on from later."""
        if self.defer_after < SHORTEST_S:
            raise BadInput(
                f"defer_after is {self.defer_after!r}, expected at least {SHORTEST_S:.0f} s: Airflow may fail a task "
                "that resumes right after it has deferred."
            )
        return self.defer_after if self.deferrable and self.store is not None and not self.only_plan else None

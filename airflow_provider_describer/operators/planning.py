"""From a task's arguments to the job that it has: what the operator and the sensor for many images share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.plan import OnUnknown
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.store.results import ResultsFormat
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from airflow.sdk import Context

LONGEST_WAIT_S = 6 * 3600.0
"""A batch waits so long where the vendor names a moment; past that it ends, and says when it would work."""


class Describing(Protocol):
    """A task that has images described, with the arguments of ``DescribeImagesOperator`` that say which and how."""

    images: Any
    images_base: str | None
    prompt: str | None
    lang: str | list[str]
    store: str | None
    storage_conn_id: str | None
    max_pixels: int | None
    on_unknown: OnUnknown
    retry_rejected: bool
    results_format: ResultsFormat

    @property
    def hook(self) -> DescriberHook:
        """The hook of its connection."""

    @property
    def log(self) -> Any:
        """Where it says what it does."""


def plan_job(
    task: Describing,
    run: TaskInstanceKey,
    limits: TaskLimits,
    *,
    carried: CarriedTotals | None = None,
    dry_run: bool = False,
) -> Job:
    """Return the job of a task; nothing is called yet, and images are not read yet. Blocking.

    :raises DescriberError: for arguments or connections that cannot work, or a listing file that cannot be read.
    """
    hook = task.hook
    vendor_calls = hook.vendor_calls(replace(hook.policy, max_wait=LONGEST_WAIT_S))
    hook.warn_of_ignored(task.prompt)
    open_bucket = buckets_of(task.storage_conn_id)
    requests = parse_images(
        task.images,
        vendor_calls.vendor,
        prompt=task.prompt,
        lang=task.lang,
        images_base=task.images_base,
        max_pixels=task.max_pixels,
        open_bucket=open_bucket,
    )
    open_ahead(
        open_bucket, [task.store, vendor_calls.account.limits_path, *(request.image.uri for request in requests)]
    )
    return Job(
        vendor_calls=vendor_calls,
        requests=requests,
        limits=limits,
        store=task.store,
        run=run,
        on_unknown=task.on_unknown,
        retry_rejected=task.retry_rejected,
        dry_run=dry_run,
        report=lambda line: task.log.info("%s", line),
        new_client=hook.new_client,
        carried=carried,
        open_bucket=open_bucket,
        images_base=task.images_base,
        results_format=task.results_format,
    )


def run_of(context: Context) -> TaskInstanceKey:
    """Return the task instance that asks."""
    ti = context["ti"]
    map_index = ti.map_index if ti.map_index is not None else -1
    return TaskInstanceKey(ti.dag_id, ti.run_id, ti.task_id, map_index, ti.try_number)

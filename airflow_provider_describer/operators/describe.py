"""Operators that describe one image, or many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, conf

from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition, longest_wait, time_left
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.images.reference import parse_image
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.operators.arguments import check_arguments
from airflow_provider_describer.operators.assets import announce, announce_manifest
from airflow_provider_describer.operators.base import (
    DescribeImagesBaseOperator,
    DescriberBaseOperator,
    push_limit,
    task_instance_key,
)
from airflow_provider_describer.operators.chain import read_fallbacks, vendor_of
from airflow_provider_describer.operators.failures import airflow_error, airflow_errors
from airflow_provider_describer.operators.metrics import meter_of, send_deferred
from airflow_provider_describer.triggers.describe import VendorTrigger
from airflow_provider_describer.vendors.vendor import Vendor

if TYPE_CHECKING:
    from airflow.sdk import Context


class DescribeImageOperator(DescriberBaseOperator):
    """Describe one image; fits ``.expand(image=[...])``. For many, ``DescribeImagesOperator`` is far faster.

    Returns the description's row: ``text``, ``cost_usd``, ``request_id``, ``uri``, ``sha256``, ``status``, … Where the
    connection's ``max_cost_per_day`` is spent, the task fails, and a retry on the next UTC day describes the image.

    It also takes the arguments of :class:`~airflow_provider_describer.operators.base.DescriberBaseOperator`.

    :param image: a path or uri (local, ``file://``, ``https://``, ``s3://``, ``gs://``), or a dict
        ``{"uri", "prompt"?, "lang"?, "fields"?}``. (templated)
    :param on_unknown: what to do about a call that was sent and whose answer was lost: ``fail`` leaves the decision to
        you, ``retry`` sends it again at the risk of paying twice, ``hold`` leaves the image alone. Without a store, a
        call of an earlier try is not known. (templated)
    :param max_lost_calls: calls for the image, over all runs, whose answers may be lost; then ``retry`` sends no more
        either. (templated)
    :param on_claimed: what to do if another run on the same store is paying for the image now: ``wait`` for its outcome
        and reuse it, or describe the image if that run ends without one; ``skip`` returns a row of status ``pending``.
        (templated)
    :param fallback_conn_ids: further connections, one or a list: the image goes to the next one if its vendor is out of
        credits, retired or down. (templated)
    :param rules: what each text has to be like, such as ``[MinWords(8), NoMarkdown()]`` from
        ``airflow_provider_describer.rules``, or their texts. The row names those that a text fails. (templated)
    :param stricter_prompt: asks once more, with this prompt, about an image whose text fails a rule, within the same
        limits; the text that fails fewer rules is in the row. None for no second try. (templated)
    """

    template_fields: Sequence[str] = (
        "image",
        "on_unknown",
        "max_lost_calls",
        "on_claimed",
        "fallback_conn_ids",
        "rules",
        "stricter_prompt",
        *DescriberBaseOperator.template_fields,
    )

    def __init__(
        self,
        *,
        image: Any,
        on_unknown: str = "fail",
        max_lost_calls: int | str = 2,
        on_claimed: str = "wait",
        fallback_conn_ids: str | Sequence[str] | None = None,
        rules: Any = None,
        stricter_prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.on_unknown = on_unknown
        self.max_lost_calls = max_lost_calls
        self.on_claimed = on_claimed
        self.fallback_conn_ids = fallback_conn_ids
        self.rules = rules
        self.stricter_prompt = stricter_prompt
        if isinstance(langs := getattr(check_arguments(self), "lang", ""), list):
            raise BadInput(f"lang is {langs}, expected one language; DescribeImagesOperator takes several.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Make at most one billable call, or two with a ``stricter_prompt``, and return the description's row."""
        with airflow_errors():
            self._job = self._plan(context)
            vendor = self._job.vendor_calls.vendor
            self.show_links(context, vendor)
            outcome = self._job.run()
            self.show_links(context, vendor_of(self._job), has_results=True)
        (row,) = outcome.manifest["descriptions"]
        error = outcome.error or (outcome.refusal if row["status"] == "pending" else None)
        if error is not None:
            raise airflow_error(error) from None
        if outcome.warning:
            self.log.warning("%s", outcome.warning)
        if row["status"] == "rejected":
            raise AirflowFailException(f"{row['error']['kind']}: {row['error']['message']}")
        if row["status"] == "unknown" and self.on_unknown != "hold":
            raise AirflowFailException(row["error"]["message"])
        about = {name: row[name] for name in ("uri", "vendor", "cost_usd")}
        announce(self, context, int(row["status"] == "described"), about)
        return dict(row)

    def _plan(self, context: Context) -> Job:
        given = self.given
        hook = DescriberHook(given.describer_conn_id)
        vendor_calls = hook.vendor_calls()
        hook.warn_of_ignored(given.prompt)
        open_bucket = buckets_of(given.storage_conn_id)
        run = task_instance_key(context)

        def to_requests(vendor: Vendor, stricter_prompt: str | None) -> list[DescribeRequest]:
            given_for = {"prompt": given.prompt, "lang": given.lang, "max_pixels": given.max_pixels}
            return [parse_image(given.image, vendor, **given_for, stricter_prompt=stricter_prompt)]

        (request,) = to_requests(vendor_calls.vendor, given.stricter_prompt)
        fallbacks = read_fallbacks(
            given.fallback_conn_ids,
            vendor_calls.policy,
            to_requests,
            run,
            prompt=given.prompt,
            stricter_prompt=given.stricter_prompt,
        )
        calls = [vendor_calls, *(fallback.vendor_calls for fallback in fallbacks)]
        open_ahead(open_bucket, [given.store, *(one.account.limits_path for one in calls), request.image.uri])
        return Job(
            vendor_calls=vendor_calls,
            requests=[request],
            limits=TaskLimits(concurrency=1, max_failure_ratio=1.0, max_lost_calls=given.max_lost_calls),
            store=given.store,
            task_instance=run,
            on_unknown=given.on_unknown,
            on_claimed=given.on_claimed,
            report=partial(self.log.info, "%s"),
            new_client=hook.new_client,
            return_rows=True,
            open_bucket=open_bucket,
            rules=given.rules,
            meter=meter_of(vendor_calls.account.vendor, run),
            fallbacks=fallbacks,
        )


class DescribeImagesOperator(DescribeImagesBaseOperator):
    """Describe many images in one task: one event loop, bounded concurrency.

    Returns a small manifest: ``{"store", "results", "failures", "vendor", "counts": {"requested", "described",
    "reused", "rejected", "unknown", "pending"}, "calls", "cost_usd", "elapsed_s", …}``, with ``fallback_conn_ids`` also
    ``"fallbacks"``: by vendor, what others than the first connection have described. Without a store, the rows (at most
    500) are in it too, under ``"descriptions"``, in the order of ``images``; a result file has them in the order
    in which they were known. If the task fails after calls were made, the manifest is in XCom under ``manifest``.

    An image that cannot be described is recorded in its row and does not stop the others. A problem of the account
    (key, credits, permission) stops the run at once; everything described so far is kept.

    ``outlets=[store_asset(store)]`` (from ``operators.assets``) gets an event only if something was described.

    It also takes the arguments of :class:`~airflow_provider_describer.operators.base.DescribeImagesBaseOperator` and
    :class:`~airflow_provider_describer.operators.base.DescriberBaseOperator`.

    :param dry_run: only plan: log and return what would be called, and call nothing. (templated)
    :param deferrable: give the worker slot back during long waits, for the vendor's rate limit, for requests that run
        at the vendor or for images that another run is paying for; needs a ``store``, from which it goes on. By default
        as ``[operators] default_deferrable`` says. (templated)
    :param defer_after: seconds, at least 15; shorter waits are spent in the worker. (templated)
    :param fallback_conn_ids: further connections, one or a list, in the order in which they are asked: an image goes to
        the next one if its vendor is out of credits, retired or down. Each may be of another vendor, or a second
        account of the same one. (templated)
    """

    template_fields: Sequence[str] = (
        "dry_run",
        "deferrable",
        "defer_after",
        "fallback_conn_ids",
        *DescribeImagesBaseOperator.template_fields,
    )

    def __init__(
        self,
        *,
        dry_run: bool | str = False,
        deferrable: bool | str = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float | str = 30.0,
        fallback_conn_ids: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # BaseOperator has a method of this name, which nothing in Airflow 3 calls.
        self.dry_run = dry_run  # type: ignore[assignment,method-assign]
        self.deferrable = deferrable
        self.defer_after = defer_after
        self.fallback_conn_ids = fallback_conn_ids
        check_arguments(self)

    def execute(self, context: Context) -> dict[str, Any]:
        return self._work(context, time.time(), None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after a deferral: plan again from the store, and return the manifest or defer again."""
        return self._work(context, event["began"], CarriedTotals.from_dict(event["carried"]))

    def _work(self, context: Context, began: float, carried: CarriedTotals | None) -> dict[str, Any]:
        with airflow_errors():
            limits = replace(self.limits, max_wait=self._max_wait())
            self.show_links(context, self.hook.vendor, has_results=carried is not None)
            job = self.plan_job(task_instance_key(context), limits, carried=carried, dry_run=self.given.dry_run)
            outcome = job.run()
            self.show_links(context, vendor_of(job), has_results=not self.given.dry_run)
        for name in ("counts", "results", "failures"):
            if (value := outcome.manifest[name]) is not None:
                self.log.info("%s: %s", name, value)
        if outcome.warning and outcome.resume_condition is None:
            self.log.warning("%s", outcome.warning)
        if outcome.resume_condition is not None:
            self._defer(outcome.resume_condition, outcome.carried, began)
        if carried is not None:
            send_deferred(job, time.time() - began - outcome.manifest["elapsed_s"])
        push_limit(context, outcome)
        if outcome.error is not None:
            context["ti"].xcom_push(key="manifest", value=outcome.manifest)
            raise airflow_error(outcome.error) from None
        announce_manifest(self, context, outcome.manifest)
        return outcome.manifest

    def _max_wait(self) -> float | None:
        given = self.given
        can_defer = given.deferrable and given.store is not None and not given.dry_run
        return longest_wait(given.defer_after, can_defer=can_defer)

    def _defer(self, wait: ResumeCondition, carried: CarriedTotals, began: float) -> None:
        self.log.info("Waiting outside the worker for %s.", wait)
        self.defer(
            trigger=VendorTrigger(
                describer_conn_id=wait.conn_id or self.given.describer_conn_id,
                until=wait.until,
                requests=wait.requests,
                carried=carried.to_dict(),
                began=began,
            ),
            method_name="execute_complete",
            # Airflow itself applies the limit only to work in a worker.
            timeout=time_left(self.execution_timeout, began, time.time()),
        )

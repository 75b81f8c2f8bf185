"""Operators that describe one image, or many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_describer.batch import Limits
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.images.reference import asks_of
from airflow_provider_describer.job import Job
from airflow_provider_describer.operators.failures import airflow_error, airflow_errors
from airflow_provider_describer.store.plan import OnUnknown
from airflow_provider_describer.store.rows import Run

if TYPE_CHECKING:
    from airflow.sdk import Context


class DescribeImageOperator(BaseOperator):
    """
    Describe one image; fits ``.expand(image=[...])``. For many, ``DescribeImagesOperator`` is far faster.

    Returns the description's row: ``text``, ``cost_usd``, ``request_id``, ``uri``, ``sha256``, ``status``, …

    :param image: a path or uri (local, ``file://``, ``https://``), or a dict
        ``{"uri", "prompt"?, "lang"?, "fields"?}``. (templated)
    :param describer_conn_id: connection of type ``image_describer`` or ``segmind``. (templated)
    :param prompt: what to say about the image; ``{name}`` is filled from its ``fields``. By default the vendor's own
        wording; Segmind's model takes none. (templated)
    :param lang: language of the description. (templated)
    :param store: folder of the description store: an image that it has is not paid for again. (templated)
    :param on_unknown: what to do about a call that was sent and whose answer was never seen: ``fail`` leaves it to a
        human, ``retry`` sends it again at the risk of paying twice, ``hold`` does without. A call of an earlier try is
        known only where there is a store.
    """

    template_fields: Sequence[str] = ("image", "describer_conn_id", "prompt", "lang", "store")
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        image: Any,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str = "en",
        store: str | None = None,
        on_unknown: OnUnknown = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.store = store
        self.on_unknown = on_unknown
        self._job: Job | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Make one billable call at most and return the description's row."""
        with airflow_errors():
            self._job = self._plan(context)
            outcome = self._job.work()
        if outcome.error is not None:
            raise airflow_error(outcome.error)
        (row,) = outcome.manifest["descriptions"]
        if row["status"] == "rejected":
            raise AirflowFailException(f"{row['error']['kind']}: {row['error']['message']}")
        return dict(row)

    def on_kill(self) -> None:
        """Start no call any more; an answer under way is awaited and recorded."""
        if self._job:
            self._job.stop()

    def _plan(self, context: Context) -> Job:
        hook = DescriberHook(self.describer_conn_id)
        caller = hook.caller()
        hook.warn_of_ignored(self.prompt)
        return Job(
            caller=caller,
            asks=asks_of([self.image], caller.vendor, prompt=self.prompt, lang=self.lang),
            limits=Limits(concurrency=1, max_failure_ratio=1.0),
            store=self.store,
            run=_run_of(context),
            on_unknown=self.on_unknown,
            report=lambda line: self.log.info("%s", line),
            new_client=hook.new_client,
            return_rows=True,
        )


class DescribeImagesOperator(BaseOperator):
    """
    Describe many images in one task: one event loop, bounded concurrency.

    Returns a small manifest: ``{"store", "results", "failures", "vendor", "counts": {"requested", "described",
    "reused", "rejected", "unknown", "pending"}, "calls", "cost_usd", "elapsed_s", …}``, and without a store the rows
    too, under ``"descriptions"``. Where the task fails after calls were made, the manifest is in XCom as ``manifest``.

    An image that is at fault is recorded in its row and does not stop the others. An account that is at fault (key,
    credits, permission) stops the run at once and keeps what is done.

    :param images: list of uris or paths, or of dicts ``{"uri", "prompt"?, "lang"?, "fields"?, "id"?}``; also the
        output of an upstream task. (templated)
    :param images_base: folder or address before relative names in ``images``. (templated)
    :param describer_conn_id: connection of type ``image_describer`` or ``segmind``. (templated)
    :param prompt: what to say about each image; ``{name}`` is filled from the image's ``fields``. By default the
        vendor's own wording; Segmind's model takes none. (templated)
    :param lang: language, or a list of them for one description each. (templated)
    :param store: folder for the result files; None returns at most 500 rows inline. (templated)
    :param concurrency: calls under way at a time.
    :param max_calls: billable calls that this task may make.
    :param max_cost: USD that this task may spend; needs ``price_per_call`` to be known.
    :param max_failure_ratio: share of rejected images past which the task fails, early where it can. Images that an
        earlier run has rejected are not counted again.
    :param on_unknown: what to do about a call that was sent and whose answer was never seen: ``retry`` sends it again,
        at the risk of paying twice; ``hold`` leaves the image alone; ``fail`` stops and leaves it to a human.
    :param retry_rejected: ask again about images that the vendor has rejected before.
    :param dry_run: only look and plan: log and return what would be called, and call nothing.
    """

    template_fields: Sequence[str] = ("images", "images_base", "describer_conn_id", "prompt", "lang", "store")
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
        concurrency: int = 32,
        max_calls: int | None = None,
        max_cost: float | None = None,
        max_failure_ratio: float = 0.1,
        on_unknown: OnUnknown = "retry",
        retry_rejected: bool = False,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.images_base = images_base
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.store = store
        self.concurrency = concurrency
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.max_failure_ratio = max_failure_ratio
        self.on_unknown = on_unknown
        self.retry_rejected = retry_rejected
        self.only_plan = dry_run
        self._job: Job | None = None

    @cached_property
    def hook(self) -> DescriberHook:
        """The hook of the connection."""
        return DescriberHook(self.describer_conn_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Describe the images and return the manifest."""
        with airflow_errors():
            self._job = self._plan(context)
            outcome = self._job.work()
        for name in ("counts", "results", "failures"):
            self.log.info("%s: %s", name, outcome.manifest[name])
        if outcome.error is not None:
            context["ti"].xcom_push(key="manifest", value=outcome.manifest)
            raise airflow_error(outcome.error)
        return outcome.manifest

    def on_kill(self) -> None:
        """Start no further call; answers under way are awaited and recorded."""
        if self._job:
            self._job.stop()

    def _plan(self, context: Context) -> Job:
        caller = self.hook.caller()
        self.hook.warn_of_ignored(self.prompt)
        asks = asks_of(self.images, caller.vendor, prompt=self.prompt, lang=self.lang, images_base=self.images_base)
        return Job(
            caller=caller,
            asks=asks,
            limits=Limits(self.concurrency, self.max_calls, self.max_cost, self.max_failure_ratio),
            store=self.store,
            run=_run_of(context),
            on_unknown=self.on_unknown,
            retry_rejected=self.retry_rejected,
            dry_run=self.only_plan,
            report=lambda line: self.log.info("%s", line),
            new_client=self.hook.new_client,
        )


def _run_of(context: Context) -> Run:
    ti = context["ti"]
    map_index = ti.map_index if ti.map_index is not None else -1
    return Run(ti.dag_id, ti.run_id, ti.task_id, map_index, ti.try_number)

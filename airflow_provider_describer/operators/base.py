"""What the operators and sensors share: their arguments, and what is made of these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, BaseOperatorLink, conf

from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.occasions import LIMIT_REACHED
from airflow_provider_describer.engine.progress import Outcome
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.links.describer import DescriptionsLink, ResultsLink, VendorLink, show_links
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.operators.arguments import check_partial, given_arguments
from airflow_provider_describer.operators.chain import read_fallbacks
from airflow_provider_describer.operators.lineage import lineage_of_listing, lineage_of_run
from airflow_provider_describer.operators.metrics import meter_of
from airflow_provider_describer.operators.rendered import given_value, rendered_images
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.store.listings import write_listing
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors.vendor import Vendor

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

LONGEST_WAIT_S = 6 * 3600.0
"""The longest wait for a time that the vendor names. Past it the run ends, and its error names that time."""


class DescriberBaseOperator(BaseOperator):
    """A task that describes images, or that asks the store which images are described.

    Every argument is templated, and takes a value or its text, such as ``"0.5"``, ``"true"`` or ``"['en', 'de']"``.
    Where the default is None, ``None`` and a blank text mean it too; only a blank ``prompt`` or ``store`` is refused. A
    value that cannot work fails the DAG's import if it is no template, and else the task, before anything is sent.

    :param describer_conn_id: connection of type ``image_describer`` or ``segmind``. (templated)
    :param prompt: what to say about each image; ``{name}`` is filled from the image's ``fields``. By default the
        vendor's own wording; Segmind's model takes none. (templated)
    :param lang: language of the description; a task for many images also takes a list, for one description each.
        (templated)
    :param store: folder of the description store: an absolute path, ``file://``, ``s3://…`` or ``gs://…``. Images that
        it has are not paid for again. (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for images and store; by default
        ``aws_default`` or ``google_cloud_default``. (templated)
    :param max_pixels: larger images are scaled down to this many pixels (width times height) before they are sent.
        (templated)
    """

    template_fields: Sequence[str] = ("describer_conn_id", "prompt", "lang", "store", "storage_conn_id", "max_pixels")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "prompt": "md",
        **dict.fromkeys(("image", "images", "lang", "rules", "types"), "json"),
    }
    operator_extra_links: Collection[BaseOperatorLink] = (DescriptionsLink(), ResultsLink(), VendorLink())
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        describer_conn_id: str = DescriberHook.default_conn_name,
        prompt: str | None = None,
        lang: str | list[str] = "en",
        store: Any = None,
        storage_conn_id: str | None = None,
        max_pixels: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.describer_conn_id = describer_conn_id
        self.prompt = prompt
        self.lang = lang
        self.store = store
        self.storage_conn_id = storage_conn_id
        self.max_pixels = max_pixels
        self._job: Job | None = None

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return what is left to expand; raises `BadInput` for a value that cannot work."""
        check_partial(cls, kwargs)
        return super().partial(**kwargs)

    @cached_property
    def given(self) -> Any:
        """The values of all arguments of the task that runs, each as an attribute.

        :raises BadInput: for one that cannot work, naming it.
        """
        return given_arguments(self)

    def show_links(self, context: Context, vendor: Vendor | None = None, *, has_results: bool = False) -> None:
        """Show the task's links while it runs, as far as they are known."""
        store, dashboard = self.given.store, vendor.dashboard_url if vendor else None
        show_links(self, task_instance_key(context), store=store, dashboard=dashboard, has_results=has_results)

    def open_store(self) -> tuple[OpenBucket, Folder | None]:
        """Return what opens the task's buckets, and the store's folder where there is one."""
        open_bucket = buckets_of(self.given.storage_conn_id)
        return open_bucket, None if self.given.store is None else open_folder(self.given.store, open_bucket)

    def on_kill(self) -> None:
        """Start no further call; answers under way are awaited and recorded."""
        if self._job:
            self._job.stop()

    def get_openlineage_facets_on_complete(self, ti: Any) -> OperatorLineage[Any, Any]:
        """Return what the task has read and written, also of one that has failed."""
        return lineage_of_run(self._job)


class DescribeImagesBaseOperator(DescriberBaseOperator):
    """A task that describes many images.

    :param images: list of uris or paths (local, ``file://``, ``https://``, ``s3://``, ``gs://``), or of dicts ``{"uri",
        "prompt"?, "lang"?, "fields"?, "id"?, "version"?, "size"?}``; also the output of an upstream task such as
        ``ListImagesOperator`` or ``S3ListOperator``, or the path of a JSONL, CSV or Parquet file that lists them.
        (templated)
    :param images_base: address or absolute path of a folder before relative names in ``images``, such as
        ``s3://bucket/``. No local file outside it is read. (templated)
    :param concurrency: how many calls may be under way at the same time; a Segmind v2 call is until its result is
        there. (templated)
    :param max_calls: billable calls that the task may make, in all of its tries together if it has a ``store``.
        (templated)
    :param max_cost: USD that the task may spend, counted in the same way; needs ``price_per_call`` on the connection.
        (templated)
    :param max_failure_ratio: share of rejected images above which the task fails, early if possible. Images that an
        earlier run has rejected are not counted again. (templated)
    :param on_unknown: what to do about a call that was sent and whose answer was lost: ``retry`` sends it again, at the
        risk of paying twice; ``hold`` leaves the image alone; ``fail`` stops and leaves the decision to you.
        (templated)
    :param max_lost_calls: calls for one image, over all runs, whose answers may be lost; then ``retry`` sends no more
        either, and the image is held. (templated)
    :param on_claimed: what to do about an image that another run on the same store is paying for now: ``wait`` for its
        outcome and reuse it, or describe it if that run ends without one; ``skip`` leaves it pending. (templated)
    :param rules: what each text has to be like, such as ``[MinWords(8), NoMarkdown()]`` from
        ``airflow_provider_describer.rules``, or their texts. The row names those that a text fails. (templated)
    :param stricter_prompt: asks once more, with this prompt, about an image whose text fails a rule, within the same
        limits; the text that fails fewer rules is in the row. None for no second try. (templated)
    :param retry_rejected: ask again about images that the vendor has rejected before. (templated)
    :param results_format: format of the result files in the store: ``jsonl`` or ``parquet``. (templated)
    :param skip_if_empty: skip the task if there are no images. By default it succeeds, and all its counts are zero.
        (templated)
    """

    template_fields: Sequence[str] = (
        "images",
        "images_base",
        "concurrency",
        "max_calls",
        "max_cost",
        "max_failure_ratio",
        "on_unknown",
        "max_lost_calls",
        "on_claimed",
        "rules",
        "stricter_prompt",
        "retry_rejected",
        "results_format",
        "skip_if_empty",
        *DescriberBaseOperator.template_fields,
    )

    def __init__(
        self,
        *,
        images: Any,
        images_base: Any = None,
        concurrency: int | str = 32,
        max_calls: int | str | None = None,
        max_cost: float | str | None = None,
        max_failure_ratio: float | str = 0.1,
        on_unknown: str = "retry",
        max_lost_calls: int | str = 2,
        on_claimed: str = "wait",
        retry_rejected: bool | str = False,
        results_format: str = "jsonl",
        skip_if_empty: bool | str = False,
        rules: Any = None,
        stricter_prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images
        self.images_base = images_base
        self.concurrency = concurrency
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.max_failure_ratio = max_failure_ratio
        self.on_unknown = on_unknown
        self.max_lost_calls = max_lost_calls
        self.on_claimed = on_claimed
        self.retry_rejected = retry_rejected
        self.results_format = results_format
        self.skip_if_empty = skip_if_empty
        self.rules = rules
        self.stricter_prompt = stricter_prompt

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        # Airflow has no other hook between rendering and storing what the UI shows that mapped tasks have too.
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self:
            self.images = rendered_images(self.images, conf.getint("core", "max_templated_field_length", fallback=4096))

    def pre_execute(self, context: Any) -> None:
        """Take the images as they were given: what the UI shows has been stored."""
        self.images = given_value(self.images)
        super().pre_execute(context)

    @cached_property
    def hook(self) -> DescriberHook:
        return DescriberHook(self.given.describer_conn_id)

    @property
    def limits(self) -> TaskLimits:
        given = self.given
        return TaskLimits(
            given.concurrency,
            given.max_calls,
            given.max_cost,
            given.max_failure_ratio,
            max_lost_calls=given.max_lost_calls,
        )

    def plan_job(
        self, run: TaskInstanceKey, limits: TaskLimits, *, carried: CarriedTotals | None = None, dry_run: bool = False
    ) -> Job:
        """Return the task's job, which `on_kill` stops. Nothing is called yet, and no image is read. Blocking.

        :raises DescriberError: where an argument or a connection cannot work, or a listing file cannot be read.
        :raises AirflowSkipException: where there is nothing to describe, and the task is to be skipped then.
        """
        given, hook = self.given, self.hook
        vendor_calls = hook.vendor_calls(replace(hook.policy, max_wait=LONGEST_WAIT_S))
        hook.warn_of_ignored(given.prompt)
        open_bucket = buckets_of(given.storage_conn_id)

        def to_requests(vendor: Vendor, stricter_prompt: str | None) -> list[DescribeRequest]:
            return parse_images(
                given.images,
                vendor,
                prompt=given.prompt,
                lang=given.lang,
                images_base=given.images_base,
                max_pixels=given.max_pixels,
                open_bucket=open_bucket,
                stricter_prompt=stricter_prompt,
            )

        requests = to_requests(vendor_calls.vendor, given.stricter_prompt)
        if given.skip_if_empty and not requests:
            raise AirflowSkipException("There are no images to describe.")
        fallbacks = read_fallbacks(
            getattr(given, "fallback_conn_ids", ()),
            vendor_calls.policy,
            to_requests,
            run,
            prompt=given.prompt,
            stricter_prompt=given.stricter_prompt,
        )
        uris = (request.image.uri for request in requests if not request.flaw)
        calls = [vendor_calls, *(fallback.vendor_calls for fallback in fallbacks)]
        limits_paths = [one.account.limits_path for one in calls]
        open_bucket = open_ahead(open_bucket, [given.store, *limits_paths], uris)
        self._job = Job(
            vendor_calls=vendor_calls,
            requests=requests,
            limits=limits,
            store=given.store,
            task_instance=run,
            on_unknown=given.on_unknown,
            on_claimed=given.on_claimed,
            retry_rejected=given.retry_rejected,
            dry_run=dry_run,
            report=partial(self.log.info, "%s"),
            new_client=hook.new_client,
            carried=carried,
            open_bucket=open_bucket,
            images_base=given.images_base,
            results_format=given.results_format,
            rules=given.rules,
            meter=meter_of(vendor_calls.account.vendor, run),
            fallbacks=fallbacks,
        )
        return self._job


class ListImagesBaseOperator(DescriberBaseOperator):
    """A task that lists images: all of them, or those that are new.

    :param path: ``s3://bucket/catalog``, ``gs://…`` or an absolute path, for everything below it; or a pattern such as
        ``s3://bucket/catalog/**/front-??.jpg``: ``**`` stands for folders of any depth, ``*`` for any text within a
        name, ``?`` for one character. (templated)
    :param types: suffixes of names, such as ``["jpg", "png"]``; ``["*"]`` for every name. By default those of images.
        (templated)
    :param chunk_size: images in a chunk, for mapped tasks. (templated)
    :param inline_limit: the most images that are returned in XCom, about 150 bytes each; more are listed in files.
        (templated)
    """

    template_fields: Sequence[str] = (
        "path",
        "types",
        "chunk_size",
        "inline_limit",
        *DescriberBaseOperator.template_fields,
    )
    operator_extra_links = (DescriptionsLink(),)

    def __init__(
        self,
        *,
        path: Any,
        types: Sequence[str] | None = None,
        chunk_size: int | str | None = None,
        inline_limit: int | str = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.types = types
        self.chunk_size = chunk_size
        self.inline_limit = inline_limit

    def get_openlineage_facets_on_complete(self, ti: Any) -> OperatorLineage[Any, Any]:
        """Return what the task has listed."""
        try:
            given = self.given
        except BadInput:
            return lineage_of_listing(None, None)
        return lineage_of_listing(given.path, given.store if getattr(given, "only_new", True) else None)

    def question(self) -> tuple[Callable[[Sequence[dict[str, Any]]], Sequence[DescribeRequest]], VendorCalls]:
        """Return what makes requests of listed images, by which the store knows them, and who would send these."""
        given = self.given
        vendor_calls = DescriberHook(given.describer_conn_id).vendor_calls()
        request = partial(
            parse_images, vendor=vendor_calls.vendor, prompt=given.prompt, lang=given.lang, max_pixels=given.max_pixels
        )
        return request, vendor_calls

    def show_links(self, context: Context, vendor: Vendor | None = None, *, has_results: bool = False) -> None:
        """Show the link to what the DAG run describes; the task itself describes nothing."""
        show_links(self, task_instance_key(context), store=self.given.store, whole_run=True)

    def xcom_value(self, context: Context, images: Iterator[dict[str, Any]], folder: Folder | None) -> list[Any] | str:
        """Return the task's XCom value for these images; errors as `write_listing`."""
        return write_listing(
            images,
            folder,
            task_instance_key(context),
            inline=self.given.inline_limit,
            chunk_size=self.given.chunk_size,
            max_chunks=conf.getint("core", "max_map_length", fallback=1024),
        )


def push_limit(context: Context, outcome: Outcome) -> None:
    """Push the limit that has left images pending, if one has, for notifiers and for tasks downstream."""
    if outcome.limit_reached:
        context["ti"].xcom_push(key=LIMIT_REACHED, value=outcome.limit_reached)


def task_instance_key(context: Context) -> TaskInstanceKey:
    """Return the task instance that is running."""
    ti = context["ti"]
    map_index = ti.map_index if ti.map_index is not None else -1
    return TaskInstanceKey(ti.dag_id, ti.run_id, ti.task_id, map_index, ti.try_number)

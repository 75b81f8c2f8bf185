"""The operator that has people review descriptions, in Airflow's list of required actions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowSkipException, Param, conf
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_describer.engine.review_form import make_form, read_answers, reviewer_of
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.models import plural
from airflow_provider_describer.operators.arguments import check_arguments, check_partial, given_arguments
from airflow_provider_describer.operators.base import task_instance_key
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.description_store import check_store
from airflow_provider_describer.store.reviews import count_reviews, record_reviews
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.samples import SampleTerms, author_of, take_sample

if TYPE_CHECKING:
    from airflow.sdk import Context

SUBMIT = "Submit"
"""The one option of the form; the decisions are its fields."""


class ReviewDescriptionsOperator(HITLOperator):
    """Have a person approve, edit or reject a sample of descriptions, each beside its image.

    The task waits in Airflow's list of required actions, outside a worker. Every decision is written into the store,
    with the reviewer's name and the time. Later runs and exports use an edited text; of a rejected one they know that
    it was rejected, and ask again only with ``retry_rejected=True``. What the reviewer leaves, and what nobody answers
    in time, is not reviewed. A description that was reviewed once is not shown again.

    Returns ``{"store", "reviewed", "approved", "edited", "rejected", "left"}``. Without anything to review the task
    succeeds at once.

    It takes the other arguments of Airflow's ``HITLOperator`` too: ``response_timeout``, ``assigned_users``,
    ``notifiers``, and ``defaults="Submit"``, with which the task succeeds when that time is over, instead of failing.

    :param store: folder of the description store. (templated)
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for the store; by default
        ``aws_default`` or ``google_cloud_default``. (templated)
    :param results: only what these tasks have described anew: the manifest of a ``DescribeImagesOperator``, the path of
        its result file, or a list of these. By default, the current descriptions of the whole store. (templated)
    :param share: share of the descriptions to review, above 0 to 1, chosen at random; a retry chooses the same.
        (templated)
    :param failed_rules: only descriptions that failed a caption rule; or a list of rules such as ``["MinWords"]``, of
        which they failed one. (templated)
    :param max_images: the most images in the form, up to 50. (templated)
    :param prompt: only descriptions of this prompt. (templated)
    :param skip_if_empty: skip the task if there is nothing to review. (templated)
    :param subject: the form's title. (templated)
    """

    template_fields: Sequence[str] = (
        "store",
        "storage_conn_id",
        "results",
        "share",
        "failed_rules",
        "max_images",
        "prompt",
        "skip_if_empty",
        "subject",
    )
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        store: Any,
        storage_conn_id: str | None = None,
        results: Any = None,
        share: float | str = 1.0,
        failed_rules: bool | str | Sequence[str] = False,
        max_images: int | str = 10,
        prompt: str | None = None,
        skip_if_empty: bool | str = False,
        subject: str = "Review descriptions",
        **kwargs: Any,
    ) -> None:
        super().__init__(subject=subject, options=[SUBMIT], **kwargs)
        self.store = store
        self.storage_conn_id = storage_conn_id
        self.results = results
        self.share = share
        self.failed_rules = failed_rules
        self.max_images = max_images
        self.prompt = prompt
        self.skip_if_empty = skip_if_empty
        if getattr(check_arguments(self), "store", "") is None:
            raise BadInput("store is None, expected a folder such as '/data/descriptions', s3://… or gs://….")

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return what is left to expand; raises `BadInput` for a value that cannot work."""
        check_partial(cls, kwargs)
        return super().partial(**kwargs)

    @cached_property
    def given(self) -> Any:
        """The values of all arguments of the task that runs, each as an attribute; raises `BadInput`."""
        return given_arguments(self)

    def execute(self, context: Context) -> Any:
        """Show the form and wait, unless there is nothing to review."""
        task = task_instance_key(context)
        with airflow_errors():
            folder, authors = self._open()
            given = self.given
            terms = SampleTerms(given.share, given.failed_rules, given.max_images, task.instance)
            described = take_sample(folder, terms, task, made_by=authors, prompt=given.prompt)
            if not described:
                return self._finished(folder, task, left=0)
        base_path = urlsplit(conf.get("api", "base_url", fallback="") or "").path
        form = make_form(described, given.store, base_path)
        self.body = form.body
        self.params = ParamsDict({name: Param(**about) for name, about in form.fields.items()})
        count = len(described)
        self.log.info("%d %s to be reviewed", count, plural(count, "description waits", "descriptions wait"))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write down what the reviewer has decided, and return the manifest."""
        if "error" in event:
            self.process_trigger_event_error(event)
        reviewer, task = reviewer_of(event.get("responded_by_user")), task_instance_key(context)
        answers = read_answers(event.get("params_input") or {})
        with airflow_errors():
            folder, _ = self._open()
            if reviewer is None:
                self.log.warning("Nobody has answered in time: nothing was reviewed.")
                return self._finished(folder, task, left=len(answers))
            recorded = record_reviews(folder, answers, reviewer, task, time.time)
            for call, why in recorded.refused.items():
                self.log.warning("The answer about the description %s was not taken: %s.", call, why)
            return self._finished(folder, task, left=len(answers) - len(recorded.reviews))

    def _open(self) -> tuple[Folder, list[TaskInstanceKey] | None]:
        given, open_bucket = self.given, buckets_of(self.given.storage_conn_id)
        if given.store is None:
            raise BadInput("store is None, expected a folder such as '/data/descriptions', s3://… or gs://….")
        folder = open_folder(given.store, open_bucket)
        if given.results is None:
            return check_store(folder, given.store), None
        for path in given.results:
            if not path.startswith(folder.where("results")):
                raise BadInput(f"results is {path!r}, which is not in the store {given.store!r}; expected its own.")
        authors = [author_of(path, open_bucket) for path in given.results]
        return folder, [author for author in authors if author is not None]

    def _finished(self, folder: Folder, task: TaskInstanceKey, left: int) -> dict[str, Any]:
        counts = count_reviews(folder, task)
        if self.given.skip_if_empty and not counts and not left:
            raise AirflowSkipException("There is no description to review.")
        by_review = {review: counts[review] for review in ("approved", "edited", "rejected")}
        manifest = {"store": self.given.store, "reviewed": counts.total(), **by_review, "left": left}
        self.log.info("%s", manifest)
        return manifest

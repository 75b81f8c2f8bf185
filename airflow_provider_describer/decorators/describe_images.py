"""``@task.describe_images``: a function returns images, and its task describes them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_describer.engine.task_arguments import read_returned_images
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.operators.arguments import check_partial, given_arguments
from airflow_provider_describer.operators.base import task_instance_key
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.kept_images import keep_images, may_be_secret, read_kept_images

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator
    from airflow.sdk import Context

    from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition

# What the function returns are file names and other people's texts: nothing in them is rendered.
_RENDERED = [name for name in DescribeImagesOperator.template_fields if name != "images"]


class DescribeImagesDecoratedOperator(DecoratedOperator, DescribeImagesOperator):
    """Describes the images that a function returns, when the task runs; what it returns is not rendered.

    Each try calls the function once. Before a deferral, the images are written to the store, below ``deferred/``, and
    the task goes on with these. An address with a query may be a secret and is stored nowhere, so a task that has one
    does not defer.

    Except for ``images``, it also takes the arguments of
    :class:`~airflow_provider_describer.operators.describe.DescribeImagesOperator`.

    :param python_callable: the function: plain or ``async``.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its keyword arguments. (templated)
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *_RENDERED)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **{name: kind for name, kind in DescribeImagesOperator.template_fields_renderers.items() if name in _RENDERED},
        **DecoratedOperator.template_fields_renderers,
    }
    custom_operator_name: str = "@task.describe_images"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            # Like a template, it is known when the task runs.
            images=python_callable,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **kwargs)
        if inspect.iscoroutine(returned):
            returned = asyncio.run(returned)
        with airflow_errors():
            name = getattr(self.python_callable, "__name__", "the function")
            self.images = read_returned_images(name, returned)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after a deferral with the images of before, as the operator does."""
        with airflow_errors():
            self.images = read_kept_images(self._folder(), task_instance_key(context))
        return super().execute_complete(context, event)

    def _max_wait(self) -> float | None:
        longest = super()._max_wait()
        if longest is None or not may_be_secret(self.images):
            return longest
        self.log.info("The task waits in its worker: an image's address has a query, which is stored nowhere.")
        return None

    def _defer(self, wait: ResumeCondition, carried: CarriedTotals, began: float) -> None:
        assert self._job
        with airflow_errors():
            keep_images(self.images, self._folder(), self._job.task_instance)
        super()._defer(wait, carried, began)

    def _folder(self) -> Folder:
        # `given` has all arguments, so that it can be asked for only when there are images.
        given = given_arguments(self, ("store", "storage_conn_id"))
        return open_folder(given.store, buckets_of(given.storage_conn_id))


def describe_images_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Make a task that describes the images that the function returns; in a DAG, use ``@task.describe_images``.

    ::

        @task.describe_images(store="s3://catalog/descriptions/", lang="de")
        def describe(folder: str) -> list[str]:
            return sorted(glob(f"{folder}/*.jpg"))

    The function returns what ``images=`` of ``DescribeImagesOperator`` takes. The task returns that operator's manifest
    and takes its other arguments.

    :param multiple_outputs: also push each key of the manifest as an XCom of its own.
    :raises BadInput: for a value that cannot work, and for ``images``.
    """
    if "images" in kwargs:
        raise BadInput(
            "images is given to @task.describe_images, where they are what the function returns; leave it out."
        )
    check_partial(DescribeImagesOperator, kwargs)
    return task_decorator_factory(
        python_callable=python_callable,
        # Else a return annotation of the function would decide it.
        multiple_outputs=multiple_outputs,
        decorated_operator_class=DescribeImagesDecoratedOperator,
        **kwargs,
    )

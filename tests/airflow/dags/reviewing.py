"""DAGs that describe and review what their `conf` says."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.review import ReviewDescriptionsOperator

PARAMS: dict[str, Any] = {"images": [], "store": "", "share": 1.0, "retry_rejected": False, "skip": False}


@dag(params=PARAMS)
def reviewed() -> None:
    @task
    def listing(params: dict[str, Any]) -> list[Any]:
        return list(params["images"])

    describe = DescribeImagesOperator(
        task_id="describe", images=listing(), store="{{ params.store }}", retry_rejected="{{ params.retry_rejected }}"
    )
    ReviewDescriptionsOperator(
        task_id="review",
        store="{{ params.store }}",
        results=describe.output,
        share="{{ params.share }}",
        skip_if_empty="{{ params.skip }}",
        subject="Texts of {{ ds }}",
    )


@dag(params=PARAMS)
def whole_store() -> None:
    ReviewDescriptionsOperator(task_id="review", store="{{ params.store }}", max_images=2)


for build in (reviewed, whole_store):
    globals()[build.__name__ + "_dag"] = build()

"""A DAG whose task log is read."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator


class Limited(DescribeImagesOperator):
    """Takes its budget from the run's `conf`."""

    def execute(self, context: Any) -> Any:
        self.max_calls = context["params"]["max_calls"]
        return super().execute(context)


@dag(params={"images": [], "conn_id": "", "store": "", "max_calls": None})
def logged() -> None:
    @task
    def listing(params: dict[str, Any]) -> list[str]:
        return list(params["images"])

    Limited(
        task_id="describe",
        images=listing(),
        describer_conn_id="{{ params.conn_id }}",
        store="{{ params.store }}",
        concurrency=1,
    )


logged()

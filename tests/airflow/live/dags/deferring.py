"""DAGs that describe what their `conf` says and wait outside the worker, or in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator

DAGS: dict[str, dict[str, Any]] = {
    "deferring": {"deferrable": True},
    "staying": {"deferrable": False},
    # All requests at once.
    "tried_again": {"deferrable": True, "concurrency": 500, "retries": 2, "retry_delay": timedelta(seconds=1)},
    # In a pool of one slot.
    "at_a_pace": {"deferrable": True, "pool": "one_slot"},
    "in_time": {"deferrable": True, "execution_timeout": timedelta(seconds=90)},
    "one_by_one_in_time": {"deferrable": True, "concurrency": 1, "execution_timeout": timedelta(seconds=5)},
}


def describing(dag_id: str, arguments: dict[str, Any]) -> None:
    with DAG(dag_id, params={"images": "", "store": "", "conn_id": ""}, default_args={"retries": 0}):
        DescribeImagesOperator(
            task_id="describe",
            images="{{ params.images }}",
            describer_conn_id="{{ params.conn_id }}",
            store="{{ params.store }}",
            defer_after=15,
            **arguments,
        )


for name, given in DAGS.items():
    describing(name, given)


with DAG("beside"):
    # A task that wants the only slot of the pool.
    task(task_id="describe", pool="one_slot")(lambda: None)()

"""Tasks that fail, with the ready retry policy and without."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, get_current_context, task

from airflow_provider_describer.errors import BadInput, RateLimited, VendorUnavailable
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.retries import describer_retry_policy

try:
    POLICY: dict[str, Any] = {"retry_policy": describer_retry_policy()}
except BadInput:  # before Airflow 3.3
    POLICY = {}


def _count(name: str) -> int:
    """Return how many times it was called in this DAG run."""
    context = get_current_context()
    counts = Path(context["params"]["counts"], name)
    with counts.open("a") as file:
        file.write(".")
    return len(counts.read_text())


@dag(params={"image": "", "store": "", "counts": ""}, default_args={"retries": 1, "retry_delay": timedelta(0)})
def with_policy() -> None:
    @task(**POLICY)
    def account(params: dict[str, Any]) -> str:
        return DescriberHook("segmind_default").describe(params["image"]).text

    @task
    def alone(params: dict[str, Any]) -> str:
        return DescriberHook("segmind_default").describe(params["image"]).text

    # An hour, but for the policy.
    @task(retry_delay=timedelta(hours=1), **POLICY)
    def later() -> None:
        if _count("later") == 1:
            raise RateLimited("slow down", retry_at=time.time())

    # Before Airflow 3.4, each wait is a retry, of which it has one.
    @task(**POLICY)
    def twice_later() -> None:
        if (seen := _count("twice_later")) < 3:
            raise RateLimited(f"slow down, {seen}", retry_at=time.time())

    @task(retries=0, **POLICY)
    def without_retries() -> None:
        if _count("without_retries") < 2:
            raise VendorUnavailable("down", retry_at=time.time())

    account()
    alone()
    twice_later()
    without_retries()
    later()
    DescribeImagesOperator(task_id="operator", images=["{{ params.image }}"], store="{{ params.store }}", **POLICY)


with_policy_dag = with_policy()

"""Tasks that fail, with the ready retry policy and without."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task

from airflow_provider_describer.errors import BadInput, RateLimited
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.retries import describer_retry_policy

try:
    POLICY: dict[str, Any] = {"retry_policy": describer_retry_policy()}
except BadInput:  # before Airflow 3.3
    POLICY = {}


@dag(params={"image": "", "store": ""}, default_args={"retries": 1, "retry_delay": timedelta(0)})
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
        if get_current_context()["ti"].try_number == 1:
            raise RateLimited("slow down", retry_at=time.time())

    account()
    alone()
    later()
    DescribeImagesOperator(task_id="operator", images=["{{ params.image }}"], store="{{ params.store }}", **POLICY)


with_policy_dag = with_policy()

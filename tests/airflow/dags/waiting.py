"""DAGs whose tasks have to wait for their vendor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag

from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.sensors.images import DescribeImagesSensor

PARAMS: dict[str, Any] = {"listing": "", "store": "", "image": ""}
ASKED: dict[str, Any] = {"images": "{{ params.listing }}", "store": "{{ params.store }}", "describer_conn_id": "shop"}


@dag(params=PARAMS, default_args={"retries": 0})
def waiting() -> None:
    DescribeImagesOperator(task_id="describe", deferrable=True, defer_after=15, **ASKED)


@dag(params=PARAMS, default_args={"retries": 3, "retry_delay": timedelta(0)})
def hasty() -> None:
    DescribeImagesOperator(task_id="describe", deferrable=True, defer_after="{{ 14.9 }}", **ASKED)


@dag(params=PARAMS, default_args={"retries": 0})
def skipping() -> None:
    DescribeImagesOperator(task_id="describe", on_claimed="{{ 'skip' }}", **ASKED)
    DescribeImageOperator(
        task_id="one", image="{{ params.image }}", store=ASKED["store"], describer_conn_id="shop", on_claimed="skip"
    )


@dag(params=PARAMS, default_args={"retries": 0})
def sensing() -> None:
    DescribeImagesSensor(task_id="describe", poke_interval=0.05, timeout=60, **ASKED)


for build in (waiting, hasty, skipping, sensing):
    globals()[build.__name__ + "_dag"] = build()

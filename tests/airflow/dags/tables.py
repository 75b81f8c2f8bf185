"""DAGs whose results are Parquet."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.sensors.images import DescribeImagesSensor


@dag(params={"folder": ""})
def tables() -> None:
    asked: dict[str, Any] = {
        "images": "{{ params.folder }}/images.csv",
        "images_base": "{{ params.folder }}",
        "store": "{{ params.folder }}/store",
        "max_failure_ratio": 1.0,
        "results_format": "parquet",
    }
    described = DescribeImagesOperator(task_id="described", **asked)
    described >> DescribeImagesSensor(task_id="sensed", **asked)


@dag(params={"folder": ""})
def sheets() -> None:
    DescribeImagesOperator(task_id="describe", images=["/nowhere.jpg"], results_format="{{ 'xlsx' }}")


tables_dag, sheets_dag = tables(), sheets()

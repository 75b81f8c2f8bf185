"""What a user writes: an operator of the cloud's provider lists, ours describes, the store lies beside the images."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.operators.s3 import S3ListOperator
from airflow.providers.google.cloud.operators.gcs import GCSListObjectsOperator
from airflow.sdk import dag

from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator

PARAMS: dict[str, Any] = {"bucket": "", "store": "", "describer_conn_id": "image_describer_default"}
DESCRIBE: dict[str, Any] = {
    "task_id": "describe",
    "store": "{{ params.store }}",
    "describer_conn_id": "{{ params.describer_conn_id }}",
    "concurrency": 16,
}


@dag(params=PARAMS, default_args={"retries": 0})
def from_s3() -> None:
    keys = S3ListOperator(task_id="list", bucket="{{ params.bucket }}", prefix="photos/")
    DescribeImagesOperator(images=keys.output, images_base="s3://{{ params.bucket }}/", **DESCRIBE)


@dag(params=PARAMS, default_args={"retries": 0})
def from_gcs() -> None:
    names = GCSListObjectsOperator(task_id="list", bucket="{{ params.bucket }}", prefix="photos/")
    DescribeImagesOperator(images=names.output, images_base="gs://{{ params.bucket }}/", **DESCRIBE)


@dag(params={**PARAMS, "image": ""}, default_args={"retries": 0})
def one_object() -> None:
    DescribeImageOperator(
        task_id="describe", image="{{ params.image }}", describer_conn_id="{{ params.describer_conn_id }}"
    )


for build in (from_s3, from_gcs, one_object):
    globals()[build.__name__ + "_dag"] = build()

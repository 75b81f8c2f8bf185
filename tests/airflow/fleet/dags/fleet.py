"""List the images of a bucket, describe them in chunks on all workers, and publish what came of it in the bucket."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import DAG, get_current_context, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator

PARAMS = {"place": "", "images": "", "chunk_size": 1}
STORE = "{{ params.place }}/store"
ACCOUNT: dict[str, Any] = {"describer_conn_id": "fleet", "store": STORE}

with DAG("fleet", params=PARAMS, default_args={"retries": 3, "retry_delay": timedelta(seconds=1)}):
    images = ListImagesOperator(
        task_id="list", path="{{ params.place }}/{{ params.images }}/", chunk_size="{{ params.chunk_size }}", **ACCOUNT
    )
    described = DescribeImagesOperator.partial(task_id="describe", concurrency=8, **ACCOUNT).expand(
        images=images.output
    )

    @task
    def publish(manifests: list[dict[str, Any]]) -> None:
        """Name the result files of all chunks in one object."""
        params = get_current_context()["params"]
        results = [manifest["results"] for manifest in manifests]
        S3Hook().load_string(json.dumps({"results": results}), f"{params['place']}/published/{params['images']}.json")

    publish(described.output)

"""Describe the new images of an S3 bucket every night: list what is new, describe it in chunks, publish.

Needs a connection of type ``segmind`` or ``image_describer``, one of type ``aws`` (``aws_default``) for the bucket, and
``pip install 'airflow-provider-describer[amazon]'``.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator

STORE = "{{ params.store }}"
DESCRIBER = "{{ params.describer_conn_id }}"
PLACE: dict[str, Any] = {"type": "string", "pattern": "^s3://."}


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images of the first
    params={
        "images": Param(
            "s3://catalog/products/**", title="Images", description="** stands for folders of any depth.", **PLACE
        ),
        "store": Param(
            "s3://catalog/descriptions/", title="Store", description="What it has is not paid for again.", **PLACE
        ),
        "describer_conn_id": Param("segmind_default", type="string", minLength=1, title="Connection"),
        "chunk_size": Param(1000, type="integer", minimum=1, title="Chunk", description="Images of one mapped task."),
        "dry_run": Param(False, type="boolean", title="Only plan", description="Say what would be called."),
    },
    tags=["describer", "example"],
    doc_md=__doc__,
)
def s3_catalog() -> None:
    new = ListImagesOperator(
        task_id="list_new",
        path="{{ params.images }}",
        chunk_size="{{ params.chunk_size }}",
        only_new=True,
        store=STORE,
        describer_conn_id=DESCRIBER,
    )
    # One task for each chunk, and many calls at a time in each task.
    describe = DescribeImagesOperator.partial(
        task_id="describe",
        store=STORE,
        describer_conn_id=DESCRIBER,
        dry_run="{{ params.dry_run }}",
        max_active_tis_per_dag=4,
    ).expand(images=new.output)

    @task
    def publish(manifests: list[dict[str, Any]]) -> dict[str, float]:
        """Load the result files into the catalog; this example only prints their totals."""
        for manifest in manifests:
            print(manifest["results"], manifest["counts"])
        return {name: sum(manifest[name] or 0 for manifest in manifests) for name in ("calls", "cost_usd")}

    publish(describe.output)


s3_catalog()

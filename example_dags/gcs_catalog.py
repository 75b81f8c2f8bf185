"""Describe the images below a prefix of a GCS bucket: listed by Google's own operator, described in chunks, published.

Needs a connection of type ``image_describer`` or ``segmind``, one of type ``google_cloud_platform``
(``google_cloud_default``) for the bucket, and ``pip install 'airflow-provider-describer[google]'``.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.google.cloud.operators.gcs import GCSListObjectsOperator
from airflow.sdk import Param, dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images of the first
    params={
        "bucket": Param("catalog", type="string", pattern="^[a-z0-9._-]+$", title="Bucket"),
        "prefix": Param("products/", type="string", title="Prefix", description="Of the images' names in the bucket."),
        "store": Param("gs://catalog/descriptions/", type="string", pattern="^gs://.", title="Store"),
        "describer_conn_id": Param("image_describer_default", type="string", minLength=1, title="Connection"),
        "chunk_size": Param(1000, type="integer", minimum=1, title="Chunk", description="Images of one mapped task."),
    },
    tags=["describer", "example"],
    doc_md=__doc__,
)
def gcs_catalog() -> None:
    names = GCSListObjectsOperator(task_id="list", bucket="{{ params.bucket }}", prefix="{{ params.prefix }}")

    @task
    def chunks(names: list[str], params: dict[str, Any]) -> list[list[str]]:
        size = params["chunk_size"]
        return [names[start : start + size] for start in range(0, len(names), size)]

    # One task for each chunk, and many calls at a time in each task. What the store already has is not paid again.
    describe = DescribeImagesOperator.partial(
        task_id="describe",
        images_base="gs://{{ params.bucket }}/",
        store="{{ params.store }}",
        describer_conn_id="{{ params.describer_conn_id }}",
        max_active_tis_per_dag=4,
    ).expand(images=chunks(names.output))

    @task
    def publish(manifests: list[dict[str, Any]]) -> dict[str, float]:
        """Load the result files into the catalog; this example only prints their totals."""
        for manifest in manifests:
            print(manifest["results"], manifest["counts"])
        return {name: sum(manifest[name] or 0 for manifest in manifests) for name in ("calls", "cost_usd")}

    publish(describe.output)


gcs_catalog()

"""Describe a folder of images every night: list, describe, publish.

Needs a connection of type ``image_describer`` or ``segmind``; see Admin > Connections.
"""

from __future__ import annotations

import json
from glob import glob
from pathlib import Path

import pendulum
from airflow.sdk import dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once may both pay for the same new image, and triggering a paused DAG starts its scheduled run too.
    max_active_runs=1,
    params={
        "images": "/data/catalog/*.jpg",
        "store": "/data/descriptions",
        "describer_conn_id": "image_describer_default",
    },
    tags=["describer", "example"],
    doc_md=__doc__,
)
def catalog_enrichment() -> None:
    @task
    def list_images(params: dict[str, str]) -> list[str]:
        return sorted(glob(params["images"]))  # noqa: PTH207  # a whole pattern, as users write it

    describe = DescribeImagesOperator(
        task_id="describe",
        images=list_images(),
        store="{{ params.store }}",
        describer_conn_id="{{ params.describer_conn_id }}",
    )

    @task
    def publish(manifest: dict[str, str]) -> int:
        """Load the rows into the catalog; this example only prints them."""
        rows = [json.loads(line) for line in Path(manifest["results"]).read_text().splitlines()]
        for row in rows:
            print(row["uri"], "->", row["text"] or row["error"])
        return len(rows)

    publish(describe.output)


catalog_enrichment()

"""Describe a folder of images every night: list, describe, publish.

Needs a connection of type ``image_describer`` or ``segmind``; see Admin > Connections.
"""

from __future__ import annotations

import json
from glob import glob
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator

PATH: dict[str, Any] = {"type": "string", "pattern": "^/"}


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once may both pay for the same new image, and triggering a paused DAG starts its scheduled run too.
    max_active_runs=1,
    params={
        "images": Param(
            "/data/catalog/*.jpg", title="Images", description="An absolute path; * stands for any text.", **PATH
        ),
        "store": Param("/data/descriptions", title="Store", description="What it has is not paid for again.", **PATH),
        "describer_conn_id": Param("image_describer_default", type="string", minLength=1, title="Connection"),
        "prompt": Param(None, type=["null", "string"], title="Prompt", description="Empty: the vendor's own wording."),
        "lang": Param("en", enum=["en", "de", "es", "fr", "ja", "zh"], title="Language"),
        "max_calls": Param(
            None, type=["null", "integer"], minimum=0, title="Calls at most", description="Empty: no limit."
        ),
        "dry_run": Param(False, type="boolean", title="Only plan", description="Say what would be called."),
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
        prompt="{{ params.prompt }}",
        lang="{{ params.lang }}",
        max_calls="{{ params.max_calls }}",
        dry_run="{{ params.dry_run }}",
    )

    @task
    def publish(manifest: dict[str, str | None]) -> int:
        """Load the rows into the catalog; this example only prints them."""
        results = manifest["results"]  # a dry run has none
        rows = [json.loads(line) for line in Path(results).read_text().splitlines()] if results else []
        for row in rows:
            print(row["uri"], "->", row["text"] or row["error"])
        return len(rows)

    publish(describe.output)


catalog_enrichment()

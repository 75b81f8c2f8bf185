"""Describe a large folder in short slices, if no task may hold a worker for long.

``new_images`` waits until there are new images. ``describe`` makes 200 calls, gives its worker back, and goes on five
minutes later, until no image is pending. Needs a connection of type ``image_describer`` or ``segmind``.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor

WHERE: dict[str, Any] = {"store": "{{ params.store }}", "describer_conn_id": "{{ params.describer_conn_id }}"}
PLACE: dict[str, Any] = {"type": "string", "pattern": "^(/|s3://.|gs://.)"}


@dag(
    schedule="@weekly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images of the first
    params={
        "images": Param("/data/archive/**", title="Images", description="** stands for folders of any depth.", **PLACE),
        "store": Param("/data/descriptions", title="Store", description="What it has is not paid for again.", **PLACE),
        "describer_conn_id": Param("image_describer_default", type="string", minLength=1, title="Connection"),
        "slice_size": Param(200, type="integer", minimum=1, title="Slice", description="The most calls in one poke."),
    },
    default_args={"mode": "reschedule", "poke_interval": timedelta(minutes=5), "timeout": timedelta(days=6)},
    tags=["describer", "example"],
    doc_md=__doc__,
)
def describe_in_slices() -> None:
    new = NewImagesSensor(task_id="new_images", path="{{ params.images }}", settle_seconds=60, **WHERE)
    describe = DescribeImagesSensor(
        task_id="describe", images=new.output, slice_size="{{ params.slice_size }}", **WHERE
    )

    @task
    def publish(manifest: dict[str, str]) -> int:
        """Load the rows into the archive's catalog; this example only prints them."""
        rows = [json.loads(line) for line in Path(manifest["results"]).read_text().splitlines()]
        for row in rows:
            print(row["uri"], "->", row["text"] or row["error"])
        return len(rows)

    publish(describe.output)


describe_in_slices()

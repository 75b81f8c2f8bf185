"""Describe the images that a function returns: a query's rows, an API's answer, or, here, a file that a shop exports.

Needs a connection of type ``image_describer`` or ``segmind``; see Admin > Connections.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import dag, task


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images that this one is paying for
    params={"products": "/data/products.csv", "store": "/data/descriptions", "conn_id": "image_describer_default"},
    tags=["describer", "example"],
    doc_md=__doc__,
)
def describe_task() -> None:
    @task.describe_images(
        describer_conn_id="{{ params.conn_id }}",
        store="{{ params.store }}",
        prompt="Describe this {title} for a blind customer, in two sentences.",
    )
    def describe(products: str) -> list[dict[str, Any]]:
        with Path(products).open(newline="", encoding="utf-8") as file:
            return [{"uri": row["image"], "fields": {"title": row["title"]}} for row in csv.DictReader(file)]

    @task
    def report(manifest: dict[str, Any]) -> None:
        print(manifest["counts"], "cost USD", manifest["cost_usd"])

    report(describe("{{ params.products }}"))


describe_task()

"""Describe the images that a function returns: a query's rows, an API's answer, or, here, a file that a shop exports.

Needs a connection of type ``image_describer`` or ``segmind``; see Admin > Connections.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images that this one is paying for
    params={
        "products": Param(
            "/data/products.csv", type="string", pattern="^/", title="Products", description="A CSV file."
        ),
        "store": Param("/data/descriptions", type="string", pattern="^/", title="Store"),
        "describer_conn_id": Param("image_describer_default", type="string", minLength=1, title="Connection"),
    },
    tags=["describer", "example"],
    doc_md=__doc__,
)
def describe_task() -> None:
    @task.describe_images(
        describer_conn_id="{{ params.describer_conn_id }}",
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

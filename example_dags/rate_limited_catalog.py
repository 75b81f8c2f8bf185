"""Describe new images every night within a strict rate limit, and hold no worker while waiting.

Needs a connection of type ``segmind`` with ``api_version`` ``v2``. Its ``requests_per_minute``, ``max_cost_per_day``
and ``limits_path`` (a folder that all workers share) apply to every task that uses it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.sensors.credits import CreditsSensor

STORE = "{{ params.store }}"
DESCRIBER = "{{ params.describer_conn_id }}"
PLACE: dict[str, Any] = {"type": "string", "pattern": "^(/|s3://.|gs://.)"}


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
        "max_cost": Param(
            None, type=["null", "number"], minimum=0, title="USD at most", description="Empty: no limit."
        ),
    },
    # A retry goes on from the store and pays for nothing twice.
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["describer", "example"],
    doc_md=__doc__,
)
def rate_limited_catalog() -> None:
    new = ListImagesOperator(
        task_id="list_new", path="{{ params.images }}", only_new=True, store=STORE, describer_conn_id=DESCRIBER
    )
    # Waits until the account has been topped up.
    solvent = CreditsSensor(task_id="credits", describer_conn_id=DESCRIBER, min_credits=1.0, deferrable=True)
    describe = DescribeImagesOperator(
        task_id="describe",
        images=new.output,
        store=STORE,
        describer_conn_id=DESCRIBER,
        max_cost="{{ params.max_cost }}",
        deferrable=True,
    )

    @task
    def report(manifest: dict[str, Any]) -> dict[str, int]:
        print(f"{manifest['calls']} calls, ${manifest['cost_usd']:.3f}: {manifest['results']}")
        counts: dict[str, int] = manifest["counts"]
        return counts

    new >> solvent >> describe
    report(describe.output)


rate_limited_catalog()

"""Describe new images every night within a strict rate limit, and hold no worker while waiting.

Needs a connection of type ``segmind`` with ``api_version`` ``v2``. Its ``requests_per_minute``, ``max_cost_per_day``
and ``limits_path`` (a folder that all workers share) apply to every task that uses it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.sensors.credits import CreditsSensor

STORE = "{{ params.store }}"
DESCRIBER = "{{ params.describer_conn_id }}"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # a second run would only wait for the images of the first
    params={
        "images": "s3://catalog/products/**",
        "store": "s3://catalog/descriptions/",
        "describer_conn_id": "segmind_default",
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
        task_id="describe", images=new.output, store=STORE, describer_conn_id=DESCRIBER, deferrable=True
    )

    @task
    def report(manifest: dict[str, Any]) -> dict[str, int]:
        print(f"{manifest['calls']} calls, ${manifest['cost_usd']:.3f}: {manifest['results']}")
        counts: dict[str, int] = manifest["counts"]
        return counts

    new >> solvent >> describe
    report(describe.output)


rate_limited_catalog()

"""A DAG that runs when images have arrived in a folder of Airflow's home."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import Asset, AssetWatcher, dag, get_current_context, task

from airflow_provider_describer.operators.assets import arrived_images
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.triggers.images import NewImagesTrigger

PLACE = Path(os.environ["AIRFLOW_HOME"]) / "arrivals"
TRIGGER = NewImagesTrigger(path=str(PLACE / "inbox"), state_path=str(PLACE / "state"), poll_interval=3)
INBOX = Asset("inbox", watchers=[AssetWatcher(name="arrivals", trigger=TRIGGER)])


@dag(schedule=[INBOX], default_args={"retries": 0})
def arriving() -> None:
    @task
    def arrived() -> object:
        return arrived_images(get_current_context(), INBOX)

    DescribeImagesOperator(
        task_id="describe",
        images=arrived(),
        describer_conn_id="arriving",
        store=str(PLACE / "store"),
        deferrable=True,
    )


arriving()

"""DAGs that wait: for images, for credits, and for the next slice."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetAlias, dag, task

from airflow_provider_describer.operators.assets import store_asset
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.sensors.credits import CreditsSensor
from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor

RETRIES = {"retries": 3, "retry_delay": timedelta(0)}
PARAMS: dict[str, Any] = {"path": "", "store": "", "images": [], "conn_id": "segmind_default", "storage": None}
STORE = "{{ params.store }}"
CONN_ID = "{{ params.conn_id }}"
# Shorter than in practice, so that tests need not wait; a deferral takes 15 s all the same.
SOON = 0.05
HOWS: dict[str, dict[str, Any]] = {
    "poke": {},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}


@task
def listing(params: dict[str, Any]) -> list[Any]:
    return list(params["images"])


@task
def move_in(params: dict[str, Any]) -> None:
    """Let the images come, once the sensor has looked."""
    for number, image in enumerate(params["images"]):
        Path(params["path"], f"{number}.png").write_bytes(Path(image).read_bytes())


def waiting(name: str, how: dict[str, Any]) -> None:
    """For images, for an account, and in vain."""
    more: dict[str, Any] = {"poke_interval": SOON, **how}
    with DAG(f"arriving_{name}", params=PARAMS, default_args=RETRIES) as arriving:
        NewImagesSensor(task_id="wait", path="{{ params.path }}", timeout=60, **more)
    with DAG(f"pending_{name}", params=PARAMS, default_args=RETRIES) as pending:
        new = NewImagesSensor(
            task_id="wait", path="{{ params.path }}", store=STORE, min_images=2, inline_limit=2, timeout=60, **more
        )
        DescribeImagesOperator(task_id="describe", images=new.output, store=STORE)
    with DAG(f"credits_{name}", params=PARAMS, default_args=RETRIES) as balance:
        CreditsSensor(task_id="wait", describer_conn_id=CONN_ID, min_credits=2.5, timeout=60, **more)
    for found in (arriving, pending, balance):
        globals()[found.dag_id] = found


def in_vain(name: str, how: dict[str, Any]) -> None:
    """One look, and no time for another."""
    with DAG(f"in_vain_{name}", params=PARAMS, default_args=RETRIES) as found:
        for soft in (False, True):
            more: dict[str, Any] = {"timeout": 0, "poke_interval": SOON, "soft_fail": soft, **how}
            NewImagesSensor(task_id=f"images_{soft}", path="{{ params.path }}", min_images=99, **more)
            CreditsSensor(task_id=f"credits_{soft}", describer_conn_id=CONN_ID, min_credits=1e6, **more)
            NewImagesSensor(task_id=f"nowhere_{soft}", path="/nowhere/at/all", **more)
            CreditsSensor(task_id=f"none_{soft}", describer_conn_id="image_describer_default", min_credits=1, **more)
    globals()[found.dag_id] = found


for one_name, one_how in HOWS.items():
    waiting(one_name, one_how)
    in_vain(one_name, one_how)


@dag(params=PARAMS, default_args=RETRIES)
def moving_in() -> None:
    """Images that come between two pokes of a rescheduled sensor."""
    NewImagesSensor(task_id="wait", path="{{ params.path }}", mode="reschedule", poke_interval=SOON, timeout=60)
    # Each of them takes a turn of its own, and the sensor's first poke is in the first.
    task(task_id="first")(lambda: None)() >> task(task_id="second")(lambda: None)() >> move_in()


@dag(params=PARAMS, default_args=RETRIES)
def arriving_in_files() -> None:
    """Too many for XCom, and a task a chunk."""
    where: dict[str, Any] = {"path": "{{ params.path }}", "timeout": 0}
    new = NewImagesSensor(task_id="wait", store=STORE, inline_limit=2, chunk_size=4, **where)
    DescribeImagesOperator.partial(task_id="describe", store=STORE).expand(images=new.output)
    NewImagesSensor(task_id="many", inline_limit=2, **where)


@dag(params=PARAMS, default_args={"retries": 0})
def arriving_in_a_bucket() -> None:
    NewImagesSensor(
        task_id="wait",
        path="{{ params.path }}",
        storage_conn_id="storage",
        settle_seconds=0.05,
        poke_interval=SOON,
        timeout=60,
        deferrable=True,
    )


# What would be known when this file is parsed is written as a template, so that the task meets it.
SENSOR_WRONG: dict[str, dict[str, Any]] = {
    "web_address": {"path": "{{ 'https://x.example/catalog' }}"},
    "path_of_another_kind": {"path": "{{ 7 }}"},
    "no_images": {"path": "{{ params.path }}", "min_images": "{{ 0 }}"},
    "no_time": {"path": "{{ params.path }}", "settle_seconds": "{{ -1 }}"},
    "blank_store": {"path": "{{ params.path }}", "store": "{{ ' ' }}"},
    "no_such_connection": {"path": "s3://shop/", "storage_conn_id": "nowhere"},
    "other_type": {"path": "{{ params.path }}", "store": STORE, "describer_conn_id": "web"},
}


@dag(params=PARAMS, default_args=RETRIES)
def sensed_wrongly() -> None:
    for name, arguments in SENSOR_WRONG.items():
        NewImagesSensor(task_id=name, **arguments)
    DescribeImagesSensor(task_id="no_slice", images=["/a.png"], store=STORE, slice_size="{{ 0 }}")
    DescribeImagesSensor(task_id="no_list", images="{{ '/a.png' }}", store=STORE)
    DescribeImagesSensor(task_id="slices_without_a_store", images=["/a.png"], store="{{ ' ' }}")
    DescribeImagesSensor(
        task_id="too_late", images=["/a.png"], store=STORE, describer_conn_id="version_2", poke_interval=7200
    )


for slice_name in ("poke", "reschedule"):
    with DAG(f"slices_{slice_name}", params=PARAMS, default_args=RETRIES) as slices:
        DescribeImagesSensor(
            task_id="describe",
            images=listing(),
            store=STORE,
            describer_conn_id=CONN_ID,
            slice_size=2,
            mode=slice_name,
            poke_interval=SOON,
            timeout=60,
            max_failure_ratio=0.5,
            concurrency=1,
        )
    globals()[slices.dag_id] = slices


@dag(params=PARAMS, default_args=RETRIES)
def slices_in_vain() -> None:
    """One slice, and no time for another."""
    more: dict[str, Any] = {"images": listing(), "store": STORE, "slice_size": 2, "timeout": 0, "concurrency": 1}
    DescribeImagesSensor(task_id="describe", **more) >> DescribeImagesSensor(
        task_id="softly", soft_fail=True, trigger_rule="all_done", **more
    )


# Outlets are no templates: what a test has as its store is known where the file is parsed.
KEPT = os.environ.get("TEST_STORE", "/data/descriptions")


@dag(params=PARAMS, default_args=RETRIES, schedule=None)
def announcing() -> None:
    """A store that tells what it has been given, by each kind of task."""
    images = listing()
    sensor = DescribeImagesSensor(
        task_id="sensor", images=images, store=f"{KEPT}/", slice_size=2, poke_interval=SOON, outlets=[store_asset(KEPT)]
    )
    reused = DescribeImagesOperator(
        task_id="reused", images=images, store=KEPT, outlets=[store_asset(KEPT), Asset("another")]
    )
    templated = DescribeImagesOperator(
        task_id="templated", images=images, store=f"{STORE}", outlets=[AssetAlias("descriptions")]
    )
    one = DescribeImageOperator.partial(
        task_id="one", prompt="What is on it?", store=KEPT, outlets=[store_asset(KEPT)]
    ).expand(image=images)
    planned = DescribeImagesOperator(
        task_id="planned", images=images, prompt="x", store=KEPT, dry_run=True, outlets=[store_asset(KEPT)]
    )
    sensor >> reused >> templated >> one >> planned


@dag(params=PARAMS, default_args={"retries": 1, "retry_delay": timedelta(0)}, schedule=None)
def announcing_late() -> None:
    """A try that has all described, and does not come to its end."""

    class Interrupted(DescribeImagesOperator):
        def execute(self, context: Any) -> Any:
            manifest = super().execute(context)
            if context["ti"].try_number == 1:
                raise ConnectionError("the worker lost its database")
            return manifest

    Interrupted(task_id="describe", images=listing(), store=KEPT, outlets=[store_asset(KEPT)])


announcing_dag, announcing_late_dag = announcing(), announcing_late()
moving_in_dag, arriving_in_files_dag, arriving_in_a_bucket_dag = (
    moving_in(),
    arriving_in_files(),
    arriving_in_a_bucket(),
)
sensed_wrongly_dag, slices_in_vain_dag = sensed_wrongly(), slices_in_vain()

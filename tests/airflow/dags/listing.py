"""DAGs that list the images which their `conf` says, and describe them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import ObjectStoragePath, dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator

RETRIES = {"retries": 3, "retry_delay": timedelta(0)}
PARAMS: dict[str, Any] = {"path": "", "store": "", "limit": None, "after": "", "types": ["jpg", "png"], "inline": 1000}
STORE = "{{ params.store }}"


@dag(params=PARAMS, default_args=RETRIES)
def listed() -> None:
    """What a bucket or folder has is listed, and described."""
    images = ListImagesOperator(
        task_id="list",
        path="{{ params.path }}",
        limit="{{ params.limit }}",
        modified_after="{{ params.after }}",
        store=STORE,
    )
    DescribeImagesOperator(task_id="describe", images=images.output, store=STORE)


@dag(params=PARAMS, default_args=RETRIES)
def listed_in_a_file() -> None:
    """Too much for XCom: the file's path is handed on."""
    images = ListImagesOperator(task_id="list", path="{{ params.path }}", store=STORE, inline_limit=2)
    describe = DescribeImagesOperator(task_id="describe", images=images.output, store=STORE)
    again = DescribeImagesOperator(task_id="again", images="{{ ti.xcom_pull('list') }}", store=STORE, dry_run=True)
    describe >> again


@dag(params=PARAMS, default_args=RETRIES)
def mapped() -> None:
    """A task a chunk: inline, and in files."""
    for name, inline in (("inline", 1000), ("filed", 2)):
        chunks = ListImagesOperator(
            task_id=name, path="{{ params.path }}", chunk_size=4, store=STORE, inline_limit=inline
        )
        DescribeImagesOperator.partial(task_id=f"describe_{name}", store=STORE + "/" + name).expand(
            images=chunks.output
        )
    # What mapped tasks return is one list to the task behind them.
    several = ListImagesOperator.partial(task_id="several", chunk_size=2).expand(path=["{{ params.path }}/**/*r*"])
    DescribeImagesOperator(task_id="together", images=several.output, store=STORE, dry_run=True)


@dag(params=PARAMS, default_args=RETRIES)
def nightly() -> None:
    """Only what is new is listed; described in chunks, none of them where nothing is."""
    images = ListImagesOperator(
        task_id="list", path="{{ params.path }}", only_new=True, chunk_size=100, store=STORE, prompt="What is on it?"
    )
    DescribeImagesOperator.partial(task_id="describe", store=STORE, prompt="What is on it?").expand(
        images=images.output
    )


@dag(params=PARAMS, default_args=RETRIES)
def storage_paths() -> None:
    """Airflow's own paths, as a task returns them."""

    @task
    def paths(params: dict[str, Any]) -> list[ObjectStoragePath]:
        return sorted(ObjectStoragePath(f"file://{params['path']}").iterdir(), key=str)

    DescribeImagesOperator(task_id="describe", images=paths(), store=STORE)


@dag(params=PARAMS, default_args={"retries": 0})
def in_a_bucket() -> None:
    """Images and store lie in a bucket, for which one connection has the credentials."""
    bucket: dict[str, Any] = {"storage_conn_id": "storage", "path": "{{ params.path }}"}
    ListImagesOperator(task_id="inline", **bucket)
    ListImagesOperator(task_id="filed", store=STORE, inline_limit=2, **bucket)
    ListImagesOperator(task_id="chunked", store=STORE, inline_limit=2, chunk_size=2, **bucket)
    ListImagesOperator(task_id="new", store=STORE, only_new=True, limit=1, **bucket)


# What would be known when this file is parsed is written as a template, so that the task meets it.
WRONG: dict[str, dict[str, Any]] = {
    "missing_folder": {"path": "/nowhere/at/all"},
    "web_address": {"path": "{{ 'https://x.example/catalog' }}"},
    "blank_path": {"path": "{{ ' ' }}"},
    "path_of_another_kind": {"path": "{{ 7 }}"},
    "types_as_text": {"path": "{{ params.path }}", "types": "{{ 'jpg' }}"},
    "no_limit": {"path": "{{ params.path }}", "limit": "{{ 0 }}"},
    "word_for_a_size": {"path": "{{ params.path }}", "min_size": "{{ 'large' }}"},
    "no_time": {"path": "{{ params.path }}", "modified_after": "{{ 'yesterday' }}"},
    "no_chunk": {"path": "{{ params.path }}", "chunk_size": "{{ 0 }}"},
    "new_without_a_store": {"path": "{{ params.path }}", "only_new": "{{ true }}"},
    "many_without_a_store": {"path": "{{ params.path }}", "inline_limit": 1},
    "chunks_beyond_mapping": {"path": "{{ params.path }}", "chunk_size": 1},
    "blank_store": {"path": "{{ params.path }}", "store": "{{ ' ' }}"},
    "no_such_connection": {"path": "s3://shop/", "storage_conn_id": "nowhere"},
    "other_connection": {"path": "s3://shop/", "storage_conn_id": "web"},
}


@dag(params=PARAMS, default_args=RETRIES)
def listed_wrongly() -> None:
    for name, arguments in WRONG.items():
        ListImagesOperator(task_id=name, **arguments)


for build in (listed, listed_in_a_file, mapped, nightly, storage_paths, in_a_bucket, listed_wrongly):
    globals()[build.__name__ + "_dag"] = build()

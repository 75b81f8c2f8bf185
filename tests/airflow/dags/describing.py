"""DAGs that describe what their `conf` says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.rules import Matches, NoMarkdown
from airflow_provider_describer.sensors.images import DescribeImagesSensor

# A task that is retried although it should not be shows it by its try number, at once.
RETRIES = {"retries": 3, "retry_delay": timedelta(0)}
CONN_ID = "{{ params.conn_id }}"
PARAMS: dict[str, Any] = {"images": [], "conn_id": "image_describer_default", "store": "", "title": "shop"}


@task
def listing(params: dict[str, Any]) -> list[Any]:
    return list(params["images"])


@dag(params=PARAMS, default_args=RETRIES)
def one_by_one() -> None:
    DescribeImageOperator.partial(task_id="describe", describer_conn_id=CONN_ID).expand(image=listing())


@dag(params=PARAMS, default_args=RETRIES)
def stored() -> None:
    DescribeImagesOperator(
        task_id="describe",
        images=listing(),
        describer_conn_id=CONN_ID,
        store="{{ params.store }}",
        max_failure_ratio=0.5,
        # One at a time, so that what a fault strikes is known.
        concurrency=1,
    )


@dag(params={**PARAMS, "others": []}, default_args=RETRIES)
def chained() -> None:
    DescribeImagesOperator(
        task_id="describe",
        images=listing(),
        describer_conn_id=CONN_ID,
        fallback_conn_ids="{{ params.others }}",
        store="{{ params.store }}",
    )


@dag(params={**PARAMS, "others": ""}, default_args=RETRIES)
def one_chained() -> None:
    DescribeImageOperator.partial(
        task_id="describe", describer_conn_id=CONN_ID, fallback_conn_ids="{{ params.others }}"
    ).expand(image=listing())


@dag(params=PARAMS, default_args=RETRIES)
def templated() -> None:
    DescribeImagesOperator(
        task_id="describe",
        images=listing(),
        images_base="{{ params.base }}",
        describer_conn_id=CONN_ID,
        prompt="Describe this {title} for the {{ params.title }} of {{ ds }}.",
        lang=["en", "de"],
        store="{{ params.store }}/{{ run_id | length }}",
    )


@dag(params=PARAMS, default_args=RETRIES)
def inline() -> None:
    describe = DescribeImagesOperator(task_id="describe", images=listing(), describer_conn_id=CONN_ID)

    @task
    def texts(manifest: dict[str, Any]) -> list[str]:
        return [row["text"] for row in manifest["descriptions"]]

    texts(describe.output)


@dag(params=PARAMS, default_args=RETRIES)
def in_chunks() -> None:
    """Lists of lists: taken as one list by one task, and a chunk each by mapped ones."""

    @task
    def chunk(image: str) -> list[str]:
        return [image]

    chunks = chunk.expand(image=listing())
    DescribeImagesOperator(task_id="together", images=chunks)
    DescribeImagesOperator.partial(task_id="apart", store="{{ params.store }}").expand(images=chunks)


@dag(params=PARAMS, default_args=RETRIES)
def one_stored() -> None:
    DescribeImageOperator.partial(task_id="describe", store="{{ params.store }}").expand(image=listing())


@dag(params=PARAMS, default_args={"retries": 0})
def in_time() -> None:
    DescribeImagesOperator(
        task_id="describe",
        images=listing(),
        store="{{ params.store }}",
        concurrency=2,
        execution_timeout=timedelta(seconds=2),
    )


@dag(params=PARAMS, default_args=RETRIES)
def planned() -> None:
    DescribeImagesOperator(task_id="describe", images=listing(), store="{{ params.store }}", dry_run=True)


@dag(params={**PARAMS, "rules": ["MinWords(3)"]}, default_args=RETRIES)
def judged() -> None:
    given = {"images": listing(), "store": "{{ params.store }}", "describer_conn_id": CONN_ID}
    rules = [NoMarkdown(), Matches("Asked: Be brief"), "{{ params.rules[0] }}"]
    describe = DescribeImagesOperator(task_id="describe", **given, rules=rules, stricter_prompt="Be brief.")
    # Both texts are known by then.
    in_slices = DescribeImagesSensor(
        task_id="in_slices",
        **given,
        rules="{{ params.rules }}",
        stricter_prompt="Be brief.",
        slice_size=1,
        poke_interval=0.05,
    )
    one = DescribeImageOperator(
        task_id="one", image="{{ params.images[0] }}", store="{{ params.store }}", rules=["MaxChars(5)"]
    )
    describe >> in_slices >> one


@dag(params=PARAMS, default_args=RETRIES)
def judged_in_slices() -> None:
    DescribeImagesSensor(
        task_id="in_slices",
        images=listing(),
        store="{{ params.store }}",
        rules=[Matches("Asked: Be brief")],
        stricter_prompt="Be brief.",
        slice_size=2,
        poke_interval=0.05,
    )


BUILT = (one_by_one, stored, chained, one_chained, templated, inline, in_chunks, one_stored, in_time, planned)
for build in (*BUILT, judged, judged_in_slices):
    globals()[build.__name__ + "_dag"] = build()

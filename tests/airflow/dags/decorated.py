"""DAGs whose tasks describe what a function returns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import ObjectStoragePath, dag, get_current_context, task

# A task that is retried although it should not be shows it by its try number, at once.
RETRIES = {"retries": 3, "retry_delay": timedelta(0)}
PARAMS: dict[str, Any] = {
    "images": [],
    "store": "",
    "folder": "",
    "title": "shop",
    "conn_id": "image_describer_default",
}
# A store of its own for each, so that which task pays is known.
ASKED: dict[str, Any] = {"store": "{{ params.store }}/{{ ti.task_id }}", "concurrency": 1}


@task
def folders(params: dict[str, Any]) -> list[str]:
    return [params["folder"]]


@dag(params=PARAMS, default_args=RETRIES)
def decorated() -> None:
    @task.describe_images(**ASKED)
    def plain(params: dict[str, Any]) -> list[str]:
        """Describe what the run names."""
        return list(params["images"])

    @task.describe_images
    def bare(*names: str) -> list[str]:
        return list(names)

    @task.describe_images(prompt="Name this {title} of {{ params.title }}.", lang=["en", "de"], **ASKED)
    def dicts(folder: str, title: str = "toy") -> list[dict[str, Any]]:
        red = {"uri": f"{folder}/red.png", "fields": {"title": title}, "id": "r"}
        return [red, {"uri": f"{folder}/blue.png", "prompt": "Which colour?", "id": "b"}]

    @task.describe_images(images_base="{{ params.folder }}", describer_conn_id="{{ params.conn_id }}", **ASKED)
    def names(folder: str, suffix: str, ds: str | None = None) -> list[str]:
        assert ds, "Airflow gives what it knows to parameters of its names"
        return sorted(path.name for path in Path(folder).glob(f"{suffix}.png"))

    @task.describe_images(**ASKED)
    def paths(folder: str) -> list[ObjectStoragePath]:
        return sorted(ObjectStoragePath(f"file://{folder}").iterdir())

    @task.describe_images(**ASKED)
    def listing_file(path: str, params: dict[str, Any]) -> str:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in params["images"]), encoding="utf-8")
        return path

    @task.describe_images(**ASKED)
    async def later(folder: str) -> list[str]:
        return [f"{folder}/red.png"]

    folder: Any = "{{ params.folder }}"
    bare("{{ params.folder }}/red.png")
    plain()
    dicts(folder)
    names(folder, suffix="{{ 'r*' }}")
    paths(folder)
    listing_file("{{ params.store }}/listed.jsonl")
    later(folder)
    dicts.override(task_id="overridden", retries=0)(folder, title="shoe")


@dag(params=PARAMS, default_args=RETRIES)
def decorated_specially() -> None:
    @task.describe_images(dry_run=True, **ASKED)
    def planned(params: dict[str, Any]) -> list[str]:
        return list(params["images"])

    @task.describe_images(skip_if_empty=True, **ASKED)
    def none() -> list[str]:
        return []

    # A text in braces is a name like any other: only what stands in the DAG is rendered.
    @task.describe_images(max_failure_ratio=1.0, **ASKED)
    def braces(folder: str) -> list[str]:
        return [f"{folder}/{{{{ params.title }}}}.png", f"{folder}/red.png"]

    # The manifest is one value, whatever the function says that it returns.
    @task.describe_images(**ASKED)
    def annotated(folder: str) -> dict[str, Any]:
        return [f"{folder}/red.png"]  # type: ignore[return-value]

    @task.describe_images(multiple_outputs=True, **ASKED)
    def spread(folder: str) -> list[str]:
        return [f"{folder}/red.png"]

    folder: Any = "{{ params.folder }}"
    planned()
    none()
    braces(folder)
    annotated(folder)
    spread(folder)


@dag(params=PARAMS, default_args={**RETRIES, "store": "{{ params.store }}"})
def decorated_and_mapped() -> None:
    @task.describe_images(prompt="What is in {{ params.title }}?", concurrency=1)
    def describe(folder: str, colour: str) -> list[str]:
        return [f"{folder}/{colour}.png"]

    @task
    def total(manifests: list[dict[str, Any]]) -> int:
        return sum(manifest["counts"]["described"] for manifest in manifests)

    total(describe.partial(folder="{{ params.folder }}").expand(colour=["red", "green"]))
    describe.override(task_id="of_upstream").partial(colour="blue").expand(folder=folders())


def fail_first(context: Any, result: Any) -> None:
    """End the first try after its calls, before Airflow knows that they were made."""
    if context["ti"].try_number == 1:
        raise ConnectionError("the worker is gone")


@dag(params=PARAMS, default_args={"retries": 1, "retry_delay": timedelta(0)})
def decorated_and_retried() -> None:
    @task.describe_images(store="{{ params.store }}", post_execute=fail_first)
    def describe(params: dict[str, Any]) -> list[str]:
        # The second try lists one more.
        return list(params["images"][: 2 + get_current_context()["ti"].try_number])

    @task.describe_images(store="{{ params.store }}")
    def broken(params: dict[str, Any]) -> list[str]:
        if get_current_context()["ti"].try_number == 1:
            raise ConnectionError("the catalog is down")
        return list(params["images"])

    describe() >> broken()


def one_by_one() -> Iterator[str]:
    yield "/a.jpg"


@dag(params=PARAMS, default_args=RETRIES)
def decorated_wrongly() -> None:
    returned: dict[str, Any] = {
        "nothing": None,
        "a_number": 7,
        "a_text": "/data/a.jpg",
        "a_secret_text": "https://shop.example/a.jpg?signature=s3cret",
        "one_dict": {"uri": "/data/a.jpg"},
        "bytes": b"/data/a.jpg",
        "entries": [7, None],
    }
    for name, value in returned.items():

        @task.describe_images(task_id=name, **ASKED)
        def images(what: Any = value) -> Any:
            return what

        images()

    @task.describe_images(**ASKED)
    def a_generator() -> Iterator[str]:
        return one_by_one()

    # What cannot work is known only when it is rendered.
    @task.describe_images(**{**ASKED, "concurrency": "{{ 0 }}"})
    def an_argument(params: dict[str, Any]) -> list[str]:
        return list(params["images"])

    @task.describe_images(retries=0)
    def an_error() -> list[str]:
        raise LookupError("no such shelf")

    a_generator()
    an_argument()
    an_error()


@dag(params={**PARAMS, "calls": ""}, default_args={"retries": 0})
def decorated_and_deferred() -> None:
    @task.describe_images(
        store="{{ params.store }}",
        describer_conn_id="shop",
        deferrable=True,
        defer_after=15,
        concurrency=1,
        prompt="Name this {title}.",
    )
    def describe(params: dict[str, Any]) -> list[dict[str, Any]]:
        """List other images each time: all at first, then none of these."""
        calls = Path(params["calls"])
        with calls.open("a") as file:
            file.write("called\n")
        first = calls.read_text() == "called\n"
        return [
            {"uri": uri, "fields": {"title": number}}
            for number, uri in enumerate(params["images"][: 3 if first else 1])
        ]

    describe()


for build in (
    decorated,
    decorated_specially,
    decorated_and_mapped,
    decorated_and_retried,
    decorated_wrongly,
    decorated_and_deferred,
):
    globals()[build.__name__ + "_dag"] = build()

"""DAGs that are watched from outside: their lineage, metrics, traces and notifications."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.sdk import BaseNotifier, dag, task

from airflow_provider_describer.notifications.describer import DescriberNotifier
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.sensors.images import DescribeImagesSensor

STORE = "{{ params.store }}"


class Letter(BaseNotifier):
    """Writes what it is told to a file, a line each time."""

    template_fields = ("file", "subject", "text")

    def __init__(self) -> None:
        super().__init__()
        self.file = "{{ params.told }}"
        self.subject, self.text = "{{ describer_subject }}", "{{ describer_message }}"

    def notify(self, context: Any) -> None:
        with Path(self.file).open("a", encoding="utf-8") as file:
            occasions = context["describer_occasions"]
            file.write(json.dumps({"subject": self.subject, "text": self.text, "occasions": occasions}) + "\n")


def broken(context: Any) -> None:
    raise ConnectionError("the mail server is down")


@dag(params={"path": "", "image": "", "bad": "", "store": ""})
def lineage() -> None:
    listed = ListImagesOperator(task_id="list", path="{{ params.path }}", store=STORE, only_new=True)
    describe = DescribeImagesOperator(task_id="describe", images=listed.output, store=STORE, concurrency=1)
    one = DescribeImageOperator(task_id="one", image="{{ params.image }}")
    sliced = DescribeImagesSensor(task_id="sliced", images=["{{ params.image }}"], store=STORE, poke_interval=0.1)
    failing = DescribeImagesOperator(
        task_id="failing",
        images=["{{ params.image }}", "{{ params.bad }}"],
        store=STORE,
        prompt="In one word.",
        concurrency=1,
        max_failure_ratio=0.0,
    )
    misspelt = DescribeImagesOperator(task_id="misspelt", images="{{ params.path }}", store="{{ 'not/absolute' }}")
    describe >> one >> sliced >> [failing, misspelt]


@dag(params={"images": [], "store": ""})
def metered() -> None:
    @task
    def listing(params: dict[str, Any]) -> list[str]:
        return list(params["images"])

    images = listing()
    first = DescribeImagesOperator(task_id="first", images=images, store=STORE, max_failure_ratio=1.0)
    again = DescribeImagesOperator(task_id="again", images=images, store=STORE, max_failure_ratio=1.0)
    first >> again


@dag(params={"images": [], "store": "", "told": ""})
def told() -> None:
    tell = DescriberNotifier(send=[broken, Letter()], failure_share=0.4)
    callbacks: dict[str, Any] = {"on_success_callback": tell, "on_failure_callback": tell}

    @task
    def listing(params: dict[str, Any]) -> list[str]:
        return list(params["images"])

    images = listing()
    limited = DescribeImagesOperator(task_id="limited", images=images, store=STORE, max_calls=1, **callbacks)
    sliced = DescribeImagesSensor(
        task_id="sliced", images=images, store=STORE, max_calls=1, poke_interval=0.1, **callbacks
    )
    rest = DescribeImagesOperator(task_id="rest", images=images, store=STORE, **callbacks)
    limited >> sliced >> rest


lineage()
metered()
told()

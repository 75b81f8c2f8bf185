"""Two tasks, listing and describing, whose store and limits are in a bucket; for a test, in a process of its own.

``python bucket_task.py CATALOG STORE`` prints the manifests as JSON, and every path that Python code has opened for
writing, made or renamed since Airflow was imported.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OTHERS = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.copyfile", "sqlite3.connect")


class Writes:
    """The paths that were written to."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at what Python is about to do."""
        if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & WRITING:
            self.paths.add(os.fsdecode(arguments[0]))
        elif event in OTHERS:
            self.paths.update(os.fsdecode(one) for one in arguments if isinstance(one, str | bytes | os.PathLike))


def main(catalog: str, store: str) -> None:
    """Run both tasks as a worker does, but for Airflow's own supervisor."""
    about: dict[str, Any] = {"store": store, "describer_conn_id": "shop"}
    with DAG("catalog"):
        listing = ListImagesOperator(task_id="list", path=catalog, only_new=True, inline_limit=0, chunk_size=4, **about)
    writes = Writes()
    sys.addaudithook(writes)
    chunks = listing.execute(context("list", -1))
    manifests = []
    for number, images in enumerate(chunks):
        task = DescribeImagesOperator(
            task_id="describe",
            images=images,
            # Each of these keeps something on the disk while it works.
            results_format=("jsonl", "parquet")[number % 2],
            rules=["MinWords(9999)"],
            stricter_prompt="Once more.",
            **about,
        )
        manifests.append(task.execute(context("describe", number)))
    print(json.dumps({"chunks": chunks, "manifests": manifests, "writes": sorted(writes.paths)}))


def context(task_id: str, map_index: int) -> Any:
    """Return what these operators use of Airflow's context."""
    key = {"dag_id": "catalog", "run_id": "night", "task_id": task_id, "map_index": map_index, "try_number": 1}
    return {"ti": SimpleNamespace(**key, xcom_push=lambda **_: None), "outlet_events": {}}


if __name__ == "__main__":
    main(*sys.argv[1:])

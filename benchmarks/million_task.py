"""One task on a catalog in S3, in a process of its own, as Airflow runs it: it lists, or it describes one chunk.

``python million_task.py WORK ARGUMENT``, the argument as JSON, with WORK one of `WORKS`. It does what
`ListImagesOperator` and `DescribeImagesOperator` do, without Airflow. Prints its value and figures as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.meter import EndedCall, Meters
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.engine.undescribed import MOST_TOGETHER, undescribed_images
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.listing import ListedImage, list_images
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.storage.open_bucket import bucket_from_environment
from airflow_provider_describer.store.index import open_index
from airflow_provider_describer.store.listings import write_listing
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors import get_vendor

INLINE_LIMIT, MAX_MAP_LENGTH = 1000, 1024
"""The defaults of `ListImagesOperator` and of Airflow."""
BATCH = 1000
Figures = dict[str, dict[str, float]]


class Stopwatch:
    """Seconds and CPU seconds of this process, by phase. The first phase begins with the process."""

    def __init__(self) -> None:
        self.phases: Figures = {}
        self._wall, self._cpu = time.monotonic(), 0.0

    def ends(self, phase: str) -> None:
        """Count what has passed since the last call for this phase."""
        wall, cpu = time.monotonic(), time.process_time()
        figures = self.phases.setdefault(phase, {"wall": 0.0, "cpu": 0.0})
        figures["wall"] += wall - self._wall
        figures["cpu"] += cpu - self._cpu
        self._wall, self._cpu = wall, cpu


WATCH = Stopwatch()


class PhaseMeter(Meters):
    """Ends the phases of a job: planning with its beginning, calls with the last one of ``count``."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def begin(self, known: Totals) -> None:
        WATCH.ends("planning")

    def call(self, ended: EndedCall) -> None:
        self._left -= 1
        if not self._left:
            WATCH.ends("calls")


open_bucket = cache(bucket_from_environment)
"""Opens each bucket once, as the hooks do; with what the environment says instead of a connection."""


def vendor_calls(url: str, key: str) -> VendorCalls:
    """Return the calls to the emulator."""
    vendor = get_vendor("image_describer")
    return VendorCalls(vendor, account_from_connection(vendor.defaults(), conn_id="bench", password=key, host=url))


def listed(images: Iterator[ListedImage]) -> Iterator[ListedImage]:
    """Yield the images, and count the time that they take to list."""
    while True:
        WATCH.ends("planning")
        batch = list(islice(images, BATCH))
        WATCH.ends("listing")
        if not batch:
            return
        yield from batch


def list_new(path: str, store: str, url: str, key: str, run_id: str, chunk_size: int) -> list[Any] | str:
    """List the images that the store does not know; return the value that Airflow maps tasks over."""
    calls, folder = vendor_calls(url, key), open_folder(store, open_bucket)
    index = open_index(folder)
    WATCH.ends("start")
    images = undescribed_images(
        listed(list_images(path, open_bucket)),
        open_bucket,
        lambda images: parse_images(images, calls.vendor),
        index,
        calls,
        MOST_TOGETHER,
    )
    task = TaskInstanceKey("bench", run_id, "list")
    return write_listing(
        (image.to_dict() for image in images),
        folder,
        task,
        inline=INLINE_LIMIT,
        chunk_size=chunk_size,
        max_chunks=MAX_MAP_LENGTH,
    )


def describe(images: Any, store: str, url: str, key: str, run_id: str, map_index: int) -> dict[str, Any]:
    """Describe one chunk; return its manifest."""
    calls = vendor_calls(url, key)
    WATCH.ends("start")
    requests = parse_images(images, calls.vendor, open_bucket=open_bucket)
    job = Job(
        calls,
        requests,
        TaskLimits(concurrency=32),
        store,
        TaskInstanceKey("bench", run_id, "describe", map_index),
        report=lambda line: None,
        open_bucket=open_bucket,
        meter=PhaseMeter(len(requests)),
    )
    outcome = job.run()
    if outcome.error:
        raise outcome.error
    WATCH.ends("results")
    return outcome.manifest


WORKS: dict[str, Callable[..., Any]] = {"list": list_new, "describe": describe}


def main(work: str, argument: str) -> None:
    """Do one piece of work."""
    value = WORKS[work](**json.loads(argument))
    WATCH.ends("planning" if work == "list" else "results")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"value": value, "phases": WATCH.phases, "mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])

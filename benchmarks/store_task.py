"""One measured piece of a task's work with a store, in a process of its own. Prints its figures as JSON.

``python store_task.py WORK ARGUMENTS`` with WORK one of the functions of `WORKS`; they say what is measured.
"""

from __future__ import annotations

import importlib
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from made_store import fill, identified, outcomes

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.plan import make_plan
from airflow_provider_describer.engine.undescribed import undescribed_images
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.listing import list_images
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.storage.address import Scheme
from airflow_provider_describer.storage.bucket import Bucket
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import bucket_from_environment
from airflow_provider_describer.store import journal, table
from airflow_provider_describer.store.index import open_index
from airflow_provider_describer.store.settling import settle
from airflow_provider_describer.store.shard import encode_shard, json_line, shard_namer
from airflow_provider_describer.vendors import get_vendor

Figures = dict[str, float]
CHUNK = 1_000
"""Images of one mapped task."""


def open_bucket(scheme: Scheme, name: str) -> Bucket:
    """Open a bucket with what the environment says."""
    return bucket_from_environment(scheme, name)


@contextmanager
def measuring() -> Iterator[Figures]:
    """Yield figures that are filled in at the end: seconds, CPU seconds, and peak memory of the process in MB."""
    figures: Figures = {}
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    yield figures
    figures["wall"], after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    figures["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures["mb"] = after.ru_maxrss / 1024
    figures["more_mb"] = (after.ru_maxrss - before.ru_maxrss) / 1024


def make(store: str, count: str, text_bytes: str) -> Figures:
    """Make a store of that many outcomes."""
    with measuring() as figures:
        fill(open_folder(store), int(count), text_bytes=int(text_bytes))
    return figures


def plan(store: str, count: str, known: str, stored: str) -> Figures:
    """Plan ``count`` images of which ``known`` are among the ``stored`` outcomes."""
    chance = random.Random(7)
    numbers = chance.sample(range(int(stored)), int(known))
    numbers += range(int(stored), int(stored) + int(count) - int(known))
    images = [identified(number) for number in numbers]
    with measuring() as figures:
        # Every task loads it, in its own process.
        importlib.import_module("lance")
        loaded = time.monotonic()
        index = open_index(open_folder(store, open_bucket), [key for image in images for key in image.keys])
        found = make_plan(images, index)
        figures["without_loading"] = time.monotonic() - loaded
    assert found.count("reuse") == int(known), found.summary(None)
    return figures


def listing(path: str) -> Figures:
    """List the images of a bucket."""
    with measuring() as figures:
        figures["images"] = len(list(list_images(path, open_bucket)))
    return figures


def poke(path: str, store: str) -> Figures:
    """Find the new images of a bucket, as `NewImagesSensor` does."""
    vendor = get_vendor("image_describer")
    calls = VendorCalls(vendor, account_from_connection(vendor.defaults(), conn_id="bench", password="bench"))
    importlib.import_module("lance")
    with measuring() as figures:
        index = open_index(open_folder(store, open_bucket))
        listed = list_images(path, open_bucket)
        new = undescribed_images(listed, open_bucket, lambda images: parse_images(images, vendor), index, calls)
        figures["images"] = len(list(new))
    return figures


def run(url: str, folder: str, settling: str) -> Figures:
    """Describe the pictures of a folder, with settling or without."""
    if settling == "off":
        journal.Journal._settle_own = _do_nothing  # type: ignore[method-assign]  # noqa: SLF001
    vendor = get_vendor("image_describer")
    account = account_from_connection(vendor.defaults(), conn_id="bench", password="bench", host=url)
    asked = parse_images(sorted(map(str, Path(folder).iterdir())), vendor)
    with tempfile.TemporaryDirectory() as store, measuring() as figures:
        job = Job(VendorCalls(vendor, account), asked, TaskLimits(concurrency=64), store, report=lambda line: None)
        ended = job.run()
        assert ended.manifest["counts"]["described"] == len(asked), ended
    return figures


async def _do_nothing(self: journal.Journal) -> None:
    pass


def load(store: str, count: str) -> Figures:
    """Describe that many new images in chunks: what each chunk does with the store, a task after the other."""
    with measuring() as figures:
        for first in range(0, int(count), CHUNK):
            record(open_folder(store, open_bucket), first, CHUNK)
    return figures


def nights(store: str, first: str, new: str, count: str) -> Figures:
    """Describe ``new`` images a night, as many nights, after ``first`` images in the past; a night is some seconds."""
    folder, durations, began = open_folder(store, open_bucket), [], time.monotonic()
    kept = table.KEEP_VERSIONS_FOR.days
    for night in range(int(count)):
        passed = (time.monotonic() - began) / max(1, night)
        # Versions are kept for days, which are nights here.
        table.KEEP_VERSIONS_FOR = timedelta(seconds=kept * passed)
        durations.append(record(folder, int(first) + night * int(new), int(new)))
    durations.sort()
    return {"wall": durations[len(durations) // 2], "longest": durations[-1], "mean": sum(durations) / len(durations)}


def record(folder: Folder, first: int, count: int) -> float:
    """Plan images, write what became of them into the journal and settle it; return the seconds that it took."""
    images = [identified(number) for number in range(first, first + count)]
    lines = [json_line(event) for event in outcomes(first, count)]
    began = time.monotonic()
    index = open_index(folder, [key for image in images for key in image.keys])
    assert make_plan(images, index).calls == count
    new_name = shard_namer(time.time)
    names = []
    for start in range(0, len(lines), 100):
        names.append(new_name())
        folder.create(names[-1], encode_shard(lines[start : start + 100]))
    settled = table.SettledTable(folder)
    settle(folder, settled, lines, names, new_name, is_new=True)
    settled.maintain()
    return time.monotonic() - began


WORKS: dict[str, Callable[..., Figures]] = {
    work.__name__: work for work in (make, plan, listing, poke, run, load, nights)
}

if __name__ == "__main__":
    print(json.dumps(WORKS[sys.argv[1]](*sys.argv[2:])))

"""Measure ``limits_path``: the share of an account's rate that eight processes use, and what leases cost a task.

In a folder, and on a Redis where ``redis-server`` is installed.

``python benchmarks/shared_limits.py [--quick]``; the emulator enforces the limit, and its ledger is what is counted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import pictures, say

from airflow_provider_describer.emulator.process import EmulatorProcess

PROCESSES = 8
PER_MINUTE = 120


def describe(url: str, key: str, folder: str, extra: str, concurrency: str) -> None:
    """Describe all pictures of a folder, as one task does, and print the seconds."""
    from airflow_provider_describer.account import account_from_connection
    from airflow_provider_describer.engine.job import Job
    from airflow_provider_describer.engine.limits import TaskLimits
    from airflow_provider_describer.http.flow import VendorCalls
    from airflow_provider_describer.images.reference import parse_images
    from airflow_provider_describer.vendors import get_vendor

    vendor = get_vendor("image_describer")
    account = account_from_connection(vendor.defaults(), conn_id="bench", password=key, host=url, extra=extra)
    with tempfile.TemporaryDirectory() as store:
        limits = TaskLimits(concurrency=int(concurrency))
        asks = parse_images(sorted(map(str, Path(folder).iterdir())), vendor)
        job = Job(VendorCalls(vendor, account), asks, limits, store, report=lambda line: None)
        began = time.monotonic()
        outcome = job.run()
    if outcome.error:
        raise outcome.error
    print(time.monotonic() - began)


def task(emulator: EmulatorProcess, folder: Path, extra: dict[str, Any], concurrency: int) -> subprocess.Popen[str]:
    """Start a process that describes the pictures of a folder."""
    values = [emulator.url, emulator.keys["image_describer"], str(folder), json.dumps(extra), str(concurrency)]
    return subprocess.Popen([sys.executable, __file__, "task", *values], stdout=subprocess.PIPE, text=True)


def seconds(child: subprocess.Popen[str]) -> float:
    """Wait for the process and return the seconds that it printed."""
    printed, _ = child.communicate()
    if child.returncode:
        sys.exit("a task has failed")
    return float(printed)


@contextmanager
def limits_in(kind: str, place: Path) -> Iterator[str]:
    """Yield a new ``limits_path``."""
    if kind == "folder":
        yield str(place / "limits")
        return
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "servers"))
    from redis_server import RedisServer

    with RedisServer(place / "redis") as server:
        yield server.url


def rate_used(place: Path, each: int, kind: str) -> None:
    """Measure eight tasks of one account against a vendor that refuses calls above its limit."""
    folders = []
    for number in range(PROCESSES):
        (place / str(number)).mkdir()
        folders.append(pictures(place / str(number), each, 4096))
    with EmulatorProcess() as emulator, limits_in(kind, place) as limits_path:
        extra = {"requests_per_minute": PER_MINUTE, "limits_path": limits_path}
        emulator.faults({"image_describer": {"requests_per_minute": PER_MINUTE, "latency_s": 0.5}})
        for child in [task(emulator, folder, extra, 4) for folder in folders]:
            seconds(child)
        entries = emulator.ledger()["entries"]
    moments = sorted(entry["at"] for entry in entries)
    refused = sum(entry["status"] == 429 for entry in entries)
    used = (len(entries) - refused - 1) / (moments[-1] - moments[0]) / (PER_MINUTE / 60)
    say(
        f"{PROCESSES} processes at {PER_MINUTE} a minute, limits in a {kind}: share of the limit that is used",
        f"{used:.3f}",
        "≥ 0.90",
    )
    say("the same: share of the calls that the vendor refuses", f"{refused / len(entries):.3f}", "≤ 0.01")


def cost_of_leases(place: Path, count: int, latency: float, kind: str) -> None:
    """Measure one task with and without shared limits that are too high to delay it."""
    folder = pictures(place, count, 4096)
    ratios = []
    with EmulatorProcess() as emulator:
        emulator.faults({"image_describer": {"latency_s": latency}})
        for number in range(3):
            with limits_in(kind, place / str(number)) as limits_path:
                extra = {"requests_per_minute": 100_000, "limits_path": limits_path}
                alone, shared = (seconds(task(emulator, folder, given, 32)) for given in ({}, extra))
            ratios.append(alone / shared)
    setting = f"C=32 at {latency:g} s ({count} images)"
    say(f"rate with limits in a {kind} against without, {setting}", f"{sorted(ratios)[1]:.3f}", "")


def main() -> None:
    """Print the table's rows."""
    quick = "--quick" in sys.argv[1:]
    for kind in ("folder", "Redis") if shutil.which("redis-server") else ("folder",):
        with tempfile.TemporaryDirectory() as place:
            rate_used(Path(place), 6 if quick else 30, kind)
        for latency, count in ((0.5, 960), (4.0, 256)):
            with tempfile.TemporaryDirectory() as place:
                cost_of_leases(Path(place), count // 4 if quick else count, latency, kind)


if __name__ == "__main__":
    if sys.argv[1:2] == ["task"]:
        describe(*sys.argv[2:])
    else:
        main()

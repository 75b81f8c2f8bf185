"""A DAG run of 200 images at 50 ms in a real Airflow (scheduler, LocalExecutor, API server): batch against mapped.

``python benchmarks/airflow_run.py``; needs Airflow and apache-airflow-providers-http beside the package.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from engine import HERE, KB, pictures, vendor

IMAGES = 200
TIMEOUT_S = 300.0
BATCHES = 3
"""Runs of the batch; the median counts, because the scheduler's timing varies."""


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(home: Path, url: str, folder: Path) -> dict[str, str]:
    """Return the environment of every component."""
    port = free_port()
    host, _, vendor_port = url.removeprefix("http://").partition(":")
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "32",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW_CONN_IMAGE_DESCRIBER_DEFAULT": json.dumps(
            {"conn_type": "image_describer", "password": "bench", "host": url}
        ),
        "AIRFLOW_CONN_BENCH_HTTP": json.dumps(
            {"conn_type": "http", "host": host, "port": int(vendor_port), "schema": "http"}
        ),
        "BENCH_PICTURES": str(folder),
        "BENCH_STORE": str(home / "store"),
    }


@contextmanager
def airflow(environment: dict[str, str], log: Path) -> Iterator[int]:
    """Run Airflow in a process group of its own, and end the whole group."""
    with log.open("wb") as out:
        leader = subprocess.Popen(
            ["airflow", "standalone"], env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield leader.pid
        finally:
            os.killpg(leader.pid, signal.SIGTERM)
            time.sleep(3)
            os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()


def cpu_of_session(session: int) -> float:
    """Return the CPU seconds of all processes of a session, with those of their children that have ended."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def state_of(home: Path, dag_id: str, run_id: str) -> tuple[str, float] | None:
    """Return the state of a DAG run and its seconds, or None while there is none."""
    try:
        with sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True, timeout=5) as database:
            row = database.execute(
                "select state, start_date, end_date from dag_run where dag_id = ? and run_id = ?", (dag_id, run_id)
            ).fetchone()
    except sqlite3.Error:
        return None
    if row is None:
        return None
    if not row[2]:
        return str(row[0]), 0.0
    began, ended = (datetime.fromisoformat(moment) for moment in row[1:])
    return str(row[0]), (ended - began).total_seconds()


def time_run(dag_id: str, environment: dict[str, str], session: int, run_id: str = "one") -> tuple[float, float]:
    """Trigger a DAG, wait for its end and return its seconds and all components' CPU seconds."""
    home = Path(environment["AIRFLOW_HOME"])
    deadline = time.monotonic() + TIMEOUT_S
    command = ["airflow", "dags", "trigger", dag_id, "--run-id", run_id]
    while subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            sys.exit(f"Airflow has no DAG {dag_id!r} after {TIMEOUT_S:.0f} s")
        time.sleep(2)
    before = cpu_of_session(session)
    while time.monotonic() < deadline:
        found = state_of(home, dag_id, run_id)
        if found and found[0] == "success":
            return found[1], cpu_of_session(session) - before
        if found and found[0] == "failed":
            sys.exit(f"the run of {dag_id!r} failed; see Airflow's log")
        time.sleep(0.2)
    sys.exit(f"the run of {dag_id!r} did not end in {TIMEOUT_S:.0f} s")


def main() -> None:
    """Print both runs and their ratios."""
    with tempfile.TemporaryDirectory() as place, vendor(0.05) as url:
        folder = pictures(Path(place), IMAGES, 100 * KB)
        environment = settings(Path(place) / "home", url, folder)
        with airflow(environment, Path(place) / "airflow.log") as session:
            # The very first run also starts processes and imports modules.
            time_run("warming", environment, session)
            batches = [time_run("batch", environment, session, f"run-{number}") for number in range(BATCHES)]
            batch = sorted(batches)[BATCHES // 2]
            mapped = time_run("mapped", environment, session)
    print(f"| {IMAGES} images at 50 ms, a DAG run | batch {batch[0]:.1f} s, mapped {mapped[0]:.1f} s | |")
    print(f"| DAG run against {IMAGES} mapped HttpOperators, time | {mapped[0] / batch[0]:.0f} × faster | ≥ 15 × |")
    print(f"| the same, CPU of all components | {mapped[1] / batch[1]:.0f} × less | ≥ 40 × |")


if __name__ == "__main__":
    main()

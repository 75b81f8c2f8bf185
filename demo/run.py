"""The demo: a real Airflow has real photographs described, by the local emulator or, with a key, by a vendor.

Run it with ``make demo``, which sets everything up first. It reads VENDOR and KEY from the environment, writes only
below ``build/demo/``, and leaves nothing running.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_child import Airflow, AirflowFailed
from gallery import local_thumbnail, write_gallery
from report import read_rows, results_file, table, totals

from airflow_provider_describer.emulator.process import EmulatorError, EmulatorProcess

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "demo"
PHOTOGRAPHS = BUILD / "photographs"
VENDORS = ("image_describer", "segmind")
DAG_ID = "catalog_enrichment"
FAILURE_LOG_LINES = 40


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message says why, and what to do."""


@dataclass(frozen=True)
class Run:
    """One run of the demo: which vendor, with which key, into which folder."""

    vendor: str
    key: str = field(repr=False)
    folder: Path

    @property
    def connection_id(self) -> str:
        return f"{self.vendor}_default"

    @property
    def log(self) -> Path:
        return self.folder / "airflow.log"

    @property
    def store(self) -> Path:
        return self.folder / "store"


def main() -> int:
    # `kill` then ends the demo as Ctrl-C does: its children are stopped first.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        demonstrate(prepare_run())
    except (DemoFailed, EmulatorError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo was stopped; nothing is left running.", file=sys.stderr)
        return 130
    return 0


def prepare_run() -> Run:
    """Read the environment and make a new folder, so that every run starts empty."""
    vendor = os.environ.get("VENDOR") or VENDORS[0]
    if vendor not in VENDORS:
        raise DemoFailed(f"VENDOR is {vendor!r}; the vendors are {' and '.join(VENDORS)}.")
    folder = BUILD / "runs" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    return Run(vendor, os.environ.get("KEY", "").strip(), folder)


def demonstrate(run: Run) -> None:
    """Run the example DAG on the photographs and print the results."""
    with ExitStack() as stack:
        emulator = None if run.key else stack.enter_context(EmulatorProcess())
        if emulator:
            print(f"The emulator stands in for {run.vendor} at {emulator.url}: nothing leaves this machine.")
        else:
            print(f"{run.vendor} itself describes the photographs, which costs money: about $0.20.")
        seconds = run_in_airflow(run, emulator)
        billed = emulator.ledger(entries=False) if emulator else None
    report(run, seconds)
    if billed:
        print(f"The emulator's own ledger: {billed['billed']} calls billed, ${billed['cost_usd']:.3f}.")
    print_next_steps(run)


def run_in_airflow(run: Run, emulator: EmulatorProcess | None) -> float:
    """Run the example DAG in a real Airflow and return the seconds it took."""
    airflow = Airflow(BUILD / "airflow", ROOT / "example_dags", run.log, connections(run, emulator))
    conf = {
        "images": str(PHOTOGRAPHS / "*.[jp][pn]g"),
        "store": str(run.store),
        "describer_conn_id": run.connection_id,
    }
    try:
        say("Airflow: preparing its database")
        airflow.prepare()
        say(f"Airflow: running the DAG {DAG_ID} of example_dags/{DAG_ID}.py")
        started = time.monotonic()
        airflow.run_dag(DAG_ID, conf, lambda line: say(f"  {line}"))
        return time.monotonic() - started
    except AirflowFailed as error:
        tail = run.log.read_text(encoding="utf-8").splitlines()[-FAILURE_LOG_LINES:]
        print("\n" + "\n".join(tail), file=sys.stderr)
        raise DemoFailed(f"{error}. The end of its log is above; all of it is in {run.log}") from error


def connections(run: Run, emulator: EmulatorProcess | None) -> dict[str, dict[str, Any]]:
    """Return the Airflow connections: both vendors at the emulator, or one vendor with the given key."""
    if emulator is None:
        return {run.connection_id: {"conn_type": run.vendor, "password": run.key}}
    return {
        f"{vendor}_default": {
            "conn_type": vendor,
            "password": emulator.keys[vendor],
            "host": emulator.url,
            # The emulator's price; Segmind's own is in its responses.
            "extra": {"price_per_call": 0.01} if vendor == "image_describer" else {},
        }
        for vendor in VENDORS
    }


def report(run: Run, seconds: float) -> None:
    """Print the table and write the gallery; fail if no image was described."""
    results = results_file(run.store)
    if results is None:
        raise DemoFailed(f"Airflow ran, but wrote no results below {run.store}; its log is {run.log}")
    rows = read_rows(results)
    gallery = run.folder / "gallery.html"
    write_gallery(rows, gallery, title="Catalog enrichment", thumbnail=local_thumbnail)
    print()
    for line in table(rows, shutil.get_terminal_size((120, 24)).columns):
        print(line)
    print(f"\n{totals(rows, seconds)}\n")
    if not any(row["status"] == "described" for row in rows):
        raise DemoFailed(f"no image was described; the results are {results}")
    for what, path in (("results", results), ("gallery", gallery), ("Airflow's log", run.log)):
        print(f"{what + ':':15}{path}")


def print_next_steps(run: Run) -> None:
    other = next(vendor for vendor in VENDORS if vendor != run.vendor)
    print(
        f"\nThe other vendor:     make demo VENDOR={other}\n"
        "With a real key:      make demo VENDOR=segmind KEY=…   (or KEY in the environment, unseen by `ps`)"
    )


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

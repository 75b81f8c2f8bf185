"""Measure a catalog of a million images on S3: a second night with 1 000 changed, and a first load in mapped chunks.

``python benchmarks/million.py [--quick]``. Each task is a process of its own (`million_task.py`); the bucket is
another (`catalog_server.py`), and so is the emulator, whose ledger says what was billed. On an idle machine it takes a
quarter to half an hour, and 3 GB of memory; with ``--quick``, some minutes and 10⁵ images. ``--stores FOLDER`` keeps
the made stores there for the next run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine import HERE, say
from made_store import TEXT_BYTES
from store import many, task

from airflow_provider_describer.emulator.process import EmulatorProcess

CHANGED = 1_000
CHUNK = 1_000
PHASES = ("start", "listing", "planning", "calls", "results")
GOAL = "≤ 1.15 ×"


@dataclass
class Catalog:
    """The bucket's server, in its own process."""

    process: subprocess.Popen[str]
    environment: dict[str, str] = field(default_factory=dict)

    def order(self, *words: object) -> Any:
        """Have the server do something; see `catalog_server.serve`."""
        assert self.process.stdin
        print(json.dumps(words), file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> Any:
        """Return the server's next line."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


@contextmanager
def catalog() -> Iterator[Catalog]:
    """Run the server."""
    command = [sys.executable, str(HERE / "catalog_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        server = Catalog(process)
        server.environment = server.answer()
        yield server
        assert process.stdin
        process.stdin.close()


@dataclass
class Cost:
    """What tasks have cost together: seconds by phase, requests and bytes by purpose, the memory of the largest."""

    wall: Counter[str] = field(default_factory=Counter)
    cpu: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    mb: float = 0.0

    def add(self, found: dict[str, Any], seen: dict[str, dict[str, int]]) -> None:
        """Add one task."""
        for phase, figures in found["phases"].items():
            self.wall[phase] += figures["wall"]
            self.cpu[phase] += figures["cpu"]
        for purpose, counted in seen.items():
            self.requests[purpose] += counted["requests"]
            self.bytes[purpose] += counted["bytes"]
        self.mb = max(self.mb, found["mb"])


@dataclass
class Load:
    """One DAG run: what listing has cost, and what describing has, in how many tasks."""

    images: int
    listing: Cost = field(default_factory=Cost)
    describing: Cost = field(default_factory=Cost)
    tasks: int = 0


def run_task(server: Catalog, cost: Cost, work: str, **arguments: Any) -> Any:
    """Run a task and return its value."""
    command = [sys.executable, str(HERE / "million_task.py"), work, json.dumps(arguments)]
    server.order("seen")
    environment, began = {**os.environ, **server.environment}, time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wall = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    # A process cannot see what passes before its first line.
    found["phases"]["start"]["wall"] += wall - sum(figures["wall"] for figures in found["phases"].values())
    cost.add(found, server.order("seen"))
    return found["value"]


def dag_run(server: Catalog, emulator: EmulatorProcess, path: str, store: str, expected: int) -> Load:
    """List what is new and describe it chunk by chunk; check what was described and billed."""
    load = Load(expected)
    common = {"store": store, "url": emulator.url, "key": emulator.keys["image_describer"], "run_id": "night"}
    emulator.reset()
    emulator.faults({"image_describer": {"latency_s": 0.0, "credits": 1e6}})
    chunks = run_task(server, load.listing, "list", path=path, chunk_size=CHUNK, **common)
    described = 0
    for map_index, images in enumerate(chunks):
        manifest = run_task(server, load.describing, "describe", images=images, map_index=map_index, **common)
        described += manifest["counts"]["described"]
    load.tasks = len(chunks)
    ledger = emulator.ledger(entries=False)
    assert described == ledger["billed"] == len(ledger["by_image"]) == expected, (described, ledger["billed"])
    return load


def second_night(stores: Path, count: int) -> Load:
    """List a catalog of which the store knows all but `CHANGED`, and describe these."""
    store = stores / f"store-{count}"
    if not store.exists():
        task("make", store, count, TEXT_BYTES)
    changed = list(range(0, count, count // CHANGED))[:CHANGED]
    with catalog() as server, EmulatorProcess() as emulator:
        address = server.order("upload", str(store))
        server.order("catalog", "catalog", count, changed)
        return dag_run(server, emulator, "s3://bench/catalog", address, len(changed))


def first_load(count: int) -> Load:
    """List a catalog that no store knows, and describe it in chunks."""
    with catalog() as server, EmulatorProcess() as emulator:
        server.order("catalog", "fresh", count, [])
        return dag_run(server, emulator, "s3://bench/fresh", f"s3://bench/stores/load-{count}", count)


def megabytes(count: float) -> str:
    """Return bytes for people."""
    return f"{count / 1e6:,.1f} MB".replace(",", " ")


def show_nights(nights: dict[int, Load]) -> None:
    """Print the second nights side by side: one row for each phase, purpose and peak."""
    counts = list(nights)
    print(f"\n| a night with {many(CHANGED)} changed, of | {' | '.join(map(many, counts))} |")
    print("|---" * (len(counts) + 1) + "|")
    for title, of in (("the listing task", "listing"), ("the describing task", "describing")):
        costs = [getattr(nights[count], of) for count in counts]
        for phase in PHASES:
            if any(phase in cost.wall for cost in costs):
                cells = (f"{cost.wall[phase]:.1f} s, CPU {cost.cpu[phase]:.1f} s" for cost in costs)
                print(f"| {title}: {phase} | {' | '.join(cells)} |")
        print(f"| {title}: peak memory | {' | '.join(f'{cost.mb:.0f} MB' for cost in costs)} |")
        for purpose in sorted({name for cost in costs for name in cost.requests}):
            cells = (f"{cost.requests[purpose]:,}, {megabytes(cost.bytes[purpose])}" for cost in costs)
            print(f"| {title}: requests to S3, {purpose} | {' | '.join(cells)} |")
    print(flush=True)


def show_growth(nights: dict[int, Load]) -> None:
    """Print how a second night grows from catalog to catalog, per image."""
    counts = list(nights)
    for fewer, more in pairwise(counts):
        what = f"a second night, {many(more)} images against {many(fewer)}, per image"
        less, much = nights[fewer].listing, nights[more].listing
        for phase in ("listing", "planning"):
            ratio = (much.cpu[phase] / more) / (less.cpu[phase] / fewer)
            say(f"{what}: CPU of {phase}", f"{ratio:.2f} ×", GOAL)
        say(f"{what.removesuffix(', per image')}: memory of the largest task", f"{much.mb / less.mb:.2f} ×", "")


def show_loads(few: Load, lots: Load) -> None:
    """Print what an image of a first load costs, and how that grows."""
    what = f"a first load of {many(lots.images)} images in {lots.tasks} mapped chunks"
    for name in ("cpu", "wall"):
        totals = [
            (getattr(load.listing, name).total() + getattr(load.describing, name).total()) / load.images
            for load in (few, lots)
        ]
        against = f"against {many(few.images)}"
        said = f"{totals[1] / totals[0]:.2f} × ({totals[1] * 1000:.2f} ms)"
        say(f"{what}, {'CPU' if name == 'cpu' else 'time'} per image {against}", said, GOAL)
    for purpose in sorted(few.describing.requests | lots.describing.requests):
        each = [load.describing.requests[purpose] / load.images for load in (few, lots)]
        size = lots.describing.bytes[purpose] / lots.images
        say(f"{what}, requests per image: {purpose}", f"{each[1]:.3f}, {size:.0f} bytes ({each[0]:.3f})", "")
    peaks = [max(load.listing.mb, load.describing.mb) for load in (few, lots)]
    say(f"{what}, memory of the largest task", f"{peaks[1]:.0f} MB ({peaks[0]:.0f} MB)", "")


def main() -> None:
    """Print the tables."""
    arguments = sys.argv[1:]
    quick = "--quick" in arguments
    kept = arguments[arguments.index("--stores") + 1] if "--stores" in arguments else None
    counts = (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000)
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory() as place:
        nights = {count: second_night(Path(place), count) for count in counts}
    show_nights(nights)
    print("| what | measured | goal |\n|---|---|---|")
    show_growth(nights)
    show_loads(*(first_load(count) for count in ((2_000, 10_000) if quick else (10_000, 100_000))))


if __name__ == "__main__":
    main()

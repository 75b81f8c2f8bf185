"""Several DAG runs of one account, and of images that arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from live_run import LiveRun

if TYPE_CHECKING:
    from tests.airflow.live.conftest import Bill, Shop

Scene = Callable[[], Any]

MANY = 300
"""Images that take some 10 s at a second each, so that runs which start together overlap."""


# --- an account's limits, shared ---


@dataclass
class Shared:
    """Two DAG runs at once, by the same connection."""

    manifests: list[dict[str, Any]]
    overlap_s: float
    bill: Bill


def shared_rate(shop: Shop) -> Shared:
    shop.emulator.faults({shop.vendor: {"requests_per_minute": 60}})
    shop.connect(requests_per_minute=60, limits_path=str(shop.folder / "limits"))
    for name in ("left", "right"):
        shop.draw(35, name)
    runs = [shop.run("deferring", listing=name, store=name) for name in ("left", "right")]
    both = 0.0
    looked = time.time()
    while not all(run.look().state == "success" for run in runs):
        now = time.time()
        both += (now - looked) * all(run.look().state == "running" for run in runs)
        looked = now
        assert not [run for run in runs if run.look().state == "failed"]
        time.sleep(1)
    return Shared([run.manifest() for run in runs], both, shop.bill())


@pytest.mark.scene(of=shared_rate)
def test_two_runs_at_once_keep_to_one_rate(scene: Scene) -> None:
    told: Shared = scene()
    assert (told.bill.requests - told.bill.refused, told.bill.billed, told.bill.twice) == (70, 70, [])
    assert told.bill.refused <= 0.01 * told.bill.requests
    assert [manifest["counts"]["described"] for manifest in told.manifests] == [35, 35]
    # One alone would have had to wait for nobody.
    assert told.overlap_s > 0


# --- the same images at the same time ---


def same_images(shop: Shop) -> Shared:
    """One waits in its worker, the other outside it."""
    shop.emulator.faults({shop.vendor: {"latency_s": 1.0}})
    shop.connect()
    shop.draw(MANY)
    runs = [shop.run(dag_id) for dag_id in ("staying", "deferring", "staying")]
    both = 0.0
    looked = time.time()
    while not all(run.look().state == "success" for run in runs):
        now = time.time()
        both += (now - looked) * (sum(run.look().state in ("running", "deferred") for run in runs) > 1)
        looked = now
        assert not [run for run in runs if run.look().state == "failed"]
        time.sleep(0.2)
    return Shared([run.manifest() for run in runs], both, shop.bill())


@pytest.mark.scene(of=same_images)
def test_runs_at_once_pay_for_each_image_once(scene: Scene) -> None:
    told: Shared = scene()
    assert (told.bill.requests, told.bill.billed, told.bill.twice) == (MANY, MANY, [])
    counts = [manifest["counts"] for manifest in told.manifests]
    assert [one["described"] + one["reused"] for one in counts] == [MANY] * 3
    assert sum(one["described"] for one in counts) == MANY
    assert told.overlap_s > 0


# --- images that arrive ---


@dataclass
class Arrivals:
    """What came of images that were put into a watched folder, while the triggerer was killed."""

    deltas: dict[str, list[str]]
    put: list[str]
    manifests: list[dict[str, Any]]
    bill: Bill


def arriving(shop: Shop) -> Arrivals:
    shop.connect()
    place = shop.airflow.home / "arrivals"
    first, later = (shop.draw(count, name) for name, count in (("first", 1), ("later", 10)))
    put: list[str] = []

    def arrive(paths: list[str]) -> None:
        (place / "inbox").mkdir(parents=True, exist_ok=True)
        put.extend(str(Path(path).rename(place / "inbox" / Path(path).name)) for path in paths)

    def is_offered() -> bool:
        state = place / "state" / "arrivals.json"
        return state.exists() and json.loads(state.read_text(encoding="utf-8"))["offer"] is not None

    arrive(first)
    # An event is on its way, and nobody can tell how far.
    shop.airflow.kill_triggerer(is_offered, meanwhile=lambda: arrive(later))
    runs = "select run_id, state from dag_run where dag_id = 'arriving'"

    def is_done() -> bool:
        states = {row.state for row in shop.airflow.rows(runs)}
        return states == {"success"} and not is_offered() and shop.bill().billed >= len(put)

    shop.airflow.until(is_done, "all that has arrived, described")
    events = shop.airflow.rows("select asset_event.extra from asset_event order by id")
    payloads = [(json.loads(row.extra) if isinstance(row.extra, str) else row.extra)["payload"] for row in events]
    deltas = {payload["delta"]: [image["uri"] for image in payload["images"]] for payload in payloads}
    shop.runs += [LiveRun(shop.airflow, "arriving", row.run_id) for row in shop.airflow.rows(runs)]
    return Arrivals(deltas, put, [run.manifest() for run in shop.runs], shop.bill())


@pytest.mark.scene(of=arriving)
def test_images_that_arrive_are_described_once_though_the_triggerer_is_killed(scene: Scene) -> None:
    told: Arrivals = scene()
    assert sorted(uri for uris in told.deltas.values() for uri in uris) == sorted(told.put)
    assert [len(uris) for uris in told.deltas.values()] == [1, 10]
    assert (told.bill.requests, told.bill.billed, told.bill.twice) == (11, 11, [])
    assert sum(manifest["counts"]["described"] for manifest in told.manifests) == 11

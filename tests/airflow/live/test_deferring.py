"""What happens to tasks that wait outside the worker, in a real Airflow. The bill is the emulator's word alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from live_run import BUSY, MAX_WAIT_S, LiveRun, Seen
from thoroughness import FULL

if TYPE_CHECKING:
    from tests.airflow.live.conftest import Bill, Shop

Scene = Callable[[], Any]

IMAGES, PER_MINUTE = (300, 60) if FULL else (45, 20)
KILLS = 3
WITHIN_S = 900.0 if FULL else MAX_WAIT_S
TIMES = ("described_at", "elapsed_s")
OF_A_RUN = ("dag_id", "run_id", "store", "results", "failures", "request_id")


# --- a rate limit: the worker's slot is free, and the triggerer dies ---


@dataclass
class Paced:
    """Images described at the account's pace."""

    bill: Bill
    manifest: dict[str, Any]
    seen: list[Seen]
    pools: list[dict[str, Any]] = field(default_factory=list)
    beside: list[Seen] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    triggerers: list[int] = field(default_factory=list)
    """Those that died with the trigger in their hands."""

    def seconds(self, *states: str) -> float:
        """How long the task was in these states."""
        spans = zip(self.seen, self.seen[1:], strict=False)
        return sum(after.at - before.at for before, after in spans if before.state in states)

    @property
    def deferrals(self) -> int:
        return len({seen.trigger_id for seen in self.seen if seen.state == "deferred"})


def paced(shop: Shop) -> Paced:
    shop.emulator.faults({shop.vendor: {"requests_per_minute": PER_MINUTE, "latency_s": 0.05}})
    shop.connect(requests_per_minute=PER_MINUTE)
    shop.draw(IMAGES)
    run = shop.run("at_a_pace")
    told = Paced(shop.bill(), {}, [])

    def watch() -> None:
        for seen in run.changes(WITHIN_S):
            told.seen.append(seen)
            if seen.state == "deferred":
                told.kept.append(shop.airflow.trigger_kwargs(seen.trigger_id))
                told.pools.append(shop.airflow.api("GET", "pools/one_slot"))

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        shop.airflow.until(lambda: told.pools, "the first deferral")
        told.beside += beside(shop, run)
        for _ in range(KILLS):
            told.triggerers.append(shop.airflow.kill_triggerer(lambda: shop.airflow.is_held(run.look().trigger_id)))
        watching.result()
    told.manifest, told.bill = run.manifest(), shop.bill()
    return told


def beside(shop: Shop, deferred: LiveRun) -> Iterator[Seen]:
    """Run a task that needs the only slot of the pool, as long as the other is deferred; yield both at its end."""
    other = shop.airflow.run("beside", f"{shop.name}-beside")
    yield other.until("success")
    yield deferred.look()


@pytest.mark.scene(of=paced)
def test_every_image_is_billed_once_though_the_triggerer_is_killed_three_times(scene: Scene) -> None:
    told: Paced = scene()
    print(f"{IMAGES} images at {PER_MINUTE} a minute: {told.seen[-1].at - told.seen[0].at:.0f} s,")
    print(f"{told.bill.requests} requests, {told.bill.billed} billed, {told.bill.refused} refused (429);")
    print(f"{told.deferrals} deferrals, {told.seconds('deferred'):.0f} s deferred;")
    print(f"{told.seconds(*BUSY):.0f} s with a slot of the pool, {told.seconds('running'):.0f} s of them running.")
    assert told.seen[-1].state == "success"
    assert len(set(told.triggerers)) == KILLS
    assert (told.bill.requests, told.bill.billed, told.bill.twice) == (IMAGES, IMAGES, [])
    assert told.manifest["counts"]["described"] == told.manifest["calls"] == IMAGES


@pytest.mark.scene(of=paced)
def test_the_vendor_never_has_to_refuse_a_call(scene: Scene) -> None:
    told: Paced = scene()
    assert told.bill.refused == 0
    assert told.deferrals == IMAGES // PER_MINUTE - (IMAGES % PER_MINUTE == 0)


@pytest.mark.scene(of=paced)
def test_a_deferred_task_holds_no_worker_slot(scene: Scene) -> None:
    told: Paced = scene()
    assert {(pool["deferred_slots"], pool["open_slots"]) for pool in told.pools} == {(1, 1)}
    # The pool's only slot was somebody else's meanwhile.
    finished, deferred = told.beside
    assert (finished.state, deferred.state) == ("success", "deferred")
    # Each stretch of work is a process of its own, and none waits there.
    assert len({seen.pid for seen in told.seen if seen.pid}) == told.deferrals + 1
    assert told.seconds("running") < told.seconds("deferred")


@pytest.mark.scene(of=paced)
def test_a_task_that_waits_for_its_rate_is_one_try_with_one_row_an_image(scene: Scene) -> None:
    told: Paced = scene()
    rows = rows_of(told.manifest["results"])
    assert {seen.try_number for seen in told.seen if seen.state} == {1}
    assert [(row["status"], row["billed"]) for row in rows] == [("described", "yes")] * IMAGES
    assert len({row["uri"] for row in rows}) == IMAGES


# --- Segmind v2: requests run at the vendor ---


@dataclass
class Alike:
    """The same images described by a task that defers and by one that does not."""

    deferring: dict[str, Any]
    staying: dict[str, Any]
    seen: list[Seen]
    kept: list[str]
    key: str
    uris: list[str]
    bill: Bill
    links: dict[str, dict[str, str | None]]
    """The task's links in each of its states."""


def v2_alike(shop: Shop) -> Alike:
    shop.hold_requests()
    shop.connect(api_version="v2")
    uris = shop.draw(12)
    staying = shop.run("staying", store="other")
    run = shop.run("deferring")
    seen, kept, links = [], [], {}
    for now in run.changes():
        seen.append(now)
        if now.state in ("deferred", "success"):
            links[now.state] = run.links()
        if now.state == "deferred":
            kept.append(shop.airflow.trigger_kwargs(now.trigger_id))
            shop.end_requests()
    staying.until("success")
    return Alike(run.manifest(), staying.manifest(), seen, kept, shop.key, uris, shop.bill(), links)


@pytest.mark.scene(of=v2_alike)
def test_requests_that_run_at_the_vendor_are_waited_for_outside_the_worker(scene: Scene) -> None:
    told: Alike = scene()
    assert [seen.state for seen in told.seen if seen.state == "deferred"]
    # Two tasks with a store each.
    assert (told.bill.requests, told.bill.billed) == (2 * len(told.uris), 2 * len(told.uris))
    assert told.bill.outcomes == {"described": 2 * len(told.uris)}


@pytest.mark.scene(of=v2_alike)
def test_a_deferred_task_has_its_links(scene: Scene) -> None:
    told: Alike = scene()
    deferred, ended = told.links["deferred"], told.links["success"]
    assert deferred == ended and None not in deferred.values()
    assert "dag_id=deferring" in str(deferred["Descriptions"]) and "/describer/results?" in str(deferred["Results"])


@pytest.mark.scene(of=v2_alike)
def test_a_task_that_has_deferred_leaves_what_one_leaves_that_has_not(scene: Scene) -> None:
    told: Alike = scene()
    assert without(told.deferring, *OF_A_RUN, *TIMES) == without(told.staying, *OF_A_RUN, *TIMES)
    for name in ("results", "failures"):
        here, there = (by_uri(manifest[name]) for manifest in (told.deferring, told.staying))
        assert here == there
    ids = [row["request_id"] for name in (told.deferring, told.staying) for row in rows_of(name["results"])]
    assert len(set(ids)) == 2 * len(told.uris)
    assert set(by_uri(told.deferring["results"])) == set(told.uris)


@pytest.mark.scene(of=v2_alike)
def test_the_database_keeps_ids_times_and_sums_alone(scene: Scene) -> None:
    told: Alike = scene()
    assert told.kept
    for kept in told.kept:
        assert set(plain(json.loads(kept))) == {"describer_conn_id", "until", "requests", "carried", "began"}
        assert told.key not in kept
        assert not [uri for uri in told.uris if uri in kept or Path(uri).name in kept]
        requests = plain(json.loads(kept))["requests"]
        assert len(requests) == len(told.uris)
        sent = {row["request_id"] for row in rows_of(told.deferring["results"])}
        assert {request_id for request_id, _ in requests} == sent


@pytest.mark.scene(of=paced)
def test_the_database_keeps_a_moment_alone_where_a_rate_is_waited_for(scene: Scene) -> None:
    told: Paced = scene()
    assert told.kept
    for kept in told.kept:
        values = plain(json.loads(kept))
        assert (list(values["requests"]), values["describer_conn_id"]) == ([], "paced")
        assert values["until"] > values["began"]
        assert ".jpg" not in kept


# --- reading ---


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def by_uri(path: str) -> dict[str, dict[str, Any]]:
    return {row["uri"]: without(row, *OF_A_RUN, *TIMES) for row in rows_of(path)}


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def plain(kept: dict[str, Any]) -> dict[str, Any]:
    """Return a trigger's arguments without what Airflow's serialisation wraps them in."""
    return {name: unwrapped(value) for name, value in unwrapped(kept).items()}


def unwrapped(value: Any) -> Any:
    if isinstance(value, dict):
        for wrapper in ("__data__", "__var"):
            if wrapper in value:
                return unwrapped(value[wrapper])
        return {name: unwrapped(inner) for name, inner in value.items()}
    return [unwrapped(inner) for inner in value] if isinstance(value, list) else value

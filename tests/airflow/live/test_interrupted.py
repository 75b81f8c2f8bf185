"""What people and Airflow do to a deferred task: the next run goes on, and pays for nothing again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from live_run import LiveRun
from thoroughness import FULL

from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history

if TYPE_CHECKING:
    from tests.airflow.live.conftest import Bill, Shop

Scene = Callable[[], Any]

MANY, KILLS = (500, 3) if FULL else (60, 1)
"""Requests at the vendor, and how often the triggerer is killed: others kill it meanwhile, too."""


@dataclass
class Interrupted:
    """A task that was interrupted, and what came after it."""

    first: str | None
    tries: int
    manifest: dict[str, Any]
    bill: Bill
    trigger_gone: bool = True


def interrupted(shop: Shop, interrupt: Callable[[LiveRun], object], dag_id: str = "deferring") -> Interrupted:
    """Let a task defer while requests run at the vendor, interrupt it, and run the DAG again."""
    shop.hold_requests()
    shop.connect(api_version="v2")
    shop.draw(6)
    run = shop.run(dag_id)
    deferred = run.until("deferred")
    interrupt(run)
    shop.end_requests()
    again = shop.run("deferring")
    again.until("success")
    gone = shop.airflow.until(lambda: not shop.airflow.trigger_kwargs(deferred.trigger_id), "the trigger's end")
    ended = run.look()
    return Interrupted(ended.state, ended.try_number, again.manifest(), shop.bill(), gone)


def v2_marked_failed(shop: Shop) -> Interrupted:
    return interrupted(shop, lambda run: run.mark("failed"))


def v2_run_deleted(shop: Shop) -> Interrupted:
    return interrupted(shop, LiveRun.delete)


def v2_timed_out(shop: Shop) -> Interrupted:
    return interrupted(shop, lambda run: run.until("failed"), "in_time")


@pytest.mark.scene(of=v2_marked_failed)
def test_the_next_run_fetches_what_a_task_marked_failed_has_left(scene: Scene) -> None:
    told: Interrupted = scene()
    assert told.first == "failed"
    assert_fetched(told)


@pytest.mark.scene(of=v2_run_deleted)
def test_the_next_run_fetches_what_a_deleted_run_has_left(scene: Scene) -> None:
    told: Interrupted = scene()
    assert told.first is None
    assert_fetched(told)


@pytest.mark.scene(of=v2_timed_out)
def test_a_deferred_task_ends_when_its_time_is_over_and_the_next_run_goes_on(scene: Scene) -> None:
    told: Interrupted = scene()
    assert told.first == "failed"
    assert_fetched(told)


def assert_fetched(told: Interrupted) -> None:
    """Nothing was sent again: the run after it has the results of the requests that were running."""
    assert (told.bill.requests, told.bill.billed, told.bill.twice) == (6, 6, [])
    assert told.manifest["counts"]["described"] == 6
    assert told.manifest["calls"] == 0
    assert told.trigger_gone


def v2_cleared(shop: Shop) -> Interrupted:
    shop.hold_requests()
    shop.connect(api_version="v2")
    shop.draw(6)
    run = shop.run("deferring")
    run.until("deferred")
    run.clear()
    shop.airflow.until(lambda: run.look().try_number == 2, "the second try")
    shop.end_requests()
    ended = run.until("success")
    return Interrupted(ended.state, ended.try_number, run.manifest(), shop.bill())


@pytest.mark.scene(of=v2_cleared)
def test_a_task_cleared_while_deferred_pays_for_nothing_again(scene: Scene) -> None:
    told: Interrupted = scene()
    assert told.tries == 2
    assert_fetched(told)


@dataclass
class Killed:
    """A task whose worker was killed while it waited, and the triggerer when it had been deferred."""

    tries: int
    triggerers: list[int]
    manifest: dict[str, Any]
    bill: Bill


def v2_killed(shop: Shop) -> Killed:
    shop.hold_requests()
    shop.connect(api_version="v2")
    shop.draw(MANY)
    run = shop.run("tried_again")
    # From here on the worker does nothing but ask whether they are ready.
    shop.airflow.until(lambda: accepted(shop) == MANY, f"{MANY} requests that run at the vendor")
    worker = run.look()
    assert worker.state == "running" and worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    triggerers = [
        shop.airflow.kill_triggerer(lambda: shop.airflow.is_held(run.look().trigger_id)) for _ in range(KILLS)
    ]
    shop.end_requests()
    ended = run.until("success")
    return Killed(ended.try_number, triggerers, run.manifest(), shop.bill())


def accepted(shop: Shop) -> int:
    """How many requests the store knows to run at the vendor."""
    return sum(event["event"] == "accepted" for event in read_history(open_folder(shop.store)))


@pytest.mark.scene(of=v2_killed)
def test_requests_are_fetched_though_worker_and_triggerer_are_killed(scene: Scene) -> None:
    told: Killed = scene()
    assert (told.tries, len(set(told.triggerers))) == (2, KILLS)
    assert (told.bill.requests, told.bill.billed, told.bill.twice) == (MANY, MANY, [])
    assert told.manifest["counts"]["described"] == MANY


def worked_too_long(shop: Shop) -> Interrupted:
    shop.emulator.faults({shop.vendor: {"latency_s": 1.0}})
    shop.connect()
    shop.draw(12)
    run = shop.run("one_by_one_in_time")
    first = run.until("failed")
    before = shop.bill()
    shop.emulator.faults({})
    again = shop.run("deferring")
    again.until("success")
    manifest = again.manifest()
    assert 0 < before.billed < 12
    assert manifest["counts"]["reused"] == before.billed
    return Interrupted(first.state, first.try_number, manifest, shop.bill())


@pytest.mark.scene(of=worked_too_long)
def test_a_task_that_works_too_long_leaves_its_outcomes_to_the_next_run(scene: Scene) -> None:
    told: Interrupted = scene()
    assert (told.bill.requests, told.bill.billed, told.bill.twice) == (12, 12, [])
    assert told.manifest["counts"]["pending"] == 0

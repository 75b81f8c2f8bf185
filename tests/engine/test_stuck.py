"""Calls that never end: the run ends, what may be billed is told, and no such call is sent again while it may live."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_describer.engine.deferral import FETCH_WITHIN_S, ResumePolicy
from airflow_provider_describer.errors import Unfinished
from airflow_provider_describer.http.flow import RESULTS_KEPT_S

if TYPE_CHECKING:
    from tests.conftest import Result, Shop

Pictures = Callable[..., list[Path]]
FASTER = 2000
"""How much faster than here time passes for a run that waits for an hour."""


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stick(shop: Shop, *stuck: Path, **settings: Any) -> None:
    """Let these images' requests never end."""
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    shop.faults(errors=[{"kind": "stuck", "images": [sha(path) for path in stuck]}], **settings)


def clock_of(later: float) -> Callable[[], float]:
    return lambda: time.time() + later


def work(shop: Shop, paths: list[Path], clock: Callable[[], float], **options: Any) -> Any:
    job = shop.job(paths, **options)
    job.vendor_calls = replace(job.vendor_calls, clock=clock)
    outcome = job.run()
    return outcome, shop.result(outcome, [])


def posts(result: Result, path: Path) -> int:
    return sum(entry["image_sha256"] == sha(path) for entry in result.ledger["entries"])


@pytest.mark.parametrize("on_unknown", ["retry", "hold"])
def test_a_stuck_request_ends_a_run_of_unknown_outcome_and_is_sent_once(
    shop: Shop, pictures: Pictures, on_unknown: str
) -> None:
    paths = pictures(6)
    stick(shop, paths[2])
    began = time.time()
    _, result = work(shop, paths, lambda: began + (time.time() - began) * FASTER, concurrency=6, on_unknown=on_unknown)
    assert (result.counts["described"], result.counts["unknown"], result.counts["pending"]) == (5, 1, 0)
    (row,) = result.of("unknown")
    assert row["uri"] == str(paths[2]) and row["billed"] == "unknown" and row["request_id"]
    assert row["error"]["kind"] == "request_expired" and row["request_id"] in row["error"]["message"]
    assert result.manifest["calls"] == result.ledger["requests"] == 6 and result.ledger["billed"] == 5
    assert posts(result, paths[2]) == 1
    assert (result.manifest["unknown_calls"], result.manifest["unknown_cost_usd"]) == (1, 0.015)
    assert isinstance(result.error, Unfinished) == (on_unknown == "retry")
    held = shop.describe(paths, on_unknown="hold")
    assert held.ledger["requests"] == 6 and held.counts["unknown"] == 1


def test_a_deferred_run_goes_on_deferring_for_it_and_keeps_what_it_has(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(8)
    stick(shop, *paths[:2])
    limits: dict[str, Any] = {"concurrency": 8, "max_wait": 0.3}
    outcome, result = work(shop, paths, time.time, **limits)
    assert (result.counts["described"], result.counts["pending"]) == (6, 2)
    assert len(outcome.resume_condition.requests) == 2

    for later in (600.0, FETCH_WITHIN_S, RESULTS_KEPT_S - 60):
        outcome, result = work(shop, paths, clock_of(later), carried=outcome.carried, **limits)
        assert (result.counts["described"], result.counts["pending"], result.error) == (6, 2, None)
        assert result.ledger["requests"] == 8
    began = time.time() + RESULTS_KEPT_S - 60
    assert not ResumePolicy(outcome.resume_condition, began).is_due(began), "else it would resume at once, for ever"

    outcome, result = work(shop, paths, clock_of(RESULTS_KEPT_S + 1), carried=outcome.carried, **limits)
    assert outcome.resume_condition is None and isinstance(result.error, Unfinished)
    assert (result.counts["described"], result.counts["unknown"]) == (6, 2)
    assert result.manifest["calls"] == result.ledger["requests"] == 8 and result.ledger["billed"] == 6
    assert result.manifest["unknown_calls"] == 2 and result.manifest["cost_usd"] == pytest.approx(0.09)


def test_a_result_that_comes_late_is_fetched_by_the_resumed_run(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    shop.faults(v2_delay_s=1.0)
    limits: dict[str, Any] = {"concurrency": 4, "max_wait": 0.2}
    outcome, result = work(shop, paths, time.time, **limits)
    assert result.counts["pending"] == 4
    while result.ledger["billed"] < 4:
        time.sleep(0.05)
        result = replace(result, ledger=shop.emulator.ledger())
    outcome, result = work(shop, paths, clock_of(RESULTS_KEPT_S + 60), carried=outcome.carried, **limits)
    assert outcome.resume_condition is None
    assert result.counts["described"] == result.ledger["requests"] == result.ledger["billed"] == 4


def test_stuck_requests_of_an_earlier_stint_keep_no_result_and_no_new_call(shop: Shop, pictures: Pictures) -> None:
    """However many they are: they come first, as those that have ended must be fetched in time."""
    paths = pictures(10)
    stick(shop, *paths[:5])
    outcome, result = work(shop, paths[:8], time.time, concurrency=8, max_wait=0.0)
    assert result.counts["pending"] == result.ledger["requests"] == 8
    outcome, result = work(shop, paths, time.time, concurrency=1, max_wait=0.5, carried=outcome.carried)
    assert (result.counts["described"], result.counts["pending"]) == (5, 5)
    assert len(outcome.resume_condition.requests) == 5
    assert result.ledger["requests"] == 10 and result.ledger["billed"] == 5


def test_as_many_stuck_requests_as_workers_end_too(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(9)
    stick(shop, *paths[:4])
    began = time.time()
    _, result = work(shop, paths, lambda: began + (time.time() - began) * FASTER, concurrency=2, on_unknown="hold")
    assert (result.counts["described"], result.counts["unknown"]) == (5, 4)
    assert result.ledger["requests"] == 9 and result.ledger["billed"] == 5


def test_requests_of_an_earlier_run_that_have_expired_stop_no_new_call(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(20)
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    shop.faults(v2_delay_s=60.0, v2_expire_s=1.0)
    _, result = work(shop, paths[:12], time.time, concurrency=12, max_wait=0.1)
    assert result.counts["pending"] == result.ledger["requests"] == 12
    shop.faults()
    with httpx.Client(trust_env=False, headers={"x-api-key": shop.emulator.keys["segmind"]}) as client:
        for row in result.rows:
            while client.get(f"{shop.emulator.url}/v2/requests/{row['request_id']}").status_code != 404:
                time.sleep(0.05)
    _, result = work(shop, paths, time.time, concurrency=1, on_unknown="hold")
    assert (result.counts["unknown"], result.counts["described"]) == (12, 8)
    assert result.error is None and result.ledger["requests"] == 20
    assert [entry["billed"] for entry in result.ledger["entries"][12:]] == [True] * 8


@pytest.mark.parametrize("kind", ["drip_after_bill", "hang_after_bill"])
def test_an_answer_that_drips_is_a_lost_one(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    any_shop.faults(errors=[{"kind": kind, "attempts": 1}])
    result = any_shop.describe(pictures(3), on_unknown="hold", fields={"timeout": 0.4})
    assert result.counts["unknown"] == result.ledger["requests"] == result.manifest["unknown_calls"] == 3
    assert {row["error"]["kind"] for row in result.rows} == {"ambiguous"}
    assert all("no whole answer within 0.4 s" in row["error"]["message"] for row in result.rows)


def test_a_stuck_call_of_v1_is_given_up_as_well(shop: Shop, pictures: Pictures) -> None:
    shop.vendor = "segmind"
    shop.faults(errors=[{"kind": "stuck", "share": 1}])
    result = shop.describe(pictures(2), on_unknown="hold", fields={"timeout": 0.4})
    assert result.counts["unknown"] == result.ledger["requests"] == 2 and result.ledger["billed"] == 0

"""A chain over several runs: each image is paid once, and what an earlier run has sent comes first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.engine.failover import Fallback
from airflow_provider_describer.engine.meter import EndedCall
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import InsufficientCredits, Unfinished
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.rules import Matches
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
FIRST, SECOND = "image_describer", "segmind"
RUN = TaskInstanceKey("catalog", "night", "describe")
ALL = {"share": 1}


def backup(shop: Shop, images: Any, vendor: str = SECOND, *, stricter: str | None = None, **extra: Any) -> Fallback:
    """A second connection of the shop, asked about the same images."""
    account = account_from_connection(
        get_vendor(vendor).defaults(),
        conn_id="backup",
        password=shop.emulator.keys[vendor],
        host=shop.emulator.url,
        extra={"price_per_call": 0.015, "allow_private_hosts": True, **extra},
    )
    calls = VendorCalls(get_vendor(vendor), account, shop.policy, jitter=lambda: 0.0)
    return Fallback(calls, parse_images(images, calls.vendor, stricter_prompt=stricter))


def vendors(shop: Shop, first: dict[str, Any] | None = None, then: dict[str, Any] | None = None) -> None:
    """Let the two vendors behave so."""
    quick = {"v2_delay_s": 0.03, "history": "none"}
    shop.emulator.faults({FIRST: first or {}, SECOND: {**quick, **(then or {})}})


def out(kind: str = "insufficient_credits", **when: Any) -> dict[str, Any]:
    return {"errors": [{"kind": kind, **(when or ALL)}]}


def billed(shop: Shop) -> dict[str, int]:
    return {name: shop.emulator.ledger()["by_vendor"][name]["billed"] for name in (FIRST, SECOND)}


def once(shop: Shop) -> bool:
    return set(shop.emulator.ledger()["by_image"].values()) == {1}


@pytest.mark.parametrize("other", ["chain", "second"])
def test_runs_at_once_never_pay_two_vendors_for_an_image(shop: Shop, pictures: Pictures, other: str) -> None:
    paths = pictures(8)
    vendors(shop, {**out(after=3), "latency_s": 0.05}, {"latency_s": 0.05})
    jobs = [
        shop.job(
            paths, fallbacks=(backup(shop, paths),), concurrency=2, task_instance=replace(RUN, task_id=f"{number}")
        )
        for number in range(3)
    ]
    if other == "second":
        shop.vendor = SECOND
        jobs[1] = shop.job(paths, concurrency=2, task_instance=replace(RUN, task_id="second"))
    with ThreadPoolExecutor(3) as threads:
        ends = [one.result() for one in [threads.submit(job.run) for job in jobs]]
    assert [end.error for end in ends] == [None] * 3
    if other == "chain":
        assert once(shop) and shop.emulator.ledger()["billed"] == 8
    else:
        # A run without a chain knows nothing of what the first vendor has described.
        sent = [(one["vendor"], one["image_sha256"]) for one in shop.emulator.ledger()["entries"] if one["billed"]]
        assert len(set(sent)) == len(sent) and len({image for _, image in sent}) == 8


@pytest.mark.parametrize("works_again", [True, False])
def test_what_runs_at_the_second_is_fetched_before_the_first_is_paid(
    shop: Shop, pictures: Pictures, works_again: bool
) -> None:
    paths = pictures(5)
    vendors(shop, out(), {"v2_delay_s": 1.0})
    chain = (backup(shop, paths[:3], api_version="v2"),)
    left = shop.job(paths[:3], fallbacks=chain, task_instance=RUN, max_wait=0.2).run()
    assert left.resume_condition is not None and left.error is None
    assert left.resume_condition.conn_id == "backup" and len(left.resume_condition.requests) == 3
    assert left.manifest["counts"] == {**dict.fromkeys(left.manifest["counts"], 0), "requested": 3, "pending": 3}
    if works_again:
        # The requests that run go on as they were.
        shop.emulator.faults({SECOND: {"v2_delay_s": 1.0, "history": "none"}})
    carried = CarriedTotals.from_dict(left.carried.to_dict())
    more = (backup(shop, paths, api_version="v2"),)
    lines: list[str] = []
    result = shop.result(
        shop.job(paths, fallbacks=more, task_instance=RUN, carried=carried, report=lines.append).run(), lines
    )
    assert result.error is None and result.counts["described"] == 5 and once(shop)
    assert billed(shop) == ({FIRST: 2, SECOND: 3} if works_again else {FIRST: 0, SECOND: 5})
    kinds = Counter(row["fallback"] and row["fallback"]["kind"] for row in result.rows)
    assert kinds == {"sent_before": 3, (None if works_again else "insufficient_credits"): 2}


def test_what_still_runs_elsewhere_is_never_paid_again(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    vendors(shop, out(), {"errors": [{"kind": "stuck", **ALL}]})
    chain = (backup(shop, paths, api_version="v2"),)
    shop.job(paths, fallbacks=chain, task_instance=RUN, max_wait=0.1).run()
    before = shop.emulator.ledger()["requests"]
    vendors(shop, then=out("invalid_key"))
    result = shop.describe(paths, fallbacks=chain, task_instance=replace(RUN, try_number=2), max_wait=0.1)
    assert result.ledger["requests"] == before and result.counts["pending"] == 2


@pytest.mark.parametrize("fault", ["drop_after_bill", "drop_after_failure", "drop_before_bill"])
def test_the_seconds_books_are_asked_before_the_first_is_paid(shop: Shop, pictures: Pictures, fault: str) -> None:
    paths = pictures(3)
    vendors(shop, out(), {**out(fault), "history": "text"})
    chain = (backup(shop, paths),)
    first = shop.describe(paths, fallbacks=chain, on_unknown="hold")
    vendors(shop, then={"history": "text"})
    result = shop.describe(paths, fallbacks=chain)
    assert result.error is None and once(shop)
    if fault == "drop_after_bill":
        # The books tell it at once, or at the next run.
        assert first.counts["described"] + result.counts["described"] == 3
        assert billed(shop) == {FIRST: 0, SECOND: 3}
    else:
        assert billed(shop) == {FIRST: 3, SECOND: 0} and result.counts["described"] == 3


def test_a_run_that_is_left_within_the_second_goes_on_there(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    vendors(shop, out(after=2))
    # As many calls as a minute allows are made at once, then the run is left.
    chain = (backup(shop, paths, requests_per_minute=2),)
    options: dict[str, Any] = {"task_instance": RUN, "concurrency": 1}
    left = shop.job(paths, fallbacks=chain, max_wait=0.0, **options).run()
    assert left.resume_condition is not None and left.manifest["counts"]["described"] == 4
    assert left.carried.idle_at_of["backup"] > time.time() and not left.carried.idle_at
    carried = CarriedTotals.from_dict(left.carried.to_dict())
    # Before that moment it starts no burst.
    again = shop.job(paths, fallbacks=chain, max_wait=0.0, carried=carried, **options).run()
    assert again.resume_condition is not None and billed(shop) == {FIRST: 2, SECOND: 2}
    rest = shop.job(
        paths, fallbacks=(backup(shop, paths),), carried=CarriedTotals.from_dict(again.carried.to_dict()), **options
    ).run()
    result = shop.result(rest, [])
    assert result.error is None and result.counts["described"] == 6 and once(shop)
    assert billed(shop) == {FIRST: 2, SECOND: 4}
    assert result.manifest["cost_usd"] == pytest.approx(0.09) == sum(row["cost_usd"] for row in result.rows)
    assert result.manifest["calls"] == result.ledger["requests"]
    assert result.manifest["fallbacks"] == {SECOND: {"described": 4, "reused": 0, "why": ["insufficient_credits"]}}


def test_an_accounts_day_counts_its_own_calls_in_every_try(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(8)
    vendors(shop, out(after=3))
    chain = (backup(shop, paths, max_cost_per_day=0.06),)
    first = shop.describe(paths[:5], fallbacks=(backup(shop, paths[:5]),), task_instance=RUN, concurrency=1)
    assert first.error is None and billed(shop) == {FIRST: 3, SECOND: 2}
    vendors(shop, out())
    result = shop.describe(paths, fallbacks=chain, task_instance=replace(RUN, try_number=2), concurrency=1)
    # Two of its four calls are spent; the three of the first one are not its own.
    assert billed(shop) == {FIRST: 3, SECOND: 4} and result.counts["pending"] == 1


def test_a_task_counts_the_calls_of_all_in_every_try(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    vendors(shop, out(after=2))
    first = shop.describe(paths[:3], fallbacks=(backup(shop, paths[:3]),), task_instance=RUN, concurrency=1)
    assert first.error is None and billed(shop) == {FIRST: 2, SECOND: 1}
    vendors(shop)
    again = replace(RUN, try_number=2)
    result = shop.describe(
        paths, fallbacks=(backup(shop, paths),), task_instance=again, concurrency=1, max_cost=5 * 0.015
    )
    assert billed(shop) == {FIRST: 4, SECOND: 1} and result.counts["pending"] == 1


def test_the_connection_that_has_described_an_image_is_asked_once_more(shop: Shop, pictures: Pictures) -> None:
    pytest.importorskip("regex")
    paths = pictures(3)
    # The first account describes one image.
    vendors(shop, out(first=1))
    rules = [Matches("Asked: Be brief")]
    chain = (backup(shop, paths, FIRST, stricter="Be brief."),)
    result = shop.describe(paths, fallbacks=chain, rules=rules, stricter_prompt="Be brief.", concurrency=1)
    assert result.error is None and result.ledger["billed"] == 6
    assert {row["prompt"] for row in result.rows} == {"Be brief."}
    assert all(row["fallback"] is None or row["fallback"]["kind"] == "insufficient_credits" for row in result.rows)
    again = shop.describe(paths, fallbacks=chain, rules=rules, stricter_prompt="Be brief.")
    assert again.manifest["calls"] == 0 and {row["prompt"] for row in again.rows} == {"Be brief."}


def test_a_second_try_of_a_connection_that_is_out_is_left_to_a_later_run(shop: Shop, pictures: Pictures) -> None:
    pytest.importorskip("regex")
    paths = pictures(3)
    vendors(shop)
    rules = [Matches("Asked: Be brief")]
    shop.describe(paths)
    vendors(shop, out())
    result = shop.describe(paths, fallbacks=(backup(shop, paths),), rules=rules, stricter_prompt="Be brief.")
    assert result.error is None and result.counts["reused"] == 3 and billed(shop) == {FIRST: 3, SECOND: 0}
    assert any("second tries: not all could be made now" in line for line in result.lines)


def test_a_setting_of_the_second_that_cannot_work_keeps_what_the_first_has_done(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    vendors(shop, out(after=2))
    chain = (backup(shop, paths, limits_path="relative/path"),)
    result = shop.describe(paths, fallbacks=chain, concurrency=1)
    assert isinstance(result.error, InsufficientCredits) and "limits_path" in str(result.error)
    assert (result.counts["described"], result.counts["pending"]) == (2, 2)


def test_a_task_that_is_stopped_goes_to_no_other_connection(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    vendors(shop, {**out("unavailable"), "latency_s": 0.1})
    job = shop.job(paths, fallbacks=(backup(shop, paths),))
    job.report = lambda line: job.stop()
    outcome = job.run()
    assert outcome.manifest["counts"]["pending"] == 4 and isinstance(outcome.error, Unfinished | None)
    assert shop.emulator.ledger()["by_vendor"][SECOND]["requests"] == 0


class Tally:
    """Adds up what a meter is told."""

    def __init__(self) -> None:
        self.calls: list[EndedCall] = []
        self.told: list[Totals] = []
        self.ends: list[tuple[Totals, BaseException | None]] = []

    def begin(self, known: Totals) -> None:
        self.told.append(known)

    def waited(self, seconds: float) -> None:
        pass

    def call(self, ended: EndedCall) -> None:
        self.calls.append(ended)

    def count(self, totals: Totals) -> None:
        self.told.append(totals.copy())

    def end(self, totals: Totals, error: BaseException | None) -> None:
        self.ends.append((totals, error))


def test_each_connection_is_measured_by_itself(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    vendors(shop, out(after=2))
    first, then, never = Tally(), Tally(), Tally()
    fallback = replace(backup(shop, paths), meter=then)
    outcome = shop.job(paths, fallbacks=(fallback,), meter=first, concurrency=1).run()
    assert outcome.error is None
    ((totals, _),) = first.ends
    assert (totals.requested, totals.counts["described"], len(first.calls)) == (6, 2, 3)
    ((totals, error),) = then.ends
    assert (totals.requested, totals.counts["described"], totals.calls, error) == (4, 4, 4, None)
    assert totals.cost_usd == pytest.approx(0.06) and len(then.calls) == 4
    assert then.told[0].counts["described"] == 0
    calls = [one.calls for one in first.told]
    assert calls == sorted(calls) and calls[-1] == 3
    vendors(shop)
    shop.store = shop.store.with_name("other")
    shop.job(paths, fallbacks=(replace(fallback, meter=never),)).run()
    assert not never.ends and not never.told

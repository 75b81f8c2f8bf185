"""Task processes against a vendor that enforces the limits; its ledger is what is checked."""

from __future__ import annotations

import time
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.quota.conftest import TaskProcesses


def faults(processes: TaskProcesses, **settings: Any) -> None:
    processes.emulator.faults({"segmind": {"price": 0.015, **settings}})


@pytest.mark.slow
def test_eight_processes_use_the_rate_and_do_not_exceed_it(processes: TaskProcesses) -> None:
    """100 calls in 10 s in place of a minute: a slot may be used a tenth of a second late, as on a busy machine."""
    faults(processes, latency_s=0.4, requests_per_minute=100, rate_window_s=10)
    results = processes.results(processes.start(8, rate=[100, 10], concurrency=8, seconds=11))
    entries = processes.emulator.ledger()["entries"]
    moments = sorted(entry["at"] for entry in entries)
    served = sum(entry["status"] == 200 for entry in entries)
    refused = sum(entry["status"] == 429 for entry in entries)
    assert served + refused == len(entries)
    use = served / ((moments[-1] - moments[0]) * 100 / 10)
    swaps = sum(result["swaps"] for result in results)
    print(f"\n{use:.1%} of the rate used, {refused} of {len(entries)} refused; {swaps} swaps by 8 processes")
    assert refused <= 0.01 * len(entries)
    # 98 % on an idle machine; a slot that a busy one misses is lost.
    assert use >= 0.6
    shares = sorted(result["ends"]["Description"] for result in results)
    assert shares[0] >= 5, "no process starves"


@pytest.mark.slow
def test_four_processes_spend_the_days_money_and_not_one_call_more(processes: TaskProcesses) -> None:
    faults(processes, latency_s=0.02, latency_jitter_s=0.05, errors=[{"kind": "harmful", "first": 40}])
    results = processes.results(processes.start(4, max_cost_per_day=1.0, concurrency=16))
    ledger = processes.emulator.ledger()
    assert (ledger["billed"], ledger["cost_usd"]) == (66, 0.99), "the 67th would cost more than a dollar"
    ends = sum((Counter(result["ends"]) for result in results), Counter())
    assert ends["DayBudgetSpent"] == 4 * 16, "no call waits in vain"
    assert ends["Description"] == 66


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "redis"])
def test_killed_processes_exceed_no_cap_and_block_no_other(
    processes: TaskProcesses, place: str, request: pytest.FixtureRequest
) -> None:
    if place == "redis":
        processes.place = request.getfixturevalue("redis").url
    faults(processes, latency_s=0.05)
    first = processes.start(3, max_cost_per_day=1.2, rate=[1200, 60], concurrency=8)
    while processes.emulator.ledger(entries=False)["billed"] < 20:
        time.sleep(0.01)
    for child in first:
        child.kill()
        child.wait()
    before = processes.emulator.ledger(entries=False)["billed"]
    processes.results(processes.start(2, max_cost_per_day=1.2, rate=[1200, 60], concurrency=8, seconds=2))
    ledger = processes.emulator.ledger()
    assert before < ledger["billed"] and ledger["cost_usd"] <= 1.2
    leases = processes.leases()
    (day,) = {*leases.spent, *(day for lease in leases.holders.values() for day in lease.spent)}
    assert leases.committed_on(day) >= round(ledger["cost_usd"] * 1e6), "the document knows of all that was billed"
    assert leases.committed_on(day) <= 1_200_000


@pytest.mark.slow
def test_a_pause_told_to_one_process_applies_to_all(processes: TaskProcesses) -> None:
    """The vendor takes 15 calls in 4 s, the tasks are set to 27: it refuses one and says until when; the others wait.

    Each process calls about once a second, so that each would be refused once were it not told by the others.
    """
    faults(processes, latency_s=0.05, requests_per_minute=15, rate_window_s=4, reset_format="epoch")
    processes.results(processes.start(7, rate=[40, 6], concurrency=2, seconds=9))
    entries = sorted(processes.emulator.ledger()["entries"], key=lambda entry: entry["at"])
    bursts = [len(list(burst)) for status, burst in groupby(entry["status"] for entry in entries) if status == 429]
    print(f"\nrefused in a row: {bursts}")
    assert bursts and sum(bursts) / len(bursts) <= 4, "7 if each process learned of the limit by itself"

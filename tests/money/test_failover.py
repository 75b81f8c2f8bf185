"""Failover and `kill -9`: killed before, within and after the second vendor's pass, an image is paid once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.store.index import read_history

FIRST, SECOND = "image_describer", "segmind"
OUT = {"kind": "insufficient_credits"}
AT_WORK = {"latency_s": 0.03, "latency_jitter_s": 0.03}


@pytest.fixture
def chain(works: Any) -> Any:
    works.fallbacks = [{"vendor": SECOND}]
    return works


def vendors(works: Any, *, first: dict[str, Any], then: dict[str, Any]) -> None:
    works.emulator.faults({FIRST: first, SECOND: {"history": "none", **then}})


def billed(ledger: dict[str, Any]) -> Counter[str]:
    """How often each image was billed, by any vendor."""
    return Counter(entry["image_sha256"] for entry in ledger["entries"] if entry["billed"])


def under_way(works: Any) -> dict[str, Path]:
    """The images of the calls that were sent, as far as the journal knows, and have no end there."""
    uris, ended = {}, set()
    for event in read_history(works.folder_of_store()):
        if event["event"] == "sent":
            uris[event["call"]] = Path(event["uri"])
        elif event["event"] in ("closed", "lost", "outcome"):
            ended.add(event["call"])
    return {call: uri for call, uri in uris.items() if call not in ended}


def test_a_kill_before_the_second_vendor_is_asked_costs_nothing(chain, thousand, sums):
    vendors(chain, first={"errors": [{**OUT, "after": 8}]}, then={})
    paths = thousand[:20]
    killed = chain.start(paths, concurrency=2, die="before_fallback")
    killed.child.wait()
    assert killed.child.returncode == -9
    assert chain.emulator.ledger()["by_vendor"][SECOND]["requests"] == 0
    result = chain.finish(paths, concurrency=2)
    ledger = chain.emulator.ledger()
    assert billed(ledger) == Counter(sums(paths))
    assert result["manifest"]["fallbacks"] == {SECOND: {"described": 12, "reused": 0, "why": ["insufficient_credits"]}}
    # Nothing is left to pay for, though the first vendor works again.
    vendors(chain, first={}, then={})
    again = chain.finish(paths, concurrency=2)["manifest"]
    assert (again["calls"], again["counts"]["reused"]) == (0, 20)


def test_kills_while_the_second_vendor_describes_cost_what_was_in_flight(chain, thousand, sums):
    vendors(chain, first={"errors": [{**OUT, "share": 1}]}, then=AT_WORK)
    paths = thousand[:40]
    at_risk: Counter[str] = Counter()
    seen: set[str] = set()
    for kill in range(1, 4):
        worker = chain.start(paths, concurrency=4)
        # The first vendor refuses up to four calls, then the second one works.
        chain._wait_for_requests(worker, 12 * kill)
        assert worker.kill(chain.emulator) is not None, "it was done before it could be killed"
        new = {call: image for call, image in under_way(chain).items() if call not in seen}
        seen |= new.keys()
        at_risk.update(set(sums(list(new.values()))))
    # From now on the first vendor works: what was in flight may be paid to it, and nothing else.
    vendors(chain, first=AT_WORK, then=AT_WORK)
    chain.finish(paths, concurrency=4)
    ledger = chain.emulator.ledger()
    assert set(billed(ledger)) == set(sums(paths))
    for image, times in billed(ledger).items():
        assert times <= 1 + at_risk[image]
    assert at_risk.total() <= 3 * 6, "more than was in flight"


def test_a_request_that_the_second_vendor_has_accepted_is_fetched_and_not_paid_to_the_first(chain, thousand, sums):
    chain.fallbacks = [{"vendor": SECOND, "extra": {"api_version": "v2"}}]
    vendors(chain, first={"errors": [{**OUT, "share": 1}]}, then={"v2_delay_s": 2.0})
    paths = thousand[:12]
    worker = chain.start(paths, concurrency=12)
    while len(chain.journaled().accepted - {""}) < 12:
        assert worker.child.poll() is None
    assert worker.kill(chain.emulator) is not None
    # The requests that run keep their delay.
    chain.emulator.faults({SECOND: {"v2_delay_s": 2.0, "history": "none"}})
    result = chain.finish(paths, concurrency=4)
    ledger = chain.emulator.ledger()
    assert billed(ledger) == Counter(sums(paths))
    assert ledger["by_vendor"][FIRST]["billed"] == 0 and result["manifest"]["counts"]["described"] == 12


def test_an_answer_of_the_second_vendor_that_was_lost_is_found_in_its_books(chain, thousand, sums):
    vendors(chain, first={"errors": [{**OUT, "share": 1}]}, then={**AT_WORK, "history": "text"})
    paths = thousand[:24]
    worker = chain.start(paths, concurrency=4)
    chain._wait_for_requests(worker, 14)
    assert worker.kill(chain.emulator) is not None
    vendors(chain, first={}, then={"history": "text"})
    chain.finish(paths, concurrency=4)
    ledger = chain.emulator.ledger()
    answered = {entry["image_sha256"] for entry in ledger["entries"] if entry["vendor"] == SECOND and entry["billed"]}
    # What the second one was paid for is in its books, so the first one is paid for the others alone.
    assert billed(ledger) == Counter(sums(paths)) and 0 < len(answered) < 24

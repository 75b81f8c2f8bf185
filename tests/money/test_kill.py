"""`kill -9` at random moments: everything is described in the end, and what was paid twice was in flight."""

from __future__ import annotations

import pytest
from thoroughness import FULL

KILLS, TRIES = (20, 10) if FULL else (8, 5)
IMAGE_DESCRIBER, SEGMIND = "image_describer", "segmind"


@pytest.mark.slow
def test_a_thousand_images_and_many_kills(works, thousand, sums):
    works.emulator.faults({IMAGE_DESCRIBER: {"latency_s": 0.05, "latency_jitter_s": 0.15}})
    options = {"concurrency": 16}

    def at_risk(entry, known):
        return entry["image_sha256"] not in known.outcomes

    risked = works.kill_often(thousand, KILLS, at_risk, (50, 0.04), **options)
    works.finish(thousand, **{**options, "concurrency": 128})

    ledger = works.check_bill(sums(thousand), risked)
    print(
        f"\n{KILLS} kills: {ledger['billed']} calls billed for {len(thousand)} images; {len(risked)} were in flight "
        f"when a worker was killed, {sum(risked.values())} of them answered and not yet on disk"
    )


@pytest.mark.slow
def test_a_thousand_segmind_v2_requests_and_many_kills(works, thousand, sums):
    """As above; a request that was accepted is found again. It takes 1.5 s here: 60 s would be too slow for a test."""
    works.vendor, works.extra = SEGMIND, {"api_version": "v2"}
    works.emulator.faults({SEGMIND: {"v2_delay_s": 1.5}})
    options = {"concurrency": 32, "poll_s": 0.4}

    def at_risk(entry, known):
        return entry["request_id"] not in known.accepted

    risked = works.kill_often(thousand, KILLS, at_risk, (25, 0.6), **options)
    submitted, described = works.emulator.ledger()["requests"], len(works.journaled().outcomes)
    works.finish(thousand, **{**options, "concurrency": 128})

    ledger = works.check_bill(sums(thousand), risked)
    unbilled = {entry["request_id"] for entry in ledger["entries"] if not entry["billed"]}
    assert unbilled <= {request for request, answered in risked.items() if not answered}, "killed in mid-upload, if any"
    print(
        f"\n{KILLS} kills, Segmind v2: {ledger['billed']} requests billed for {len(thousand)} images; {len(risked)} "
        f"submissions were not in the journal when a worker was killed ({sum(risked.values())} of them answered); "
        f"every other one was attached to, among them the last {submitted - described - len(risked)}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("vendor", [IMAGE_DESCRIBER, SEGMIND])
def test_a_budget_holds_over_many_kills(works, thousand, vendor):
    """What a killed try may have spent counts: the tries together never spend more, and in the end all of it."""
    works.vendor, works.extra = vendor, {"api_version": "v2"} if vendor == SEGMIND else {}
    works.emulator.faults({vendor: {"latency_s": 0.05, **({"v2_delay_s": 0.4} if vendor == SEGMIND else {})}})
    options, most = {"concurrency": 8, "max_calls": 150}, 150
    for number in range(1, TRIES + 1):
        run = {"dag_id": "catalog", "run_id": "night", "task_id": "describe", "try_number": number}
        worker = works.start(thousand, poll_s=0.1, run=run, **options)
        works._wait_for_requests(worker, 12 * number)
        if worker.kill(works.emulator) is None:
            break
    result = works.start(thousand, poll_s=0.1, run={**run, "try_number": TRIES + 2}, **options).result()
    assert result["error"] is None
    ledger = works.emulator.ledger()
    # A kill may leave the intent of each call at risk, and each intent counts as a call.
    assert most - TRIES * works.most_at_risk(options["concurrency"]) <= ledger["billed"] <= ledger["requests"] <= most
    print(f"\n{TRIES} kills: {ledger['requests']} of {most} calls made, {ledger['billed']} billed")

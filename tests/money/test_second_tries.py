"""A second try is paid once: killed between the passes or within the second one, and however small the budget is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.rules import Matches
from airflow_provider_describer.store.index import read_history

pytest.importorskip("regex")

FIRST, STRICTER = "Describe this image in detail.", "Be brief."
RULE = Matches("Asked: Be brief")


def billed(ledger: dict[str, Any]) -> Counter[tuple[str, str]]:
    """How often each image was billed under each prompt."""
    return Counter((entry["image_sha256"], entry["prompt"]) for entry in ledger["entries"] if entry["billed"])


def outcomes(works: Any) -> set[tuple[str, str]]:
    events = (event for event in read_history(works.folder_of_store()) if event["event"] == "outcome")
    return {(event["sha256"], event["prompt"]) for event in events}


def test_a_kill_between_the_passes_costs_nothing(works, thousand, sums):
    works.rules, works.stricter_prompt = [str(RULE)], STRICTER
    paths = thousand[:20]
    killed = works.start(paths, concurrency=4, die="between")
    killed.child.wait()
    assert killed.child.returncode == -9
    first = works.emulator.ledger()
    assert billed(first) == Counter(dict.fromkeys(((name, FIRST) for name in sums(paths)), 1))

    result = works.finish(paths, concurrency=4)
    ledger = works.emulator.ledger()
    assert set(billed(ledger).values()) == {1} and ledger["billed"] == 40
    assert result["manifest"]["calls"] == 20 and result["manifest"]["counts"]["reused"] == 0
    assert result["manifest"]["failed_rules"] == {RULE.name: 0}
    # Nothing is left to pay for.
    assert works.finish(paths, concurrency=4)["manifest"]["calls"] == 0


def test_kills_in_the_second_pass_cost_what_was_in_flight(works, thousand, sums):
    works.rules, works.stricter_prompt = [str(RULE)], STRICTER
    works.emulator.faults({"image_describer": {"latency_s": 0.03, "latency_jitter_s": 0.03}})
    paths = thousand[:40]
    at_risk: Counter[tuple[str, str]] = Counter()
    before = 0
    for requests in (45, 55, 65):
        worker = works.start(paths, concurrency=4)
        works._wait_for_requests(worker, requests)
        ledger = worker.kill(works.emulator)
        assert ledger is not None, "it was done before it could be killed"
        # Whoever was asked, and whose answer was not durable: it may be billed after the kill.
        known, sent = outcomes(works), ledger["entries"][before:]
        at_risk.update({(entry["image_sha256"], entry["prompt"]) for entry in sent} - known)
        before = ledger["requests"]
    works.finish(paths, concurrency=4)

    ledger, asked = works.emulator.ledger(), {(name, prompt) for name in sums(paths) for prompt in (FIRST, STRICTER)}
    assert set(billed(ledger)) == asked == outcomes(works)
    for what, times in billed(ledger).items():
        assert times <= 1 + at_risk[what]
    assert at_risk.total() <= 3 * 6, "more than was in flight"


@pytest.mark.parametrize("seed", range(8))
def test_no_run_makes_more_calls_than_it_may_and_together_each_once(
    shop: Any, night: Callable[..., Any], thousand: list[Path], seed: int
) -> None:
    rng = random.Random(seed)
    paths = thousand[: rng.randint(1, 8)]
    shop.faults(latency_s=0.0, latency_jitter_s=0.01)
    night(paths, max_calls=rng.randint(0, 4))
    before, runs = shop.emulator.ledger()["billed"], 0
    while True:
        most = rng.randint(1, 6)
        limit: dict[str, Any] = rng.choice([{"max_calls": most}, {"max_cost": most * 0.015}])
        found = night(paths, rules=[RULE], stricter_prompt=STRICTER, concurrency=rng.randint(1, 8), **limit)
        made = found.ledger["billed"] - before
        assert found.manifest["calls"] == made <= most
        assert found.cost == pytest.approx(made * 0.015) == sum(row["cost_usd"] or 0.0 for row in found.rows)
        before, runs = found.ledger["billed"], runs + 1
        if not made:
            break
        assert runs < 40
    assert billed(found.ledger) == Counter({(row["sha256"], p): 1 for row in found.rows for p in (FIRST, STRICTER)})
    assert {row["prompt"] for row in found.rows} == {STRICTER} and found.counts["reused"] == len(paths)

"""A task's own limits hold to the call, and a vendor's are kept to; every image is billed once all the same."""

from __future__ import annotations

import pytest

from airflow_provider_describer.engine.pacing import Throttle

SEGMIND = "segmind"
PRICE = 0.015


def refused(ledger):
    return sum(entry["outcome"] == "rate_limited" for entry in ledger["entries"])


def check_each_billed_once(ledger, count):
    assert ledger["billed"] == len(ledger["by_image"]) == count
    assert set(ledger["by_image"].values()) == {1}


@pytest.mark.parametrize("limits", [{"max_calls": 77}, {"max_cost": 77 * PRICE}, {"max_cost": 77.9 * PRICE}])
def test_a_limit_is_exact_under_concurrency(any_shop, night, thousand, limits):
    any_shop.faults(price=PRICE)
    first = night(thousand[:200], concurrency=64, **limits)

    assert first.error is None
    assert first.counts["described"] == first.manifest["calls"] == 77
    assert first.counts["pending"] == 123
    assert first.ledger["requests"] == first.ledger["billed"] == 77
    assert first.manifest["cost_usd"] == first.ledger["cost_usd"] == 77 * PRICE
    assert not any_shop.emulator.ledger()["in_flight"]

    second = night(thousand[:200], concurrency=64)
    assert second.counts["described"] == 123 and second.counts["reused"] == 77
    check_each_billed_once(second.ledger, 200)


def test_nothing_is_called_where_nothing_may_be(shop, night, thousand):
    for limits in ({"max_calls": 0}, {"max_cost": 0}, {"max_cost": PRICE * 0.9}):
        result = night(thousand[:10], **limits)
        assert result.error is None
        assert result.counts["pending"] == 10 and result.manifest["cost_usd"] == 0.0
        assert result.ledger["requests"] == 0


def test_money_that_was_not_spent_is_spent_on_others(shop, night, thousand):
    """A call under way counts as spent; where it ends unbilled, the next one takes its place."""
    shop.faults(price=PRICE, latency_s=0.05, errors=[{"kind": "harmful", "share": 0.3}])
    result = night(thousand[:400], concurrency=64, max_cost=100 * PRICE)
    assert result.counts["described"] == result.ledger["billed"] == 100
    assert result.counts["rejected"] > 20
    assert result.manifest["cost_usd"] == result.ledger["cost_usd"] == 100 * PRICE


def test_a_dearer_call_than_the_connection_says_is_counted_as_dear(shop, night, thousand):
    shop.vendor = SEGMIND
    shop.faults(price=0.02)
    result = night(thousand[:60], concurrency=1, max_cost=0.1)
    assert result.ledger["cost_usd"] <= 0.1
    assert result.manifest["cost_usd"] == result.ledger["cost_usd"] == 5 * 0.02


def test_too_many_until_a_named_time_pauses_everybody(shop, night, thousand):
    shop.vendor = SEGMIND
    shop.faults(requests_per_minute=25, rate_window_s=0.3)
    result = night(thousand[:150], concurrency=16)
    assert result.error is None
    check_each_billed_once(result.ledger, 150)
    # Six windows, and in each no more are refused than were under way when it was full.
    assert refused(result.ledger) <= 6 * 16
    print(f"\n429 with a time: 150 billed, {refused(result.ledger)} refused")


def test_nobody_calls_in_a_pause(shop, night, thousand):
    """The first call is told to come back in a second. The next one has its intent on disk by then, and waits too."""
    shop.vendor = SEGMIND
    shop.faults(errors=[{"kind": "rate_limited", "first": 1}])
    result = night(thousand[:6], concurrency=1)
    first, second = (entry["at"] for entry in result.ledger["entries"][:2])
    assert second >= first + 0.99
    check_each_billed_once(result.ledger, 6)
    assert result.manifest["calls"] == result.ledger["requests"] == 7


def test_too_many_without_a_time_halves_and_recovers(shop, night, thousand, monkeypatch):
    seen: list[float] = []
    slowed: list[float] = []

    class Seen(Throttle):
        def slower(self):
            super().slower()
            slowed.append(self.allowed)

        def faster(self):
            super().faster()
            seen.append(self.allowed)

    monkeypatch.setattr("airflow_provider_describer.engine.admission.Throttle", Seen)
    shop.faults(latency_s=0.05, errors=[{"kind": "rate_limited", "first": 24}])
    result = night(thousand[:300], concurrency=16)

    assert result.error is None
    check_each_billed_once(result.ledger, 300)
    assert refused(result.ledger) == 24
    # Sixteen calls that are refused together are one reason to slow down, and the eight after them another.
    assert slowed[:2] == [8.0, 4.0] and len(slowed) <= 6
    assert seen[0] < 8 < seen[-1]
    print(f"\n429 without a time: 24 refused, slowed down to {min(slowed):g} of 16, then back to {seen[-1]:.1f}")


@pytest.mark.slow
def test_requests_per_minute_are_kept(shop, night, thousand):
    """The emulator takes a fifth more, as a busy machine bunches calls; without the limit it would refuse hundreds."""
    shop.fields["requests_per_minute"] = 3000
    shop.faults(requests_per_minute=30, rate_window_s=0.5)
    result = night(thousand[:150], concurrency=32)
    assert result.error is None
    check_each_billed_once(result.ledger, 150)
    assert refused(result.ledger) <= 5
    print(f"\n3000 requests a minute: {refused(result.ledger)} refused")

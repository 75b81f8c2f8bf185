"""Calls that were billed and whose answers were lost: what is reported agrees with the ledger, to the cent."""

from __future__ import annotations

import pytest

PRICE = 0.01
COUNT = 300


@pytest.fixture
def lossy(shop):
    """A shop whose vendor loses the answers of a twentieth of its calls, after billing them."""
    shop.fields["price_per_call"] = PRICE
    shop.faults(price=PRICE, errors=[{"kind": "drop_after_bill", "share": 0.05}])
    return shop


def lost_images(ledger):
    """The images of calls whose answer was lost, once for each."""
    return [entry["image_sha256"] for entry in ledger["entries"] if entry["outcome"] == "drop_after_bill"]


def check_money(nights, ledger):
    assert sum(night.manifest["calls"] for night in nights) == ledger["requests"] == ledger["billed"]
    assert round(sum(night.cost for night in nights), 6) == ledger["cost_usd"]
    assert sum(night.manifest["unknown_calls"] for night in nights) == len(lost_images(ledger))
    # The rows alone tell the same.
    described = sum(row["cost_usd"] for night in nights for row in night.of("described"))
    assert round(described, 6) == round(sum(night.manifest["cost_usd"] for night in nights), 6)


def test_retry_sends_again_and_says_so(lossy, night, thousand):
    first = night(thousand[:COUNT], concurrency=16)

    lost = lost_images(first.ledger)
    twice_lost = {image for image in lost if lost.count(image) == 2}
    assert len(lost) > 5
    assert {row["sha256"] for row in first.of("unknown")} == twice_lost
    assert first.counts["described"] == COUNT - len(twice_lost)
    assert {row["sha256"] for row in first.rows if row["lost_calls"]} == set(lost)
    assert first.error is None
    check_money([first], first.ledger)

    lossy.faults(price=PRICE)
    held = night(thousand[:COUNT], concurrency=16)
    assert held.error is None and held.manifest["calls"] == 0
    assert {row["sha256"] for row in held.of("unknown")} == twice_lost

    second = night(thousand[:COUNT], concurrency=16, max_lost_calls=3)
    assert second.error is None
    assert second.counts["described"] == len(twice_lost)
    assert all(row["lost_calls"] == 2 for row in second.of("described"))
    check_money([first, second], second.ledger)
    print(
        f"\nretry: {second.ledger['billed']} billed for {COUNT} images, ${second.ledger['cost_usd']:.2f}; reported "
        f"${sum(n.manifest['cost_usd'] for n in (first, second)):.2f} known and "
        f"${sum(n.manifest['unknown_cost_usd'] for n in (first, second)):.2f} unknown"
    )


@pytest.mark.parametrize(("most", "options"), [(2, {}), (1, {"max_lost_calls": 1}), (3, {"max_lost_calls": 3})])
def test_an_image_is_sent_so_often_in_all_and_then_held(shop, night, thousand, most, options):
    """One image, three retries: it was paid for eight times, and again in every later run."""
    shop.fields["price_per_call"] = PRICE
    shop.faults(price=PRICE, errors=[{"kind": "drop_after_bill", "share": 1}])
    nights = [night(thousand[:3], concurrency=2, **options) for _ in range(4)]
    assert set(nights[0].ledger["by_image"].values()) == {most}
    assert nights[0].counts["unknown"] == 3 and nights[0].manifest["calls"] == 3 * most
    for one in nights[1:]:
        assert one.error is None and one.counts["unknown"] == 3 and one.manifest["calls"] == 0
        assert {row["lost_calls"] for row in one.rows} == {most}
        assert {row["billed"] for row in one.rows} == {"unknown"}
        assert all("max_lost_calls" in row["error"]["message"] for row in one.rows)
    check_money(nights, nights[-1].ledger)


def test_lost_answers_count_over_runs(shop, night, thousand):
    shop.fields["price_per_call"] = PRICE
    shop.faults(price=PRICE, errors=[{"kind": "drop_after_bill", "share": 1}])
    first = night(thousand[:1], concurrency=1, on_unknown="hold")
    assert first.ledger["billed"] == 1
    second = night(thousand[:1], concurrency=1)
    assert second.ledger["billed"] == 2 and second.manifest["calls"] == 1
    third = night(thousand[:1], concurrency=1)
    assert third.ledger["billed"] == 2 and third.counts["unknown"] == 1


def test_answers_that_are_lost_one_after_the_other_stop_the_run(shop, night, thousand):
    """A time-out that is too short would pay twice for a whole catalog."""
    shop.faults(price=PRICE, errors=[{"kind": "drop_after_bill", "share": 1}])
    result = night(thousand[:200], concurrency=4)
    assert result.error.kind == "ambiguous"
    # Two calls for each of the seven that stop it, and for each that another of the seven workers is busy with.
    assert result.ledger["billed"] <= 2 * (7 + 6)
    assert result.counts["pending"] > 180


def test_hold_leaves_them_alone(lossy, night, thousand):
    first = night(thousand[:COUNT], on_unknown="hold", concurrency=16)

    lost = lost_images(first.ledger)
    assert first.error is None and len(lost) > 5
    assert {row["sha256"] for row in first.of("unknown")} == set(lost)
    assert first.counts["described"] == COUNT - len(lost)
    check_money([first], first.ledger)

    second = night(thousand[:COUNT], on_unknown="hold", concurrency=16)
    assert second.manifest["calls"] == 0 and second.cost == 0.0
    assert second.counts["unknown"] == len(lost) and second.counts["reused"] == COUNT - len(lost)

    lossy.faults(price=PRICE)
    third = night(thousand[:COUNT], concurrency=16)
    assert third.counts["described"] == len(lost) and third.error is None
    check_money([first, second, third], third.ledger)
    print(f"\nhold: {first.ledger['billed']} billed for {COUNT} images, {len(lost)} held, later sent again as told")


def test_fail_leaves_them_to_a_human(lossy, night, thousand):
    first = night(thousand[:COUNT], on_unknown="fail", concurrency=16)

    lost = lost_images(first.ledger)
    assert first.error.kind == "unknown_outcome"
    assert {row["sha256"] for row in first.of("unknown")} == set(lost)
    assert first.counts["described"] == first.ledger["billed"] - len(lost)
    assert first.counts["pending"] > 0
    check_money([first], first.ledger)

    second = night(thousand[:COUNT], on_unknown="fail", concurrency=16)
    assert second.error.kind == "unknown_outcome" and second.manifest["calls"] == 0
    assert second.counts["unknown"] == len(lost) and second.counts["pending"] == first.counts["pending"]

    lossy.faults(price=PRICE)
    third = night(thousand[:COUNT], concurrency=16)
    assert third.error is None
    assert third.counts["described"] == first.counts["pending"] + len(lost)
    check_money([first, second, third], third.ledger)
    print(f"\nfail: stopped after {first.ledger['billed']} calls with {len(lost)} lost; then all, when told to retry")


def test_an_unreadable_answer_is_kept_and_counted(shop, night, thousand):
    """It was paid for: counted as money that may be spent, its text is in the row, and it is asked for once more."""
    shop.fields["price_per_call"] = PRICE
    shop.faults(price=PRICE, errors=[{"kind": "wrong_types", "first": 2}])
    first = night(thousand[:10], concurrency=1)
    assert first.counts["unknown"] == 2 and first.counts["described"] == 8
    assert all(row["error"]["answer"] for row in first.of("unknown"))
    assert round(first.cost, 6) == first.ledger["cost_usd"] == 10 * PRICE
    assert first.error.kind == "unfinished"
    second = night(thousand[:10])
    assert second.manifest["calls"] == 2 and second.counts["described"] == 2
    assert second.ledger["billed"] == 12
    held = night(thousand[:10], on_unknown="hold")
    assert held.manifest["calls"] == 0


def test_held_images_are_a_warning_in_the_log(shop, thousand):
    shop.faults(price=PRICE, errors=[{"kind": "drop_after_bill", "share": 1}])
    first, second = (shop.job(thousand[:2], concurrency=1).run() for _ in range(2))
    for outcome in (first, second):
        assert outcome.error is None
        assert "2 of 2 images are held" in outcome.warning and "max_lost_calls" in outcome.warning
    shop.faults(price=PRICE)
    assert shop.job(thousand[:2], max_lost_calls=3).run().warning is None

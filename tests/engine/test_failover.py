"""What a connection leaves because of its vendor goes to the next one: for one price, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.engine.failover import LONGEST_OUTAGE_S, Fallback, fails_over
from airflow_provider_describer.errors import (
    BadInput,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    ModelRetired,
    RateLimited,
    TooManyRejected,
    VendorUnavailable,
)
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from tests.conftest import Result, Shop

Pictures = Callable[..., list[Path]]
FIRST, SECOND = "image_describer", "segmind"


def second(shop: Shop, images: Any, vendor: str = SECOND, conn_id: str = "backup", **extra: Any) -> Fallback:
    """A further connection of the shop, asked about the same images."""
    account = account_from_connection(
        get_vendor(vendor).defaults(),
        conn_id=conn_id,
        password=extra.pop("key", shop.emulator.keys[vendor]),
        host=extra.pop("host", shop.emulator.url),
        extra={"price_per_call": 0.02, "allow_private_hosts": True, **extra},
    )
    calls = VendorCalls(get_vendor(vendor), account, shop.policy, jitter=lambda: 0.0)
    return Fallback(calls, parse_images(images, calls.vendor))


def breaks(shop: Shop, first: str | None = None, then: str | None = None, **more: Any) -> None:
    """Let all calls of a vendor fail so; None lets it work."""
    rules = {FIRST: first, SECOND: then}
    faults: dict[str, Any] = {
        name: {"errors": [{"kind": kind, "share": 1}] if kind else []} for name, kind in rules.items()
    }
    faults[SECOND] |= {"v2_delay_s": 0.03, "history": "none", "price": 0.02}
    for name, settings in more.items():
        faults[name] |= settings
    shop.emulator.faults(faults)


def describe(shop: Shop, images: Any, *more: Fallback, **options: Any) -> Result:
    return shop.describe(images, fallbacks=more or (second(shop, images),), **options)


def billed(result: Result) -> dict[str, int]:
    return {name: result.ledger["by_vendor"][name]["billed"] for name in (FIRST, SECOND)}


def by_image(result: Result) -> set[int]:
    return set(result.ledger["by_image"].values())


OUT = [
    ("insufficient_credits", "insufficient_credits"),
    ("model_retired", "model_retired"),
    ("unavailable", "unavailable"),
]


@pytest.mark.parametrize(("fault", "kind"), OUT)
def test_the_next_connection_describes_what_the_first_one_leaves(
    shop: Shop, pictures: Pictures, fault: str, kind: str
) -> None:
    paths = pictures(6)
    breaks(shop, fault)
    result = describe(shop, paths)
    assert result.error is None and result.counts["described"] == 6
    assert billed(result) == {FIRST: 0, SECOND: 6}
    for row in result.rows:
        assert (row["vendor"], row["model"], row["prompt"]) == (SECOND, "ideogram-describe", None)
        assert row["fallback"]["instead_of"] == FIRST and row["fallback"]["kind"] == kind
        assert row["fallback"]["model"] and row["fallback"]["message"]
        assert row["cost_usd"] == 0.02
    assert result.manifest["vendor"] == FIRST
    assert result.manifest["fallbacks"] == {SECOND: {"described": 6, "reused": 0, "why": [kind]}}
    assert result.manifest["cost_usd"] == pytest.approx(0.12)
    assert any(line.startswith("6 images go to connection 'backup' (Segmind). ") for line in result.lines)
    assert "backup: 6 images: 6 new, 0 reused; at most 6 calls, $0.12" in result.lines


def test_a_chain_that_is_not_needed_changes_nothing(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    breaks(shop)
    result = describe(shop, paths)
    assert billed(result) == {FIRST: 3, SECOND: 0} and result.manifest["fallbacks"] == {}
    assert all(row["fallback"] is None and row["vendor"] == FIRST for row in result.rows)
    assert "fallbacks" not in shop.describe(paths).manifest


def test_one_image_that_gets_no_answer_goes_on_while_the_others_stay(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    digest = sha256(paths[1].read_bytes()).hexdigest()
    breaks(shop, image_describer={"errors": [{"kind": "unavailable", "images": [digest]}]})
    result = describe(shop, paths, concurrency=1)
    assert result.error is None and billed(result) == {FIRST: 3, SECOND: 1}
    assert [row["uri"] for row in result.rows if row["fallback"]] == [str(paths[1])]


def test_what_a_fallback_has_described_is_reused_though_the_first_works_again(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(5)
    breaks(shop, "insufficient_credits")
    describe(shop, paths[:3])
    breaks(shop)
    shop.emulator.faults({})
    result = describe(shop, paths)
    assert (result.counts["reused"], result.counts["described"], result.manifest["calls"]) == (3, 2, 2)
    assert {row["vendor"] for row in result.of("reused")} == {SECOND}
    assert all(row["fallback"]["kind"] == "insufficient_credits" for row in result.of("reused"))
    assert by_image(result) == {1}
    assert result.manifest["fallbacks"] == {SECOND: {"described": 0, "reused": 3, "why": ["insufficient_credits"]}}
    # Without the chain, the first connection is asked as ever.
    assert shop.describe(paths).manifest["calls"] == 3


def test_what_the_second_has_described_by_itself_is_reused_too(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    breaks(shop)
    shop.vendor = SECOND
    shop.describe(paths)
    shop.vendor = FIRST
    result = describe(shop, paths)
    assert result.counts["reused"] == 2 and result.manifest["calls"] == 0
    assert [row["fallback"]["kind"] for row in result.rows] == ["known_before"] * 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [("invalid_key", InvalidKey), ("forbidden", Forbidden), ("harmful", TooManyRejected), ("rate_limited", None)],
)
def test_no_other_problem_fails_over(shop: Shop, pictures: Pictures, fault: str, error: type | None) -> None:
    paths = pictures(4)
    breaks(shop, fault)
    result = describe(shop, paths, max_failure_ratio=0.1, policy=replace(shop.policy, rate_limited_attempts=2))
    assert type(result.error) is (error or RateLimited)
    assert result.ledger["by_vendor"][SECOND]["requests"] == 0 and result.counts["described"] == 0
    assert result.manifest["fallbacks"] == {}


@pytest.mark.parametrize("on_unknown", ["retry", "hold", "fail"])
@pytest.mark.parametrize("fault", ["drop_after_bill", "html"])
def test_a_lost_answer_never_goes_on_in_its_run(shop: Shop, pictures: Pictures, on_unknown: Any, fault: str) -> None:
    paths = pictures(2)
    breaks(shop, fault)
    result = describe(shop, paths, on_unknown=on_unknown, max_lost_calls=1)
    assert result.ledger["by_vendor"][SECOND]["requests"] == 0 and result.counts["unknown"] > 0


@pytest.mark.parametrize(("on_unknown", "sent"), [("retry", 1), ("hold", 0), ("fail", 0)])
def test_an_unknown_outcome_is_decided_over_the_whole_chain(
    shop: Shop, pictures: Pictures, on_unknown: Any, sent: int
) -> None:
    paths = pictures(1)
    breaks(shop, "drop_after_bill")
    describe(shop, paths, on_unknown="hold")
    breaks(shop, "insufficient_credits")
    result = describe(shop, paths, on_unknown=on_unknown)
    assert result.ledger["by_vendor"][SECOND]["requests"] == sent
    assert result.counts["described" if sent else "unknown"] == 1


def test_lost_answers_of_all_vendors_count_together(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(1)
    breaks(shop, "drop_after_bill")
    describe(shop, paths, on_unknown="hold")
    breaks(shop, "insufficient_credits", "drop_after_bill")
    result = describe(shop, paths, max_lost_calls=2)
    assert result.ledger["by_vendor"][SECOND]["requests"] == 1 and result.counts["unknown"] == 1
    breaks(shop)
    before = shop.emulator.ledger()["requests"]
    result = describe(shop, paths, max_lost_calls=2)
    assert result.counts["unknown"] == 1 and result.ledger["requests"] == before


def test_a_limit_of_ours_is_no_reason(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    breaks(shop)
    for limit in ({"max_calls": 2}, {"max_cost": 0.03}, {"fields": {"max_cost_per_day": 0.03}}):
        shop.emulator.reset()
        shop.store = shop.store.with_name(f"{shop.store.name}+")
        result = describe(shop, paths, concurrency=1, **limit)
        assert billed(result) == {FIRST: 2, SECOND: 0} and result.error is None
        assert result.counts["pending"] == 2


@pytest.mark.parametrize(
    ("limit", "made"), [({"max_calls": 6}, 3), ({"max_cost": 0.09}, 3), ({"max_cost": 0.0899}, 2), ({}, 4)]
)
def test_calls_and_money_of_all_vendors_count_together(
    shop: Shop, pictures: Pictures, limit: dict[str, Any], made: int
) -> None:
    # Two images for 0.015 each, then three for 0.02 each are 0.09. A call that is refused is a call, too.
    paths = pictures(6)
    breaks(shop, image_describer={"errors": [{"kind": "insufficient_credits", "after": 2}]})
    result = describe(shop, paths, concurrency=1, **limit)
    assert billed(result) == {FIRST: 2, SECOND: made}
    assert result.error is None and result.counts["pending"] == 4 - made
    assert result.manifest["cost_usd"] == pytest.approx(0.03 + 0.02 * made)


def test_each_account_has_its_own_day(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(8)
    breaks(shop, image_describer={"errors": [{"kind": "insufficient_credits", "after": 4}]})
    backup = second(shop, paths, max_cost_per_day=0.06)
    result = describe(shop, paths, backup, concurrency=1, fields={"max_cost_per_day": 1.0})
    # What the first one has spent is not the second one's.
    assert billed(result) == {FIRST: 4, SECOND: 3} and result.counts["pending"] == 1
    assert "backup" in [line for line in result.lines if "max_cost_per_day" in line][-1]


def test_an_image_that_only_the_first_takes_waits_for_it(shop: Shop, pictures: Pictures) -> None:
    paths = [*pictures(2), *pictures(2, "GIF")]
    breaks(shop, "insufficient_credits")
    result = describe(shop, paths, max_failure_ratio=0.0)
    assert (result.counts["described"], result.counts["pending"], result.counts["rejected"]) == (2, 2, 0)
    assert isinstance(result.error, InsufficientCredits)
    for row in result.of("pending"):
        assert row["vendor"] == FIRST and row["error"]["kind"] == "insufficient_credits"
        assert "no credits" in row["error"]["message"] and "image/gif" in row["error"]["message"].lower()
    assert "'shop'" in str(result.error) and "'backup'" in str(result.error)
    breaks(shop)
    again = describe(shop, paths)
    assert again.error is None and by_image(again) == {1} and billed(again) == {FIRST: 2, SECOND: 2}


@pytest.mark.parametrize(
    ("first", "then", "error"),
    [
        ("insufficient_credits", "model_retired", InsufficientCredits),
        ("model_retired", "unavailable", ModelRetired),
        ("unavailable", "insufficient_credits", VendorUnavailable),
        ("insufficient_credits", "invalid_key", InsufficientCredits),
    ],
)
def test_when_all_are_out_the_error_names_each_and_is_the_firsts(
    shop: Shop, pictures: Pictures, first: str, then: str, error: type
) -> None:
    paths = pictures(5)
    breaks(shop, first, then)
    result = describe(shop, paths, concurrency=1)
    assert type(result.error) is error
    message = str(result.error)
    assert message.index("connection 'shop' (Image Describer): ") < message.index("connection 'backup' (Segmind): ")
    assert result.counts["pending"] == 5 and result.ledger["billed"] == 0
    assert all(row["status"] == "pending" and row["error"]["message"] for row in result.rows)
    breaks(shop)
    later = describe(shop, paths)
    assert billed(later) == {FIRST: 5, SECOND: 0} and later.error is None


def test_a_second_account_of_the_same_vendor(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    breaks(shop, image_describer={"errors": [{"kind": "insufficient_credits", "first": 1}]})
    result = describe(shop, paths, second(shop, paths, FIRST), concurrency=1)
    assert result.error is None and result.ledger["billed"] == 4 and by_image(result) == {1}
    assert result.manifest["fallbacks"] == {FIRST: {"described": 4, "reused": 0, "why": ["insufficient_credits"]}}
    assert describe(shop, paths, second(shop, paths, FIRST)).counts["reused"] == 4


def test_three_connections(shop: Shop, pictures: Pictures) -> None:
    paths = [*pictures(2), *pictures(2, "GIF")]
    # The first call to Image Describer is the first account's.
    breaks(
        shop, then="insufficient_credits", image_describer={"errors": [{"kind": "insufficient_credits", "first": 1}]}
    )
    more = (second(shop, paths), second(shop, paths, FIRST, "third"))
    result = describe(shop, paths, *more, concurrency=1)
    assert result.error is None and result.counts["described"] == 4 and billed(result) == {FIRST: 4, SECOND: 0}
    (message,) = {row["fallback"]["message"] for row in result.rows if row["uri"].endswith("jpeg")}
    assert "Image Describer" in message and "Segmind" in message


def test_a_chain_that_cannot_work_is_refused_before_any_call(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    with pytest.raises(BadInput, match="fallback_conn_ids names 'shop', which is in the chain already"):
        describe(shop, paths, second(shop, paths, FIRST, "shop"))
    unpriced = second(shop, paths, FIRST, "backup")
    calls = unpriced.vendor_calls
    unpriced = replace(unpriced, vendor_calls=replace(calls, account=replace(calls.account, price_per_call=None)))
    with pytest.raises(BadInput, match=r"max_cost needs to know .* on connection 'backup'"):
        describe(shop, paths, unpriced, max_cost=1.0)
    assert shop.emulator.ledger()["requests"] == 0


def test_an_image_in_a_language_that_the_next_does_not_write_waits(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    images = [str(paths[0]), {"uri": str(paths[1]), "lang": "de"}]
    breaks(shop, "insufficient_credits")
    result = describe(shop, images)
    assert (result.counts["described"], result.counts["pending"]) == (1, 1)
    assert isinstance(result.error, InsufficientCredits)


def test_a_dry_run_says_what_could_fail_over(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    breaks(shop)
    describe(shop, paths[:1])
    lines: list[str] = []
    outcome = shop.job(paths, report=lines.append, dry_run=True, fallbacks=(second(shop, paths),)).run()
    assert outcome.manifest["fallbacks"] == {}
    assert lines[-1] == (
        "Should connection 'shop' (Image Describer) be out of credits, retired or down, connection 'backup' (Segmind) "
        "would be asked: at most 2 calls, $0.04"
    )


def test_rows_without_a_store_come_in_order(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    given = [*paths, paths[0]]
    breaks(shop, image_describer={"errors": [{"kind": "insufficient_credits", "after": 2}]})
    result = describe(shop, given, store=None, concurrency=1)
    assert [row["uri"] for row in result.rows] == [str(path) for path in given]
    assert [row["vendor"] for row in result.rows] == [FIRST, FIRST, SECOND, SECOND, FIRST]
    assert by_image(result) == {1}


def test_an_outage_is_waited_for_a_minute_at_most(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    calls = second(shop, paths).vendor_calls
    error = VendorUnavailable("down", retry_at=1000.0)
    job = shop.job(paths, fallbacks=(second(shop, paths),))
    for now, waits in ((950.0, True), (900.0, False)):
        policy = replace(job.vendor_calls.policy, longest_outage=LONGEST_OUTAGE_S, max_wait=3600.0)
        assert (policy.wait(error, attempt=1, jitter=0.0, now=now) is not None) is waits
    assert calls.policy.longest_outage == float("inf"), "the last connection is waited for as ever"


@pytest.mark.parametrize("kind", ["no_such_host", "bad_certificate"])
def test_an_address_that_does_not_exist_is_a_setting(kind: str) -> None:
    assert not fails_over(VendorUnavailable("x", kind=kind)) and fails_over(VendorUnavailable("x"))

"""Images that a run leaves: plan, progress, log and rows say how many there are and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.deferral import ResumeCondition
from airflow_provider_describer.engine.progress import Totals, progress_line
from airflow_provider_describer.models import plural

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


@pytest.mark.parametrize(
    ("limits", "fields", "calls", "limit"),
    [
        ({"max_calls": 2}, {}, 2, "max_calls (2)"),
        ({"max_cost": 0.10}, {}, 6, "max_cost ($0.10)"),
        ({}, {"max_cost_per_day": 0.03}, 2, "max_cost_per_day ($0.03) of connection 'shop'"),
        ({"max_cost": 0.10, "max_calls": 3}, {}, 3, "max_calls (3)"),
        ({"max_cost": 0.03, "max_calls": 3}, {}, 2, "max_cost ($0.03)"),
        ({"max_cost": 0.10}, {"max_cost_per_day": 0.015}, 1, "max_cost_per_day ($0.015) of connection 'shop'"),
        ({"max_cost": 0.0}, {}, 0, "max_cost ($0.00)"),
    ],
)
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_limit_is_named_with_its_value_and_what_it_leaves(
    any_shop: Shop,
    pictures: Pictures,
    tmp_path: Path,
    limits: dict[str, Any],
    fields: dict[str, Any],
    calls: int,
    limit: str,
    is_shared: bool,
) -> None:
    """A run that its budget had stopped was green, without a warning, and its 594 pending rows had no error."""
    any_shop.fields |= fields | ({"limits_path": str(tmp_path / "limits")} if is_shared else {})
    lines: list[str] = []
    outcome = asyncio.run(any_shop.job(pictures(14), report=lines.append, **limits).arun())
    result = any_shop.result(outcome, lines)
    assert result.ledger["billed"] == calls and result.error is None
    plan = next(line for line in lines if "at most" in line)
    cost = f"${calls * 0.015:.3f}".removesuffix("0") if calls % 2 else f"${calls * 0.015:.2f}"
    today = " today" if "day" in limit else ""
    assert plan.endswith(f"at most {calls} {plural(calls, 'call')}, {cost} ({limit} allows no more{today})")
    assert outcome.warning is not None
    assert outcome.warning.startswith(f"{limit} allows no further call: {14 - calls} of 14 images are left pending.")
    assert lines[-1].startswith(f"{calls}/14 images, "), "a pending image is not done"
    for row in result.of("pending"):
        assert row["error"]["kind"] == "budget" and row["error"]["message"].startswith(limit)
        assert row["billed"] == "no"


def test_a_limit_that_leaves_nothing_is_no_matter(shop: Shop, pictures: Pictures) -> None:
    lines: list[str] = []
    outcome = asyncio.run(shop.job(pictures(3), report=lines.append, max_calls=3).arun())
    assert outcome.warning is None and outcome.manifest["counts"]["described"] == 3
    assert "3 images: 3 new, 0 reused; at most 3 calls, $0.045" in lines


@pytest.mark.parametrize("kind", ["insufficient_credits", "invalid_key", "model_retired", "forbidden"])
def test_after_a_stop_each_row_says_why_the_run_stopped(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    any_shop.breaks(kind, after=2)
    result = any_shop.describe(pictures(12), concurrency=1)
    left = result.of("pending")
    assert len(left) == 10 and result.error is not None
    first, *others = [row["error"] for row in left]
    assert first["message"] == str(result.error)
    assert {error["kind"] for error in others} == {"stopped"}
    assert all(str(result.error) in error["message"] for error in others)
    assert result.lines[-1].startswith("2/12 images, ")


def test_what_is_refused_before_the_first_call_says_so(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    for path in paths[:3]:
        path.write_bytes(b"no image")
    result = shop.describe(paths, max_failure_ratio=0.1)
    assert (len(result.of("rejected")), result.ledger["requests"]) == (3, 0)
    for row in result.of("pending"):
        assert row["error"]["kind"] == "stopped" and "3 of 6 images were rejected" in row["error"]["message"]


def test_a_task_that_is_stopped_says_so(shop: Shop, pictures: Pictures) -> None:
    job = shop.job(pictures(3))
    job.stop()
    result = shop.result(job.run(), [])
    assert len(result.of("pending")) == 3 and result.ledger["requests"] == 0
    assert {row["error"]["kind"] for row in result.rows} == {"stopped"}


def test_copies_of_an_image_that_was_left_say_so_too(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    result = shop.describe(paths, max_calls=0)
    assert [row["error"]["kind"] for row in result.of("pending")] == ["budget"] * 3


def test_images_that_were_rejected_are_told_of_with_a_reason(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    paths[0].write_bytes(b"no image")
    outcome = asyncio.run(shop.job(paths).arun())
    assert outcome.error is None and outcome.warning is not None
    assert outcome.warning.startswith(f"1 of 6 images was rejected; the last one: {paths[0]}: not an image")
    refused = asyncio.run(shop.job(paths, max_failure_ratio=0.0).arun())
    assert "1 of 6 images was rejected" in str(refused.error) and refused.warning is None, "once is enough"


def test_what_no_call_was_sent_for_has_cost_nothing(shop: Shop, pictures: Pictures) -> None:
    (path,) = pictures(1)
    for content, cost in ((b"no image", "cost $0.00"), (path.read_bytes(), "cost unknown (no price_per_call")):
        path.write_bytes(content)
        found = shop.describe([path], fields={"price_per_call": None})
        assert cost in found.lines[-1]
    assert found.ledger["billed"] == 1


def test_a_pause_that_the_vendor_asks_for_is_told() -> None:
    totals = Totals(requested=3)
    waiting = progress_line(totals, totals.began + 1, 1_767_225_600.0)
    assert "the vendor takes no call until 2026-01-01T00:00:00Z, unknown time left" in waiting
    assert "takes no call" not in progress_line(totals, totals.began + 1, None)


def test_a_low_rate_is_told_as_the_reason_for_waiting() -> None:
    totals = Totals(requested=3)
    waiting = progress_line(totals, totals.began + 1, waits_for_rate=0.5)
    assert "waiting for the account's rate of 0.5 a minute, unknown time left" in waiting
    assert "waiting" not in progress_line(totals, totals.began + 1)


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_run_that_waits_for_its_rate_says_so(
    shop: Shop, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    monkeypatch.setattr("airflow_provider_describer.engine.runner.REPORT_EVERY_S", 0.05)
    shop.fields = {"requests_per_minute": 40, "limits_path": str(tmp_path / "limits") if is_shared else None}
    result = shop.describe(pictures(3), concurrency=2)
    assert any("waiting for the account's rate of 40 a minute" in line for line in result.lines)
    assert "waiting" not in result.lines[-1] and result.counts["described"] == 3
    unpaced = shop.describe(pictures(5), fields={"requests_per_minute": None})
    assert not any("waiting" in line for line in unpaced.lines)


def test_a_refused_call_tells_until_when(shop: Shop, pictures: Pictures) -> None:
    shop.vendor = "segmind"
    shop.faults(requests_per_minute=2, rate_window_s=2)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_describer.engine.runner.REPORT_EVERY_S", 0.05)
        outcome = shop.job(pictures(4), concurrency=1, report=lines.append).run()
    assert outcome.manifest["counts"]["described"] == 4
    assert any("the vendor takes no call until " in line for line in lines[:-1])
    assert "takes no call" not in lines[-1]


@pytest.mark.parametrize(("count", "words"), [(0, "images"), (1, "image"), (2, "images"), (1000, "images")])
def test_words_go_with_their_count(count: int, words: str) -> None:
    assert plural(count, "image") == words
    assert plural(count, "was", "were") == ("was" if count == 1 else "were")


def test_one_is_told_as_one(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(1))
    assert "1 image: 1 new, 0 reused; at most 1 call, $0.015" in result.lines
    assert result.lines[-1].startswith("1/1 image, ")


@pytest.mark.parametrize(
    ("until", "requests", "words"),
    [
        (1_767_225_600.0, (), "2026-01-01T00:00:00Z"),
        (None, (("r-1", 1.0),), "1 request at the vendor"),
        (1_767_225_600.0, (("r-1", 1.0), ("r-2", 2.0)), "2026-01-01T00:00:00Z and 2 requests at the vendor"),
    ],
)
def test_a_wait_outside_the_worker_is_told_in_words(until: float | None, requests: Any, words: str) -> None:
    assert str(ResumeCondition(until, requests)) == words

"""Calls whose answers were lost are looked up in the vendor's own books, which the emulator keeps from its ledger."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine import vendor_history
from airflow_provider_describer.errors import InvalidKey, Unfinished, UnknownOutcome
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history

if TYPE_CHECKING:
    from tests.conftest import Result, Shop

Pictures = Callable[..., list[Path]]
PRICE = 0.015
LOST = "drop_after_bill"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events(shop: Shop, *kinds: str) -> list[dict[str, Any]]:
    found = read_history(open_folder(shop.store))
    return [event for event in found if event["event"] in kinds]


@pytest.fixture(params=["v1", "v2"])
def asked(shop: Shop, request: pytest.FixtureRequest) -> Shop:
    """A shop whose vendor keeps books, and texts in them."""
    shop.vendor, shop.books = "segmind", "text"
    shop.fields["api_version"] = request.param
    shop.faults()
    return shop


def break_images(shop: Shop, kind: str, *paths: Path, attempts: int | None = None, **settings: Any) -> None:
    about = {"images": [sha(path) for path in paths], **({"attempts": attempts} if attempts else {})}
    shop.faults(errors=[{"kind": kind, **about}], **settings)


def once_each(result: Result, paths: list[Path]) -> bool:
    by_image: dict[str, int] = result.ledger["by_image"]
    return by_image == {sha(path): 1 for path in paths}


@pytest.mark.parametrize("on_unknown", ["retry", "hold", "fail"])
@pytest.mark.parametrize("kind", [LOST, "hang_after_bill", "proxy_error"])
def test_a_call_that_completed_is_not_paid_for_twice(
    asked: Shop, pictures: Pictures, kind: str, on_unknown: str
) -> None:
    paths = pictures(4)
    break_images(asked, kind, paths[1], paths[2])
    result = asked.describe(paths, on_unknown=on_unknown, fields={"timeout": 1.0})
    assert result.error is None
    assert result.counts["described"] == 4 and once_each(result, paths)
    assert round(result.manifest["cost_usd"], 6) == result.ledger["cost_usd"] == 4 * PRICE
    assert (result.manifest["unknown_calls"], result.manifest["unknown_cost_usd"]) == (0, 0)
    ids = {entry["request_id"] for entry in result.ledger["entries"]}
    for row in result.rows:
        assert row["billed"] == "yes" and row["cost_usd"] == PRICE and row["text"] and row["request_id"] in ids
        assert row["lost_calls"] == 0
    again = asked.describe(paths, on_unknown=on_unknown)
    assert again.counts["reused"] == 4 and again.ledger["billed"] == 4
    assert [row["text"] for row in sorted(again.rows, key=lambda row: row["uri"])] == [
        row["text"] for row in sorted(result.rows, key=lambda row: row["uri"])
    ]


def test_without_a_store_too(asked: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    break_images(asked, LOST, paths[0])
    result = asked.describe(paths, store=None)
    assert result.counts["described"] == 2 and once_each(result, paths)


@pytest.mark.parametrize("form", ["data", "results", "nested", "list", "body_as_text"])
@pytest.mark.parametrize("rows", [1, 3])
def test_any_form_and_several_rows_of_a_request(asked: Shop, pictures: Pictures, form: str, rows: int) -> None:
    paths = pictures(3)
    break_images(asked, LOST, *paths, history_form=form, history_rows=rows)
    result = asked.describe(paths)
    assert result.counts["described"] == 3 and once_each(result, paths)
    assert result.manifest["cost_usd"] == 3 * PRICE
    texts = {entry["text"] for entry in result.rows}
    assert not any("\n\n" in text for text in texts), "the same text of several outputs stands once"


@pytest.mark.parametrize("asked", ["v1"], indirect=True)
def test_calls_on_many_pages_are_found_with_one_lookup(asked: Shop, pictures: Pictures) -> None:
    paths = pictures(130)
    asked.breaks(LOST)
    before = asked.emulator.ledger(entries=False)["free_requests"]
    uploads = len(paths)
    result = asked.describe(paths, concurrency=130)
    assert result.counts["described"] == 130 and once_each(result, paths)
    assert result.ledger["free_requests"] - before - uploads <= 8, (
        f"pages, not images: {result.ledger['free_requests']}"
    )


@pytest.mark.parametrize("on_unknown", ["retry", "hold", "fail"])
def test_a_call_that_failed_is_sent_again_at_no_risk(asked: Shop, pictures: Pictures, on_unknown: str) -> None:
    paths = pictures(3)
    # A v2 request that fails while it is fetched rejects its image, as ever; this one has failed by then.
    break_images(asked, "drop_after_failure", *paths, attempts=1, v2_delay_s=0.0)
    # More often than max_lost_calls would send an image whose calls may have been paid for.
    result = asked.describe(paths, on_unknown=on_unknown, max_lost_calls=1)
    assert result.error is None
    assert result.counts["described"] == 3 and once_each(result, paths)
    assert result.manifest["unknown_calls"] == 0 and result.manifest["cost_usd"] == 3 * PRICE
    assert all(row["lost_calls"] == 0 for row in result.rows)


@pytest.mark.parametrize(("on_unknown", "billed", "described"), [("retry", 2, 1), ("hold", 1, 0), ("fail", 1, 0)])
def test_a_record_without_a_text_tells_the_cost_and_on_unknown_decides(
    shop: Shop, pictures: Pictures, on_unknown: str, billed: int, described: int
) -> None:
    (path,) = pictures(1)
    asked = shop
    asked.vendor, asked.books = "segmind", "no_text"
    break_images(asked, LOST, path, attempts=1)
    result = asked.describe([path], on_unknown=on_unknown)
    assert result.counts["described"] == described and result.ledger["billed"] == billed
    assert round(result.manifest["cost_usd"], 6) == result.ledger["cost_usd"]
    assert result.manifest["unknown_calls"] == 0, "what it has cost is known"
    (known,) = [event for event in events(asked, "outcome") if event["status"] == "unknown"]
    assert (known["billed"], known["cost_usd"], known["error"]["kind"]) == ("yes", PRICE, "text_not_kept")
    assert known["request_id"] in {entry["request_id"] for entry in result.ledger["entries"]}
    if not described:
        (row,) = result.of("unknown")
        assert (row["billed"], row["cost_usd"], row["error"]["kind"]) == ("yes", PRICE, "text_not_kept")
        asked.faults()
        later = asked.describe([path], on_unknown="hold")
        assert later.counts["unknown"] == 1 and later.ledger["billed"] == 1
        assert later.manifest["cost_usd"] in (None, 0), "it was counted when it was learned"


@pytest.mark.parametrize("on_unknown", ["retry", "hold", "fail"])
@pytest.mark.parametrize("v2_delay_s", [0.0, 0.5])
def test_a_v2_request_that_the_books_name_is_fetched(
    shop: Shop, pictures: Pictures, on_unknown: str, v2_delay_s: float
) -> None:
    """It runs, or is done: the vendor keeps its text for an hour, whatever the books keep."""
    paths = pictures(2)
    shop.vendor, shop.books, shop.fields = "segmind", "no_text", {"api_version": "v2"}
    break_images(shop, LOST, paths[0], v2_delay_s=v2_delay_s)
    result = shop.describe(paths, on_unknown=on_unknown)
    assert result.error is None and result.counts["described"] == 2 and once_each(result, paths)
    assert round(result.manifest["cost_usd"], 6) == 2 * PRICE and result.manifest["unknown_calls"] == 0


def test_a_v2_request_that_fails_after_its_id_was_lost_is_sent_again(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    shop.vendor, shop.books, shop.fields = "segmind", "text", {"api_version": "v2"}
    break_images(shop, LOST, *paths, attempts=1, v2_fail_share=1.0)
    result = shop.describe(paths, on_unknown="hold")
    # The second request fails as well: the vendor rejects the image, unbilled.
    assert result.counts["rejected"] == 2 and result.ledger["billed"] == 0
    assert result.ledger["requests"] == 4 or result.ledger["requests"] == 2


def test_an_answer_that_could_not_be_read_is_looked_up_by_the_next_run(asked: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    break_images(asked, "empty", paths[0])
    first = asked.describe(paths)
    assert first.counts["unknown"] == 1
    second = asked.describe(paths)
    assert second.error is None and second.counts["described"] == 1 and second.counts["reused"] == 1
    assert once_each(second, paths) and second.manifest["cost_usd"] == PRICE


@pytest.mark.parametrize("gap", ["drop_before_bill", LOST])
@pytest.mark.parametrize(("on_unknown", "calls"), [("retry", 2), ("hold", 1), ("fail", 1)])
def test_a_call_that_never_appears_is_left_to_on_unknown(
    asked: Shop, pictures: Pictures, gap: str, on_unknown: str, calls: int
) -> None:
    (path,) = pictures(1)
    break_images(asked, gap, path, attempts=1, history_gaps=1)
    result = asked.describe([path], on_unknown=on_unknown)
    assert result.ledger["requests"] == calls
    assert result.counts["described" if on_unknown == "retry" else "unknown"] == 1
    assert isinstance(result.error, UnknownOutcome) == (on_unknown == "fail")
    assert result.manifest["unknown_calls"] == 1


@pytest.mark.parametrize("on_unknown", ["retry", "hold", "fail"])
def test_a_record_that_comes_late_is_waited_for(
    asked: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, on_unknown: str
) -> None:
    monkeypatch.setattr(vendor_history, "SETTLING_S", 20.0)
    paths = pictures(3)
    break_images(asked, LOST, paths[0], history_lag_s=0.8)
    result = asked.describe(paths, on_unknown=on_unknown)
    assert result.error is None and result.counts["described"] == 3 and once_each(result, paths)


def test_a_run_that_ends_before_the_record_comes_leaves_it_to_the_next(
    asked: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_history, "SETTLING_S", 60.0)
    paths = pictures(2)
    # A deferrable task may not sit out the wait: it is resumed.
    break_images(asked, LOST, paths[0], history_lag_s=1.5)
    job = asked.job(paths, max_wait=0.1)
    outcome = asyncio.run(job.arun())
    assert outcome.resume_condition is not None or isinstance(outcome.error, Unfinished)
    assert asked.emulator.ledger()["billed"] == 2
    result = asked.describe(paths)
    assert result.error is None and result.counts["described"] + result.counts["reused"] == 2
    assert once_each(result, paths)


@pytest.mark.parametrize(
    "unreadable", [{"history": "none"}, {"history_errors": 1}], ids=["no_books", "a_gateway_before_them"]
)
@pytest.mark.parametrize(("on_unknown", "calls"), [("retry", 2), ("hold", 1), ("fail", 1)])
def test_books_that_cannot_be_read_are_as_none(
    asked: Shop, pictures: Pictures, unreadable: dict[str, Any], on_unknown: str, calls: int
) -> None:
    (path,) = pictures(1)
    break_images(asked, LOST, path, attempts=1, **unreadable)
    result = asked.describe([path], on_unknown=on_unknown)
    assert result.ledger["requests"] == calls
    assert sum("cannot be read" in line for line in result.lines) == 1, "one warning"
    assert result.counts["described" if on_unknown == "retry" else "unknown"] == 1


def test_a_bad_key_stops_the_run_as_ever(asked: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    break_images(asked, LOST, paths[0], history="none")
    first = asked.describe(paths[:1], on_unknown="hold")
    assert first.counts["unknown"] == 1
    asked.key = "SG_another"
    result = asked.describe(paths)
    assert isinstance(result.error, InvalidKey) and result.ledger["billed"] == 1


@pytest.mark.parametrize("asked", ["v1"], indirect=True)
def test_two_calls_for_one_image_have_a_record_each(asked: Shop, pictures: Pictures) -> None:
    """Both were lost and both were billed; the image is described by one, and the other is no longer unknown."""
    (path,) = pictures(1)
    break_images(asked, LOST, path, history="none")
    lost = asked.describe([path])
    assert lost.counts["unknown"] == 1 and lost.ledger["billed"] == 2
    asked.faults()
    result = asked.describe([path])
    assert result.error is None and result.counts["described"] == 1 and result.ledger["billed"] == 2


def test_a_record_of_another_call_is_not_taken(asked: Shop, pictures: Pictures, tmp_path: Path) -> None:
    """The same bytes are asked about in two ways: the record of the second call is none of the first one."""
    (path,) = pictures(1)
    break_images(asked, "drop_before_bill", path, attempts=1, history="none")
    assert asked.describe([path], on_unknown="hold").counts["unknown"] == 1
    asked.faults()
    # Another identity, which is sent with the same bytes at the same address.
    other = asked.job([path], on_unknown="hold")
    spec = replace(other.requests[0].spec, model="ideogram-describe ")
    other.requests = [replace(other.requests[0], spec=spec)]
    assert asyncio.run(other.arun()).manifest["counts"]["described"] == 1
    held = asked.describe([path], on_unknown="hold")
    assert held.counts["unknown"] == 1 and held.ledger["billed"] == 1


def test_no_secret_is_in_the_intent(asked: Shop, pictures: Pictures) -> None:
    (path,) = pictures(1)
    break_images(asked, LOST, path, attempts=1)
    asked.describe([path], fields={"image_transport": "inline"})
    for event in events(asked, "sent", "lost"):
        digests = event["shown"].split()
        assert digests and all(len(digest) == 64 for digest in digests)
        assert "base64" not in str(event)


def test_a_vendor_without_books_is_asked_nothing(shop: Shop, pictures: Pictures) -> None:
    (path,) = pictures(1)
    shop.breaks(LOST, attempts=1)
    result = shop.describe([path])
    assert result.counts["described"] == 1 and result.ledger["requests"] == 2
    assert result.ledger["free_requests"] == 0
    assert not any("shown" in event for event in events(shop, "sent", "lost", "outcome"))

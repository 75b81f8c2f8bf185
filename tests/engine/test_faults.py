"""Everything that goes wrong at a vendor: what is billed is in a row, what is in a row was not billed twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import (
    AccountError,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    ModelRetired,
    RejectedImage,
    UnexpectedAnswer,
    VendorUnavailable,
)

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bad_images_are_told_apart_and_do_not_stop_the_others(
    any_shop: Shop, pictures: Pictures, tmp_path: Path
) -> None:
    paths = pictures(12)
    bad: dict[Path, tuple[str, str]] = {
        paths[0]: ("rejected", "empty"),
        paths[1]: ("rejected", "not_an_image"),
        paths[2]: ("rejected", "unsupported_type"),
        paths[3]: ("rejected", "too_large"),
        paths[4]: ("rejected", "missing"),
        paths[5]: ("rejected", "not_an_image"),
        paths[6]: ("rejected", "bad_path"),
        paths[7]: ("rejected", "harmful_content"),
    }
    paths[0].write_bytes(b"")
    paths[1].write_bytes(b"<!doctype html><title>404</title>")
    paths[2].write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    with paths[3].open("ab") as file:
        file.truncate(60_000_000)
    paths[4].unlink()
    paths[5].unlink()
    paths[5].mkdir()
    paths[6].unlink()
    paths[6].symlink_to(paths[6])
    any_shop.breaks("harmful", images=[sha(paths[7])])
    result = any_shop.describe(paths)
    by_uri = {row["uri"]: row for row in result.rows}
    for path, (status, kind) in bad.items():
        row = by_uri[str(path)]
        assert (row["status"], row["error"]["kind"]) == (status, kind)
        assert (row["billed"], row["text"]) == ("no", None)
        if path != paths[7]:
            assert str(path) in row["error"]["message"]
    assert {row["uri"] for row in result.of("described")} == {str(path) for path in paths[8:]}
    assert result.ledger["billed"] == 4
    assert {entry["image_sha256"] for entry in result.ledger["entries"]} == {sha(path) for path in paths[7:]}
    assert result.error is None, "none of it passes by itself"


def test_a_wrong_key_stops_at_once_and_says_which_connection(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.key = "sk-wrong-0123456789"
    result = any_shop.describe(pictures(40), concurrency=4)
    assert type(result.error) is InvalidKey and "'shop'" in str(result.error)
    assert result.ledger["billed"] == 0
    assert result.ledger["requests"] <= 4, "what was under way, and nothing after it"
    assert result.counts["pending"] == 40
    assert "sk-wrong" not in f"{result}"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("insufficient_credits", InsufficientCredits),
        ("spend_limit", InsufficientCredits),
        ("forbidden", Forbidden),
        ("invalid_key", InvalidKey),
        ("model_retired", ModelRetired),
    ],
)
def test_an_account_error_stops_and_keeps_what_is_done(
    any_shop: Shop, pictures: Pictures, kind: str, error: type[AccountError]
) -> None:
    any_shop.breaks(kind, after=5)
    result = any_shop.describe(pictures(30), concurrency=3)
    assert isinstance(result.error, error | AccountError)
    assert result.counts["described"] == result.ledger["billed"] == 5
    assert result.counts["pending"] == 25
    assert result.ledger["requests"] <= 5 + 3


def test_credits_that_run_out_pay_for_what_they_pay_for(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.faults(credits=0.105, price=0.015)
    result = any_shop.describe(pictures(20), concurrency=8)
    assert type(result.error) is InsufficientCredits and "'shop'" in str(result.error)
    assert result.counts["described"] == result.ledger["billed"] == 7
    any_shop.faults()
    again = any_shop.describe(pictures(20), concurrency=8)
    assert again.error is None
    assert set(again.ledger["by_image"].values()) == {1}, "nothing was paid for twice"


@pytest.mark.parametrize("kind", ["server_error", "unavailable"])
def test_a_storm_of_server_errors_is_weathered(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    any_shop.breaks(kind, attempts=3)
    result = any_shop.describe(pictures(16), concurrency=8)
    assert result.error is None
    assert result.ledger["requests"] == result.manifest["calls"] == 16 * 4
    assert result.counts["described"] == result.ledger["billed"] == 16
    assert result.manifest["unknown_calls"] == 0


def test_a_storm_that_does_not_end_stops_the_run(any_shop: Shop, pictures: Pictures) -> None:
    any_shop.breaks("unavailable")
    result = any_shop.describe(pictures(40), concurrency=2)
    assert type(result.error) is VendorUnavailable
    assert result.counts["pending"] == 40
    assert result.ledger["billed"] == 0
    assert result.ledger["requests"] < 40


@pytest.mark.parametrize("kind", ["html", "empty", "truncated", "wrong_types", "blank"])
def test_an_answer_that_was_paid_for_and_cannot_be_read_is_kept(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    """One of a CDN's HTML pages does not cost an image its description for ever: it is asked for once more."""
    paths = pictures(10)
    any_shop.breaks(kind, images=[sha(paths[4])])
    result = any_shop.describe(paths)
    assert result.counts["described"] == 9
    assert result.ledger["billed"] == 10
    assert result.ledger["by_image"][sha(paths[4])] == 1, "not asked for a second time in the same run"
    (row,) = [row for row in result.rows if row["uri"] == str(paths[4])]
    assert (row["status"], row["text"]) == ("unknown", None)
    assert row["billed"] in ("yes", "unknown")
    assert row["error"]["kind"] == "unexpected_answer"
    assert ("answer" in row["error"]) == (kind != "empty")
    paid = result.manifest["cost_usd"] + result.manifest["unknown_cost_usd"]
    assert paid == pytest.approx(10 * 0.015), "the money is not forgotten"

    def sent() -> int:
        entries = any_shop.emulator.ledger()["entries"]
        return sum(entry["image_sha256"] == sha(paths[4]) for entry in entries)

    for _ in range(3):
        again = any_shop.describe(paths)
        assert sent() == 2, "twice in all, then it is held"
        assert (again.counts["unknown"], again.counts["reused"]) == (1, 9)
    assert again.error is None
    any_shop.faults()
    last = any_shop.describe(paths, max_lost_calls=3)
    assert last.counts["described"] == 1 and sent() == 3


@pytest.mark.parametrize("kind", ["html", "wrong_types"])
def test_answers_that_nobody_can_read_stop_the_run_soon(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    any_shop.breaks(kind)
    result = any_shop.describe(pictures(40), concurrency=2)
    assert type(result.error) is UnexpectedAnswer
    assert result.ledger["requests"] <= 3 + 2
    assert result.counts["described"] == 0


@pytest.mark.parametrize(("kind", "billed"), [("drop_before_bill", 0), ("drop_after_bill", 1)])
def test_a_lost_answer_is_unknown_and_told(any_shop: Shop, pictures: Pictures, kind: str, billed: int) -> None:
    paths = pictures(10)
    any_shop.breaks(kind, images=[sha(paths[4])])
    result = any_shop.describe(paths, on_unknown="hold")
    (row,) = result.of("unknown")
    assert (row["uri"], row["billed"], row["text"], row["sha256"]) == (str(paths[4]), "unknown", None, sha(paths[4]))
    assert row["error"]["kind"] == "ambiguous"
    assert result.counts["described"] == 9
    assert result.ledger["requests"] == 10
    assert (result.manifest["unknown_calls"], result.manifest["unknown_cost_usd"]) == (1, 0.015)
    assert "1 call of unknown outcome (up to $0.015 more)" in result.lines[-1]
    assert result.manifest["cost_usd"] == pytest.approx(9 * 0.015)


@pytest.mark.parametrize("kind", ["drop_before_bill", "drop_after_bill"])
def test_what_a_vendor_billed_lies_within_what_was_reported(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    any_shop.faults(price=0.015, errors=[{"kind": kind, "share": 0.3}])
    result = any_shop.describe(pictures(40), on_unknown="hold")
    known, unknown = result.counts["described"], result.manifest["unknown_calls"]
    assert result.counts["unknown"] == unknown > 0
    assert known <= result.ledger["billed"] <= known + unknown
    assert max(Counter(entry["image_sha256"] for entry in result.ledger["entries"]).values()) == 1


def test_an_upload_that_fails_costs_nothing(shop: Shop, pictures: Pictures) -> None:
    shop.vendor = "segmind"
    result = shop.describe(pictures(4), fields={"storage_host": f"{shop.emulator.url}/nowhere"})
    assert isinstance(result.error, AccountError)
    assert result.ledger["requests"] == 0


def test_v2_failures_are_the_images_and_polls_are_patient(shop: Shop, pictures: Pictures) -> None:
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    shop.faults(v2_fail_share=0.4, v2_poll_errors=0.3, v2_delay_s=0.1)
    result = shop.describe(pictures(20))
    assert result.counts["described"] == result.ledger["billed"] > 0
    assert result.counts["rejected"] == 20 - result.ledger["billed"] > 0
    assert {row["error"]["kind"] for row in result.of("rejected")} == {"failed"}
    assert all(row["request_id"] for row in result.rows)
    assert result.ledger["requests"] == 20


def test_v2_requests_that_the_vendor_forgot_are_unknown(shop: Shop, pictures: Pictures) -> None:
    shop.vendor, shop.fields = "segmind", {"api_version": "v2"}
    shop.faults(v2_delay_s=0.2, v2_expire_s=0.0)
    result = shop.describe(pictures(5), on_unknown="hold")
    assert result.counts["unknown"] == result.ledger["requests"] == 5
    assert {row["error"]["kind"] for row in result.rows} == {"request_expired"}
    assert result.manifest["unknown_calls"] == 5


@pytest.mark.parametrize("style", ["200", "200_no_data", "http", "http_no_data"])
def test_image_describers_errors_come_in_any_style(shop: Shop, pictures: Pictures, style: str) -> None:
    paths = pictures(6)
    shop.faults(error_style=style, errors=[{"kind": "HARMFUL_CONTENT", "images": [sha(paths[0])]}])
    result = shop.describe(paths)
    (row,) = result.of("rejected")
    assert (row["uri"], row["error"]["kind"]) == (str(paths[0]), "harmful_content")
    assert result.counts["described"] == result.ledger["billed"] == 5
    assert RejectedImage.billed == row["billed"]

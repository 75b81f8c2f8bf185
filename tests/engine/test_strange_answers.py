"""Answers that say they are errors, and answers in strange forms: what is described, and what the vendor has billed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import WrongEndpoint

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["error_in_200", "plain_error"])
def test_an_error_in_a_200_is_no_description(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    paths = pictures(12)
    bad = paths[3:5]
    any_shop.breaks(kind, images=[sha(path) for path in bad])
    result = any_shop.describe(paths, on_unknown="hold", concurrency=1)
    assert {row["uri"] for row in result.of("described")} == {str(path) for path in paths if path not in bad}
    for path in bad:
        (row,) = [row for row in result.rows if row["uri"] == str(path)]
        assert (row["status"], row["text"]) == ("unknown", None)
        assert row["billed"] in ("yes", "unknown")
        assert row["error"]["kind"] == "unexpected_answer"
        assert "answer" in row["error"], "it may have been paid for"
    assert result.ledger["billed"] == result.ledger["requests"] == 12
    assert set(result.ledger["by_image"].values()) == {1}
    paid = result.manifest["cost_usd"] + result.manifest["unknown_cost_usd"]
    assert paid == pytest.approx(12 * 0.015), "the money is not forgotten"
    any_shop.faults()
    again = any_shop.describe(paths, on_unknown="hold")
    assert again.counts["reused"] == 10, "and no error is reused"
    assert again.ledger["billed"] == 12


@pytest.mark.parametrize(
    "kind", ["error_in_200", "plain_error", "html", "proxy_error", "gzip_cut", "zstd", "truncated", "empty"]
)
def test_an_image_is_sent_twice_at_most_for_answers_that_say_nothing(
    any_shop: Shop, pictures: Pictures, kind: str
) -> None:
    paths = pictures(3)
    any_shop.breaks(kind, images=[sha(paths[1])])
    results = [any_shop.describe(paths, concurrency=1) for _ in range(4)]
    for result in results:
        (row,) = result.of("unknown")
        assert row["uri"] == str(paths[1])
    assert results[-1].ledger["requests"] == 2 + 2
    assert results[-1].counts["reused"] == 2


def test_a_proxys_limit_of_size_stops_no_run_and_is_recorded_for_ever_against_no_image(
    any_shop: Shop, pictures: Pictures
) -> None:
    paths = pictures(12)
    large = [sha(path) for path in paths[:6]]
    any_shop.faults(proxy_status=413, errors=[{"kind": "proxy_error", "images": large}])
    first = any_shop.describe(paths, concurrency=1)
    assert first.error is None and first.counts["described"] == 6
    assert {row["error"]["kind"] for row in first.of("rejected")} == {"too_large"}
    any_shop.faults()
    again = any_shop.describe(paths, concurrency=1)
    assert again.counts == {**first.counts, "described": 6, "reused": 6, "rejected": 0}


@pytest.mark.parametrize("kind", ["error_in_200", "plain_error", "html", "gzip_cut", "broken_utf8"])
def test_one_strange_answer_leaves_nothing_for_ever(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    paths = pictures(3)
    any_shop.breaks(kind, images=[sha(paths[1])], attempts=1)
    any_shop.describe(paths, concurrency=1)
    again = any_shop.describe(paths, concurrency=1)
    assert again.error is None
    assert again.counts["described"] + again.counts["reused"] == 3
    assert again.ledger["billed"] == (3 if kind == "broken_utf8" else 4)


@pytest.mark.parametrize("kind", ["proxy_error", "gzip_cut", "zstd"])
def test_an_answer_lost_on_its_way_is_unknown(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    paths = pictures(8)
    any_shop.breaks(kind, images=[sha(paths[3])])
    result = any_shop.describe(paths, on_unknown="hold")
    (row,) = result.of("unknown")
    assert (row["uri"], row["billed"], row["text"]) == (str(paths[3]), "unknown", None)
    assert row["error"]["kind"] == "ambiguous"
    assert result.manifest["unknown_calls"] == 1
    assert (result.counts["described"], result.counts["rejected"]) == (7, 0)
    assert result.ledger["requests"] == 8, "never sent again by itself"


@pytest.mark.parametrize("status", [501, 503, 505, 507, 511, 520, 521, 522, 523, 524, 525, 529, 530, 599])
def test_an_undocumented_5xx_is_never_sent_again_by_itself(any_shop: Shop, pictures: Pictures, status: int) -> None:
    paths = pictures(3)
    any_shop.faults(proxy_status=status, errors=[{"kind": "proxy_error", "images": [sha(paths[1])]}])
    result = any_shop.describe(paths, on_unknown="hold")
    assert (result.counts["described"], result.counts["unknown"]) == (2, 1)
    assert result.ledger["requests"] == result.ledger["billed"] == 3


@pytest.mark.parametrize("kind", ["raw_newline", "broken_utf8", "byte_order_mark", "utf16"])
def test_a_paid_answer_in_a_strange_form_is_read(any_shop: Shop, pictures: Pictures, kind: str) -> None:
    paths = pictures(4)
    any_shop.breaks(kind)
    result = any_shop.describe(paths)
    assert result.error is None
    assert result.counts["described"] == result.ledger["billed"] == result.ledger["requests"] == 4
    assert result.manifest["unknown_calls"] == 0
    texts = [row["text"] for row in result.rows]
    assert all(("\n\t" in text) == (kind == "raw_newline") for text in texts)
    assert all(("\ufffd" in text) == (kind == "broken_utf8") for text in texts)


def test_a_wrong_host_is_recorded_against_no_image(any_shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    wrong = any_shop.describe(paths, fields={"host": f"{any_shop.emulator.url}/elsewhere"})
    assert type(wrong.error) is WrongEndpoint and "'shop'" in str(wrong.error)
    assert wrong.counts["pending"] == 4
    mended = any_shop.describe(paths)
    assert mended.error is None
    assert mended.counts["described"] == mended.ledger["billed"] == 4

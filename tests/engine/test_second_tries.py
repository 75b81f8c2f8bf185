"""A second try with a stricter prompt: one call more at most, within every limit, paid once, one row an image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.engine.second_tries import SpooledRows, better
from airflow_provider_describer.errors import BadInput, InsufficientCredits
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.rules import Matches, MaxChars, MinWords, NoMarkdown
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history
from airflow_provider_describer.store.rows import Row, TaskInstanceKey
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from tests.conftest import Shop

pytest.importorskip("regex")

Pictures = Callable[..., list[Path]]
STRICTER = "Be brief."
# The emulator's texts quote the prompt: the first one fails, the second passes.
ASKED: dict[str, Any] = {"rules": [Matches("Asked: Be brief"), MinWords(3)], "stricter_prompt": STRICTER}
WORSE: dict[str, Any] = {"rules": [Matches("in detail"), MaxChars(5)], "stricter_prompt": STRICTER}
RUN = TaskInstanceKey("catalog", "night", "describe")


def prompts(ledger: dict[str, Any]) -> dict[str, int]:
    return dict(Counter(entry["prompt"] for entry in ledger["entries"]))


def test_an_image_that_fails_is_asked_once_more_and_has_one_row(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(4), **ASKED)
    assert result.error is None and result.counts["described"] == 4
    assert {row["prompt"] for row in result.rows} == {STRICTER}
    assert all(STRICTER in row["text"] and row["failed_rules"] == [] for row in result.rows)
    assert prompts(result.ledger) == {"Describe this image in detail.": 4, STRICTER: 4}
    assert result.manifest["calls"] == result.ledger["billed"] == 8
    # What the run has cost is in the manifest, and in the rows.
    assert result.manifest["cost_usd"] == pytest.approx(0.12) == sum(row["cost_usd"] for row in result.rows)
    assert result.manifest["failed_rules"] == {"Matches('Asked: Be brief')": 0, "MinWords(3)": 0}
    kept = [event for event in read_history(open_folder(shop.store)) if event["event"] == "outcome"]
    assert Counter(event["prompt"] for event in kept) == Counter({"Describe this image in detail.": 4, STRICTER: 4})
    assert result.lines[0] == ("4 images: 4 new, 0 reused, 4 second tries at most; at most 8 calls, $0.12")
    assert "second tries: 4 images: 4 new, 0 reused; at most 4 calls, $0.06" in result.lines


def test_the_next_run_reuses_both(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    shop.describe(paths, **ASKED)
    result = shop.describe(paths, **ASKED)
    assert result.counts["reused"] == 3 and {row["prompt"] for row in result.rows} == {STRICTER}
    assert (result.manifest["calls"], result.manifest["cost_usd"], result.ledger["billed"]) == (0, 0.0, 6)
    assert result.lines[0] == "3 images: 0 new, 3 reused; at most 0 calls, $0.00"


def test_a_text_that_passes_is_not_asked_again(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(3), rules=[MinWords(3)], stricter_prompt=STRICTER)
    assert prompts(result.ledger) == {"Describe this image in detail.": 3}


def test_a_reused_text_that_fails_is_asked_once_more(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    shop.describe(paths[:2])
    result = shop.describe(paths, **ASKED)
    assert (result.counts["described"], result.manifest["calls"]) == (3, 4)
    assert result.lines[0] == "3 images: 1 new, 2 reused, 3 second tries at most; at most 4 calls, $0.06"
    assert sum(row["cost_usd"] for row in result.rows) == pytest.approx(0.06) == result.manifest["cost_usd"]
    assert result.ledger["billed"] == 6


def test_the_first_text_stays_where_the_second_is_worse(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(2), **WORSE)
    assert {row["prompt"] for row in result.rows} == {"Describe this image in detail."}
    assert [row["failed_rules"] for row in result.rows] == [["MaxChars(5)"]] * 2
    assert result.manifest["failed_rules"] == {"Matches('in detail')": 0, "MaxChars(5)": 2}
    assert result.manifest["calls"] == 4 and result.manifest["cost_usd"] == pytest.approx(0.06)
    assert [row["cost_usd"] for row in result.rows] == [0.03, 0.03]
    again = shop.describe(pictures(2), **WORSE)
    assert again.ledger["billed"] == 4 and again.counts["reused"] == 2


def test_rows_in_xcom_come_in_order_and_once(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(5)
    given = [*paths, paths[0]]
    result = shop.describe(given, store=None, **ASKED)
    assert [row["uri"] for row in result.rows] == [str(path) for path in given]
    assert {row["prompt"] for row in result.rows} == {STRICTER}
    assert prompts(result.ledger) == {"Describe this image in detail.": 5, STRICTER: 5}
    assert (result.counts["described"], result.counts["reused"]) == (5, 1)


@pytest.mark.parametrize("limit", [{"max_calls": 5}, {"max_cost": 0.075}, {"fields": {"max_cost_per_day": 0.075}}])
def test_no_limit_is_exceeded_and_the_first_text_stays(shop: Shop, pictures: Pictures, limit: dict[str, Any]) -> None:
    paths = pictures(3)
    result = shop.describe(paths, **ASKED, **limit)
    assert result.ledger["billed"] == result.manifest["calls"] == 5
    assert result.error is None and result.counts["described"] == 3
    assert Counter(row["prompt"] for row in result.rows) == {STRICTER: 2, "Describe this image in detail.": 1}
    assert any(
        "second tries: not all could be made now" in line and "allows no further" in line for line in result.lines
    )
    later = shop.describe(paths, **ASKED)
    assert (later.ledger["billed"], later.counts["described"], later.counts["reused"]) == (6, 1, 2)
    assert {row["prompt"] for row in later.rows} == {STRICTER}


def test_without_budget_what_is_known_is_shown(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    shop.describe(paths[:2], **ASKED)
    result = shop.describe(paths, max_calls=0, **ASKED)
    assert Counter(row["prompt"] for row in result.of("reused")) == {STRICTER: 2}
    assert (result.counts["pending"], result.ledger["billed"]) == (1, 4)


def test_a_second_call_that_is_rejected_changes_no_status(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    shop.describe(paths)
    shop.breaks("harmful")
    result = shop.describe(paths, **ASKED, max_failure_ratio=0.0)
    assert result.error is None and result.counts["reused"] == 2
    assert {row["prompt"] for row in result.rows} == {"Describe this image in detail."}
    assert result.manifest["failed_rules"]["Matches('Asked: Be brief')"] == 2
    shop.faults()
    assert shop.describe(paths, **ASKED).manifest["calls"] == 0, "what was rejected is not asked again"


@pytest.mark.parametrize("on_unknown", ["retry", "hold", "fail"])
def test_a_second_call_whose_answer_is_lost_changes_no_status(shop: Shop, pictures: Pictures, on_unknown: Any) -> None:
    paths = pictures(2)
    shop.describe(paths)
    shop.breaks("drop_after_bill")
    result = shop.describe(paths, **ASKED, on_unknown=on_unknown)
    assert result.error is None and result.counts["reused"] == 2
    sent = 4 if on_unknown == "retry" else 2
    assert (result.manifest["calls"], result.manifest["unknown_calls"]) == (sent, sent)
    shop.faults()
    later = shop.describe(paths, **ASKED, on_unknown=on_unknown)
    # Each was sent as often as max_lost_calls allows, or was not to be sent again.
    assert later.manifest["calls"] == 0 and later.counts["reused"] == 2


def test_a_problem_of_the_account_fails_the_run_and_keeps_the_first_texts(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    shop.describe(paths)
    shop.breaks("insufficient_credits")
    result = shop.describe(paths, **ASKED)
    assert isinstance(result.error, InsufficientCredits)
    assert result.counts["reused"] == 3 and result.ledger["billed"] == 3


def test_a_dry_run_promises_no_less_than_may_be_spent(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(5)
    shop.describe(paths[:2])
    shop.describe(paths[:1], **ASKED)
    lines: list[str] = []
    outcome = shop.job(paths, report=lines.append, dry_run=True, **ASKED).run()
    assert outcome.manifest["counts"]["pending"] == 3
    # Three new ones, twice, and the one whose second text is not known.
    assert lines[0] == "5 images: 3 new, 2 reused, 4 second tries at most; at most 7 calls, $0.105"
    before = shop.emulator.ledger()["billed"]
    assert shop.describe(paths, **ASKED).ledger["billed"] == before + 7


def test_prompts_of_images_and_fields_are_filled(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    images = [
        {"uri": paths[0], "fields": {"title": "Shoe"}},
        {"uri": paths[1], "prompt": "What is it?", "fields": {"title": "Hat"}},
        {"uri": paths[2], "prompt": "Brief: Bag", "fields": {"title": "Bag"}},
    ]
    result = shop.describe(images, rules=[MaxChars(5)], stricter_prompt="Brief: {title}")
    # The last one's second prompt would be its first.
    assert prompts(result.ledger) == {
        "Describe this image in detail.": 1,
        "What is it?": 1,
        "Brief: Shoe": 1,
        "Brief: Hat": 1,
        "Brief: Bag": 1,
    }
    assert result.manifest["calls"] == 5


def test_a_field_that_is_missing_is_named(shop: Shop, pictures: Pictures) -> None:
    images = [{"uri": pictures(1)[0], "fields": {"title": "Shoe"}}]
    with pytest.raises(BadInput, match=r"stricter_prompt asks for \{colour\}, but this image's fields have title"):
        shop.job(images, rules=[MaxChars(5)], stricter_prompt="Brief: {colour}")


def test_a_vendor_without_prompts_refuses_it() -> None:
    with pytest.raises(BadInput, match="stricter_prompt is given, but Segmind's ideogram-describe takes no prompt"):
        parse_images(["/a.jpg"], get_vendor("segmind"), stricter_prompt="Brief.")


def test_it_needs_rules(shop: Shop, pictures: Pictures) -> None:
    with pytest.raises(BadInput, match="stricter_prompt is given without rules"):
        shop.describe(pictures(1), stricter_prompt=STRICTER)
    assert shop.emulator.ledger()["requests"] == 0


def test_a_run_that_was_left_goes_on_and_counts_each_call_once(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    # As many calls as a minute allows are made at once, then the run is left.
    options = {**ASKED, "task_instance": RUN, "max_wait": 0.0, "fields": {"requests_per_minute": 4}}
    first = shop.job(paths, **options).run()
    assert first.resume_condition is not None and first.error is None
    assert first.manifest["counts"]["described"] == 3 and first.manifest["calls"] == 4
    options["fields"] = {}
    rest = shop.job(paths, **options, carried=CarriedTotals.from_dict(first.carried.to_dict())).run()
    assert rest.resume_condition is None and rest.error is None
    assert rest.manifest["calls"] == shop.emulator.ledger()["billed"] == 6
    assert rest.manifest["cost_usd"] == pytest.approx(0.09)
    rows = [json.loads(line) for line in Path(rest.manifest["results"]).read_text().splitlines()]
    assert [row["status"] for row in rows] == ["described"] * 3
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(0.09)


def test_a_run_in_two_pieces_of_one_store_waits_for_the_other(shop: Shop, pictures: Pictures) -> None:
    from concurrent.futures import ThreadPoolExecutor

    paths = pictures(6)
    shop.faults(latency_s=0.05)
    jobs = [shop.job(paths, **ASKED, task_instance=replace(RUN, task_id=f"describe_{number}")) for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        ends = [one.result() for one in [threads.submit(job.run) for job in jobs]]
    assert [end.error for end in ends] == [None, None]
    assert shop.emulator.ledger()["billed"] == 12
    assert set(shop.emulator.ledger()["by_image"].values()) == {2}


# --- which of two rows is shown ---


def row(text: str | None, failed: list[str] | None, **more: Any) -> Row:
    base = dict.fromkeys(Row.__slots__)
    given = {"status": "described", "billed": "yes", "cost_usd": 0.015, "lost_calls": 0, "sha256": "a"}
    return Row(**{**base, **given, "text": text, "failed_rules": failed, **more})


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (["a"], [], "second"),
        (["a"], ["b"], "second"),
        (["a"], ["a", "b"], "first"),
        (["a", "b"], ["c"], "second"),
    ],
)
def test_the_text_that_fails_fewer_rules_is_shown_the_second_on_a_tie(
    first: list[str], second: list[str], shown: str
) -> None:
    found = better(row("first", first), row("second", second))
    assert (found.text, found.cost_usd) == (shown, 0.03)


@pytest.mark.parametrize(
    ("more", "cost"),
    [
        ({"status": "pending", "cost_usd": None, "billed": "no", "text": None}, 0.015),
        ({"status": "unknown", "cost_usd": None, "billed": "unknown", "text": None, "lost_calls": 1}, None),
        ({"status": "rejected", "cost_usd": None, "billed": "no", "text": None}, 0.015),
        ({"sha256": "b", "failed_rules": []}, 0.03),
    ],
)
def test_a_second_try_that_brings_nothing_leaves_the_first_text(more: dict[str, Any], cost: float | None) -> None:
    found = better(row("first", ["a"]), replace(row("second", []), **more))
    assert (found.text, found.status, found.cost_usd) == ("first", "described", cost)
    assert found.lost_calls == more.get("lost_calls", 0)


def test_rows_come_back_from_the_file_as_they_were() -> None:
    rows = SpooledRows()
    kept = {number: row(f"\udcff {number}\n", ["a"], error={"kind": "x", "message": "y"}) for number in range(3)}
    for number, one in kept.items():
        rows[number] = one
    rows[1] = row("again", [])
    assert (rows[0], rows[1].text, rows[2], rows.get(9), 2 in rows, len(rows)) == (
        kept[0],
        "again",
        kept[2],
        None,
        True,
        3,
    )
    rows.close()


def test_markdown_is_asked_away(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(1), rules=[NoMarkdown()], stricter_prompt="No Markdown.")
    # The emulator always writes Markdown: a tie, and the second text is shown.
    assert [(row["prompt"], row["failed_rules"]) for row in result.rows] == [("No Markdown.", ["NoMarkdown()"])]

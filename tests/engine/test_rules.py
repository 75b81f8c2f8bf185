"""Caption rules in a run: a verdict in each row with a text, counts in manifest and log, and no other difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.rules import BannedWords, Language, Matches, MaxChars, MinWords, NoMarkdown, language
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history

if TYPE_CHECKING:
    from tests.conftest import Shop

pytest.importorskip("regex")

Pictures = Callable[..., list[Path]]
RULES = (MinWords(3), MaxChars(20), NoMarkdown(), BannedWords(["pixels"]))


def verdicts(result: Any) -> dict[str, Any]:
    return {row["uri"]: row["failed_rules"] for row in result.rows}


def test_each_text_has_its_verdict_in_results_store_manifest_and_log(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    result = shop.describe(paths, rules=RULES)
    # The emulator writes Markdown, as the vendor does.
    failed = ["MaxChars(20)", "NoMarkdown()", "BannedWords(['pixels'])"]
    assert verdicts(result) == dict.fromkeys(map(str, paths), failed)
    assert result.manifest["failed_rules"] == {"MinWords(3)": 0, **dict.fromkeys(failed, 3)}
    assert result.error is None and result.ledger["billed"] == 3
    kept = [event for event in read_history(open_folder(shop.store)) if event["event"] == "outcome"]
    assert [event["failed_rules"] for event in kept] == [failed] * 3
    assert result.lines[-1] == (
        "rules: of 3 descriptions 3 fail MaxChars(20), 3 fail NoMarkdown(), 3 fail BannedWords(['pixels'])"
    )


def test_a_vendor_that_writes_plainly_passes(shop: Shop, pictures: Pictures) -> None:
    shop.vendor = "segmind"
    shop.faults()
    result = shop.describe(pictures(2), rules=[NoMarkdown(), MinWords(5)])
    assert list(verdicts(result).values()) == [[], []]
    assert result.manifest["failed_rules"] == {"NoMarkdown()": 0, "MinWords(5)": 0}
    assert result.lines[-1] == "rules: of 2 descriptions none fails any"


def test_without_rules_nothing_is_said(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(2))
    assert list(verdicts(result).values()) == [None, None]
    assert "failed_rules" not in result.manifest
    assert not any("rules" in line for line in result.lines)


def test_what_is_reused_is_judged_by_the_rules_of_this_task(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    shop.describe(paths, rules=[MaxChars(20)])
    # One that is listed twice is judged twice, and paid for once.
    result = shop.describe([*paths, paths[0]], rules=[NoMarkdown(), MinWords(3)])
    assert result.counts["reused"] == 3
    assert [row["failed_rules"] for row in result.rows] == [["NoMarkdown()"]] * 3
    assert result.manifest["failed_rules"] == {"NoMarkdown()": 3, "MinWords(3)": 0}
    assert (result.manifest["calls"], result.ledger["billed"]) == (0, 2)
    assert list(verdicts(shop.describe(paths)).values()) == [None, None], "a verdict of other rules"


def test_an_image_without_a_text_has_no_verdict(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    paths[1].write_bytes(b"")
    result = shop.describe(paths, rules=[MaxChars(20)], max_calls=1, concurrency=1)
    assert {row["status"]: row["failed_rules"] for row in result.rows} == {
        "described": ["MaxChars(20)"],
        "rejected": None,
        "pending": None,
    }
    assert result.manifest["failed_rules"] == {"MaxChars(20)": 1}


def test_rows_in_xcom_have_it(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(2), store=None, rules=[Matches("pixels"), MaxChars(20)])
    assert [row["failed_rules"] for row in result.rows] == [["MaxChars(20)"]] * 2


def test_a_dry_run_judges_nothing(shop: Shop, pictures: Pictures) -> None:
    outcome = shop.job(pictures(2), rules=RULES, dry_run=True).run()
    assert "failed_rules" not in outcome.manifest


def test_a_missing_library_stops_the_run_before_its_first_call(
    shop: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="The rule Language needs py3langid"):
        shop.describe(pictures(1), rules=[Language("de")])
    assert shop.emulator.ledger()["requests"] == 0 and not shop.store.exists()


def test_languages_are_told_apart(shop: Shop, pictures: Pictures) -> None:
    pytest.importorskip("py3langid")
    result = shop.describe(pictures(1), rules=[Language("de"), Language("en")])
    # The emulator writes English whatever it is asked for.
    assert list(verdicts(result).values()) == [["Language('de')"]]

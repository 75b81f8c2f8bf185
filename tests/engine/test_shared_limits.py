"""Jobs at the same time on one connection with a `limits_path`: its rate and its day's money are theirs together."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.errors import StoreError

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


def together(shop: Shop, lists: list[list[Path]], **limits: Any) -> list[Any]:
    """Run a job for each list of images, all at the same time; their outcomes."""
    jobs = [
        shop.job(paths, store=shop.store.with_name(f"store {number}"), **limits) for number, paths in enumerate(lists)
    ]
    with ThreadPoolExecutor(len(jobs)) as threads:
        outcomes = list(threads.map(lambda job: job.run(), jobs))
    for outcome in outcomes:
        shop.result(outcome, [])
    return outcomes


@pytest.fixture
def shared(any_shop: Shop, tmp_path: Path) -> Shop:
    any_shop.fields["limits_path"] = str(tmp_path / "limits")
    return any_shop


def test_the_days_money_is_spent_once(shared: Shop, pictures: Pictures) -> None:
    shared.fields["max_cost_per_day"] = 0.15
    paths = pictures(40)
    outcomes = together(shared, [paths[:20], paths[20:]], concurrency=8)
    ledger = shared.emulator.ledger()
    assert ledger["billed"] == 10
    assert sum(outcome.manifest["calls"] for outcome in outcomes) == 10
    # What the day's money was not enough for is left, and is no error.
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sum(outcome.manifest["counts"]["pending"] for outcome in outcomes) == 30

    (later,) = together(shared, [paths])
    assert later.manifest["calls"] == 0 and shared.emulator.ledger(entries=False)["billed"] == 10


@pytest.mark.slow
def test_the_rate_is_shared(shared: Shop, pictures: Pictures) -> None:
    shared.fields["requests_per_minute"] = 1500
    shared.faults(requests_per_minute=150, rate_window_s=6)
    paths = pictures(90)
    outcomes = together(shared, [paths[:30], paths[30:60], paths[60:]], concurrency=16)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    entries = shared.emulator.ledger()["entries"]
    assert [entry["outcome"] for entry in entries if entry["status"] == 429] == []
    assert len(entries) == 90


def test_a_task_alone_is_not_held_up(shared: Shop, pictures: Pictures) -> None:
    """A limits_path without any limit: nothing to wait for."""
    (outcome,) = together(shared, [pictures(12)])
    assert outcome.error is None and outcome.manifest["counts"]["described"] == 12


@pytest.mark.parametrize(
    "content", ["", "{", json.dumps({"format": "airflow-provider-describer limits", "version": 99})]
)
def test_what_cannot_be_read_stops_everything(shared: Shop, pictures: Pictures, tmp_path: Path, content: str) -> None:
    shared.fields["max_cost_per_day"] = 0.15
    together(shared, [pictures(2)])
    (document,) = (path for path in (tmp_path / "limits").iterdir() if not path.name.startswith("."))
    document.write_text(content)
    with pytest.raises(StoreError, match=document.name):
        together(shared, [pictures(4)])
    assert shared.emulator.ledger(entries=False)["requests"] == 2

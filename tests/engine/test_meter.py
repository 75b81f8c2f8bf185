"""What a run tells those who watch it: each call once, totals that add up to the manifest, and never an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.engine.meter import EndedCall, Meters
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import BadInput, InsufficientCredits

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


class Notes:
    """Keeps everything that it is told."""

    def __init__(self) -> None:
        self.known: Totals | None = None
        self.calls: list[EndedCall] = []
        self.waits: list[float] = []
        self.totals: Totals | None = None
        self.ends: list[BaseException | None] = []

    def begin(self, known: Totals) -> None:
        assert self.known is None and not self.ends
        self.known = deepcopy(known)

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def call(self, ended: EndedCall) -> None:
        self.calls.append(ended)

    def count(self, totals: Totals) -> None:
        self.totals = deepcopy(totals)

    def end(self, totals: Totals, error: BaseException | None) -> None:
        self.totals = deepcopy(totals)
        self.ends.append(error)


class Failing(Notes):
    """Cannot reach what it reports to."""

    def call(self, ended: EndedCall) -> None:
        super().call(ended)
        raise OSError("no route to host")


def test_each_call_is_told_once_with_what_it_has_cost(any_shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    result = any_shop.describe(pictures(5), meter=notes)
    assert result.ledger["billed"] == len(notes.calls) == 5
    assert {call.uri for call in notes.calls} == {row["uri"] for row in result.rows}
    assert {(call.cost_usd, call.billed, call.error) for call in notes.calls} == {(0.015, "yes", None)}
    assert all(call.seconds > 0 for call in notes.calls)
    assert notes.known is not None and (notes.known.calls, notes.known.recorded) == (0, 0)
    assert notes.totals is not None and notes.totals.counts["described"] == 5
    assert notes.ends == [None]


def test_a_call_that_fails_is_told_by_the_kind_of_its_error(shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    shop.breaks("unavailable", first=1)
    result = shop.describe(pictures(1), meter=notes, concurrency=1)
    assert result.counts["described"] == 1
    assert [(call.error is None, call.cost_usd) for call in notes.calls] == [(False, 0.0), (True, 0.015)]


def test_what_is_known_is_counted_and_no_call(shop: Shop, pictures: Pictures) -> None:
    paths, notes = pictures(3), Notes()
    shop.describe(paths)
    shop.describe(paths, meter=notes)
    assert notes.calls == [] and notes.totals is not None
    assert (notes.totals.counts["reused"], notes.totals.calls) == (3, 0)


def test_an_error_of_the_account_ends_what_is_told_too(shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    shop.breaks("insufficient_credits")
    result = shop.describe(pictures(2), meter=notes)
    assert isinstance(result.error, InsufficientCredits)
    assert notes.ends == [result.error]


def test_a_run_that_cannot_read_its_store_ends_with_that_error(shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    shop.store.parent.mkdir(parents=True, exist_ok=True)
    shop.store.write_text("a file where the folder should be")
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whichever it is, it is told
        asyncio.run(shop.job(pictures(1), meter=notes).arun())
    assert notes.ends == [raised.value] and notes.known is None


def test_a_dry_run_is_not_told(shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    shop.job(pictures(1), meter=notes, dry_run=True).run()
    assert (notes.calls, notes.totals, notes.ends) == ([], None, [])


def test_calls_that_the_rate_has_held_back_say_how_long(shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    shop.describe(pictures(3), meter=notes, fields={"requests_per_minute": 600})
    assert notes.waits and all(0 < seconds < 5 for seconds in notes.waits)


def test_a_meter_that_fails_costs_the_run_nothing(
    shop: Shop, pictures: Pictures, caplog: pytest.LogCaptureFixture
) -> None:
    failing, notes = Failing(), Notes()
    with caplog.at_level(logging.WARNING):
        result = shop.describe(pictures(4), meter=Meters([failing, notes]))
    assert (result.error, result.counts["described"], result.ledger["billed"]) == (None, 4, 4)
    assert (len(failing.calls), failing.ends) == (1, []), "left out from its first error on"
    assert len(notes.calls) == 4 and notes.ends == [None]
    assert [record.message for record in caplog.records if "Failing" in record.message] == [
        "Failing is left out of this run: OSError: no route to host"
    ]


def test_arguments_that_cannot_work_are_told_to_nobody(shop: Shop, pictures: Pictures) -> None:
    notes = Notes()
    with pytest.raises(BadInput):
        shop.job(pictures(1), meter=notes, concurrency=0).run()
    assert (notes.known, notes.ends) == (None, [])

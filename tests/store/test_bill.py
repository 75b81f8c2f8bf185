"""`store check --vendor`: one day's bill of the vendor's own books beside what the store says of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_describer.models import HistoryRecord
from airflow_provider_describer.store.__main__ import main
from airflow_provider_describer.store.bill import compare

DAY = datetime(2026, 1, 31, tzinfo=UTC)
NOON = DAY.timestamp() + 43200


def record(request_id, at=NOON, status="completed", cost=0.015):
    return HistoryRecord(request_id, at, status, cost_usd=cost)


def outcome(request_id, at=NOON, billed="yes", cost=0.015, **changes):
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    row = {"vendor": "segmind", "described_at": moment, "uri": f"{request_id}.jpg", "status": "described"}
    return {"event": "outcome", **row, "request_id": request_id, "billed": billed, "cost_usd": cost, **changes}


def compared(events, records):
    found = compare("segmind", DAY, events, records)
    ids = [[call.request_id for call in calls] for calls in (found.only_there, found.only_here, found.other_cost)]
    return found, *ids


def test_what_both_name_alike_does_not_differ():
    found, *_ = compared([outcome("a"), outcome("b")], [record("a"), record("b"), record("c", status="failed", cost=0)])
    assert not found.differs
    assert (found.calls_here, found.calls_there, found.cost_here_usd, found.cost_there_usd) == (2, 2, 0.03, 0.03)


def test_each_difference_is_named():
    events = [outcome("a"), outcome("gone"), outcome("dear"), outcome("unpriced", cost=None), outcome(None)]
    records = [
        record("a"),
        record("theirs"),
        record("dear", cost=0.02),
        record("unpriced"),
        record("f", status="failed"),
    ]
    found, only_there, only_here, other_cost = compared(events, records)
    assert (only_there, only_here, other_cost) == (["theirs"], ["gone"], ["dear", "unpriced"])
    assert found.differs and found.without_id == 1
    (dear, _) = found.other_cost
    assert (dear.here, dear.there, dear.uri) == (0.015, 0.02, "dear.jpg")


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (outcome("a", billed="no", status="failed", cost=None), (["a"], [], [])),
        (outcome("a", vendor="image_describer"), (["a"], [], [])),
        (outcome("a", billed="unknown", cost=None, status="unknown"), ([], [], ["a"])),
    ],
)
def test_what_the_store_takes_for_free_is_named_if_it_was_billed(event, found):
    assert compared([event], [record("a")])[1:] == found


def test_a_call_belongs_to_the_day_that_the_vendor_names():
    late, early = DAY.timestamp() + 86399, DAY.timestamp() - 1
    events = [
        outcome("ends_tomorrow", at=late + 5),
        outcome("began_yesterday", at=early + 5),
        outcome("other", at=late + 5),
    ]
    records = [record("ends_tomorrow", at=late), record("began_yesterday", at=early)]
    found, *ids = compared(events, records)
    assert ids == [[], [], []] and found.calls_there == found.calls_here == 1


def test_two_reports_of_one_call_count_once():
    found, *ids = compared([outcome("a", billed="unknown", cost=None), outcome("a")], [record("a")])
    assert ids == [[], [], []] and found.calls_here == 1


@pytest.fixture
def asked(shop, monkeypatch):
    shop.vendor, shop.books = "segmind", "text"
    shop.faults()
    monkeypatch.setenv("SEGMIND_API_KEY", shop.emulator.keys["segmind"])
    return shop


def bill(shop, capsys, *more):
    code = main(["check", str(shop.store), "--vendor", "segmind", "--host", shop.emulator.url, *more])
    return code, capsys.readouterr()


def test_the_command_compares_with_the_vendor(asked, pictures, capsys):
    paths = pictures(5)
    asked.describe(paths[:3])
    code, said = bill(asked, capsys)
    assert code == 0 and "3 calls billed there ($0.045), 3 paid for here ($0.045)" in said.out
    asked.describe(paths[3:], store=asked.store.parent / "another")
    code, said = bill(asked, capsys, "--json")
    found = json.loads(said.out)
    ids = {entry["request_id"] for entry in asked.emulator.ledger()["entries"][3:]}
    assert code == 3 and found["differs"] and {call["request_id"] for call in found["only_there"]} == ids
    assert found["only_here"] == found["other_cost"] == []
    code, said = bill(asked, capsys)
    assert code == 3 and "2 calls billed there and not known here" in said.out
    asked.faults(price=0.02)
    assert bill(asked, capsys)[0] == 3, "the books tell what was billed, whatever a call costs by now"
    asked.emulator.clear_ledger()
    code, said = bill(asked, capsys)
    assert code == 3 and "3 calls paid for by this store and not billed there" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--day", "yesterday"], "expected a date"),
        (["--day", "2020-01-31"], "one of the last 28 days"),
        (["--day", "2120-01-31"], "one of the last 28 days"),
        (["--vendor", "image_describer"], "publishes no history"),
        (["--vendor", "nobody"], "No vendor is named"),
    ],
)
def test_what_cannot_be_compared_is_said(asked, pictures, capsys, arguments, words):
    asked.describe(pictures(1))
    code, said = bill(asked, capsys, *arguments)
    assert code == 2 and words in said.err


def test_a_missing_or_wrong_key_is_said_and_not_shown(asked, pictures, capsys, monkeypatch):
    asked.describe(pictures(1))
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_wrong_0123456789")
    code, said = bill(asked, capsys)
    assert code == 1 and "API key" in said.err and "SG_wrong" not in said.out + said.err
    monkeypatch.delenv("SEGMIND_API_KEY")
    code, said = bill(asked, capsys)
    assert code == 2 and "SEGMIND_API_KEY is not set" in said.err


def test_books_that_cannot_be_read_are_no_empty_bill(asked, pictures, capsys):
    asked.describe(pictures(1))
    asked.faults(history_errors=1)
    assert bill(asked, capsys)[0] == 1
    asked.faults(history="none")
    assert bill(asked, capsys)[0] == 1

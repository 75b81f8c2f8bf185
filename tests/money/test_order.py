"""Intent on disk, then the call, then its outcome on disk, then counted; also where the disk fails or images change."""

from __future__ import annotations

import shutil
from collections import Counter
from hashlib import sha256

import pytest

from airflow_provider_describer.engine import runner
from airflow_provider_describer.engine.outcomes import OutcomeRecorder
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images import prepare
from airflow_provider_describer.storage.folder import LocalFolder, open_folder
from airflow_provider_describer.store.index import read_history


def on_disk(store, kind):
    return [event for event in read_history(open_folder(store)) if event["event"] == kind]


@pytest.fixture
def checking_client(any_shop):
    """Clients that look at the disk before they send anything."""
    sent: Counter[str] = Counter()

    class Checking(AsyncClient):
        async def _send(self, request):
            if request.billable:
                sent["calls"] += 1
                assert len(on_disk(any_shop.store, "sent")) >= sent["calls"]
            elif "/v2/requests/" in request.url:
                sent["polls"] += 1
                assert any(event["request_id"] in request.url for event in on_disk(any_shop.store, "accepted"))
            return await super()._send(request)

    def new(connections):
        return Checking(timeout=30, connections=connections)

    return new, sent


def test_write_order(any_shop, night, thousand, checking_client):
    job = any_shop.job(thousand[:20], concurrency=4)
    job.new_client, sent = checking_client
    counted = []

    def record(self, image, row, why=None, real=OutcomeRecorder.record, **more):
        assert any(event["sha256"] == row.sha256 for event in on_disk(any_shop.store, "outcome"))
        counted.append(row)
        real(self, image, row, why, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutcomeRecorder, "record", record)
        patch.setattr("airflow_provider_describer.http.flow.poll_pause", lambda polls: 0.0)
        result = night(thousand[:20], job=job)

    assert result.error is None and len(counted) == 20
    assert sent["calls"] == 20
    assert (sent["polls"] > 0) == (any_shop.fields["api_version"] == "v2")


@pytest.mark.parametrize("healthy_writes", [0, 1, 3])
def test_a_disk_that_fails_stops_the_run_and_hangs_nobody(any_shop, night, thousand, monkeypatch, healthy_writes):
    any_shop.faults(latency_s=0.05)
    writes: Counter[str] = Counter()
    real = LocalFolder.create

    def create(self, name, content):
        writes["n"] += name.startswith("journal/")
        if writes["n"] > healthy_writes:
            raise StoreError(f"{name} cannot be written: no space left on device.")
        real(self, name, content)

    with monkeypatch.context() as broken:
        broken.setattr(LocalFolder, "create", create)
        result = night(thousand[:100], concurrency=8)

    assert result.error.kind == "store"
    # What was paid for is in the result files at least, and nothing was called after the disk had failed.
    assert result.counts["described"] == result.ledger["billed"] == result.manifest["calls"] < 100
    assert all(row["text"] for row in result.of("described"))
    if healthy_writes == 0:
        assert result.ledger["requests"] == 0


def test_a_disk_that_recovers_gets_every_row(shop, night, thousand, monkeypatch):
    """One write fails, and the run ends; the rows of answers that came in until then are on disk all the same."""
    shop.faults(latency_s=0.05)
    failed: list[str] = []
    real = LocalFolder.create

    def create(self, name, content):
        if b'"outcome"' in content and not failed:
            failed.append(name)
            raise StoreError(f"{name} cannot be written: try again.")
        real(self, name, content)

    with monkeypatch.context() as broken:
        broken.setattr(LocalFolder, "create", create)
        result = night(thousand[:100], concurrency=8)

    assert result.error.kind == "store" and failed
    assert len(on_disk(shop.store, "outcome")) == result.counts["described"] == result.ledger["billed"]
    rest = night(thousand[:100], concurrency=8)
    assert rest.error is None and rest.ledger["billed"] == 100


def change_before_call(monkeypatch, changes):
    """Replace files between the plan and the calls."""
    real = prepare.prepare

    async def changed_first(reader, vendor, account, request):
        changes.pop(request.image.uri, lambda: None)()
        return await real(reader, vendor, account, request)

    monkeypatch.setattr(runner, "prepare", changed_first)


def test_an_image_that_changes_after_the_plan_is_described_as_shown(shop, night, draw_into, tmp_path, monkeypatch):
    first, copy, other = draw_into(tmp_path, 1)[0], tmp_path / "copy.jpg", draw_into(tmp_path, 1, first=1)[0]
    shutil.copy(first, copy)
    new = draw_into(tmp_path, 1, first=2)[0]
    shown = sha256(new.read_bytes()).hexdigest()
    change_before_call(monkeypatch, {str(first): lambda: new.replace(first)})

    result = night([first, copy, other])
    rows = {row["uri"]: row for row in result.rows}
    assert rows[str(first)]["status"] == "described" and rows[str(first)]["sha256"] == shown
    # The copy is none any more.
    assert rows[str(copy)]["status"] == "pending" and rows[str(copy)]["text"] is None
    assert set(result.ledger["by_image"]) == {shown, sha256(other.read_bytes()).hexdigest()}

    again = night([first, copy, other])
    assert again.counts["reused"] == 2 and again.counts["described"] == 1
    assert again.ledger["billed"] == 3 and set(again.ledger["by_image"].values()) == {1}


@pytest.mark.parametrize("content", ["of another image of the run", "of an earlier run"])
def test_an_image_that_becomes_one_that_is_paid_for_is_not_called(
    shop, night, draw_into, tmp_path, monkeypatch, content
):
    first, second, known = draw_into(tmp_path, 3)
    night([known])
    target = second if content == "of another image of the run" else known
    change_before_call(monkeypatch, {str(first): lambda: shutil.copy(target, first)})

    result = night([first, second])
    assert result.error is None and result.counts["described"] == result.counts["reused"] == 1
    (reused,) = result.of("reused")
    assert reused["uri"] == str(first) and reused["sha256"] == sha256(target.read_bytes()).hexdigest()
    assert reused["sha256"][:12] in reused["text"], "the words of what it has become"
    assert reused["cost_usd"] == 0.0
    again = night([first, second])
    assert again.error is None and again.counts["reused"] == 2
    assert again.ledger["billed"] == 2 and set(again.ledger["by_image"].values()) == {1}


def test_copies_cost_nothing_in_their_rows(shop, night, draw_into, tmp_path):
    path = draw_into(tmp_path, 1)[0]
    copies = [shutil.copy(path, tmp_path / f"copy {number}.jpg") for number in range(4)]
    result = night([path, *copies])
    assert result.counts["described"] == 1 and result.counts["reused"] == 4
    assert sum(row["cost_usd"] for row in result.rows) == pytest.approx(result.manifest["cost_usd"])
    assert Counter(row["billed"] for row in result.rows) == {"yes": 1, "no": 4}
    assert len({row["text"] for row in result.rows}) == 1

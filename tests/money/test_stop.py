"""A run that is told to stop, or interrupted: no further call, and nothing that was paid for is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.error
import urllib.request

import pytest

from airflow_provider_describer.engine.limits import Budget
from airflow_provider_describer.storage.folder import LocalFolder, open_folder
from airflow_provider_describer.store.index import load_index, read_history

SEGMIND = "segmind"
PRICE = 0.015


def when(shop, holds, act):
    """Do something as soon as the ledger says so, beside the run."""

    def watch():
        while not holds(shop.emulator.ledger(entries=False)):
            time.sleep(0.002)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def events(shop):
    return [event["event"] for event in read_history(open_folder(shop.store))]


def open_calls(shop):
    return load_index(open_folder(shop.store)).open_calls


def test_stop_starts_no_call_and_records_those_under_way(shop, night, thousand):
    shop.faults(price=PRICE, latency_s=1)
    job = shop.job(thousand[:200], concurrency=16)
    at_stop = []

    def stop():
        job.stop()
        at_stop.append(shop.emulator.ledger(entries=False)["requests"])

    # Sixteen calls are under way, and five more wait for their turn with their intents in the journal.
    when(shop, lambda ledger: ledger["requests"] >= 16 and events(shop).count("sent") >= 21, stop)
    stopped = night(thousand[:200], job=job)

    assert stopped.error.kind == "unfinished"
    # While the word goes round, a turn may still come to a few; no second one does.
    assert stopped.ledger["requests"] <= at_stop[0] + 16
    assert stopped.counts["described"] == stopped.manifest["calls"] == stopped.ledger["billed"]
    assert stopped.counts["pending"] == 200 - stopped.counts["described"]
    assert stopped.manifest["cost_usd"] == pytest.approx(stopped.ledger["cost_usd"])
    # Intents whose turn never came are closed, and what came of the others is known.
    assert not open_calls(shop)
    assert set(events(shop)) == {"outcome"}

    shop.faults(price=PRICE)
    rest = night(thousand[:200])
    assert rest.error is None and rest.ledger["billed"] == 200


def test_stop_while_the_first_intents_are_written(shop, night, thousand, monkeypatch):
    """There is room for every one of them; none is sent, and none counts as spent."""
    job = shop.job(thousand[:4], concurrency=4)
    real = LocalFolder.create
    budgets: list[Budget] = []

    def create(self, name, content):
        if name.startswith("journal/"):
            # Until all four have reserved a call; the loop goes on while this thread waits.
            until = time.monotonic() + 30
            while len(budgets) < 4 and time.monotonic() < until:
                time.sleep(0.001)
            job.stop()
        real(self, name, content)

    class Seen(Budget):
        def take(self):
            budgets.append(self)
            return super().take()

    monkeypatch.setattr(LocalFolder, "create", create)
    monkeypatch.setattr("airflow_provider_describer.engine.passes.Budget", Seen)
    stopped = night(thousand[:4], job=job)

    assert stopped.ledger["requests"] == stopped.manifest["calls"] == 0
    assert stopped.counts["pending"] == 4
    assert len(budgets) == 4 and budgets[0].calls == budgets[0].under_way == 0
    assert not open_calls(shop)


def test_stop_before_it_has_begun(shop, night, thousand):
    job = shop.job(thousand[:20])
    job.stop()
    stopped = night(thousand[:20], job=job)
    assert stopped.error.kind == "unfinished"
    assert stopped.counts["pending"] == 20 and stopped.ledger["requests"] == 0


def test_requests_at_the_vendor_are_left_and_fetched_by_the_next_run(shop, night, thousand):
    shop.vendor = SEGMIND
    shop.fields["api_version"] = "v2"
    shop.faults(v2_delay_s=2)
    job = shop.job(thousand[:50], concurrency=30)
    when(shop, lambda ledger: ledger["requests"] >= 30 and not ledger["in_flight"], job.stop)
    left = night(thousand[:50], job=job)

    assert left.counts == {"requested": 50, "described": 0, "reused": 0, "rejected": 0, "unknown": 0, "pending": 50}
    assert left.manifest["calls"] == left.ledger["requests"] == 30
    assert left.cost == 0.0
    running = [row for row in left.rows if row["request_id"]]
    assert {row["request_id"] for row in running} == {entry["request_id"] for entry in left.ledger["entries"]}
    assert {row["billed"] for row in running} == {"unknown"}

    rest = night(thousand[:50], concurrency=30)
    assert rest.error is None
    assert rest.manifest["calls"] == 20
    assert rest.counts["described"] == rest.ledger["requests"] == rest.ledger["billed"] == 50
    assert round(rest.cost, 6) == rest.ledger["cost_usd"] == 50 * PRICE
    assert not any(row["lost_calls"] for row in rest.rows)
    print("\nv2: 30 left running by stop(), 30 fetched and 20 called by the next run, 50 billed")


def test_a_request_that_expired_is_unknown_and_sent_again_by_a_later_run_only(shop, night, thousand):
    shop.vendor = SEGMIND
    shop.fields["api_version"] = "v2"
    shop.faults(v2_delay_s=0.9, v2_expire_s=1)
    job = shop.job(thousand[:10], concurrency=10)
    when(shop, lambda ledger: ledger["requests"] >= 10 and not ledger["in_flight"], job.stop)
    left = night(thousand[:10], job=job)
    assert left.counts["pending"] == 10
    wait_until_forgotten(shop, [entry["request_id"] for entry in left.ledger["entries"]])

    expired = night(thousand[:10])
    assert expired.counts["unknown"] == 10
    assert {row["error"]["kind"] for row in expired.rows} == {"request_expired"}
    assert expired.manifest["calls"] == 0 and expired.ledger["requests"] == 10
    assert expired.manifest["unknown_calls"] == 10 and expired.error.kind == "unfinished"

    held = night(thousand[:10], on_unknown="hold")
    assert held.counts["unknown"] == 10 and held.manifest["calls"] == 0

    shop.faults(v2_delay_s=0.05)
    again = night(thousand[:10])
    assert again.counts["described"] == again.manifest["calls"] == 10
    assert {row["lost_calls"] for row in again.rows} == {1}
    assert again.ledger["billed"] == 20
    assert round(left.cost + expired.cost + held.cost + again.cost, 6) == again.ledger["cost_usd"]


def wait_until_forgotten(shop, requests):
    for request in requests:
        while True:
            asked = urllib.request.Request(
                f"{shop.emulator.url}/v2/requests/{request}", headers={"x-api-key": shop.emulator.keys[SEGMIND]}
            )
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked).close()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 404:
                    break
            time.sleep(0.02)


def test_an_account_that_fails_while_polling_loses_nothing(shop, night, thousand):
    """The key is replaced under a running request: pending, not counted as lost, and fetched when it works again."""
    shop.vendor = SEGMIND
    shop.fields["api_version"] = "v2"
    shop.faults(v2_delay_s=0.5)
    job = shop.job(thousand[:8])
    when(shop, lambda ledger: ledger["requests"] >= 8 and not ledger["in_flight"], job.stop)
    night(thousand[:8], job=job)

    shop.key = "sg-wrong"
    refused = night(thousand[:8])
    assert refused.error.kind == "invalid_key"
    assert refused.counts["pending"] == 8 and refused.cost == 0.0 and refused.manifest["unknown_calls"] == 0

    shop.key = None
    rest = night(thousand[:8])
    assert rest.error is None and rest.counts["described"] == rest.ledger["requests"] == rest.ledger["billed"] == 8


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_what_is_done(shop, night, thousand):
    shop.faults(latency_s=0.2)
    job = shop.job(thousand[:150], concurrency=16)
    when(shop, lambda ledger: ledger["requests"] >= 40, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        job.run()

    ledger = shop.emulator.ledger()
    assert 0 < ledger["billed"] < 150 and not ledger["in_flight"]
    assert not open_calls(shop)
    shop.faults()
    rest = night(thousand[:150])
    assert rest.error is None
    assert rest.counts["reused"] == ledger["billed"]
    assert rest.ledger["billed"] == 150
    print(
        f"\ninterrupted after {ledger['billed']} answers, all kept; {rest.counts['described']} calls later, 150 billed"
    )

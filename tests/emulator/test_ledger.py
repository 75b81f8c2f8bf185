from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from tests.emulator.conftest import Caller


def test_the_ledger_adds_up(call: Caller, image: Callable[..., bytes]) -> None:
    one, other = image(colour=(9, 9, 9)), image(colour=(99, 9, 9))
    call.describe(one)
    call.describe(one)
    call.v1(one)
    call.v1(other)
    call.describe(prompt="")
    ledger = call.emulator.ledger()
    assert (ledger["requests"], ledger["billed"], ledger["cost_usd"]) == (5, 4, 0.05)
    assert ledger["by_image"] == {hashlib.sha256(one).hexdigest(): 3, hashlib.sha256(other).hexdigest(): 1}
    assert ledger["by_vendor"]["image_describer"] == {
        "requests": 3,
        "billed": 2,
        "cost_usd": 0.02,
        "credits_left": 999.98,
    }
    assert [entry["outcome"] for entry in ledger["entries"]] == [*["described"] * 4, "INVALID_PARAM"]
    assert "entries" not in call.emulator.ledger(entries=False)


def test_clearing_keeps_the_balance(call: Caller) -> None:
    call.v1()
    call.emulator.clear_ledger()
    ledger = call.emulator.ledger()
    assert (ledger["requests"], ledger["billed"], ledger["cost_usd"], ledger["entries"]) == (0, 0, 0, [])
    assert (ledger["by_image"], ledger["connections"], ledger["max_in_flight"]) == ({}, 0, 0)
    assert ledger["by_vendor"]["segmind"]["credits_left"] == 999.985


def test_money_is_exact(call: Caller) -> None:
    call.emulator.faults({"segmind": {"price": 0.1, "credits": 0.3}})
    assert [call.v1().status_code for _ in range(4)] == [200, 200, 200, 406]
    assert call.emulator.ledger()["by_vendor"]["segmind"]["credits_left"] == 0


def test_a_call_from_before_the_ledger_was_cleared_counts_no_more(
    call: Caller, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.emulator.faults({"segmind": {"v2_delay_s": 0.5}})
    submitted = call.v2()
    call.emulator.clear_ledger()
    assert call.finished(submitted).json()["status"] == "COMPLETED"
    ledger = call.emulator.ledger()
    assert (ledger["requests"], ledger["billed"], ledger["by_image"]) == (0, 0, {})
    assert ledger["by_vendor"]["segmind"]["credits_left"] == 999.985


def test_connections_and_requests_in_flight_are_counted(
    call: Caller, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.emulator.faults({"image_describer": {"errors": [{"kind": "hang_after_bill", "share": 1}]}})
    connections = [call.send_only() for _ in range(5)]
    eventually(lambda: call.emulator.ledger(entries=False)["in_flight"] == 5)
    for connection in connections:
        connection.close()
    eventually(lambda: call.emulator.ledger(entries=False)["in_flight"] == 0)
    ledger = call.emulator.ledger()
    assert (ledger["max_in_flight"], ledger["connections"], ledger["billed"]) == (5, 5, 5)
    assert not any(entry["answered"] for entry in ledger["entries"])


def test_a_reused_connection_is_one_connection(call: Caller) -> None:
    for _ in range(3):
        call.describe()
    assert call.emulator.ledger(entries=False)["connections"] == 1


def test_a_client_that_left_is_billed_but_not_answered(
    call: Caller, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.emulator.faults({"image_describer": {"latency_s": 0.5}})
    call.send_only().close()
    eventually(lambda: call.emulator.ledger(entries=False)["billed"] == 1)
    eventually(lambda: call.emulator.ledger(entries=False)["in_flight"] == 0)
    assert call.emulator.ledger()["entries"][0]["answered"] is False


def test_a_client_that_left_while_sending_is_not_billed(
    call: Caller, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    call.send_only(all_but=10).close()
    eventually(lambda: call.emulator.ledger(entries=False)["requests"] == 1)
    eventually(lambda: call.emulator.ledger(entries=False)["in_flight"] == 0)
    ledger = call.emulator.ledger()
    assert (ledger["billed"], ledger["entries"][0]["outcome"]) == (0, "client_gone")


def test_only_gets_and_deletes_are_taken(http: httpx.Client) -> None:
    assert http.post("/_emulator/ledger").status_code == 405
    assert http.get("/_emulator/nothing").status_code == 404

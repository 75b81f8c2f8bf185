"""The limits of a connection bind single calls of its hooks as they bind tasks. Bills are the emulator's word."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import AmbiguousCall, BadInput, DescriberError, RateLimited, RejectedImage
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.models import Description

Connect = Callable[..., None]
Limited = Callable[..., str]
IMPATIENT = RetryPolicy(max_wait=0.2)
PRICE = 0.015
_numbers = count()


@pytest.fixture(params=["alone", "limits_path"])
def limited(request: pytest.FixtureRequest, emulator: EmulatorProcess, connect: Connect, tmp_path: Path) -> Limited:
    """Define a connection of its own with these limits and return its id; with and without a limits_path."""

    def define(vendor: str = "segmind", **extra: Any) -> str:
        conn_id = f"limited_{next(_numbers)}"
        if request.param == "limits_path":
            extra["limits_path"] = str(tmp_path / "limits")
        extra = {"price_per_call": PRICE, **extra}
        connect(conn_id, conn_type=vendor, password=emulator.keys[vendor], host=emulator.url, extra=extra)
        return conn_id

    return define


def ends(works: list[Callable[[], Description]]) -> list[Any]:
    found: list[Any] = []
    for work in works:
        try:
            found.append(work())
        except DescriberError as error:
            found.append(error)
    return found


def billed(emulator: EmulatorProcess) -> int:
    return int(emulator.ledger(entries=False)["billed"])


def next_midnight() -> float:
    return (time.time() // 86400 + 1) * 86400


@pytest.mark.parametrize(("vendor", "version"), [("image_describer", "v1"), ("segmind", "v1"), ("segmind", "v2")])
def test_one_a_minute_is_one_a_minute(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str], vendor: str, version: str
) -> None:
    """Five calls of hook.describe() took 0.2 s at a limit of one a minute and $0.02 a day, and cost $0.075."""
    emulator.faults({"image_describer": {"price": PRICE}, "segmind": {"v2_delay_s": 0.0}})
    conn_id = limited(vendor, requests_per_minute=1, api_version=version)
    began = time.time()
    first, *others = ends([lambda: DescriberHook(conn_id, policy=IMPATIENT).describe(pictures[0]) for _ in range(5)])
    assert isinstance(first, Description)
    for error in others:
        assert type(error) is RateLimited and error.billed == "no"
        assert error.retry_at is not None and began + 60 <= error.retry_at <= time.time() + 62
        assert str(error).startswith(
            f"Connection {conn_id!r}: requests_per_minute is 1, and the next call may start at"
        )
        assert pickle.loads(pickle.dumps(error)).retry_at == error.retry_at
    ledger = emulator.ledger()
    assert (ledger["requests"], ledger["billed"], ledger["cost_usd"]) == (1, 1, PRICE)


def test_a_wait_that_the_policy_allows_is_sat_out(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str]
) -> None:
    conn_id = limited(requests_per_minute=60)
    assert {type(end) for end in ends([lambda: DescriberHook(conn_id).describe(pictures[0])] * 4)} == {Description}
    moments = [entry["at"] for entry in emulator.ledger()["entries"]]
    assert len(moments) == 4
    # A slot each second, of which one may be used 0.6 s late.
    assert moments[3] - moments[0] >= 3 * 1.0 - 0.6


def test_the_days_money_is_not_exceeded(emulator: EmulatorProcess, limited: Limited, pictures: list[str]) -> None:
    conn_id = limited(max_cost_per_day=0.02)
    hook = DescriberHook(conn_id)
    first, *others = ends([lambda: hook.describe(pictures[0])] * 3)
    assert isinstance(first, Description)
    for error in others:
        assert type(error) is RateLimited and error.kind == "day_budget_spent"
        assert error.retry_at == pytest.approx(next_midnight(), abs=1)
        assert f"Connection {conn_id!r}: max_cost_per_day is $0.02" in str(error) and "T00:00Z" in str(error)
    assert billed(emulator) == 1
    # What is free is not limited.
    assert hook.credits() > 0 and hook.test_connection()[0]


def test_what_was_not_billed_leaves_its_money(emulator: EmulatorProcess, limited: Limited, pictures: list[str]) -> None:
    emulator.faults({"all": {"errors": [{"kind": "harmful", "first": 2}]}})
    hook = DescriberHook(limited(max_cost_per_day=PRICE))
    found = ends([lambda: hook.describe(pictures[0])] * 4)
    assert [type(end) for end in found] == [RejectedImage, RejectedImage, Description, RateLimited]
    ledger = emulator.ledger()
    assert (ledger["requests"], ledger["billed"]) == (3, 1)


@pytest.mark.parametrize("fault", ["drop_before_bill", "drop_after_bill"])
def test_what_may_have_been_billed_counts(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str], fault: str
) -> None:
    """Whether it was cannot be known: the day's money must hold in either case."""
    emulator.faults({"all": {"errors": [{"kind": fault, "first": 1}]}})
    hook = DescriberHook(limited(max_cost_per_day=2 * PRICE))
    found = ends([lambda: hook.describe(pictures[0])] * 4)
    assert [type(end) for end in found] == [AmbiguousCall, Description, RateLimited, RateLimited]
    assert emulator.ledger()["requests"] == 2


def test_a_call_of_unknown_cost_counts_at_its_price(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str]
) -> None:
    """Image Describer names no cost."""
    hook = DescriberHook(limited("image_describer", max_cost_per_day=2 * PRICE))
    assert [type(end) for end in ends([lambda: hook.describe(pictures[0])] * 3)] == [Description] * 2 + [RateLimited]
    assert emulator.ledger()["requests"] == 2


def test_a_limit_in_money_needs_a_price(emulator: EmulatorProcess, connect: Connect, pictures: list[str]) -> None:
    key = emulator.keys["image_describer"]
    connect("shop", conn_type="image_describer", password=key, host=emulator.url, extra={"max_cost_per_day": 1})
    with pytest.raises(BadInput, match=r"max_cost_per_day needs .* price_per_call .* 'shop'"):
        DescriberHook("shop").describe(pictures[0])
    assert emulator.ledger()["requests"] == 0


def test_threads_and_event_loops_count_together(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str]
) -> None:
    conn_id, together = limited(max_cost_per_day=3 * PRICE), threading.Barrier(6)

    async def twice() -> list[Any]:
        hook = DescriberHook(conn_id)
        return await asyncio.gather(*(hook.adescribe(pictures[0]) for _ in range(2)), return_exceptions=True)

    def thread() -> list[Any]:
        together.wait()
        return asyncio.run(twice())

    with ThreadPoolExecutor(6) as threads:
        found = [end for each in [threads.submit(thread) for _ in range(6)] for end in each.result()]
    kinds = [type(end) for end in found]
    assert (kinds.count(Description), kinds.count(RateLimited)) == (3, 9), found
    assert emulator.ledger()["requests"] == billed(emulator) == 3


def test_a_pause_that_the_vendor_asks_for_holds_for_all_hooks_of_the_connection(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str]
) -> None:
    emulator.faults({"segmind": {"requests_per_minute": 1, "rate_window_s": 3}})
    conn_id = limited(requests_per_minute=6000)
    hook = DescriberHook(conn_id, policy=RetryPolicy(max_wait=30))
    assert {type(end) for end in ends([lambda: hook.describe(pictures[0])] * 2)} == {Description}
    # The second has waited for 3 s; the third is told to, and the fourth learns of it.
    third = threading.Thread(target=lambda: hook.describe(pictures[0]))
    third.start()
    while sum(entry["status"] == 429 for entry in emulator.ledger()["entries"]) < 2:
        time.sleep(0.02)
    time.sleep(0.2)
    (fourth,) = ends([lambda: DescriberHook(conn_id, policy=IMPATIENT).describe(pictures[1])])
    third.join()
    assert type(fourth) is RateLimited and "the vendor has asked for a pause" in str(fourth)
    assert sum(entry["status"] == 429 for entry in emulator.ledger()["entries"]) == 2


def test_connections_do_not_count_for_each_other(
    emulator: EmulatorProcess, limited: Limited, pictures: list[str]
) -> None:
    for conn_id in (limited(max_cost_per_day=PRICE), limited(max_cost_per_day=PRICE)):
        assert type(DescriberHook(conn_id).describe(pictures[0])) is Description
    assert billed(emulator) == 2


def test_a_presigned_uri_is_masked_in_the_description(connect: Connect, draw_png: bytes) -> None:
    """A description goes to XCom."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "shop.example":
            return httpx.Response(200, content=draw_png)
        return httpx.Response(200, json={"code": 200, "succeed": True, "data": {"content": "a red field"}})

    connect("shop", conn_type="image_describer", password="sk-0123456789")
    hook = DescriberHook("shop", transport=httpx.MockTransport(answer))
    found = hook.describe("https://shop.example/a.png?X-Amz-Signature=hush")
    assert found.uri == "https://shop.example/a.png?…" and "hush" not in repr(found)


@pytest.fixture
def draw_png(pictures: list[str]) -> bytes:
    return Path(pictures[0]).read_bytes()


# --- the operator for one image ---


def test_one_image_whose_day_is_spent_fails_and_a_retry_can_mend_it(
    emulator: EmulatorProcess, connect: Connect, tmp_path: Path, pictures: list[str], run: Callable[..., Any]
) -> None:
    """It had ended green, with a pending row and no text."""
    fields = {"conn_type": "segmind", "password": emulator.keys["segmind"], "host": emulator.url}
    connect("shop", **fields, extra={"max_cost_per_day": PRICE, "limits_path": str(tmp_path / "limits")})
    ran = run("one_by_one", images=pictures[:2], conn_id="shop")
    assert sorted(ran.states.values()) == ["failed", "success", "success"]
    (failed,) = ran.errors
    assert ran.states[failed] == "failed" and ran.tries[failed] == 4, "no reason to give up"
    error = ran.errors[failed]
    assert type(error).__name__ == "AirflowException"
    assert str(error).startswith("RateLimited: Connection 'shop': max_cost_per_day is $0.015, and what is left of it")
    assert billed(emulator) == emulator.ledger()["requests"] == 1


def test_one_image_that_is_dearer_than_a_day_fails(
    emulator: EmulatorProcess, connect: Connect, pictures: list[str], run: Callable[..., Any]
) -> None:
    fields = {"conn_type": "segmind", "password": emulator.keys["segmind"], "host": emulator.url}
    connect("shop", **fields, extra={"max_cost_per_day": 0.01})
    ran = run("one_by_one", images=pictures[:1], conn_id="shop")
    assert ran.states["describe[0]"] == "failed" and emulator.ledger()["requests"] == 0

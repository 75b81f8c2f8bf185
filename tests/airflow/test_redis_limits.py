"""Tasks whose connection has its limits on a Redis: Airflow sees nothing of the login there."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent
from redis_server import RedisServer

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.quota.document import LeaseDocument, encode_leases, open_limits_document
from airflow_provider_describer.quota.leases import Leases
from airflow_provider_describer.triggers.describe import VendorTrigger

SECRET = "pass-w0rd-of-redis"
PRICE = 0.015


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", f"requirepass {SECRET}") as server:
        yield server


@pytest.fixture
def connect_shop(emulator: EmulatorProcess, connect: Callable[..., None], redis: RedisServer) -> Callable[..., None]:
    def define(password: str = SECRET, **extra: Any) -> None:
        fields = {"conn_type": "segmind", "password": emulator.keys["segmind"], "host": emulator.url}
        connect("shop", **fields, extra=json.dumps({"limits_path": redis.at(f":{password}"), **extra}))

    return define


def test_a_task_that_defers_within_limits_on_a_redis_shows_no_login(
    emulator: EmulatorProcess,
    connect_shop: Callable[..., None],
    run: Callable[..., Any],
    pictures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    connect_shop(max_cost_per_day=2 * PRICE)
    listing = tmp_path / "images.jsonl"
    listing.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in pictures[:3]), encoding="utf-8")
    deferrals: list[Any] = []
    with closing(open_limits_document(DescriberHook("shop").account)) as document:

        async def end_the_pause(trigger: VendorTrigger) -> AsyncIterator[TriggerEvent]:
            deferrals.append(trigger.serialize())
            document.swap(encode_leases(replace(leases.read(), paused_until=0.0, next_at=0.0)), document.load()[1])
            yield TriggerEvent({"carried": trigger.carried, "began": trigger.began})

        leases = LeaseDocument(document, time.time)
        paused_until = time.time() + 3600
        document.swap(encode_leases(Leases(next_at=paused_until, paused_until=paused_until)), None)
        monkeypatch.setattr(VendorTrigger, "run", end_the_pause)
        ran = run("waiting", file="waiting.py", listing=str(listing), store=str(tmp_path / "store"))
        assert list(leases.read().spent.values()) == [30_000]

    assert emulator.ledger(entries=False)["billed"] == 2 and len(deferrals) == 1
    said = [*capfd.readouterr(), repr(deferrals), repr(ran.xcom("describe", key="manifest"))]
    assert SECRET not in "\n".join(said)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_wrong_password_fails_the_task_before_a_call(
    emulator: EmulatorProcess,
    connect_shop: Callable[..., None],
    run: Callable[..., Any],
    pictures: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    connect_shop(f"{SECRET}-old", max_cost_per_day=1)
    listing = tmp_path / "images.jsonl"
    listing.write_text(json.dumps({"uri": pictures[0]}), encoding="utf-8")
    ran = run("waiting", file="waiting.py", listing=str(listing), store=str(tmp_path / "store"))
    error = str(ran.errors["describe"])
    assert "redis://127.0.0.1" in error and "did not accept the user and password" in error
    assert SECRET not in "\n".join([error, *capfd.readouterr()])
    assert emulator.ledger()["requests"] == 0

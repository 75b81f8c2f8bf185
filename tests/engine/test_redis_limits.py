"""Jobs on a connection with its limits on a Redis: one day's money for all, no call without it, no secret anywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis_server import RedisServer

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.document import encode_leases, open_limits_document
from airflow_provider_describer.quota.leases import Leases
from airflow_provider_describer.storage import redis_document

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
SECRET = "pass-w0rd-of-redis"
PRICE = 0.015


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    monkeypatch.setattr(redis_document, "FIRST_PAUSE_S", 0.01)
    with RedisServer(tmp_path / "redis", f"user worker on >{SECRET} ~* +@all", f"requirepass {SECRET}") as server:
        yield server


@pytest.fixture
def limited(shop: Shop, redis: RedisServer) -> Shop:
    shop.fields |= {"limits_path": redis.at(f"worker:{SECRET}"), "max_cost_per_day": 10 * PRICE}
    return shop


def test_the_days_money_is_shared_and_the_password_is_nowhere(
    limited: Shop, pictures: Pictures, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    paths = pictures(16)
    results = [
        limited.describe(some, store=tmp_path / f"store {number}")
        for number, some in enumerate((paths[:6], paths[6:12], paths[12:]))
    ]
    assert [result.counts["described"] for result in results] == [6, 4, 0]
    assert limited.emulator.ledger(entries=False)["billed"] == 10

    said = "\n".join(line for result in results for line in [*result.lines, json.dumps(result.manifest)])
    assert SECRET not in said + caplog.text + repr(limited.account())
    for store in tmp_path.glob("store *"):
        files = [path for path in store.rglob("*") if path.is_file()]
        assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]
    with closing(open_limits_document(limited.account())) as document:
        assert SECRET.encode() not in (document.load()[0] or b"")
        assert SECRET not in document.where


NEWER = json.dumps({"format": "airflow-provider-describer limits", **asdict(Leases()), "version": 99}).encode()


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged.*Restore it"),
        (encode_leases(Leases(spent={"2026-01-01": 1}))[:-1], "is damaged.*Restore it"),
        (NEWER, "was written in version 99"),
        ([b"a list"], "holds a list, a hash"),
        ("kill", "no answer from the server"),
        ("password", "did not accept the user and password"),
    ],
)
def test_limits_that_cannot_be_read_stop_everything_before_a_call(
    limited: Shop, redis: RedisServer, pictures: Pictures, content: object, words: str, dry_run: bool
) -> None:
    with closing(open_limits_document(limited.account())) as document, closing(redis.client(password=SECRET)) as admin:
        where, key = document.where, f"{redis_document.KEY_PREFIX}image_describer--shop.limits.json"
        if isinstance(content, bytes):
            admin.set(key, content)
        elif isinstance(content, list):
            admin.lpush(key, *content)
        elif content == "kill":
            redis.kill()
        else:
            limited.fields["limits_path"] = redis.at(f"worker:{SECRET}-old")
    lines: list[str] = []
    with pytest.raises(StoreError, match=words) as caught:
        limited.job(pictures(2), dry_run=dry_run, report=lines.append).run()
    assert str(caught.value).startswith(where) and key in where
    assert SECRET not in "\n".join([str(caught.value), *lines])
    assert limited.emulator.ledger()["requests"] == 0


@pytest.mark.parametrize("setting", [("maxmemory", "1"), ("replicaof", "127.0.0.1 1")])
def test_limits_that_cannot_be_written_stop_everything_before_a_call(
    limited: Shop, redis: RedisServer, pictures: Pictures, setting: tuple[str, str]
) -> None:
    name, value = setting
    with closing(redis.client(password=SECRET)) as admin:
        if name == "maxmemory":
            admin.config_set(name, value)
        else:
            admin.execute_command("REPLICAOF", *value.split())
    result = limited.describe(pictures(2))
    assert isinstance(result.error, StoreError)
    assert "memory is full" in str(result.error) or "read-only replica" in str(result.error)
    assert result.counts["pending"] == 2 and limited.emulator.ledger()["requests"] == 0

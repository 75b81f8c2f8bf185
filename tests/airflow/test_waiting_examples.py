"""The example DAGs that wait, run as they are."""

from __future__ import annotations

import asyncio
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.triggers import describe as describe_trigger
from airflow_provider_describer.triggers.images import NewImagesTrigger

Run = Callable[..., Any]
EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"


@pytest.fixture
def catalog(pictures: list[str], tmp_path: Path) -> Path:
    """The six pictures, changed long enough ago."""
    folder = tmp_path / "catalog"
    folder.mkdir()
    for path in pictures:
        shutil.copy(path, folder)
        os.utime(folder / Path(path).name, (0, 0))
    return folder


def test_a_rate_is_waited_for_outside_the_worker(
    accounts: EmulatorProcess,
    connect: Callable[..., None],
    run_dag: Run,
    monkeypatch: pytest.MonkeyPatch,
    catalog: Path,
    tmp_path: Path,
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(describe_trigger, "asyncio", SimpleNamespace(sleep=sleep, gather=asyncio.gather))
    account = {"api_version": "v2", "requests_per_minute": 4}
    connect("segmind_default", conn_type="segmind", password=accounts.keys["segmind"], host=accounts.url, extra=account)
    accounts.faults({"segmind": {"v2_delay_s": 0.2}})
    conf = {"images": f"{catalog}/**", "store": str(tmp_path / "store")}
    ran = run_dag("rate_limited_catalog", {}, file="rate_limited_catalog.py", **conf)
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert ran.xcom("report")["described"] == ran.xcom("describe")["calls"] == 6
    ledger = accounts.ledger(entries=False)
    assert ledger["billed"] == ledger["requests"] == 6
    assert max(waited) > 30, "a minute's worth of calls, and then the next minute is waited for"

    again = run_dag("rate_limited_catalog", {}, file="rate_limited_catalog.py", **conf)
    assert set(again.states.values()) == {"skipped"}
    assert accounts.ledger(entries=False)["billed"] == 6


def test_a_run_without_credits_waits_for_them(
    accounts: EmulatorProcess,
    run_dag: Run,
    monkeypatch: pytest.MonkeyPatch,
    catalog: Path,
    tmp_path: Path,
) -> None:
    from airflow_provider_describer.triggers import credits as credits_trigger

    async def top_up(seconds: float) -> None:
        accounts.faults({"segmind": {"credits": 10.0}})

    monkeypatch.setattr(credits_trigger, "asyncio", SimpleNamespace(sleep=top_up))
    accounts.faults({"segmind": {"credits": 0.0}})
    conf = {"images": f"{catalog}/**", "store": str(tmp_path / "store")}
    ran = run_dag("rate_limited_catalog", {}, file="rate_limited_catalog.py", **conf)
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert accounts.ledger(entries=False)["billed"] == 6


def test_slices(accounts: EmulatorProcess, run_dag: Run, catalog: Path, tmp_path: Path) -> None:
    conf = {"images": f"{catalog}/**", "store": str(tmp_path / "store")}
    ran = run_dag("describe_in_slices", {}, file="describe_in_slices.py", **conf)
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert ran.xcom("publish") == accounts.ledger(entries=False)["billed"] == 6


@pytest.mark.parametrize(
    ("conf", "task", "words"),
    [
        ({"images": "/nowhere/at/all/**"}, "new_images", "'/nowhere/at/all/'"),
        ({"store": "/{{ ds }}"}, "new_images", "store is"),
    ],
)
def test_slices_say_what_is_wrong(
    accounts: EmulatorProcess, run_dag: Run, catalog: Path, tmp_path: Path, conf: dict[str, str], task: str, words: str
) -> None:
    good = {"images": f"{catalog}/**", "store": str(tmp_path / "store")}
    ran = run_dag("describe_in_slices", {}, file="describe_in_slices.py", **{**good, **conf})
    assert (ran.states[task], ran.states["publish"]) == ("failed", "upstream_failed")
    assert words in str(ran.errors[task])


def test_a_run_that_nothing_has_triggered_is_skipped(accounts: EmulatorProcess, run_dag: Run) -> None:
    ran = run_dag("images_arrived", {}, file="images_arrived.py")
    assert ran.states == {"arrived": "skipped", "describe": "skipped"}
    assert run_dag("descriptions_arrived", {}, file="images_arrived.py").xcom("load") == 0


def test_the_watched_asset_has_a_trigger_that_airflow_can_make_again() -> None:
    found = runpy.run_path(str(EXAMPLES / "images_arrived.py"))
    (watcher,) = found["INBOX"].watchers
    # Airflow keeps either the trigger or what it is made from.
    kept = watcher.trigger
    arguments = kept["kwargs"] if isinstance(kept, dict) else kept.serialize()[1]
    again = NewImagesTrigger(**arguments)
    assert (again.path, again.settle_seconds) == ("s3://catalog/inbox/**", 30)
    assert found["DESCRIPTIONS"].uri == "s3://catalog/descriptions"

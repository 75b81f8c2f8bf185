"""Tasks that wait outside the worker: when they do, and for how long."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.triggers.describe import VendorTrigger

Connect = Callable[..., None]
Run = Callable[..., Any]
KEY = "sk-Very.Secret_0123456789"
SO_FAR = CarriedTotals(calls=7, cost_usd=0.015, unknown_calls=1, unknown_cost_usd=0.015, elapsed_s=21.5).to_dict()
STARTED = 1_800_000_000.0


# --- the task ---


@pytest.fixture
def listing(pictures: list[str], tmp_path: Path) -> str:
    """A file that lists three pictures."""
    file = tmp_path / "images.jsonl"
    file.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in pictures[:3]), encoding="utf-8")
    return str(file)


@pytest.fixture
def deferrals(monkeypatch: pytest.MonkeyPatch) -> list[VendorTrigger]:
    """The triggers that have been run."""
    ran: list[VendorTrigger] = []
    run = VendorTrigger.run

    def remembered(self: VendorTrigger) -> Any:
        ran.append(self)
        return run(self)

    monkeypatch.setattr(VendorTrigger, "run", remembered)
    return ran


@pytest.mark.slow
def test_a_task_defers_until_its_account_may_call_again(
    emulator: EmulatorProcess,
    connect: Connect,
    run: Run,
    listing: str,
    tmp_path: Path,
    deferrals: list[VendorTrigger],
) -> None:
    # Two calls at once, and the third a minute later: 2.9 in a minute are 2.
    fields = {"conn_type": "image_describer", "password": emulator.keys["image_describer"], "host": emulator.url}
    connect("shop", **fields, extra=json.dumps({"requests_per_minute": 2.9}))
    manifest = run("waiting", file="waiting.py", listing=listing, store=str(tmp_path / "store")).xcom("describe")
    ledger = emulator.ledger()
    assert (manifest["counts"]["described"], manifest["counts"]["reused"], manifest["calls"]) == (3, 0, 3)
    assert (ledger["requests"], ledger["billed"], len(ledger["by_image"])) == (3, 3, 3)
    assert len(deferrals) == 1
    assert deferrals[0].requests == []
    assert deferrals[0].until is not None
    assert ledger["entries"][1]["at"] < deferrals[0].until <= ledger["entries"][2]["at"]


@pytest.mark.slow
def test_one_stuck_request_keeps_no_result_of_others(
    emulator: EmulatorProcess,
    connect: Connect,
    run: Run,
    listing: str,
    pictures: list[str],
    tmp_path: Path,
    deferrals: list[VendorTrigger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fetches the two others when they have ended, defers again for the one, and ends when that is forgotten."""
    monkeypatch.setattr("airflow_provider_describer.engine.deferral.QUIET_S", 1.0)
    stuck = hashlib.sha256(Path(pictures[1]).read_bytes()).hexdigest()
    fields = {"conn_type": "segmind", "password": emulator.keys["segmind"], "host": emulator.url}
    connect("shop", **fields, extra=json.dumps({"api_version": "v2"}))
    rules = [{"kind": "stuck", "images": [stuck]}]
    emulator.faults({"segmind": {"v2_delay_s": 25, "v2_expire_s": 100, "errors": rules}})
    ran = run("waiting", file="waiting.py", listing=listing, store=str(tmp_path / "store"))
    ledger = emulator.ledger()
    assert (ledger["requests"], ledger["billed"]) == (3, 2)
    assert [len(one.requests) for one in deferrals] == [3, 1]
    manifest = ran.xcom("describe", key="manifest")
    counts = manifest["counts"]
    assert (counts["described"], counts["unknown"], counts["pending"]) == (2, 1, 0)
    assert (manifest["calls"], manifest["unknown_calls"]) == (3, 1)


def test_a_wait_that_would_be_too_short_to_defer_is_refused(
    emulator: EmulatorProcess, connect: Connect, run: Run, listing: str, tmp_path: Path
) -> None:
    connect("shop", conn_type="image_describer", password=KEY, host=emulator.url)
    ran = run("hasty", file="waiting.py", listing=listing, store=str(tmp_path))
    assert ran.failed_for_good("describe").startswith("BadInput: defer_after is 14.9, expected at least 15 s")
    assert emulator.ledger()["requests"] == 0


@pytest.mark.parametrize(
    ("given", "max_wait"),
    [
        ({"deferrable": True, "store": "/s"}, 30.0),
        ({"deferrable": True, "store": "/s", "defer_after": 15}, 15),
        ({"deferrable": False, "store": "/s"}, None),
        # It could not be gone on with.
        ({"deferrable": True}, None),
        ({"deferrable": True, "store": "/s", "dry_run": True}, None),
    ],
)
def test_a_task_waits_in_the_worker_where_it_cannot_go_on_later(given: dict[str, Any], max_wait: float | None) -> None:
    assert DescribeImagesOperator(task_id="describe", images=["/a.jpg"], **given)._max_wait() == max_wait


@pytest.mark.parametrize("default", ["True", "False"])
def test_the_default_is_the_installations(default: str) -> None:
    code = (
        "from airflow_provider_describer.operators.describe import DescribeImagesOperator as O\n"
        "print('deferrable:', O(task_id='d', images=['/a.jpg']).deferrable)"
    )
    settings = {**os.environ, "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": default}
    said = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True, timeout=120
    )
    assert said.stdout.splitlines()[-1] == f"deferrable: {default}"


@pytest.mark.parametrize(("elapsed", "left"), [(0.0, 600.0), (400.0, 200.0), (700.0, 0.0)])
def test_a_deferral_ends_with_the_tasks_time(monkeypatch: pytest.MonkeyPatch, elapsed: float, left: float) -> None:
    monkeypatch.setattr(
        "airflow_provider_describer.operators.describe.time", SimpleNamespace(time=lambda: STARTED + elapsed)
    )

    def timeout(**given: Any) -> timedelta | None:
        operator = DescribeImagesOperator(task_id="describe", images=["/a.jpg"], **given)
        with pytest.raises(TaskDeferred) as deferred:
            operator._defer(ResumeCondition(STARTED + 1000), CarriedTotals(), STARTED)
        assert deferred.value.method_name == "execute_complete"
        left: timedelta | None = deferred.value.timeout
        return left

    assert timeout(execution_timeout=timedelta(minutes=10)) == timedelta(seconds=left)
    assert timeout() is None

"""What Airflow does to tasks (retries, timeouts, new runs, mapping) never pays for an image twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_describer.emulator.process import EmulatorProcess

Run = Callable[..., Any]


def ledger(emulator: EmulatorProcess) -> dict[str, Any]:
    return emulator.ledger(entries=False)


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_the_next_dag_run_pays_for_what_is_new_alone(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    run("stored", images=pictures[:4], store=str(tmp_path))
    manifest = run("stored", images=pictures, store=str(tmp_path)).xcom("describe")
    assert (manifest["counts"]["reused"], manifest["counts"]["described"], manifest["calls"]) == (4, 2, 2)
    assert ledger(accounts)["billed"] == 6
    found = rows(manifest["results"])
    assert sorted(row["uri"] for row in found) == sorted(pictures)
    assert all(row["text"] for row in found)
    assert sum(row["cost_usd"] or 0 for row in found if row["status"] == "reused") == 0


def test_mapped_tasks_share_a_store(accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path) -> None:
    run("in_chunks", images=pictures, store=str(tmp_path))
    ran = run("in_chunks", images=pictures, store=str(tmp_path))
    # The task that takes them all together has no store, and pays in both runs; the mapped ones pay once.
    assert ledger(accounts)["billed"] == 3 * len(pictures)
    names = {Path(ran.xcom(f"apart[{number}]")["results"]).name for number in range(len(pictures))}
    assert names == {f"apart-{number}.jsonl" for number in range(len(pictures))}


def test_a_task_that_runs_out_of_time_keeps_its_outcomes(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    accounts.faults({"all": {"latency_s": 1.2}})
    ran = run("in_time", images=pictures, store=str(tmp_path))
    assert ran.states["describe"] == "failed"
    assert "Timeout" in type(ran.errors["describe"]).__name__
    before = ledger(accounts)
    assert 0 < before["billed"] == before["requests"] < len(pictures)
    accounts.faults({})
    manifest = run("stored", images=pictures, store=str(tmp_path)).xcom("describe")
    assert manifest["counts"]["reused"] == before["billed"], "answers under way at the timeout were awaited and kept"
    assert ledger(accounts)["billed"] == len(pictures)


def test_one_image_whose_answer_was_lost_is_left_to_a_human(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    accounts.faults({"all": {"errors": [{"kind": "drop_after_bill", "first": 1}]}})
    ran = run("one_stored", images=pictures[:1], store=str(tmp_path))
    assert ran.failed_for_good("describe[0]").startswith("UnknownOutcome")
    again = run("one_stored", images=pictures[:1], store=str(tmp_path))
    assert again.failed_for_good("describe[0]").startswith("UnknownOutcome")
    assert (ledger(accounts)["requests"], ledger(accounts)["billed"]) == (1, 1)


def test_one_image_is_described_once(accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path) -> None:
    first = run("one_stored", images=pictures[:2], store=str(tmp_path)).xcom("describe[1]")
    again = run("one_stored", images=pictures[:2], store=str(tmp_path)).xcom("describe[1]")
    assert (first["status"], again["status"]) == ("described", "reused")
    assert first["text"] == again["text"]
    assert ledger(accounts)["billed"] == 2


def test_a_torn_shard_stops_the_task_for_good_and_unpaid(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    run("stored", images=pictures[:1], store=str(tmp_path))
    (shard,) = (tmp_path / "journal").glob("*.jsonl")
    shard.write_bytes(shard.read_bytes()[:-1])
    said = run("stored", images=pictures, store=str(tmp_path)).failed_for_good("describe")
    assert said.startswith("CorruptShard")
    assert shard.name in said
    assert ledger(accounts)["requests"] == 1


def test_a_dry_run_calls_nothing(accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path) -> None:
    run("stored", images=pictures[:2], store=str(tmp_path))
    manifest = run("planned", images=pictures, store=str(tmp_path)).xcom("describe")
    assert (manifest["counts"]["reused"], manifest["counts"]["pending"], manifest["calls"]) == (2, 4, 0)
    assert (manifest["results"], ledger(accounts)["requests"]) == (None, 2)

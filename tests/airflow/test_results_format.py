"""Results as Parquet, as DAGs ask for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess

parquet = pytest.importorskip("pyarrow.parquet")
RunDag = Callable[..., Any]


def test_operator_and_sensor_write_tables(
    accounts: EmulatorProcess, run_dag: RunDag, pictures: list[str], tmp_path: Path
) -> None:
    names = [Path(path).name for path in pictures]
    for path in pictures:
        (tmp_path / Path(path).name).write_bytes(Path(path).read_bytes())
    (tmp_path / "images.csv").write_text("\n".join(["uri", *names, "nowhere.jpg"]), encoding="utf-8")
    ran = run_dag("tables", {}, file="tables.py", folder=str(tmp_path))
    for task, status in (("described", "described"), ("sensed", "reused")):
        manifest = ran.xcom(task)
        assert manifest["results"].endswith(f"{task}.parquet") and manifest["counts"][status] == len(names)
        table = parquet.read_table(manifest["results"])
        assert sorted(table["status"].to_pylist()) == sorted([status] * len(names) + ["rejected"])
        assert {Path(uri).name for uri in table["uri"].to_pylist()} == {*names, "nowhere.jpg"}
        (failed,) = parquet.read_table(manifest["failures"]).to_pylist()
        assert failed["error"]["kind"] == "missing" and failed["task_id"] == task
    assert accounts.ledger(entries=False)["billed"] == len(names)


def test_another_format_fails_the_task_and_names_it(accounts: EmulatorProcess, run_dag: RunDag) -> None:
    ran = run_dag("sheets", {}, file="tables.py")
    assert ran.states == {"describe": "failed"}
    assert "results_format is 'xlsx', expected one of jsonl, parquet" in str(ran.errors["describe"])
    assert accounts.ledger(entries=False)["requests"] == 0

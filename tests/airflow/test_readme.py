"""README's DAG does what README says, as it stands, with the default connections of both vendors; so does the hook."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_the_dag_runs_with_the_default_connection(
    accounts: EmulatorProcess, run_dag: Callable[..., Any], pictures: list[str], tmp_path: Path, vendor: str
) -> None:
    """It failed at Image Describer: `max_cost` needs a price, which that vendor's connection has not got by itself."""
    conf = {"images": str(Path(pictures[0]).parent / "*.png"), "store": str(tmp_path), "conn_id": f"{vendor}_default"}
    ran = run_dag("describe_catalog", {}, file="readme.py", **conf)
    assert ran.states == {"list_new": "success", "describe": "success"}
    assert accounts.ledger(entries=False)["billed"] == 6
    (rows,) = (tmp_path / "results").rglob("describe.jsonl")
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert {row["uri"] for row in lines} == set(pictures) and {row["status"] for row in lines} == {"described"}
    again = run_dag("describe_catalog", {}, file="readme.py", **conf)
    assert set(again.states.values()) == {"skipped"}, "nothing is new"
    assert accounts.ledger(entries=False)["billed"] == 6


def test_the_hook_works(accounts: EmulatorProcess, pictures: list[str]) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs/operators.md").read_text("utf-8"), re.DOTALL)
    (code,) = (code for code in snippets if "DescriberHook" in code)
    names: dict[str, Any] = {}
    exec(code.replace("s3://catalog/a.jpg", pictures[0]), names)
    assert names["description"].text and names["description"].cost_usd == 0.015
    assert accounts.ledger(entries=False)["billed"] == 1

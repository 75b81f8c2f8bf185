"""The Python of the documentation runs: recipes and the start as these pages say, at the emulator; all other can."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.operators.retries import HAS_RETRY_POLICIES

ROOT = Path(__file__).resolve().parents[2]
NOT_HERE = "duckdb"
"""Not installed here; what needs it was run by hand."""
ELSEWHERE = {
    "emulator.md": "test_recipes.py",
    "operators.md": "test_readme.py",
    "recipes.md": "test_recipes.py",
    "start.md": "test_recipes.py",
    "store.md": "test_store_docs.py",
}
"""Pages whose Python is run with what it needs, and where. That of every other page is run by `test_other_pages`."""
OTHERS = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name not in ELSEWHERE)


def blocks(page: str, heading: str = "") -> list[str]:
    """The Python of a page's section, or of the whole page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = text.partition(f"\n## {heading}")[2].partition("\n## ")[0] if heading else text
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)


@pytest.fixture
def data(tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for /data: six images in its catalog, and nothing else."""
    (tmp_path / "catalog").mkdir()
    for picture in map(Path, pictures):
        (tmp_path / "catalog" / picture.name).write_bytes(picture.read_bytes())
    monkeypatch.setenv("DOCUMENTED", str(tmp_path))
    return tmp_path


@pytest.fixture
def run_documented(data: Path, accounts: EmulatorProcess, run_dag: Callable[..., Any]) -> Callable[..., Any]:
    return lambda name, **conf: run_dag(name, {}, file="documented.py", **conf)


def run_block(code: str, data: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code.replace("/data", str(data)), names)
    return names


def billed(accounts: EmulatorProcess) -> int:
    return int(accounts.ledger(entries=False)["billed"])


def test_nightly(run_documented: Callable[..., Any], accounts: EmulatorProcess, data: Path) -> None:
    first = run_documented("nightly_catalog")
    assert set(first.states.values()) == {"success"} and billed(accounts) == 6
    assert set(run_documented("nightly_catalog").states.values()) == {"skipped"}
    # What reads the store runs on it.
    (reading,) = blocks("recipes.md", "How do I describe everything again")
    current = run_block(reading, data)["store"].current()
    assert current.num_rows == 6 and billed(accounts) == 6


def test_the_list_from_a_table(run_documented: Callable[..., Any], accounts: EmulatorProcess) -> None:
    ran = run_documented("described_products")
    rows = [json.loads(line) for line in Path(ran.xcom("describe")["results"]).read_text("utf-8").splitlines()]
    assert {row["id"] for row in rows} == {"4711", "4712"} and billed(accounts) == 2
    assert {row["prompt"] for row in rows} == {
        f"Describe a {one} for a web shop in two sentences." for one in ("tile", "curtain")
    }


def test_a_dry_run_and_then_a_run(run_documented: Callable[..., Any], accounts: EmulatorProcess) -> None:
    planned = run_documented("planned_first", dry_run=True)
    assert planned.xcom("describe")["counts"]["pending"] == 6 and billed(accounts) == 0
    assert run_documented("planned_first", dry_run=False).xcom("describe")["counts"]["described"] == 6
    assert billed(accounts) == 6


def test_chunks(run_documented: Callable[..., Any], accounts: EmulatorProcess) -> None:
    ran = run_documented("chunked_catalog")
    assert [ran.states[f"describe[{index}]"] for index in (0, 1)] == ["success", "success"]
    assert ran.xcom("total") == {"described": 6, "reused": 0, "rejected": 0} and billed(accounts) == 6


def test_loading(run_documented: Callable[..., Any], accounts: EmulatorProcess, data: Path) -> None:
    ran = run_documented("loaded")
    with (data / "catalog.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ran.xcom("load") == len(rows) == billed(accounts) == 6
    assert all(row["text"] and row["lang"] == "en" for row in rows)


def test_the_start_pays_for_each_image_once(run_documented: Callable[..., Any], accounts: EmulatorProcess) -> None:
    for described, reused in ((6, 0), (0, 6)):
        ran = run_documented("start")
        assert set(ran.states.values()) == {"success"}
        counts = ran.xcom("describe")["counts"]
        assert (counts["described"], counts["reused"]) == (described, reused)
    assert billed(accounts) == 6


def test_the_failures_are_counted_by_kind(data: Path) -> None:
    (code,) = blocks("recipes.md", "How do I look at what failed")
    task = run_block(code, data)["failures"]
    (data / "none.jsonl").touch()
    assert task.function({"failures": str(data / "none.jsonl")}) == {}
    rows = [{"uri": "a", "error": {"kind": kind, "message": "…"}} for kind in ("missing", "corrupt", "missing")]
    (data / "failures.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert task.function({"failures": str(data / "failures.jsonl")}) == {"missing": 2, "corrupt": 1}


def test_the_test_of_a_dag_is_one(
    data: Path, airflow_in_process: None, emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("nightly_catalog", ROOT / "tests/airflow/dags/documented.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "nightly_catalog", module)
    (code,) = blocks("recipes.md", "How do I test a DAG")
    run_block(code, data)["test_each_image_is_paid_for_once"](monkeypatch)


def others() -> list[str]:
    """The recipes that are no whole DAG and no test: each makes an operator that can be made."""
    return [code for code in blocks("recipes.md") if "Operator(" in code and "@dag(" not in code]


@pytest.mark.parametrize("code", others(), ids=range(len(others())))
def test_operators_can_be_made(code: str, data: Path) -> None:
    from airflow.sdk import DAG

    with DAG("made") as dag:
        run_block(code, data)
    assert any("Describe" in task.task_type for task in dag.tasks)


def test_the_emulators_example(pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SEGMIND_DEFAULT", "")  # restored afterwards
    (code,) = blocks("emulator.md")
    exec(code.replace("/data/catalog/a.jpg", pictures[0]), {})


@pytest.mark.parametrize("page", OTHERS)
def test_other_pages(page: str, data: Path) -> None:
    """Their operators can be made, their functions defined, and what they import is there; a later one may use that."""
    from airflow.sdk import DAG

    names: dict[str, Any] = {}
    for code in blocks(page):
        if HAS_RETRY_POLICIES or "retry_policy" not in code:
            with DAG("made"):
                exec(code.replace("/data", str(data)), names)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_page_that_is_run_elsewhere_is_run_there(page: str) -> None:
    (test,) = (ROOT / "tests").rglob(ELSEWHERE[page])
    assert page in test.read_text(encoding="utf-8")


def test_what_needs_other_libraries_says_so() -> None:
    for code in blocks("recipes.md"):
        if NOT_HERE in code:
            assert f"# pip install {NOT_HERE}" in code

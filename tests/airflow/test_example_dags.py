"""The example DAGs: short, importable without a word, and working."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_describer.emulator.process import EmulatorProcess

AIRFLOW = tuple(map(int, __version__.split(".")[:2]))
FOLDER = Path(__file__).resolve().parents[2] / "example_dags"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Path:
    return FOLDER / str(request.param)


def bag_of() -> Any:
    home = "airflow.models.dagbag" if AIRFLOW < (3, 2) else "airflow.dag_processing.dagbag"
    return importlib.import_module(home).BundleDagBag


def test_there_are_examples() -> None:
    assert "catalog_enrichment.py" in EXAMPLES


def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 75


def test_an_example_has_no_import_error_and_warns_of_nothing(example: Path, airflow_db: None) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        bag = bag_of()(dag_folder=example, bundle_path=FOLDER)
    assert bag.import_errors == {}
    assert bag.dags and all(dag.doc_md and dag.tags for dag in bag.dags.values())
    ours = [
        str(warning.message) for warning in heard if "describer" in warning.filename or example.name in warning.filename
    ]
    assert ours == [] and not getattr(bag, "captured_warnings", {})


def test_an_example_has_one_run_at_a_time_and_says_why(example: Path, airflow_db: None) -> None:
    """Triggering `catalog_enrichment` in the UI also unpaused it: two runs each planned 14 new, and 28 were billed."""
    source = example.read_text(encoding="utf-8")
    bag = bag_of()(dag_folder=example, bundle_path=FOLDER)
    assert {dag.dag_id: dag.max_active_runs for dag in bag.dags.values()} == dict.fromkeys(bag.dags, 1)
    reasons = re.findall(r"max_active_runs=1,  # \w+|# Two runs .+\n    max_active_runs=1,", source)
    assert len(reasons) == len(bag.dags) > 0


def test_what_a_user_chooses_has_a_title_and_is_checked(example: Path, airflow_db: None) -> None:
    for dag in bag_of()(dag_folder=example, bundle_path=FOLDER).dags.values():
        params = {name: dag.params.get_param(name) for name in dag.params}
        assert all(param.schema.get("title") for param in params.values())
        assert all(param.schema.keys() & {"type", "enum"} for param in params.values())
        assert dag.params.validate() == {name: param.value for name, param in params.items()}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("catalog_enrichment", {"images": "catalog/*.jpg"}),
    ("catalog_enrichment", {"store": " "}),
    ("catalog_enrichment", {"describer_conn_id": ""}),
    ("catalog_enrichment", {"prompt": 7}),
    ("catalog_enrichment", {"lang": "englsh"}),
    ("catalog_enrichment", {"max_calls": -1}),
    ("catalog_enrichment", {"dry_run": "maybe"}),
    ("describe_in_slices", {"images": "archive/**"}),
    ("describe_in_slices", {"slice_size": 0}),
    ("gcs_catalog", {"bucket": "gs://catalog"}),
    ("gcs_catalog", {"chunk_size": 1.5}),
    ("s3_catalog", {"images": "/data/products"}),
    ("s3_catalog", {"store": "s3://"}),
    ("rate_limited_catalog", {"max_cost": "$5"}),
]


@pytest.mark.parametrize(("name", "chosen"), WRONG, ids=str)
def test_a_choice_that_cannot_work_starts_no_run(airflow_db: None, name: str, chosen: dict[str, Any]) -> None:
    params = bag_of()(dag_folder=FOLDER / f"{name}.py", bundle_path=FOLDER).dags[name].params
    with pytest.raises((ValueError, AirflowException), match=f"Invalid input for param {next(iter(chosen))}"):
        check(params, chosen)


def check(params: Any, chosen: dict[str, Any]) -> None:
    """Check a user's choices as Airflow does when a run is triggered."""
    params.update(chosen)
    params.validate()


def test_a_dry_run_of_catalog_enrichment_pays_nothing(
    accounts: EmulatorProcess, run_dag: Callable[..., Any], pictures: list[str], tmp_path: Path
) -> None:
    chosen = {"prompt": "What is on it?", "lang": "de", "max_calls": 2, "dry_run": True}
    about = {"images": str(Path(pictures[0]).with_name("*.png")), "store": str(tmp_path), **chosen}
    ran = run_dag("catalog_enrichment", {}, file="catalog_enrichment.py", **about)
    assert (ran.xcom("describe")["counts"]["pending"], ran.xcom("publish")) == (6, 0), ran.errors
    assert accounts.ledger(entries=False)["requests"] == 0


@pytest.mark.slow
def test_catalog_enrichment_from_airflows_command_line(
    airflow_db: None, accounts: EmulatorProcess, airflow_command: str, pictures: list[str], tmp_path: Path
) -> None:
    """As a user tries it, with everything it says in one place."""
    conf = {"images": str(Path(pictures[0]).with_name("*.png")), "store": str(tmp_path)}
    done = subprocess.run(
        [airflow_command, "dags", "test", "catalog_enrichment", "--conf", json.dumps(conf)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert accounts.ledger(entries=False)["billed"] == 6
    assert "6/6 images" in said and "6 described" in said
    (results,) = (path for path in tmp_path.rglob("*.jsonl") if "failures" not in path.name and "results" in path.parts)
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert sorted(row["uri"] for row in rows) == sorted(pictures)
    assert all(f"{row['uri']} -> {row['text'].splitlines()[0]}" in said for row in rows)
    assert not [key for key in accounts.keys.values() if key in said]


@pytest.mark.parametrize(
    ("conf", "fields", "task", "words"),
    [
        ({}, {"password": "wrong"}, "describe", "'image_describer_default'"),
        ({"describer_conn_id": "nobody"}, {}, "describe", "nobody"),
    ],
)
def test_catalog_enrichment_says_what_is_wrong(
    accounts: EmulatorProcess,
    run_dag: Callable[..., Any],
    pictures: list[str],
    tmp_path: Path,
    conf: dict[str, str],
    fields: dict[str, str],
    task: str,
    words: str,
) -> None:
    good = {"conn_type": "image_describer", "password": accounts.keys["image_describer"], "host": accounts.url}
    ran = run_dag(
        "catalog_enrichment",
        {"image_describer_default": {**good, **fields}},
        file="catalog_enrichment.py",
        **{"images": str(Path(pictures[0]).with_name("*.png")), "store": str(tmp_path), **conf},
    )
    assert (ran.states[task], ran.states["publish"]) == ("failed", "upstream_failed")
    assert words in str(ran.errors[task])
    assert accounts.ledger(entries=False)["billed"] == 0


def test_catalog_enrichment_of_an_empty_folder_has_nothing_to_do(
    accounts: EmulatorProcess, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    good = {"conn_type": "image_describer", "password": accounts.keys["image_describer"], "host": accounts.url}
    about = {"images": f"{tmp_path}/*.jpg", "store": str(tmp_path / "store")}
    ran = run_dag("catalog_enrichment", {"image_describer_default": good}, file="catalog_enrichment.py", **about)
    assert set(ran.states.values()) == {"success"}
    assert set(ran.xcom("describe")["counts"].values()) == {0} and ran.xcom("publish") == 0
    assert accounts.ledger(entries=False)["requests"] == 0

"""What OpenLineage's own provider writes of our tasks, by its file transport, in a DAG run of a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.lineage import FACET, FACET_SCHEMA
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.store.rows import row_fields

pytest.importorskip("airflow.providers.openlineage")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "observability.md"


class Written:
    """What one DAG run has written: the last event of each task, and the log."""

    def __init__(self, events: list[dict[str, Any]], log: str, home: Path) -> None:
        self.events = {event["job"]["name"].rpartition(".")[2]: event for event in events}
        self.log, self.home = log, home

    def names(self, task: str, side: str) -> list[tuple[str, str]]:
        found = self.events[task][side]
        return [(one["namespace"], one["name"].replace(str(self.home), "HOME")) for one in found]

    def facet(self, task: str) -> dict[str, Any]:
        facet: dict[str, Any] = self.events[task]["run"]["facets"][FACET]
        return facet


@pytest.fixture(scope="module")
def written(
    migrated_database: Path,
    airflow_command: str,
    emulator_process: EmulatorProcess,
    pictures: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    emulator_process.reset()
    home = tmp_path_factory.mktemp("lineage")
    shutil.copy(migrated_database, home / "airflow.db")
    shutil.copytree(Path(pictures[0]).parent, home / "pictures")
    (home / "bad.png").write_text("no picture")
    connection = {
        "conn_type": "image_describer",
        "password": emulator_process.keys["image_describer"],
        "host": emulator_process.url,
        "extra": {"price_per_call": 0.015},
    }
    conf = {
        "path": f"{home}/pictures/*.png",
        "image": f"{home}/pictures/red.png",
        "bad": f"{home}/bad.png",
        "store": f"{home}/store",
    }
    transport = {"type": "file", "log_file_path": str(home / "events.jsonl"), "append": True}
    environment = {
        **os.environ,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW_CONN_IMAGE_DESCRIBER_DEFAULT": json.dumps(connection),
    }
    command = [airflow_command, "dags", "test", "lineage", "--conf", json.dumps(conf)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    log = done.stdout + done.stderr
    assert (home / "events.jsonl").exists(), log
    lines = (home / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return Written([json.loads(line) for line in lines], log, home)


def test_a_listing_reads_the_folder_and_the_store(written: Written) -> None:
    assert written.names("list", "inputs") == [("file", "HOME/pictures"), ("file", "HOME/store/descriptions.lance")]
    assert written.names("list", "outputs") == []


def test_describing_reads_the_images_folder_and_writes_the_store(written: Written) -> None:
    event = written.events["describe"]
    assert event["eventType"] == "COMPLETE"
    assert written.names("describe", "inputs") == [("file", "HOME/pictures")]
    assert written.names("describe", "outputs") == [("file", "HOME/store/descriptions.lance")]
    (store,) = event["outputs"]
    assert store["outputFacets"]["outputStatistics"]["rowCount"] == 6
    columns = {column["name"]: column["type"] for column in store["facets"]["schema"]["fields"]}
    assert set(row_fields()) <= columns.keys()
    assert (columns["text"], columns["cost_usd"], columns["described_at"]) == (
        "string",
        "double",
        "timestamp[ms, tz=UTC]",
    )


def test_our_facet_has_the_counts_and_the_cost(written: Written) -> None:
    facet = written.facet("describe")
    assert facet["counts"] == {
        "requested": 6,
        "described": 6,
        "reused": 0,
        "rejected": 0,
        "unknown": 0,
        "pending": 0,
    }
    assert (facet["vendor"], facet["calls"], facet["cost_usd"]) == ("image_describer", 6, pytest.approx(0.09))
    assert facet["_schemaURL"] == FACET_SCHEMA


def test_our_facet_is_as_documented(written: Written) -> None:
    (schema,) = re.findall(r"```json\n(\{\n  \"\$schema\".*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    documented = json.loads(schema)
    assert documented["$comment"] == FACET_SCHEMA
    for task in ("describe", "one", "sliced", "failing"):
        jsonschema.validate(written.facet(task), documented)


def test_one_image_without_a_store_is_read_and_nothing_written(written: Written) -> None:
    assert written.names("one", "inputs") == [("file", "HOME/pictures")]
    assert written.names("one", "outputs") == []
    assert written.facet("one")["counts"]["described"] == 1


def test_a_sensor_has_the_lineage_of_all_its_slices(written: Written) -> None:
    assert written.names("sliced", "outputs") == [("file", "HOME/store/descriptions.lance")]
    assert written.facet("sliced")["counts"]["reused"] == 1


def test_a_task_that_fails_says_what_it_had_done(written: Written) -> None:
    assert written.events["failing"]["eventType"] == "FAIL"
    assert written.names("failing", "inputs") == [("file", "HOME")]
    counts = written.facet("failing")["counts"]
    assert (counts["requested"], counts["rejected"]) == (2, 1)
    (store,) = written.events["failing"]["outputs"]
    assert store["outputFacets"]["outputStatistics"]["rowCount"] == counts["described"]


def test_a_task_that_fails_before_its_run_has_no_lineage(written: Written) -> None:
    event = written.events["misspelt"]
    assert (event["eventType"], event["inputs"], event["outputs"]) == ("FAIL", [], [])
    assert FACET not in event["run"]["facets"]


def test_its_provider_has_nothing_to_complain_about(written: Written) -> None:
    complaints = [line for line in written.log.splitlines() if re.search(r"openlineage", line, re.IGNORECASE)]
    assert not [line for line in complaints if re.search(r"warn|error|None|Traceback", line)]


def test_a_listing_whose_arguments_cannot_work_has_no_lineage() -> None:
    broken = ListImagesOperator(task_id="list", path="/data", min_size="{{ x }}")
    found = broken.get_openlineage_facets_on_complete(None)
    assert (found.inputs, found.outputs, found.run_facets) == ([], [], {})


def test_nothing_of_it_is_imported_before_it_is_asked() -> None:
    code = (
        "import sys\n"
        f"import {DescribeImagesOperator.__module__}\n"
        "print([name for name in sys.modules if name.startswith('openlineage') or 'openlineage.extractors' in name])"
    )
    settings = {name: value for name, value in os.environ.items() if "OPENLINEAGE" not in name}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

"""People review descriptions: with Airflow's own form, whose answers come through its REST API."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import __version__
from airflow.sdk import DAG

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.operators.review import ReviewDescriptionsOperator
from airflow_provider_describer.store import open_store

AIRFLOW = tuple(map(int, __version__.split(".")[:2]))
PATIENCE_S = 240
answered = pytest.mark.skipif(AIRFLOW < (3, 3), reason="dag.test() waits for an answer from Airflow 3.3 on")
RunDag = Callable[..., Any]
Fields = dict[str, Any]


class Reviewer:
    """Answers the forms of one DAG in a thread, as soon as they wait: `answers` makes the fields of each."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.forms: list[dict[str, Any]] = []
        self.errors: list[str] = []

    def answer(self, dag_id: str, answers: Callable[[Fields], Fields], run: Callable[[], Any]) -> Any:
        """Run, and answer one form meanwhile."""
        over = threading.Event()
        thread = threading.Thread(target=self._answer, args=(dag_id, answers, over))
        thread.start()
        try:
            return run()
        finally:
            over.set()
            thread.join()

    def _answer(self, dag_id: str, answers: Callable[[Fields], Fields], over: threading.Event) -> None:
        try:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end and not over.is_set():
                found = self._client.get(f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false")
                details = found.json().get("hitl_details", ())
                waiting = [one for one in details if one["task_instance"]["state"] in ("deferred", "awaiting_input")]
                if waiting:
                    self._respond(waiting[0], answers)
                    return
                over.wait(0.3)
        except Exception as error:  # noqa: BLE001  # shown by the test
            self.errors.append(repr(error))

    def _respond(self, detail: dict[str, Any], answers: Callable[[Fields], Fields]) -> None:
        self.forms.append(detail)
        one = detail["task_instance"]
        path = f"/api/v2/dags/{one['dag_id']}/dagRuns/{one['dag_run_id']}/taskInstances/{one['task_id']}/-1/hitlDetails"
        fields = {name: about["value"] for name, about in detail["params"].items()}
        sent = self._client.patch(
            path, json={"chosen_options": ["Submit"], "params_input": {**fields, **answers(fields)}}
        )
        if sent.status_code != 200:
            self.errors.append(sent.text)


@pytest.fixture(scope="module")
def client(airflow_in_process: None) -> Iterator[Any]:
    """The REST API, asked by an administrator."""
    from fastapi.testclient import TestClient

    create_app = importlib.import_module("airflow.api_fastapi.app").create_app
    with TestClient(create_app(apps="core"), base_url="http://testserver") as found:
        token = found.get("/auth/token")
        if token.status_code in (200, 201):
            found.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        yield found


@pytest.fixture
def reviewer(client: Any) -> Reviewer:
    return Reviewer(client)


def call_of(store: Path, uri: str) -> str:
    """The id of the call whose description of an image is current."""
    (row,) = [row for row in open_store(str(store)).current().to_pylist() if row["uri"] == uri]
    return str(row["call"])


@answered
def test_decisions_are_kept_and_used_by_the_next_run(
    accounts: EmulatorProcess, run_dag: RunDag, pictures: list[str], tmp_path: Path, reviewer: Reviewer
) -> None:
    about = {"images": pictures[:4], "store": str(tmp_path)}
    approved, edited, rejected, left = pictures[:4]

    def answers(fields: Fields) -> Fields:
        calls = {uri: call_of(tmp_path, uri) for uri in pictures[:4]}
        return {
            f"decision_{calls[approved]}": "approve",
            f"text_{calls[edited]}": "A text of people.",
            f"decision_{calls[rejected]}": "reject",
        }

    ran = reviewer.answer("reviewed", answers, lambda: run_dag("reviewed", {}, file="reviewing.py", **about))
    assert not reviewer.errors and set(ran.states.values()) == {"success"}, (reviewer.errors, ran.errors)
    counts = {"reviewed": 3, "approved": 1, "edited": 1, "rejected": 1, "left": 1}
    assert ran.xcom("review") == {"store": str(tmp_path), **counts}
    (form,) = reviewer.forms
    assert form["subject"].startswith("Texts of 20") and "/describer/api/thumbnail?" in form["body"]

    rows = {row["uri"]: row for row in open_store(str(tmp_path)).current().to_pylist()}
    assert set(rows) == {approved, edited, left} and rows[edited]["text"] == "A text of people."
    assert rows[approved]["review"] == "approved" and rows[left]["review"] is None
    by = rows[edited]["reviewed_by"]
    assert by and "@" not in by
    key = accounts.keys["image_describer"]
    assert key not in form["body"] + json.dumps(form["params"])

    # The next night reuses what was decided, and asks about what was left no more: it is not new.
    again = run_dag("reviewed", {}, file="reviewing.py", **about)
    manifest = again.xcom("describe")
    assert manifest["counts"]["reused"] == 3 and manifest["counts"]["rejected"] == 1 and manifest["calls"] == 0
    results = [json.loads(line) for line in Path(manifest["results"]).read_text(encoding="utf-8").splitlines()]
    assert {row["uri"]: row["text"] for row in results}[edited] == "A text of people."
    (failure,) = [row for row in results if row["status"] == "rejected"]
    assert failure["uri"] == rejected and failure["error"]["kind"] == "rejected_by_reviewer"
    assert by in failure["error"]["message"]
    assert again.xcom("review") == {"store": str(tmp_path), **dict.fromkeys(counts, 0)}
    assert accounts.ledger()["billed"] == 4


@answered
def test_a_rejected_description_is_asked_for_again_only_where_that_is_wanted(
    accounts: EmulatorProcess, run_dag: RunDag, pictures: list[str], tmp_path: Path, reviewer: Reviewer
) -> None:
    about = {"images": pictures[:1], "store": str(tmp_path)}

    def reject(fields: Fields) -> Fields:
        return {name: "reject" for name in fields if name.startswith("decision_")}

    reviewer.answer("reviewed", reject, lambda: run_dag("reviewed", {}, file="reviewing.py", **about))
    assert not reviewer.errors and open_store(str(tmp_path)).current().num_rows == 0

    def approve(fields: Fields) -> Fields:
        return {"approve_rest": True}

    ran = reviewer.answer(
        "reviewed", approve, lambda: run_dag("reviewed", {}, file="reviewing.py", retry_rejected=True, **about)
    )
    assert not reviewer.errors and ran.xcom("describe")["counts"]["described"] == 1
    assert ran.xcom("review")["approved"] == 1
    assert accounts.ledger()["billed"] == 2


def test_nobody_answers_in_time(
    accounts: EmulatorProcess, run_dag: RunDag, pictures: list[str], tmp_path: Path
) -> None:
    """Airflow then gives the defaults, and nobody's name."""
    describe(run_dag, pictures[:2], tmp_path)
    one, other = (call_of(tmp_path, uri) for uri in pictures[:2])
    instance = SimpleNamespace(dag_id="shop", run_id="night", task_id="review", map_index=-1, try_number=1)
    context: Any = {"ti": instance, "task_instance": instance}
    fields = {f"decision_{one}": "approve", f"decision_{other}": "leave"}
    event = {"chosen_options": ["Submit"], "params_input": fields, "responded_at": None, "responded_by_user": None}
    with DAG("shop", schedule=None):
        task = ReviewDescriptionsOperator(task_id="review", store=str(tmp_path), defaults="Submit")
    found = task.execute_complete(context, event)
    assert (found["reviewed"], found["left"]) == (0, 2)
    assert {row["review"] for row in open_store(str(tmp_path)).current().to_pylist()} == {None}


def test_without_anything_new_the_task_ends_at_once(accounts: EmulatorProcess, run_dag: RunDag, tmp_path: Path) -> None:
    ran = run_dag("reviewed", {}, file="reviewing.py", store=str(tmp_path))
    assert ran.states["review"] == "success" and ran.xcom("review")["reviewed"] == 0
    ran = run_dag("reviewed", {}, file="reviewing.py", store=str(tmp_path), skip=True)
    assert ran.states["review"] == "skipped"


def test_a_store_that_is_not_there_is_an_error(run_dag: RunDag, tmp_path: Path) -> None:
    ran = run_dag("whole_store", {}, file="reviewing.py", store=str(tmp_path / "nowhere"))
    assert "is no description store" in ran.failed_for_good("review")


def test_a_damaged_store_is_an_error(
    accounts: EmulatorProcess, run_dag: RunDag, pictures: list[str], tmp_path: Path
) -> None:
    describe(run_dag, pictures[:1], tmp_path)
    (tmp_path / "journal" / "torn.jsonl").write_text("{}")
    ran = run_dag("whole_store", {}, file="reviewing.py", store=str(tmp_path))
    assert "torn.jsonl is damaged" in ran.failed_for_good("review")


def describe(run_dag: RunDag, images: list[str], store: Path) -> None:
    assert run_dag("stored", {}, images=images, store=str(store)).states["describe"] == "success"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"store": None}, "store is None"),
        ({"store": "relative"}, "store"),
        ({"share": 0}, "share is 0, expected a share above 0"),
        ({"share": "2"}, "share is '2'"),
        ({"max_images": 0}, "max_images is 0"),
        ({"max_images": 51}, "max_images is 51"),
        ({"failed_rules": []}, "failed_rules is"),
        ({"results": {"store": None, "results": None}}, "results is None"),
        ({"results": "/data/a.jpg"}, "results is '/data/a.jpg'"),
    ],
)
def test_an_argument_that_cannot_work_fails_the_dags_import(wrong: dict[str, Any], words: str) -> None:
    given = {"store": "/data/store", **wrong}
    with DAG("shop", schedule=None), pytest.raises(BadInput, match=words.replace("(", r"\(")):
        ReviewDescriptionsOperator(task_id="review", **given)

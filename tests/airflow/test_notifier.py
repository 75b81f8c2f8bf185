"""What the notifier tells, in a real `dag.test()` and where what it reads is missing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadInput, InsufficientCredits
from airflow_provider_describer.notifications.describer import DescriberNotifier
from airflow_provider_describer.operators.failures import airflow_error

Run = Callable[..., Any]
COUNTS = {"requested": 100, "described": 80, "reused": 0, "rejected": 20, "unknown": 0, "pending": 0}
MANIFEST = {"store": "s3://shop/d", "failures": None, "counts": COUNTS, "cost_usd": 1.2}
EMPTY = airflow_error(InsufficientCredits("The account is empty. Top it up."))


def letters(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def test_tasks_tell_what_needs_a_person_and_nothing_else(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, store = tmp_path / "told.jsonl", str(tmp_path / "store")
    ran = run("told", file="watched.py", images=pictures[:3], store=store, told=str(file))
    assert ran.states == {"listing": "success", "limited": "success", "sliced": "success", "rest": "success"}
    assert accounts.ledger()["billed"] == 3
    assert ran.xcom("limited", key="limit_reached") == ran.xcom("sliced", key="limit_reached") == "max_calls (1)"
    assert ran.xcom("rest", key="limit_reached") is None
    first, second = letters(file)
    assert (first["subject"], first["occasions"]) == ("told.limited: the budget is reached", ["budget_reached"])
    assert first["text"].splitlines()[1] == "max_calls (1) allows no further call: 2 images are left pending."
    assert second["subject"] == "told.sliced: the budget is reached", "each task is told of in its own words"
    # A notifier before it has failed at each of them.
    assert not any(key in file.read_text(encoding="utf-8") for key in accounts.keys.values())


@pytest.fixture
def exception_in_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks find the exception in their context, as in a task's own process; `dag.test()` of 3.1 leaves it out."""
    from airflow.sdk.execution_time import task_runner

    finalize = task_runner.finalize

    def finalize_with_it(ti: Any, state: Any, context: Any, log: Any, error: Any = None) -> None:
        context.setdefault("exception", error)
        finalize(ti, state, context, log, error)

    monkeypatch.setattr(task_runner, "finalize", finalize_with_it)


def test_a_task_whose_account_is_empty_tells_so_as_it_fails(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path, exception_in_context: None
) -> None:
    file = tmp_path / "told.jsonl"
    accounts.faults({"image_describer": {"errors": [{"kind": "insufficient_credits", "share": 1}]}})
    ran = run("told", file="watched.py", images=pictures[:1], store=str(tmp_path / "store"), told=str(file))
    assert ran.states["limited"] == "failed"
    (letter,) = letters(file)
    assert letter["occasions"] == ["out_of_credits"]
    assert str(ran.errors["limited"]).partition(": ")[2] in letter["text"]


# --- what it reads is missing, or broken ---


class Task:
    """A finished task's context, with these XComs."""

    def __init__(self, xcoms: dict[str, Any] | Exception | None = None, exception: Exception | None = None) -> None:
        self.xcoms = xcoms or {}
        self.asked: list[str] = []
        ti = SimpleNamespace(dag_id="shop", task_id="describe", run_id="nightly", map_index=-1, xcom_pull=self._pull)
        self.context: Any = {"ti": ti} | ({"exception": exception} if exception else {})

    def _pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == ("describe", -1)
        self.asked.append(key)
        if isinstance(self.xcoms, Exception):
            raise self.xcoms
        return self.xcoms.get(key)


def told(task: Task, **arguments: Any) -> list[dict[str, Any]]:
    """What a notifier is given."""
    given: list[dict[str, Any]] = []
    DescriberNotifier(send=given.append, **arguments)(task.context)
    return given


def test_a_share_of_failures_is_read_from_a_finished_tasks_manifest() -> None:
    (given,) = told(Task({"return_value": MANIFEST}))
    assert given["describer_occasions"] == ["failure_share"]
    assert "20 of 100 images have no description (20 rejected, 0 unknown)." in given["describer_message"]
    assert told(Task({"return_value": MANIFEST}), failure_share=0.2) == []


def test_a_failed_tasks_manifest_is_under_its_own_key() -> None:
    (given,) = told(Task({"manifest": MANIFEST}, EMPTY), failure_share=1.0)
    assert given["describer_occasions"] == ["out_of_credits"]
    assert "Described: 80 images for $1.20." in given["describer_message"]


def test_only_the_chosen_occasions_are_told() -> None:
    assert told(Task({"return_value": MANIFEST}), on=["out_of_credits"]) == []


@pytest.mark.parametrize(
    "xcoms", [None, {"return_value": "a text"}, {"return_value": {"counts": None}}, {"return_value": [1]}]
)
def test_without_a_manifest_a_task_that_has_succeeded_tells_nothing(xcoms: Any) -> None:
    assert told(Task(xcoms)) == []


def test_without_a_manifest_the_error_is_told() -> None:
    (given,) = told(Task(None, EMPTY))
    assert "The account is empty. Top it up." in given["describer_message"]


def test_where_xcom_cannot_be_read_the_error_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (given,) = told(Task(ConnectionError("https://user:hunter2@backend"), EMPTY))
    assert given["describer_occasions"] == ["out_of_credits"]
    assert "hunter2" not in given["describer_message"] + caplog.text


def test_an_error_of_the_hook_in_a_task_of_ones_own_is_told() -> None:
    (given,) = told(Task(None, InsufficientCredits("The account is empty.")))
    assert given["describer_occasions"] == ["out_of_credits"]


def test_another_error_is_not_told_and_not_quoted() -> None:
    assert told(Task({"manifest": MANIFEST}, ValueError("sk-secret"))) == []


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        (Task({"return_value": {**MANIFEST, "counts": {**COUNTS, "pending": 1}}}), ["return_value", "limit_reached"]),
        (Task({"return_value": MANIFEST}), ["return_value"]),
        (Task(), ["return_value", "limit_reached"]),
        (Task({"manifest": MANIFEST}, EMPTY), ["manifest"]),
        (Task(None, EMPTY), ["manifest"]),
        (Task(None, airflow_error(BadInput("lang is 'xx'."))), []),
        (Task(None, ValueError()), []),
    ],
)
def test_it_asks_for_no_xcom_that_cannot_be_there(task: Task, asked: list[str]) -> None:
    told(task)
    assert task.asked == asked


def test_a_notifier_that_fails_keeps_no_other_from_being_sent(caplog: pytest.LogCaptureFixture) -> None:
    given: list[Any] = []

    def broken(_: Any) -> None:
        raise ConnectionError("the mail server is down")

    DescriberNotifier(send=[broken, given.append, broken, given.append])(Task(None, EMPTY).context)
    assert len(given) == 2
    assert caplog.text.count("ConnectionError: the mail server is down") == 2


class Both(BaseNotifier):
    """Can be sent either way."""

    template_fields = ("text",)

    def __init__(self, sent: list[str]) -> None:
        super().__init__()
        self.text, self.sent = "{{ describer_subject }}", [sent]

    def notify(self, context: Any) -> None:
        self.sent[0].append(f"sync: {self.text}")

    async def async_notify(self, context: Any) -> None:
        self.sent[0].append(f"async: {self.text}")


class OnlySync(Both):
    """Has no other way."""

    async_notify = BaseNotifier.async_notify


def test_a_notifier_is_rendered_anew_for_each_task() -> None:
    sent: list[str] = []
    notifier = DescriberNotifier(send=Both(sent))
    for task_id in ("one", "two"):
        task = Task(None, EMPTY)
        task.context["ti"].task_id = task_id
        task.context["ti"].xcom_pull = lambda **_: None
        notifier(task.context)
    assert [text.partition(":")[2] for text in sent] == [
        " shop.one: the account is out of credits",
        " shop.two: the account is out of credits",
    ]


def test_it_can_be_awaited() -> None:
    sent: list[str] = []

    def broken(_: Any) -> None:
        raise ConnectionError

    notifier = DescriberNotifier(send=[broken, Both(sent), OnlySync(sent), lambda _: sent.append("function")])
    notifier.context = Task(None, EMPTY).context

    async def wait() -> None:
        await notifier

    asyncio.run(wait())
    subject = "shop.describe: the account is out of credits"
    assert sent == [f"async: {subject}", f"sync: {subject}", "function"]


def test_arguments_that_cannot_work_fail_the_dags_import() -> None:
    with pytest.raises(BadInput, match="failure_share is 5"):
        DescriberNotifier(send=[print], failure_share=5)

"""A DAG run in a real Airflow: observed, and changed as a user does in the UI."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from live_airflow import LiveAirflow

MAX_WAIT_S = 600.0
"""For steps that take seconds on an idle machine, or a minute where the vendor does.

Scenes share one triggerer, and some kill it time and again: until they have done so, no other scene's trigger fires.
"""
LOOK_EVERY_S = 0.5
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
BUSY = ("queued", "running")
"""States in which a task holds a slot of its pool."""


@dataclass(frozen=True)
class Seen:
    """A task instance at one time; ``at`` is in epoch seconds."""

    at: float
    state: str | None
    try_number: int
    pid: int | None
    trigger_id: int | None


@dataclass
class LiveRun:
    """A DAG run; its task `describe` is the one that is observed."""

    airflow: LiveAirflow
    dag_id: str
    run_id: str
    task_id: str = "describe"

    def look(self) -> Seen:
        """Return the task as it is now; a state of None where it is not scheduled yet, or gone."""
        found = self.airflow.rows(
            "select state, try_number, pid, trigger_id from task_instance "
            "where dag_id = :dag_id and run_id = :run_id and task_id = :task_id",
            dag_id=self.dag_id,
            run_id=self.run_id,
            task_id=self.task_id,
        )
        now = time.time()
        return Seen(now, *found[0]) if found else Seen(now, None, 0, None, None)

    def changes(self, within: float = MAX_WAIT_S) -> Iterator[Seen]:
        """Yield the task at every change, the last time when it has ended."""
        deadline, last = time.monotonic() + within, None
        while last is None or last.state not in ENDED:
            now = self.look()
            if last is None or replace(now, at=last.at) != last:
                last = now
                yield now
            assert time.monotonic() < deadline, f"{self.run_id} is {now.state} after {within:.0f} s"
            time.sleep(LOOK_EVERY_S)

    def until(self, *states: str, within: float = MAX_WAIT_S) -> Seen:
        """Wait until the task is in one of the states; fail where it ends in another."""
        for seen in self.changes(within):
            if seen.state in states:
                return seen
        raise AssertionError(f"{self.run_id} is {seen.state}, not {' or '.join(states)}")

    def _at_rest(self) -> None:
        """Wait until the scheduler has handled that the task is deferred.

        Changing a task instance in the second before that may end the scheduler: a race in Airflow.
        """
        log = self.airflow.logs / "scheduler.log"
        key = f"dag_id='{self.dag_id}', task_id='{self.task_id}', run_id='{self.run_id}'"

        def handled() -> bool:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            return any("Received executor event" in line and key in line for line in lines)

        self.airflow.until(handled, f"the scheduler's notice of {self.run_id}")
        self.airflow.until_beaten("SchedulerJob", 2)

    def manifest(self, key: str = "return_value") -> Any:
        """Return what the task has pushed."""
        value = self.airflow.api("GET", f"{self._instance}/xcomEntries/{key}")["value"]
        return json.loads(value) if isinstance(value, str) else value

    def links(self) -> dict[str, str | None]:
        """Return the addresses of the task's links by their names; None for one that the UI does not show."""
        found: dict[str, str | None] = self.airflow.api("GET", f"{self._instance}/links")["extra_links"]
        return found

    def mark(self, state: str) -> None:
        """Mark the task, which is deferred, as a user does in the UI."""
        self._at_rest()
        self.airflow.api("PATCH", self._instance, {"new_state": state})

    def clear(self) -> None:
        """Clear the task, which is deferred, as a user does in the UI."""
        self._at_rest()
        body = {"dry_run": False, "only_failed": False, "dag_run_id": self.run_id, "task_ids": [self.task_id]}
        self.airflow.api("POST", f"dags/{self.dag_id}/clearTaskInstances", body)

    def delete(self) -> None:
        """Delete the DAG run, whose task is deferred, as a user does in the UI.

        A run that is active has to be marked first.
        """
        self._at_rest()
        self.airflow.api("PATCH", self._run, {"state": "failed"})
        self.airflow.api("DELETE", self._run)

    @property
    def _run(self) -> str:
        return f"dags/{self.dag_id}/dagRuns/{quote(self.run_id, safe='')}"

    @property
    def _instance(self) -> str:
        return f"{self._run}/taskInstances/{self.task_id}"

"""A real Airflow for the demo alone: its home is in the checkout, and it never outlives the demo."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

STOP_SECONDS = 3.0
# The make variables hold KEY if it was given on make's command line.
NOT_PASSED_ON = ("KEY", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "FORCE_COLOR", "PYTHONWARNINGS")

_TASK = re.compile(r"\[DAG TEST\] starting task_id=(\S+)")
_LOGGED = re.compile(
    r"^\S+ \[(?P<level>\w+)\s*\] (?P<message>.*?)\s+\[[\w.]*airflow_provider_describer[\w.]*\](?: .*)?$"
)


class AirflowFailed(RuntimeError):
    """An Airflow command ended with an error; its output is in the log."""


@dataclass(frozen=True)
class Airflow:
    """Airflow's command line with its own home, log and connections."""

    home: Path
    dags: Path
    log: Path
    connections: Mapping[str, Mapping[str, str]]

    def prepare(self) -> None:
        """Create the metadata database, unless this version of Airflow has created it before."""
        done = self.home / f"migrated-{version('apache-airflow')}"
        if not done.exists():
            # An interrupted migration may have left a broken database.
            shutil.rmtree(self.home, ignore_errors=True)
            self.home.mkdir(parents=True)
            self._run(["db", "migrate"], _ignore)
            done.touch()

    def run_dag(self, dag_id: str, conf: Mapping[str, Any], show: Callable[[str], None]) -> None:
        """Run the DAG once; show the names of its tasks and what the provider logs."""
        self._run(["dags", "test", dag_id, "--conf", json.dumps(conf)], lambda line: _show(line, show))

    def _run(self, arguments: Sequence[str], each: Callable[[str], None]) -> None:
        secrets = [fields["password"] for fields in self.connections.values() if fields.get("password")]
        child = subprocess.Popen(
            [str(Path(sys.executable).with_name("airflow")), *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Its own process group, so that everything Airflow starts is stopped with it.
            start_new_session=True,
        )
        try:
            with self.log.open("a", encoding="utf-8") as log:
                _pump(child, log, each, secrets)
            code = child.wait()
        finally:
            _stop(child)
        if code != 0:
            raise AirflowFailed(f"airflow {arguments[0]} {arguments[1]} failed (exit code {code})")

    def _environment(self) -> dict[str, str]:
        # Without the user's Airflow settings: they may name a database, which a demo must not migrate.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AIRFLOW_") and name not in NOT_PASSED_ON
        }
        return inherited | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(dict(c)) for name, c in self.connections.items()},
        }


def _pump(child: subprocess.Popen[str], log: TextIO, each: Callable[[str], None], secrets: list[str]) -> None:
    for line in child.stdout or ():
        masked = reduce(lambda text, secret: text.replace(secret, "***"), secrets, line)
        log.write(masked)
        log.flush()
        each(masked.rstrip("\n"))


def _show(line: str, show: Callable[[str], None]) -> None:
    if task := _TASK.search(line):
        show(f"task {task[1]}")
    elif logged := _LOGGED.match(line):
        level = "" if logged["level"] == "info" else f"{logged['level']}: "
        show(f"  {level}{logged['message']}")


def _ignore(line: str) -> None:
    """Show nothing; the line is in the log."""


def _stop(child: subprocess.Popen[str]) -> None:
    for stop in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, stop)
        except ProcessLookupError:
            break
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    child.wait()
    if child.stdout:
        child.stdout.close()

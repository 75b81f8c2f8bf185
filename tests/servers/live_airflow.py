"""A real Airflow: scheduler with LocalExecutor, triggerer, DAG processor and API server, for a test session."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import postgresql
from keeper import Keeper
from live_run import LOOK_EVERY_S, MAX_WAIT_S, LiveRun
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from airflow_provider_describer.emulator.process import child_environment

EXECUTOR = Path(__file__).parent / "executor"
COMPONENTS = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "api-server": ["api-server", "--workers", "1"],
}


class ApiError(RuntimeError):
    """Airflow's API refused a request."""


@dataclass
class LiveAirflow:
    """An Airflow in a home of its own, made for the DAG files of one folder.

    :param database: ``postgresql``, ``sqlite``, or empty for the better one that the machine has.
    :param migrated: a migrated SQLite database to begin with, to save the time.
    """

    home: Path
    dags: Path
    database: str = ""
    migrated: Path | None = None
    keeper: Keeper = field(default_factory=Keeper)

    def __post_init__(self) -> None:
        self.logs = self.home / "components"
        self.logs.mkdir(parents=True)
        self.port = free_port()
        self._token = ""
        self._asking = threading.Lock()
        self._killing = threading.Lock()
        self._last_killed = 0
        self.url = f"http://127.0.0.1:{self.port}"
        bin_folder = None if self.database == "sqlite" else postgresql.programs()
        if bin_folder is not None:
            log = self.logs / "postgresql.log"
            self.database_url = postgresql.start_postgresql(bin_folder, self.keeper, free_port(), log)
        else:
            assert self.database != "postgresql", "PostgreSQL, psycopg2 or asyncpg is not installed"
            # Writers wait for each other; in write-ahead mode they do not wait for readers.
            self.database_url = f"sqlite:///{self._file}?timeout=60"
        self._engine = create_engine(self.database_url, poolclass=NullPool)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def backend(self) -> str:
        """`postgresql` or `sqlite`."""
        return self._engine.dialect.name

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of every component."""
        bundle = {
            "name": "live",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(self.dags)},
        }
        inherited = {name: value for name, value in child_environment().items() if not name.startswith("AIRFLOW_CONN_")}
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__SECRET_KEY": os.environ["AIRFLOW__API_AUTH__JWT_SECRET"],
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "preloaded_executor.PreloadedExecutor",
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            # A dead triggerer is noticed within seconds.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "PYTHONPATH": os.pathsep.join([str(EXECUTOR), *filter(None, [inherited.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self) -> None:
        """Return when everything runs and the DAG files have been read."""
        self._migrate()
        for component in COMPONENTS:
            self._start(component)
        files = sorted(path.stem for path in self.dags.glob("*.py"))
        self.until(self._is_healthy, "a healthy Airflow")
        self.until(lambda: self._files_read() >= len(files), f"the DAGs of {files}")

    def kill_triggerer(self, when: Callable[[], Any], meanwhile: Callable[[], object] = lambda: None) -> int:
        """`kill -9` the triggerer and all its children, and start another; return the id of the killed one's job.

        :param when: waited for before the kill, until it returns true.
        :param meanwhile: called while there is no triggerer.
        """
        with self._killing:
            self.until(when, "the moment to kill the triggerer")
            found = self.rows("select max(id) as id from job where job_type = 'TriggererJob'")
            self.keeper.kill("triggerer")
            self._last_killed = int(found[0].id)
            meanwhile()
            self._start("triggerer")
            return self._last_killed

    def is_held(self, trigger_id: int | None) -> bool:
        """Whether the present triggerer, not a killed one, has this trigger."""
        found = self.rows("select triggerer_id from trigger where id = :id", id=trigger_id)
        return bool(found) and (found[0].triggerer_id or 0) > self._last_killed

    def _start(self, name: str) -> None:
        airflow = str(Path(sys.executable).with_name("airflow"))
        environment = self.environment
        if name == "api-server":
            # On SQLite its event loop may wait for a request that waits for the event loop: so not for long.
            environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = self.database_url.replace("=60", "=3")
        self.keeper.start(name, [airflow, *COMPONENTS[name]], self.logs / f"{name}.log", environment)

    def close(self) -> None:
        """End everything."""
        self.keeper.close()
        self._engine.dispose()

    # --- requests to it ---

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {self._token}"},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=60.0) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from None
        return json.loads(content) if content else None

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask Airflow's public API; raise ApiError with its message where it refuses."""
        with self._asking:
            self._token = self._token or self._ask("GET", "auth/token")["access_token"]
            deadline = time.monotonic() + MAX_WAIT_S
            while True:
                try:
                    return self._ask(method, f"api/v2/{path}", body)
                except ApiError as error:
                    # SQLite was locked, and nothing was done.
                    if "Database error" not in str(error) or time.monotonic() > deadline:
                        raise

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Query the metadata database."""
        deadline = time.monotonic() + MAX_WAIT_S
        while True:
            try:
                with self._engine.connect() as connection:
                    return list(connection.execute(text(statement), values))
            except OperationalError:
                # SQLite is locked for moments.
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_EVERY_S)

    def until(self, found: Callable[[], Any], what: str, within: float = MAX_WAIT_S) -> Any:
        """Call ``found`` until it returns something true; return that."""
        deadline = time.monotonic() + within
        while not (answer := found()):
            assert time.monotonic() < deadline, f"no sign of {what} within {within:.0f} s"
            time.sleep(LOOK_EVERY_S)
        return answer

    def until_beaten(self, job_type: str, times: int) -> None:
        """Wait for that many heartbeats of the job, which sends one in each round of its work."""
        seen: set[str] = set()

        def beaten() -> bool:
            statement = "select latest_heartbeat from job where job_type = :job_type order by id desc"
            seen.add(str(self.rows(statement, job_type=job_type)[0].latest_heartbeat))
            return len(seen) > times

        self.until(beaten, f"{times} heartbeats of {job_type}")

    def trigger_kwargs(self, trigger_id: int | None) -> str:
        """Return what the metadata database keeps for a trigger, decrypted; empty where there is none."""
        from airflow.models.trigger import Trigger

        found = self.rows("select kwargs from trigger where id = :id", id=trigger_id)
        # The whole text, as no key may be in it in any form.
        return json.dumps(Trigger._decrypt_kwargs(found[0].kwargs), default=str) if found else ""

    def run(self, dag_id: str, run_id: str, **conf: Any) -> LiveRun:
        """Start a DAG run."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.api("POST", f"dags/{dag_id}/dagRuns", body)
        return LiveRun(self, dag_id, run_id)

    @property
    def _file(self) -> Path:
        return self.home / "airflow.db"

    def _migrate(self) -> None:
        if self.backend == "sqlite" and self.migrated is not None and self.migrated.exists():
            shutil.copy(self.migrated, self._file)
        else:
            command = [str(Path(sys.executable).with_name("airflow")), "db", "migrate"]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        if self.backend == "sqlite":
            with closing(sqlite3.connect(self._file)) as database:
                database.execute("pragma journal_mode = wal")

    def _is_healthy(self) -> bool:
        try:
            health = self.api("GET", "monitor/health")
        except (ApiError, OSError):
            return False
        return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

    def _files_read(self) -> int:
        return len({row.fileloc for row in self.rows("select fileloc from dag where is_stale = false")})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

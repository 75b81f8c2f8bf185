"""Tests that need Airflow: a home of their own, made before anything imports it, and gone afterwards."""

from __future__ import annotations

import base64
import fcntl
import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_describer.emulator.process import EmulatorProcess

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def _new_home() -> Path:
    folder = ROOT / "build" / "airflow-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="home-", dir=folder))


def _bundle(name: str, folder: Path) -> dict[str, Any]:
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return {"name": name, "classpath": local, "kwargs": {"path": str(folder)}}


def _settle_airflow(home: Path) -> None:
    # None of the user's own settings: they may name a database that no test should touch, or where lineage is sent.
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "OPENLINEAGE_"))]:
        del os.environ[name]
    os.environ.update(
        AIRFLOW_HOME=str(home),
        # Else this process and the commands that tests start encrypt connections each with a key of its own.
        AIRFLOW__CORE__FERNET_KEY=base64.urlsafe_b64encode(os.urandom(32)).decode(),
        AIRFLOW__API_AUTH__JWT_SECRET=os.urandom(64).hex(),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        # dag.test() finds a DAG only in a bundle.
        AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps(
            [_bundle("tests", HERE / "dags"), _bundle("examples", ROOT / "example_dags")]
        ),
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home / 'airflow.db'}",
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        # A busy machine imports Airflow slowly.
        AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT="300",
        # Whoever asks the API server is an administrator.
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        NO_COLOR="1",
    )


HOME = _new_home()
# At import, because every setting is read when Airflow is imported, and the test modules may do that.
_settle_airflow(HOME)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("airflow")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_command() -> str:
    """The `airflow` command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name("airflow"))


@pytest.fixture(scope="session")
def migrated_database(airflow_command: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy: the first of the worker processes makes it, the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    database = folder / "migrated.db"
    with (folder / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            unfinished = folder / "unfinished.db"
            environment = {**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{unfinished}"}
            command = [airflow_command, "db", "migrate"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            unfinished.rename(database)
    return database


@pytest.fixture(scope="session")
def airflow_db(migrated_database: Path) -> Iterator[None]:
    """A migrated metadata database of this process's own."""
    shutil.copy(migrated_database, HOME / "airflow.db")
    with warnings.catch_warnings():
        # Airflow 3.1's models are deprecated in parts; the warning names whoever makes the first query.
        warnings.simplefilter("ignore")
        importlib.import_module("airflow.models.dagrun")
        importlib.import_module("airflow.models.asset")
        importlib.import_module("sqlalchemy.orm").configure_mappers()
    yield
    from airflow import settings

    settings.dispose_orm()


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[EmulatorProcess]:
    with EmulatorProcess() as emulator:
        yield emulator


@pytest.fixture
def emulator(emulator_process: EmulatorProcess) -> EmulatorProcess:
    """Both vendors, with full accounts, no faults and an empty ledger."""
    emulator_process.reset()
    return emulator_process


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Define a connection for as long as the test runs: `connect("shop", conn_type="segmind", password=…)`."""

    def define(conn_id: str, uri: str | None = None, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", uri or json.dumps(fields))

    return define


@pytest.fixture
def accounts(emulator: EmulatorProcess, connect: Callable[..., None]) -> EmulatorProcess:
    """The emulator, with the vendors' default connections leading to it."""
    for vendor, key in emulator.keys.items():
        connect(f"{vendor}_default", conn_type=vendor, password=key, **about(vendor, emulator.url))
    return emulator


def about(vendor: str, url: str) -> dict[str, Any]:
    """What else a vendor's connection to the emulator says."""
    if vendor == "openai_compatible":
        return {"host": f"{url}/v1", "extra": {"model": "emulated-vision"}}
    return {"host": url}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six pictures, each of a colour of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    colours = ("red", "green", "blue", "yellow", "black", "white")
    for colour in colours:
        Image.new("RGB", (60, 40), colour).save(folder / f"{colour}.png")
    return [str(folder / f"{colour}.png") for colour in colours]


@pytest.fixture(scope="session")
def airflow_in_process(airflow_db: None) -> Iterator[None]:
    """A database and one API server for all `dag.test()` of the session, as 3.3 has it; 3.1 builds one a task."""
    from airflow.sdk.execution_time import supervisor

    make = supervisor.in_process_api_server
    if not hasattr(make, "cache_info"):
        supervisor.in_process_api_server = cache(make)
    yield
    supervisor.in_process_api_server = make


@dataclass
class Ran:
    """A finished DAG run. Mapped task instances go by `task_id[map_index]`."""

    dag_id: str
    run_id: str
    states: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)

    def xcom(self, name: str, key: str = "return_value") -> Any:
        """What a task instance has pushed, or None."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        task_id, _, index = name.removesuffix("]").partition("[")
        wanted = select(XComModel).where(
            XComModel.dag_id == self.dag_id,
            XComModel.run_id == self.run_id,
            XComModel.task_id == task_id,
            XComModel.map_index == int(index or -1),
            XComModel.key == key,
        )
        with create_session() as session:
            found = session.scalars(wanted).one_or_none()
            return None if found is None else XComModel.deserialize_value(found)

    def failed_for_good(self, name: str) -> str:
        """The message of a task that failed and was not tried again."""
        assert (self.states[name], self.tries[name]) == ("failed", 1)
        assert type(self.errors[name]).__name__ == "AirflowFailException"
        return str(self.errors[name])


def load_dag(file: str, name: str) -> Any:
    path = next(folder / file for folder in (HERE / "dags", ROOT / "example_dags") if (folder / file).exists())
    spec = importlib.util.spec_from_file_location(f"dag_file_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from airflow.sdk import DAG

    found = [value for value in vars(module).values() if isinstance(value, DAG) and value.dag_id == name]
    # The examples keep no DAG in a name; the module's last one is it.
    return found[0] if found else getattr(module, name)()


def run_to_its_end(dag: Any, conf: dict[str, Any]) -> Ran:
    """Run the DAG by `dag.test()`; of a task that is tried several times the last error counts."""
    from airflow.sdk.execution_time import supervisor

    errors: dict[str, BaseException] = {}
    run_in_process = supervisor.run_task_in_process

    def remember(*, ti: Any, task: Any) -> Any:
        result = run_in_process(ti=ti, task=task)
        if result.error:
            errors[_name(ti)] = result.error
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "run_task_in_process", remember)
        _read_dag_files_once(dag.dag_id, patch)
        run = dag.test(run_conf=conf)
    ran = Ran(run.dag_id, run.run_id, errors=errors)
    for instance in run.get_task_instances():
        ran.states[_name(instance)] = str(instance.state)
        ran.tries[_name(instance)] = instance.try_number
    return ran


def _read_dag_files_once(dag_id: str, patch: pytest.MonkeyPatch) -> None:
    """Keep `dag.test()` of Airflow 3.3 from reading all DAG files anew at each call; 3.1 reads them once by itself."""
    from airflow.models.dag_version import DagVersion

    if importlib.util.find_spec("airflow.dag_processing.dagbag") and DagVersion.get_version(dag_id):
        patch.setattr("airflow.dag_processing.dagbag.BundleDagBag", lambda **_: None)
        patch.setattr("airflow.dag_processing.dagbag.sync_bag_to_db", lambda *_: None)


def _name(instance: Any) -> str:
    index = instance.map_index
    return instance.task_id if index is None or index < 0 else f"{instance.task_id}[{index}]"


@pytest.fixture(scope="session")
def run_dag(airflow_in_process: None) -> Callable[..., Ran]:
    """Run a DAG with these connections: `run_dag("stored", {"shop": {…}}, images=…)`."""

    def run_it(name: str, connections: dict[str, Any], *, file: str = "describing.py", **conf: Any) -> Ran:
        with pytest.MonkeyPatch.context() as patch:
            for conn_id, fields in connections.items():
                patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
            return run_to_its_end(load_dag(file, name), conf)

    return run_it


@pytest.fixture
def run(run_dag: Callable[..., Ran]) -> Callable[..., Ran]:
    """Run a DAG of `dags/describing.py` with the test's own connections: `run("stored", images=…)`."""
    return lambda name, **conf: run_dag(name, {}, **conf)


@pytest.fixture(scope="session")
def nobody_there() -> Iterator[str]:
    """An address on which nothing listens, held so that nothing else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(scope="session")
def web_site() -> Iterator[str]:
    """A host that answers every request with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            page = b"<!doctype html><title>Welcome</title>"
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

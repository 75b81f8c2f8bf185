"""Tests that need Airflow: a home of their own, made before anything imports it, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def _new_home() -> Path:
    folder = ROOT / "build" / "airflow-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="home-", dir=folder))


def _settle_airflow(home: Path) -> None:
    # None of the user's own settings: they may name a database that no test should touch.
    for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
        del os.environ[name]
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        # dag.test() finds a DAG only in a bundle; this one holds the example DAGs.
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "example_dags"),
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home / 'airflow.db'}",
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
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
def airflow_home() -> Path:
    """The AIRFLOW_HOME of this test session."""
    return HOME


@pytest.fixture(scope="session")
def airflow_command() -> str:
    """The `airflow` command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name("airflow"))


@pytest.fixture(scope="session")
def airflow_db(airflow_command: str) -> Iterator[None]:
    """A migrated metadata database, made once a session for the tests that ask for it."""
    migrated = subprocess.run([airflow_command, "db", "migrate"], capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    yield
    from airflow import settings

    settings.dispose_orm()

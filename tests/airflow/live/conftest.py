"""A real Airflow for the session, and scenes: what tests look at, all of them played in it at the same time.

A scene is mostly waiting, for a minute or two. So every test names the scene that it is about
(``@pytest.mark.scene(of=function)``), the first that asks begins all of them, and each test waits for its own alone.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from live_airflow import LiveAirflow
from live_run import LiveRun
from PIL import Image

from airflow_provider_describer.emulator.process import EmulatorProcess

HERE = Path(__file__).parent
LAST_LINES = 40
HELD_S = 3600.0
"""Longer than a session takes."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "scene(of): the function that plays what the test looks at; tests/airflow/live begins it"
    )


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, airflow_db: None, migrated_database: Path) -> Iterator[LiveAirflow]:
    """A real Airflow; on PostgreSQL where the machine has it, unless DESCRIBER_LIVE_DATABASE says `sqlite`."""
    airflow = LiveAirflow(
        tmp_path_factory.mktemp("live"),
        HERE / "dags",
        os.environ.get("DESCRIBER_LIVE_DATABASE", ""),
        migrated_database,
    )
    try:
        airflow.start()
        airflow.api("POST", "pools", {"name": "one_slot", "slots": 1, "include_deferred": False})
        yield airflow
    finally:
        airflow.close()


@dataclass
class Shop:
    """A scene's own vendor, account there, pictures and store."""

    name: str
    folder: Path
    airflow: LiveAirflow
    vendor: str
    emulator: EmulatorProcess
    runs: list[LiveRun] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.emulator.keys[self.vendor]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def connect(self, **extra: Any) -> None:
        """Put the account's connection into the metadata database."""
        account = {"conn_type": self.vendor, "password": self.key, "host": self.emulator.url}
        self.airflow.api("POST", "connections", {"connection_id": self.name, **account, "extra": json.dumps(extra)})

    def draw(self, count: int, listing: str = "images") -> list[str]:
        """Draw so many pictures, and make a file that lists them."""
        paths = [self.folder / f"{listing}-{number}.jpg" for number in range(count)]
        for path in paths:
            target = io.BytesIO()
            Image.new("RGB", (32, 24), (90, 120, 60)).save(target, "JPEG", comment=path.name)
            path.write_bytes(target.getvalue())
        lines = [json.dumps({"uri": str(path)}) for path in paths]
        (self.folder / f"{listing}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [str(path) for path in paths]

    def run(self, dag_id: str, *, listing: str = "images", store: str = "store") -> LiveRun:
        """Start a DAG run over the pictures that are listed."""
        conf = {"images": str(self.folder / f"{listing}.jsonl"), "store": str(self.folder / store)}
        run = self.airflow.run(dag_id, f"{self.name}-{len(self.runs)}", conn_id=self.name, **conf)
        self.runs.append(run)
        return run

    def hold_requests(self) -> None:
        """Let the requests of Segmind v2 run at the vendor until they are ended: tasks defer meanwhile."""
        self.emulator.faults({self.vendor: {"v2_delay_s": HELD_S}})

    def end_requests(self) -> None:
        """End the requests that run at the vendor."""
        self.emulator.faults({self.vendor: {"v2_delay_s": 0}})

    def bill(self) -> Bill:
        return Bill(self.emulator.ledger())


@dataclass
class Bill:
    """What the emulator has seen and billed."""

    ledger: dict[str, Any]

    @property
    def requests(self) -> int:
        return int(self.ledger["requests"])

    @property
    def billed(self) -> int:
        return int(self.ledger["billed"])

    @property
    def twice(self) -> list[str]:
        """The pictures that were paid for more than once."""
        return [image for image, times in self.ledger["by_image"].items() if times > 1]

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(entry["outcome"] for entry in self.ledger["entries"])

    @property
    def refused(self) -> int:
        """Requests over the vendor's rate limit."""
        return sum(entry["status"] == 429 for entry in self.ledger["entries"])

    def sent_at(self) -> list[float]:
        """When the billable requests came, in epoch seconds."""
        return [entry["at"] for entry in self.ledger["entries"]]


@pytest.fixture(scope="session")
def scenes(
    live: LiveAirflow, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Callable[..., Any], Future[Any]]]:
    """The scenes of all tests that have been chosen, begun."""
    marks = [item.get_closest_marker("scene") for item in request.session.items]
    functions = list(dict.fromkeys(mark.kwargs["of"] for mark in marks if mark))

    def play(function: Callable[..., Any]) -> Any:
        vendor = "segmind" if "v2" in function.__name__ else "image_describer"
        with EmulatorProcess() as emulator:
            return function(Shop(function.__name__, tmp_path_factory.mktemp(function.__name__), live, vendor, emulator))

    with ThreadPoolExecutor(len(functions) or 1) as threads:
        yield {function: threads.submit(play, function) for function in functions}


@pytest.fixture
def scene(scenes: dict[Callable[..., Any], Future[Any]], request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Wait for the test's scene and return what it has seen."""
    mark = request.node.get_closest_marker("scene")
    result: Callable[[], Any] = scenes[mark.kwargs["of"]].result
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    live = getattr(item, "funcargs", {}).get("live_for_logs")
    if report.failed and live is not None:
        mark = item.get_closest_marker("scene")
        for title, text in logs_of(live, mark.kwargs["of"].__name__ if mark else ""):
            report.sections.append((title, text))
    return report


@pytest.fixture(autouse=True)
def live_for_logs(live: LiveAirflow) -> LiveAirflow:
    """Lets the report of a test that fails show the logs."""
    return live


def logs_of(live: LiveAirflow, scene: str) -> Iterator[tuple[str, str]]:
    """The last lines of every component, and of the tasks of the scene's DAG runs."""
    tasks = (path for path in live.home.glob("logs/**/*.log*") if scene and f"run_id={scene}-" in str(path))
    for path in [*sorted(live.logs.glob("*.log")), *sorted(tasks)]:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        yield str(path.relative_to(live.home)), "\n".join(lines)

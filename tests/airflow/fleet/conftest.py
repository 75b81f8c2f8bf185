"""A fleet for the session: Airflow with CeleryExecutor, a bucket, and a vendor that enforces an account's rate."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import live_fleet
import postgresql
import pytest
import redis_broker
from clouds import Cloud, s3_cloud
from live_fleet import LiveFleet
from live_run import LiveRun
from PIL import Image

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.quota.document import decode_leases, document_name
from airflow_provider_describer.quota.leases import Leases

HERE = Path(__file__).parent
LAST_LINES = 40
VENDOR, CONN_ID = "image_describer", "fleet"


@dataclass(frozen=True)
class Chunk:
    """A mapped task instance, as the metadata database has it."""

    map_index: int
    state: str | None
    try_number: int
    hostname: str


@dataclass
class Shop:
    """An account at the vendor, a bucket with pictures and a store, and the fleet that works for it."""

    airflow: LiveFleet
    emulator: EmulatorProcess
    cloud: Cloud
    drawn: dict[str, set[str]] = field(default_factory=dict)
    """By the name of a listing, the SHA-256 of its pictures."""

    def connect(self, **extra: Any) -> None:
        """Put the account's connection, and that of the bucket, into the metadata database."""
        keys = self.cloud.environment
        amazon = {"endpoint_url": self.cloud.server.url, "region_name": keys["AWS_REGION"]}
        secret = {"login": keys["AWS_ACCESS_KEY_ID"], "password": keys["AWS_SECRET_ACCESS_KEY"]}
        self._connection("aws_default", "aws", amazon, **secret)
        self._connection(CONN_ID, VENDOR, extra, password=self.emulator.keys[VENDOR], host=self.emulator.url)

    def _connection(self, conn_id: str, conn_type: str, extra: dict[str, Any], **fields: str) -> None:
        body = {"connection_id": conn_id, "conn_type": conn_type, "extra": json.dumps(extra), **fields}
        self.airflow.api("POST", "connections", body)

    def draw(self, listing: str, count: int) -> None:
        """Put so many distinct pictures into a folder of the bucket."""
        target = io.BytesIO()
        Image.new("RGB", (32, 24), (90, 120, 60)).save(target, "JPEG", comment="0" * 32)
        contents = [
            target.getvalue().replace(b"0" * 32, f"{listing} {number}".ljust(32).encode()) for number in range(count)
        ]
        for number, content in enumerate(contents):
            self.cloud.put_any(f"{listing}/{number:04d}.jpg", content)
        self.drawn[listing] = {sha256(content).hexdigest() for content in contents}

    def run(self, listing: str, chunks: int) -> LiveRun:
        """Start a DAG run over the pictures of a folder."""
        size = -(-len(self.drawn[listing]) // chunks)
        return self.airflow.run("fleet", listing, place=self.cloud.uri, images=listing, chunk_size=size)

    def chunks(self, run: LiveRun) -> list[Chunk]:
        """Return the mapped task instances as they are now."""
        found = self.airflow.rows(
            "select map_index, state, try_number, hostname from task_instance "
            "where run_id = :run_id and task_id = :task_id and map_index >= 0 order by map_index",
            run_id=run.run_id,
            task_id=run.task_id,
        )
        return [Chunk(*row) for row in found]

    def end(self, run: LiveRun, within: float) -> str:
        """Wait for the end of a DAG run and return its state."""

        def ended() -> str | None:
            (row,) = self.airflow.rows("select state from dag_run where run_id = :run_id", run_id=run.run_id)
            return row.state if row.state in ("success", "failed") else None

        state: str = self.airflow.until(ended, f"the end of {run.run_id}", within)
        return state

    def read(self, key: str) -> bytes:
        """Return an object of the bucket."""
        found = self.cloud.bucket().read(key)
        assert found is not None, key
        return found.data

    def rows(self, listing: str) -> list[dict[str, Any]]:
        """Return the rows of the result files that the DAG run has published."""
        keys = json.loads(self.read(f"published/{listing}.json"))["results"]
        texts = [self.read(key.removeprefix(f"{self.cloud.uri}/")).decode() for key in keys]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def leases(self) -> Leases:
        """Return what all tasks share of the account's limits."""
        key = f"limits/{document_name(VENDOR, CONN_ID)}"
        return decode_leases(key, self.read(key))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, airflow_db: None) -> Iterator[Shop]:
    needed = {
        "redis-server": redis_broker.program(),
        "PostgreSQL": postgresql.programs(),
        "faketime": live_fleet.faketime(),
    }
    missing = [name for name, found in needed.items() if found is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    airflow = LiveFleet(tmp_path_factory.mktemp("fleet"), HERE / "dags", "postgresql", node=HERE / "node")
    try:
        with EmulatorProcess() as emulator, s3_cloud(tmp_path_factory.mktemp("s3")) as new_bucket:
            airflow.start()
            yield Shop(airflow, emulator, new_bucket())
    finally:
        airflow.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show the last lines of every component and task where a test fails."""
    report = yield
    shop = getattr(item, "funcargs", {}).get("shop")
    if report.failed and shop is not None:
        home = shop.airflow.home
        for path in [*sorted(home.glob("components/*.log")), *sorted(home.glob("logs/dag_id=*/**/*.log"))]:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            report.sections.append((str(path.relative_to(home)), "\n".join(lines)))
    return report

"""Shops with many pictures, and tasks in processes that can be killed. What is billed is the emulator's word alone."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from clouds import Cloud
from PIL import Image

from airflow_provider_describer.emulator.process import EmulatorProcess, child_environment
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.index import read_history
from airflow_provider_describer.store.rows import STATUSES

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="session")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A thousand distinct pictures, which no test changes."""
    folder = tmp_path_factory.mktemp("thousand")
    return draw_into(folder, 1000)


def draw_into(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Make files of distinct pictures: one drawn JPEG, each time with another comment in it."""
    target = io.BytesIO()
    Image.new("RGB", (32, 24), (90, 120, 60)).save(target, "JPEG", comment="0" * 12)
    head, tail = target.getvalue().split(b"0" * 12)
    paths = [folder / f"{number:05d}.jpg" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(head + b"%012d" % number + tail)
    return paths


@pytest.fixture(name="draw_into")
def draw_into_fixture() -> Callable[..., list[Path]]:
    return draw_into


@dataclass
class Journaled:
    """What the journal says, in the words of the ledger: by the sha256 of images and the vendor's request ids."""

    outcomes: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)


@dataclass
class Worker:
    """A task in a child process."""

    child: subprocess.Popen[str]
    task: dict[str, Any]

    def kill(self, emulator: EmulatorProcess) -> dict[str, Any] | None:
        """Freeze the process, read the ledger of this very moment, and kill; None where it had ended already."""
        self.child.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.child.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.child.returncode = os.waitstatus_to_exitcode(status)
            return None
        ledger = emulator.ledger()
        self.child.kill()
        self.child.wait()
        return ledger

    def result(self) -> dict[str, Any]:
        """Wait for its end and return the manifest and the error."""
        out, errors = self.child.communicate()
        assert self.child.returncode == 0, errors
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        return result


@dataclass
class Works:
    """Starts workers for one shop; none outlives the test."""

    emulator: EmulatorProcess
    folder: Path
    vendor: str = "image_describer"
    extra: dict[str, Any] = field(default_factory=dict)
    started: list[Worker] = field(default_factory=list)
    cloud: Cloud | None = None
    """Where the store lies, if not in a folder of this machine."""
    rules: list[str] | None = None
    stricter_prompt: str | None = None
    fallbacks: list[dict[str, Any]] = field(default_factory=list)
    """Further connections: ``vendor`` and ``extra`` of each."""

    @property
    def store(self) -> str:
        return f"{self.cloud.uri}/store" if self.cloud else str(self.folder / "store")

    def start(
        self,
        images: Sequence[Path | str],
        *,
        poll_s: float = 0.02,
        on_claimed: str = "wait",
        settling_s: float = 0.0,
        on_unknown: str = "retry",
        run: dict[str, Any] | None = None,
        die: str | None = None,
        **limits: Any,
    ) -> Worker:
        task = {
            "vendor": self.vendor,
            "key": self.emulator.keys[self.vendor],
            "host": self.emulator.url,
            "extra": self.extra,
            "images": [str(path) for path in images],
            "store": self.store,
            "limits": limits,
            "run": run or {"dag_id": "catalog", "run_id": "night", "task_id": "describe"},
            "poll_s": poll_s,
            "on_claimed": on_claimed,
            "settling_s": settling_s,
            "on_unknown": on_unknown,
            "die": die,
            "rules": self.rules,
            "stricter_prompt": self.stricter_prompt,
            "fallbacks": [
                {"conn_id": f"backup_{place}", "key": self.emulator.keys[one["vendor"]], "extra": {}, **one}
                for place, one in enumerate(self.fallbacks)
            ],
        }
        file = self.folder / f"task-{len(self.started)}.json"
        file.write_text(json.dumps(task), encoding="utf-8")
        child = subprocess.Popen(
            [sys.executable, str(WORKER), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment() | (self.cloud.environment if self.cloud else {}),
        )
        worker = Worker(child, task)
        self.started.append(worker)
        return worker

    def kill_often(
        self,
        images: Sequence[Path | str],
        kills: int,
        at_risk: Callable[[dict[str, Any], Journaled], bool],
        moments: tuple[int, float],
        **options: Any,
    ) -> dict[str, bool]:
        """Kill workers at random moments; return the requests whose end was not durable then, and if it was answered.

        A moment is some requests after a start and some time after that, so that it does not depend on how busy this
        machine is; ``moments`` are the most of each. ``at_risk`` tells by the ledger and the journal.
        """
        rng = random.Random(kills)
        risked: dict[str, bool] = {}
        before = 0
        for _ in range(kills):
            worker = self.start(images, **options)
            self._wait_for_requests(worker, before + rng.randint(1, moments[0]))
            time.sleep(rng.uniform(0, moments[1]))
            ledger = worker.kill(self.emulator)
            assert ledger is not None, "it was done before it could be killed so often"
            journaled = self.journaled()
            lost = [entry for entry in ledger["entries"][before:] if at_risk(entry, journaled)]
            assert len(lost) <= self.most_at_risk(options["concurrency"])
            risked |= {entry["request_id"]: entry["answered"] for entry in lost}
            before = ledger["requests"]
        return risked

    @staticmethod
    def most_at_risk(concurrency: int) -> int:
        """How many calls a kill may hit: one for each image in the worker's hands, until its answer is durable.

        These are as many as calls may be under way, and half as many again and one that are prepared or written down.
        """
        return concurrency + concurrency // 2 + 1

    def _wait_for_requests(self, worker: Worker, count: int) -> None:
        while self.emulator.ledger(entries=False)["requests"] < count and worker.child.poll() is None:
            time.sleep(0.002)

    def finish(self, images: Sequence[Path | str], **options: Any) -> dict[str, Any]:
        """Let a worker do what is left, and check that all is described then."""
        result = self.start(images, **options).result()
        assert result["error"] is None
        counts = result["manifest"]["counts"]
        assert counts["described"] + counts["reused"] == counts["requested"] == len(images)
        return result

    def check_bill(self, sums: Sequence[str], risked: Iterable[str]) -> dict[str, Any]:
        """No image was billed more often than once and once for each kill at which its call was at risk."""
        ledger = self.emulator.ledger()
        image_of = {entry["request_id"]: entry["image_sha256"] for entry in ledger["entries"]}
        at_risk = Counter(image_of[request] for request in risked)
        assert set(ledger["by_image"]) == set(sums)
        for image, billed in ledger["by_image"].items():
            assert billed <= 1 + at_risk[image]
        assert ledger["billed"] <= len(sums) + at_risk.total()
        return ledger

    def folder_of_store(self) -> Folder:
        return open_folder(self.store, self.cloud.open_bucket if self.cloud else None)

    def journaled(self) -> Journaled:
        found = Journaled()
        for event in read_history(self.folder_of_store()):
            if event["event"] == "outcome":
                found.outcomes[event["sha256"]] = event["status"]
                # What has ended is settled without its start.
                found.accepted.add(event["request_id"] or "")
            elif event["event"] == "accepted":
                found.accepted.add(event["request_id"])
        return found


@pytest.fixture
def works(emulator: EmulatorProcess, tmp_path: Path) -> Iterator[Works]:
    works = Works(emulator, tmp_path)
    yield works
    for worker in works.started:
        worker.child.kill()
        worker.child.wait()
        for stream in (worker.child.stdout, worker.child.stderr):
            if stream:
                stream.close()


def sums(paths: list[Path]) -> list[str]:
    """The pictures' names in the ledger."""
    return [sha256(path.read_bytes()).hexdigest() for path in paths]


@pytest.fixture(name="sums")
def sums_fixture() -> Callable[[list[Path]], list[str]]:
    return sums


@dataclass
class Night:
    """One run of a job, as its manifest, its rows and the ledger tell of it."""

    manifest: dict[str, Any]
    error: DescriberError | None
    rows: list[dict[str, Any]]
    ledger: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.manifest["counts"]
        return counts

    @property
    def cost(self) -> float:
        """What it says to have cost at most."""
        cost: float = self.manifest["cost_usd"] + self.manifest["unknown_cost_usd"]
        return cost

    def of(self, status: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] == status]


@pytest.fixture
def night(shop: Any) -> Callable[..., Night]:
    """Run a job to its end, and check that manifest, result files and failures agree with each other."""

    def describe(images: list[Path], *, on_unknown: str = "retry", job: Any = None, **options: Any) -> Night:
        job = job or shop.job(images, **options)
        job.on_unknown = on_unknown
        outcome = job.run()
        rows, failures = (read_rows(outcome.manifest[name]) for name in ("results", "failures"))
        counts = Counter(row["status"] for row in rows)
        assert outcome.manifest["counts"] == {"requested": len(images), **dict.fromkeys(STATUSES, 0), **counts}
        assert failures == [row for row in rows if row["status"] not in ("described", "reused")]
        return Night(outcome.manifest, outcome.error, rows, shop.emulator.ledger())

    return describe


def read_rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]]

"""Runs whose steps are taken in any order, that die, are stopped for long or lose answers: no image has two payers.

Each run is a thread that waits before each thing it does to the store until the schedule lets it go on.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_describer.errors import StoreError, Unfinished
from airflow_provider_describer.storage.cas_document import MemoryDocument
from airflow_provider_describer.storage.folder import Location
from airflow_provider_describer.store.claim_files import Claims
from airflow_provider_describer.store.claims import CLOCKS_S, LEASE_S, RENEW_S

KEYS = [f"{number:02x}" * 16 for number in range(3)]


class Killed(BaseException):
    """The process is gone."""


class World:
    """The store, the vendor's bill, and the schedule."""

    def __init__(self, seed: int, runs: int, faults: Sequence[str]) -> None:
        self.rng, self.faults = random.Random(seed), faults
        self.now = 1_000_000.0
        self.files: dict[str, bytes] = {}
        self.document = MemoryDocument()
        self.journal: set[str] = set()
        self.in_flight: dict[str, list[Run]] = {key: [] for key in KEYS}
        self.billed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.runs = [Run(self, number) for number in range(runs)]

    def play(self) -> None:
        """Let the runs go on, one step of one run at a time, until all have ended."""
        for run in self.runs:
            run.start()
        while alive := [run for run in self.runs if not run.ended]:
            if "retry" in self.faults and not self.runs[0].ended:
                # The second try of a task begins when the first one has ended.
                alive.remove(self.runs[1])
            awake = [run for run in alive if run.stopped_until <= self.now]
            if not awake:
                self.now = min(run.stopped_until for run in alive)
                continue
            run = self.rng.choice(awake)
            if "kill" in self.faults and self.rng.random() < 0.02:
                run.killed = True
            elif "stop" in self.faults and self.rng.random() < 0.02:
                run.stopped_until = self.now + self.rng.choice([30.0, LEASE_S + CLOCKS_S + 1, 300.0])
                continue
            run.go()
            self.now += self.rng.choice([0.0, 0.0, 0.1, 2.0])

    def pay(self, run: Run, key: str) -> None:
        """The vendor bills a call; whoever else is paying for the image must be gone by all that one can know."""
        if key in self.journal:
            self.wrong.append(f"{key[:2]} had an outcome already")
        for other in self.in_flight[key]:
            if not other.ended and other.claims.holds():
                self.wrong.append(f"{key[:2]} is being paid for by a run that lives")
        self.in_flight[key].append(run)
        self.billed[key] += 1


class Run(threading.Thread):
    """One run, as the engine does it: look, read the store, arrive, pay or wait, depart."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(daemon=True)
        self.world, self.number = world, number
        self.ahead = world.rng.uniform(-CLOCKS_S / 2, CLOCKS_S / 2) if "clocks" in world.faults else 0.0
        instance = "one" if "retry" in world.faults and number < 2 else ""
        self.claims = Claims(
            self, _Document(self), instance, clock=lambda: world.now + self.ahead, steady=lambda: world.now
        )
        self.wants = world.rng.sample(KEYS, world.rng.randint(1, len(KEYS)))
        self.killed = self.ended = False
        self.stopped_until = 0.0
        self.renewed_at = 0.0
        self.error: BaseException | None = None
        self._may_go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._one = threading.Lock()

    def start(self) -> None:
        super().start()
        self._waits.acquire()

    def go(self) -> None:
        """Let it take one step, and wait until it is before the next one or has ended."""
        self._may_go.release()
        self._waits.acquire()

    def step(self) -> None:
        with self._one:
            self._waits.release()
            self._may_go.acquire()
            if self.killed:
                raise Killed

    def run(self) -> None:
        try:
            self.step()
            self.work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  # shown by the test
            self.error = error
        self.ended = True
        self._waits.release()

    def work(self) -> None:
        self.claims.look()
        known = self.read_store()
        wanted = [key for key in self.wants if key not in known]
        if not wanted:
            return
        try:
            self.renewed_at = self.world.now
            if not self.claims.arrive(wanted):
                known = self.read_store()
            self.describe(wanted, known)
        except Unfinished:
            # It is no longer listed, and sends nothing more.
            pass
        finally:
            if not self.killed:
                self.claims.depart()

    def describe(self, wanted: list[str], known: set[str]) -> None:
        while wanted := [key for key in wanted if key not in known]:
            for key in [key for key in wanted if self.claims.owner_of([key]) is None]:
                self.keep_alive()
                self.step()
                while not self.claims.holds():
                    self.claims.renew()
                self.world.pay(self, key)
                self.step()
                self.world.journal.add(key)
                self.world.in_flight[key].remove(self)
                known = known | {key}
            self.keep_alive()
            self.claims.poll()
            known = known | self.read_store()

    def keep_alive(self) -> None:
        if self.world.now > self.renewed_at + RENEW_S:
            self.renewed_at = self.world.now
            self.claims.renew()

    def read_store(self) -> set[str]:
        self.step()
        return set(self.world.journal)

    # A `Folder`

    def where(self, name: str = "") -> str:
        return name

    def names(self, under: str) -> Sequence[str]:
        self.step()
        return sorted(name for name in self.world.files if name.startswith(under + "/"))

    def read(self, name: str, start: int = 0, length: int = -1) -> bytes | None:
        self.step()
        return self.world.files.get(name)

    def create(self, name: str, content: bytes) -> None:
        self.replace(name, content)

    def replace(self, name: str, content: bytes) -> None:
        self.step()
        self.world.files[name] = content

    def publish(self, spool: Any, name: str) -> None:
        raise NotImplementedError

    def delete(self, *names: str) -> None:
        for name in names:
            self.step()
            self.world.files.pop(name, None)

    def location(self, name: str) -> Location:
        raise NotImplementedError


class _Document:
    """The order, as one run sees it: a step each time, and sometimes no answer."""

    where, write_interval, poll_interval = "order.json", 0.0, 0.0

    def __init__(self, run: Run) -> None:
        self._run = run

    def load(self) -> Any:
        self._run.step()
        return self._run.world.document.load()

    def swap(self, content: bytes, token: Any) -> Any:
        self._run.step()
        world = self._run.world
        fate = world.rng.random() if "answers" in world.faults else 1.0
        if fate < 0.1:
            raise StoreError("no answer", kind="unreachable")
        written = world.document.swap(content, token)
        if fate < 0.3:
            raise StoreError("no answer", kind="unreachable")
        return written

    def close(self) -> None:
        self._run.world.document.close()


FAULTS = ["kill", "stop", "clocks", "answers", "retry"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_describer.storage.cas_document.time.sleep", lambda seconds: None)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(2, 4), st.lists(st.sampled_from(FAULTS), unique=True))
@example(41813762, 4, [])  # an owner departs between an arrival's write and its look at the owner's keys
def test_each_image_has_one_payer_at_a_time_and_gets_its_outcome(seed: int, runs: int, faults: list[str]) -> None:
    world = World(seed, runs, faults)
    world.play()
    assert world.wrong == []
    assert [run.error for run in world.runs if run.error] == []
    if not {"kill", "stop"} & set(faults):
        wanted = {key for run in world.runs for key in run.wants}
        assert world.journal == wanted
        assert world.billed == dict.fromkeys(wanted, 1)
        assert world.files == {} or "answers" in faults


def test_the_test_finds_a_protocol_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes that are easily made: to trust what was read before the arrival, and a lease that is over."""
    found = Counter[str]()
    for mistake, faults in (("stale", []), ("late", ["stop"])):
        for seed in range(300):
            with monkeypatch.context() as patch:
                if mistake == "stale":
                    arrive = Claims.arrive
                    patch.setattr(Claims, "arrive", lambda self, keys, arrive=arrive: arrive(self, keys) or True)
                else:
                    patch.setattr(Claims, "renew", lambda self: setattr(self, "_lease", self._new_lease()))
                world = World(seed, 3, faults)
                world.play()
                found[mistake] += bool(world.wrong) or any(count > 1 for count in world.billed.values())
    assert found["stale"] and found["late"], found

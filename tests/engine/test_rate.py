"""No minute holds more calls than the connection allows, whatever stalls: reads, intents or the event loop."""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.engine.admission import Admission, RunStopping
from airflow_provider_describer.engine.limits import Budget, TaskLimits
from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.quota.process import open_process_quota
from airflow_provider_describer.quota.shared import SharedLimits, limits_over, open_quota
from airflow_provider_describer.storage.cas_document import MemoryDocument
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from tests.conftest import Shop

T = TypeVar("T")
Pictures = Callable[..., list[Path]]
NOW = 1_763_708_820.0
MAX_WAIT_S = 15.0


class VirtualSelector(selectors.SelectSelector):
    """Nothing but time passes while the loop waits."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nobody would ever wake this loop"
        self.loop.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds take no time."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = VirtualSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def clock(self) -> float:
        return NOW + self.now


class AtOnce:
    """An executor without threads: they would live in another time."""

    def submit(self, work: Callable[..., T], *about: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(work(*about))
        except Exception as error:  # noqa: BLE001  # as an executor does
            done.set_exception(error)
        return done

    def shutdown(self, wait: bool = True) -> None:
        pass


def in_virtual_time(play: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(play(loop))
    finally:
        loop.close()


def an_account(per_minute: float, conn_id: str = "shop") -> Account:
    extra = {"requests_per_minute": per_minute}
    return account_from_connection(get_vendor("segmind").defaults(), conn_id=conn_id, password="sk-01", extra=extra)


class Tasks:
    """Tasks of one account that call as fast as they may, in a world that stalls. Keeps when each call starts."""

    def __init__(self, loop: VirtualLoop, way: str, per_minute: float, seed: int, *, stalls: bool = True) -> None:
        self.loop, self.way, self.rng, self.stalls = loop, way, random.Random(seed), stalls
        self.account = an_account(per_minute, f"shop-{seed}-{random.random()}")
        self.started: list[float] = []
        self.document = MemoryDocument()
        self.document.write_interval, self.document.poll_interval = 0.5, 1.0  # those of S3
        self.intents_flow = asyncio.Event()
        self.intents_flow.set()

    @property
    def in_bursts(self) -> bool:
        return self.way == "in bursts"

    def quota(self, not_before: float) -> SharedLimits:
        clock = self.loop.clock
        if self.way == "hooks of a process":
            return open_process_quota(self.account, clock=clock)
        if self.way == "limits_path":
            quota = limits_over(self.account, self.document, clock=clock)
            quota._thread = AtOnce()  # type: ignore[assignment]  # what the loop awaits is the same
            return quota
        return open_quota(self.account, in_bursts=self.in_bursts, not_before=not_before, clock=clock)

    def pause(self, usual: float, long: float) -> float:
        if self.stalls and self.rng.random() < 0.05:
            return long * self.rng.random()
        return usual * self.rng.random()

    async def write_intent(self) -> None:
        await asyncio.sleep(self.pause(0.05, 90.0))
        await self.intents_flow.wait()

    async def call(self, admission: Admission) -> None:
        permit = await admission.acquire(self.write_intent, lambda why: None)
        if self.stalls and self.way in ("alone", "in bursts") and self.rng.random() < 0.1:
            # Something blocks the event loop just before the call is sent. Other holders cannot make up for it.
            self.loop.call_soon(self.block, 40.0 * self.rng.random())
        await asyncio.sleep(0)
        self.started.append(self.loop.clock())
        await asyncio.sleep(self.pause(4.0, 70.0))
        admission.settle(permit, 0.0)

    async def work(self, admission: Admission, until: float) -> None:
        while self.loop.now < until:
            await asyncio.sleep(self.pause(0.2, 60.0))
            try:
                await self.call(admission)
            except RunStopping:
                return

    async def run(self, until: float) -> None:
        """Run one task, and go on with it whenever it has left, as a deferrable task does."""
        not_before = 0.0
        while self.loop.now < until:
            async with AsyncExitStack() as opened:
                quota = await opened.enter_async_context(self.quota(not_before))
                limits = TaskLimits(concurrency=16, max_wait=MAX_WAIT_S if self.in_bursts else None)
                admission = Admission(self.account, limits, Budget(), Totals(), self.loop.clock, quota)
                workers = [asyncio.create_task(self.work(admission, until)) for _ in range(24)]
                await asyncio.wait(workers)
                for worker in workers:
                    worker.result()
                not_before = admission.idle_at
            if condition := admission.resume_condition([]):
                assert condition.until is not None
                # Sometimes it is back sooner, for a request that has ended at the vendor.
                wait = condition.until - self.loop.clock()
                await asyncio.sleep(max(0.0, wait * self.rng.choice([0.2, 1.0, 1.0])))

    def block(self, seconds: float) -> None:
        """Let nothing happen in the event loop meanwhile."""
        self.loop.now += seconds

    async def stall(self) -> None:
        while True:
            await asyncio.sleep(30 * self.rng.random())
            if self.rng.random() < 0.5:
                self.block(self.rng.choice([0.5, 3.0, 40.0]) * self.rng.random())
            else:
                self.intents_flow.clear()
                await asyncio.sleep(self.rng.choice([2.0, 20.0, 150.0]))
                self.intents_flow.set()

    async def play(self, until: float) -> None:
        stalling = asyncio.create_task(self.stall() if self.stalls else asyncio.sleep(0))
        count = 1 if self.way in ("alone", "in bursts") else 3
        await asyncio.gather(*(self.run(until) for _ in range(count)))
        stalling.cancel()
        await asyncio.wait([stalling])

    def check(self, per_minute: int) -> None:
        starts = sorted(self.started)
        for first, next_minute in zip(starts, starts[per_minute:], strict=False):
            assert next_minute - first >= 60.0


WAYS = ["alone", "in bursts", "hooks of a process", "limits_path"]


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=8)
@given(per_minute=st.sampled_from([1, 2, 10, 50, 300]), seed=st.integers(0, 2**32))
def test_no_minute_holds_more_calls_than_allowed_whatever_stalls(way: str, per_minute: int, seed: int) -> None:
    async def play(loop: VirtualLoop) -> None:
        tasks = Tasks(loop, way, per_minute, seed)
        await tasks.play(until=240.0)
        tasks.check(per_minute)

    in_virtual_time(play)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("per_minute", [1, 10, 50])
def test_without_stalls_the_rate_is_used(way: str, per_minute: int) -> None:
    """The property above must not hold only because nobody calls."""

    async def play(loop: VirtualLoop) -> None:
        tasks = Tasks(loop, way, per_minute, 7, stalls=False)
        await tasks.play(until=300.0)
        tasks.check(per_minute)
        assert len(tasks.started) >= 0.8 * per_minute * 5

    in_virtual_time(play)


@pytest.mark.parametrize(("per_minute", "calls"), [(2.9, 2), (1.0, 1), (59.99, 59)])
@pytest.mark.parametrize("way", ["alone", "in bursts"])
def test_a_broken_rate_is_rounded_down_to_whole_calls(way: str, per_minute: float, calls: int) -> None:
    async def play(loop: VirtualLoop) -> None:
        tasks = Tasks(loop, way, per_minute, 7, stalls=False)
        await tasks.play(until=300.0)
        tasks.check(calls)

    in_virtual_time(play)


@pytest.fixture
def late_intents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes 3 s for the first shard of the journal."""
    real, late = LocalFolder.create, [3.0]

    def create(self: LocalFolder, name: str, content: Any) -> Any:
        time.sleep(late.pop() if late else 0.0)
        return real(self, name, content)

    monkeypatch.setattr(LocalFolder, "create", create)


@pytest.mark.usefixtures("late_intents")
@pytest.mark.parametrize("shared", [False, True])
def test_intents_that_were_slow_are_not_followed_by_a_rush(
    shop: Shop, pictures: Pictures, tmp_path: Path, shared: bool
) -> None:
    """13 calls had started in a second at a limit of 10, each in a moment that it had reserved before the stall."""
    shop.fields = {"requests_per_minute": 120, **({"limits_path": str(tmp_path / "limits")} if shared else {})}
    result = shop.describe(pictures(10), concurrency=8)
    assert result.error is None and result.ledger["billed"] == 10
    moments = sorted(entry["at"] for entry in result.ledger["entries"])
    # A slot each half second, of which one may be used 0.6 s late.
    assert all(later - first > 2 * 0.5 for first, later in zip(moments, moments[4:], strict=False))


@pytest.mark.usefixtures("late_intents")
def test_a_burst_is_a_minutes_worth_though_intents_are_slow(shop: Shop, pictures: Pictures) -> None:
    shop.fields = {"requests_per_minute": 10}
    job = shop.job(pictures(30), concurrency=16, max_wait=0.3)
    outcome = job.run()
    result = shop.result(outcome, [])
    assert result.ledger["requests"] == result.ledger["billed"] == 10
    assert outcome.resume_condition is not None and outcome.carried.idle_at == outcome.resume_condition.until


def test_calls_are_spaced_for_each_version_of_an_api(any_shop: Shop, pictures: Pictures) -> None:
    """Of Segmind v2 only the submission counts, not its polls."""
    any_shop.fields["requests_per_minute"] = 120
    result = any_shop.describe(pictures(5), concurrency=8)
    assert result.error is None and result.ledger["requests"] == result.ledger["billed"] == 5
    moments = sorted(entry["at"] for entry in result.ledger["entries"])
    # A slot each half second, of which one may be used 0.6 s late.
    assert moments[4] - moments[0] >= 4 * 0.5 - 0.6


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_leaves_for_as_long_as_its_rate_makes_it_wait(
    shop: Shop, pictures: Pictures, tmp_path: Path, shared: bool
) -> None:
    shop.fields = {"requests_per_minute": 1, **({"limits_path": str(tmp_path / "limits")} if shared else {})}
    began = time.time()
    outcome = shop.job(pictures(3), max_wait=0.3).run()
    assert shop.result(outcome, []).ledger["billed"] == 1
    assert outcome.resume_condition is not None and outcome.resume_condition.until is not None
    assert began + 60 <= outcome.resume_condition.until <= time.time() + 62


def test_a_run_that_is_back_early_counts_the_calls_of_the_last_minute(shop: Shop, pictures: Pictures) -> None:
    """As one that was left for requests at the vendor: each time it came back it had made a whole burst at once."""
    shop.fields = {"requests_per_minute": 4}
    paths, carried = pictures(12), None
    for _ in range(3):
        job = shop.job(paths, concurrency=8, max_wait=0.3)
        job.carried = carried
        outcome = job.run()
        carried = outcome.carried
        assert shop.result(outcome, []).ledger["requests"] == 4
        assert outcome.resume_condition is not None and outcome.resume_condition.until == carried.idle_at

"""Two Celery workers, one account: sixteen mapped tasks, a worker that is killed, and one whose clock is wrong.

One night after the other is played by the same fleet, and the account's day of money ends in the last. What was billed
is the emulator's word alone.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.airflow.fleet.conftest import Chunk, Shop

PER_MINUTE = 90
"""A pace that two processors can keep while they also start the tasks."""
PRICE = 0.01
CHUNKS, FEWER = 16, 12
"""Mapped tasks of the first night and of the others: more than one worker takes."""
MANY, SOME = 208, 108
"""Images of the first night, which take more than two minutes, and of each other night."""
AFFORDABLE = MANY + SOME + 72
"""Calls that the day's budget pays for: those of the first two nights, and a part of the third's."""
CLOCK_S = 3
WITHIN_S = 600.0
MIDNIGHT_S = 1800.0


@dataclass(frozen=True)
class Night:
    """One DAG run: what the vendor saw, what Airflow and the package say."""

    state: str
    images: set[str]
    entries: list[dict[str, Any]]
    chunks: list[Chunk]
    rows: list[dict[str, Any]]
    hit: list[Chunk] = field(default_factory=list)
    """Tasks that died with their worker."""

    @property
    def billed(self) -> Counter[str]:
        """How often each image was billed."""
        return Counter(entry["image_sha256"] for entry in self.entries if entry["billed"])

    @property
    def taken(self) -> list[float]:
        """When the calls came that the vendor did not refuse for their rate."""
        return sorted(entry["at"] for entry in self.entries if entry["status"] != 429)

    @property
    def lost(self) -> Counter[str]:
        """By image, the calls whose answers were lost, as the rows say."""
        return Counter({row["sha256"]: row["lost_calls"] for row in self.rows if row["lost_calls"]})

    def of(self, status: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] == status]

    def __str__(self) -> str:
        seconds = self.taken[-1] - self.taken[0]
        used = (len(self.taken) - 1) / seconds * 60 / PER_MINUTE
        return (
            f"{len(self.images)} images, {sum(self.billed.values())} billed, {self.lost.total()} answers lost, "
            f"{len(self.entries) - len(self.taken)} refused (429), {100 * used:.1f} % of the rate over {seconds:.0f} s"
        )


def play(shop: Shop, name: str, images: int, chunks: int, *, kill: str | None = None) -> Night:
    """Run the DAG over a folder of its own; ``kill`` a worker while all chunks are under way."""
    seen = len(shop.emulator.ledger()["entries"])
    shop.draw(name, images)
    run = shop.run(name, chunks)
    hit: list[Chunk] = []
    if kill:

        def all_at_work() -> bool:
            started = len(shop.emulator.ledger()["entries"]) - seen >= images // 4
            return started and all(one.state in ("running", "success") for one in shop.chunks(run))

        shop.airflow.until(all_at_work, "all chunks at work")
        shop.airflow.kill_worker(kill)
        hit = [one for one in shop.chunks(run) if one.state == "running" and one.hostname == kill]
    state = shop.end(run, WITHIN_S)
    return Night(
        state, shop.drawn[name], shop.emulator.ledger()["entries"][seen:], shop.chunks(run), shop.rows(name), hit
    )


@pytest.fixture(scope="module")
def quiet(shop: Shop) -> Night:
    """The first night: nothing happens."""
    if (86400 - time.time() % 86400) < MIDNIGHT_S:
        pytest.skip("the day's money would begin anew while the test runs: it is almost midnight (UTC)")
    shop.emulator.faults({"image_describer": {"requests_per_minute": PER_MINUTE, "latency_s": 0.5}})
    budget = {"price_per_call": PRICE, "max_cost_per_day": AFFORDABLE * PRICE}
    shop.connect(requests_per_minute=PER_MINUTE, limits_path=f"{shop.cloud.uri}/limits", **budget)
    shop.airflow.start_workers(["left", "right"])
    return play(shop, "quiet", MANY, CHUNKS)


@pytest.fixture(scope="module")
def killed(shop: Shop, quiet: Night) -> Night:
    """The second night: a worker is killed."""
    return play(shop, "killed", SOME, FEWER, kill="left")


@pytest.fixture(scope="module")
def shifted(shop: Shop, killed: Night) -> Night:
    """The third night: the worker is back with a wrong clock, and the day's money ends."""
    shop.airflow.start_workers(["left"], clock_s=CLOCK_S)
    return play(shop, "shifted", SOME, FEWER)


@pytest.fixture(scope="module")
def nights(quiet: Night, killed: Night, shifted: Night) -> list[Night]:
    return [quiet, killed, shifted]


def test_two_workers_describe_each_image_once(quiet: Night) -> None:
    print(f"\n{quiet}")
    assert quiet.state == "success"
    assert {chunk.hostname for chunk in quiet.chunks} == {"left", "right"}
    assert [(chunk.state, chunk.try_number) for chunk in quiet.chunks] == [("success", 1)] * CHUNKS
    assert quiet.billed == Counter(quiet.images)
    assert len(quiet.of("described")) == len(quiet.rows) == MANY


def test_tasks_of_a_killed_worker_go_on_at_the_other(killed: Night) -> None:
    print(f"\n{killed}; {len(killed.hit)} tasks died")
    assert killed.state == "success"
    died = {chunk.map_index for chunk in killed.hit}
    ends = {chunk.map_index: (chunk.try_number, chunk.hostname) for chunk in killed.chunks}
    assert died
    assert {index: end for index, end in ends.items() if end[0] > 1} == dict.fromkeys(died, (2, "right"))


def test_a_killed_worker_costs_the_answers_under_way_at_most(killed: Night) -> None:
    billed, lost = killed.billed, killed.lost
    assert set(billed) == killed.images
    assert all(times <= 1 + lost[image] for image, times in billed.items())
    # A task has hardly more images than it may call at a time.
    assert lost.total() <= SOME // FEWER * len(killed.hit)
    assert len(killed.of("described")) + len(killed.of("reused")) == len(killed.rows) == SOME


def test_a_clock_that_is_wrong_pays_for_nothing_twice(shifted: Night) -> None:
    print(f"\n{shifted}; left is {CLOCK_S} s ahead")
    assert {chunk.hostname for chunk in shifted.chunks} == {"left", "right"}
    assert max(shifted.billed.values()) == 1
    # A task that Airflow has tried again reuses what it had described before.
    described = shifted.of("described") + shifted.of("reused")
    assert sorted(row["sha256"] for row in described) == sorted(shifted.billed)
    assert {row["error"]["kind"] for row in shifted.of("pending")} == {"budget"}
    assert len(described) + len(shifted.of("pending")) == len(shifted.rows) == SOME


def test_all_tasks_keep_one_budget(shop: Shop, killed: Night, nights: list[Night]) -> None:
    billed = sum(sum(night.billed.values()) for night in nights)
    leases = shop.leases()
    spent = sum(leases.committed_on(day) for day in leases.spent) / 1e6
    print(f"\n{billed} of {AFFORDABLE} calls billed, {spent / PRICE:.0f} counted as spent")
    assert billed <= AFFORDABLE
    # What a dead task held, for images of its own, counts as spent; all the rest was spent to the last call.
    assert spent == pytest.approx(AFFORDABLE * PRICE)
    assert AFFORDABLE - billed <= SOME // FEWER * len(killed.hit)


def test_all_tasks_keep_one_rate(nights: list[Night]) -> None:
    taken = sorted(at for night in nights for at in night.taken)
    in_a_minute = max(sum(begin <= at < begin + 60 for at in taken) for begin in taken)
    print(f"\nat most {in_a_minute} calls in a minute")
    assert in_a_minute <= PER_MINUTE

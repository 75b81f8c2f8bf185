"""How many are let in and in which order, and how many images are in memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.engine.pacing import Gate, ReadAhead

if TYPE_CHECKING:
    from tests.conftest import Shop


async def settled():
    """Let everybody run who can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def queue_up(gate: Gate, count: int) -> tuple[list[int], list[asyncio.Task[None]]]:
    entered: list[int] = []

    async def come(number: int) -> None:
        await gate.enter()
        entered.append(number)

    tasks = [asyncio.create_task(come(number)) for number in range(count)]
    await settled()
    return entered, tasks


def test_a_gate_lets_in_so_many_and_the_next_when_one_leaves():
    async def play():
        gate = Gate(lambda: 3)
        entered, _ = await queue_up(gate, 6)
        assert entered == [0, 1, 2]
        gate.leave()
        # A newcomer is behind those that wait.
        late = asyncio.create_task(gate.enter())
        await settled()
        assert (entered, late.done(), gate.inside) == ([0, 1, 2, 3], False, 3)
        for _ in range(3):
            gate.leave()
        await settled()
        assert (entered, late.done(), gate.inside) == ([0, 1, 2, 3, 4, 5], True, 3)

    asyncio.run(play())


def test_a_gate_that_widens_lets_in_more_and_one_that_narrows_nobody():
    async def play():
        most = 2
        gate = Gate(lambda: most)
        entered, _ = await queue_up(gate, 8)
        most = 5
        gate.leave()
        await settled()
        assert (len(entered), gate.inside) == (6, 5)
        most = 1
        for _ in range(4):
            gate.leave()
        await settled()
        assert (len(entered), gate.inside) == (6, 1)
        gate.leave()
        await settled()
        assert (len(entered), gate.inside) == (7, 1)

    asyncio.run(play())


@pytest.mark.parametrize("let_in_first", [False, True])
def test_who_is_cancelled_while_waiting_takes_no_room(let_in_first):
    async def play():
        gate = Gate(lambda: 1)
        entered, tasks = await queue_up(gate, 3)
        if let_in_first:
            # Its room is given to it and it is cancelled before it knows.
            gate.leave()
        tasks[1].cancel()
        if not let_in_first:
            gate.leave()
        await settled()
        assert (entered, gate.inside, tasks[1].cancelled()) == ([0, 2], 1, True)

    asyncio.run(play())


def test_an_opened_gate_lets_everybody_in():
    async def play():
        gate = Gate(lambda: 1)
        entered, _ = await queue_up(gate, 4)
        gate.open()
        await settled()
        await asyncio.wait_for(gate.enter(), 1)
        assert (len(entered), gate.inside) == (4, 5)

    asyncio.run(play())


def test_a_quarter_as_many_images_are_read_ahead_of_calls_that_take_long():
    ahead = ReadAhead(64)
    for _ in range(50):
        ahead.ready_after(0.05)
        ahead.called_for(4.0)
    assert ahead.images() == 64 + 16 + 1


def test_half_as_many_images_are_read_ahead_of_short_calls_and_never_more():
    ahead = ReadAhead(64)
    for _ in range(50):
        ahead.ready_after(10.0)
        ahead.called_for(0.05)
    assert ahead.images() == 64 + 32 + 1


def test_one_slow_image_changes_little():
    ahead = ReadAhead(64)
    for _ in range(50):
        ahead.ready_after(0.01)
        ahead.called_for(0.1)
    before = ahead.images()
    ahead.ready_after(0.03)
    assert before < ahead.images() < before + 10


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_one_image_at_least_is_read_ahead(concurrency):
    ahead = ReadAhead(concurrency)
    assert ahead.images() > concurrency
    ahead.ready_after(0.0)
    ahead.called_for(60.0)
    assert ahead.images() <= concurrency + 3


@pytest.mark.slow
def test_memory_grows_with_the_calls_under_way_and_not_with_the_images(
    shop: Shop, tmp_path: Path, draw: Callable[..., bytes]
) -> None:
    """30 images of 4 MB, 16 calls at a time: four more are got ready, and one beside them."""
    comment = b"\xff\xfe" + (65_002).to_bytes(2, "big")
    for number in range(30):
        tiny = draw(number)
        fill = b"".join(comment + bytes(65_000) for _ in range(64))
        (tmp_path / f"{number}.jpg").write_bytes(tiny[:2] + fill + tiny[2:])
    shop.faults(latency_s=4)
    tracemalloc.start()
    try:
        done = shop.describe(sorted(tmp_path.glob("*.jpg")), concurrency=16)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.counts["described"] == shop.emulator.ledger(entries=False)["billed"] == 30
    # Were it left to the 25 workers alone, it would be theirs; what is being written is in memory twice, a piece each.
    images = peak / (64 * 65_000)
    print(f"{images:.1f} images in memory")
    assert 16 < images < 24

"""Runs that work at the same time on one store: each image is billed once, whoever starts, dies or skips."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.money.conftest import Worker, Works

IMAGES = 100


def run_of(name: str) -> dict[str, Any]:
    return {"dag_id": "catalog", "run_id": name, "task_id": "describe"}


@pytest.fixture
def paths(tmp_path: Path, draw_into: Callable[..., list[Path]]) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    return draw_into(folder, IMAGES)


@pytest.fixture(params=["local", "s3", "gcs"])
def anywhere(works: Works, request: pytest.FixtureRequest) -> Works:
    """Workers whose store lies here, or at either cloud."""
    if request.param != "local":
        works.cloud = request.getfixturevalue(request.param)
    return works


def start(works: Works, paths: list[Path], names: list[str], **options: Any) -> list[Worker]:
    return [works.start(paths, run=run_of(name), **{"concurrency": 8, **options}) for name in names]


def check_all(results: list[dict[str, Any]], count: int = IMAGES) -> None:
    """All runs end with all images described or reused."""
    for result in results:
        assert result["error"] is None
        counts = result["manifest"]["counts"]
        assert counts["described"] + counts["reused"] == counts["requested"] == count


def left_in(works: Works) -> list[str]:
    """What the runs have left of their claims."""
    return sorted(name.removeprefix("claims/") for name in works.folder_of_store().names("claims"))


def test_two_that_start_together_pay_once(anywhere, paths):
    works = anywhere
    works.emulator.faults({"image_describer": {"latency_s": 0.2}})
    workers = start(works, paths, ["scheduled", "manual"])
    results = [worker.result() for worker in workers]
    check_all(results)
    ledger = works.emulator.ledger()
    assert ledger["billed"] == IMAGES and set(ledger["by_image"].values()) == {1}
    assert sum(result["manifest"]["counts"]["described"] for result in results) == IMAGES
    assert sum(result["manifest"]["calls"] for result in results) == IMAGES
    assert left_in(works) == ["order.json"]


@pytest.mark.slow
def test_sixteen_that_start_together_pay_once(anywhere, paths):
    works = anywhere
    works.emulator.faults({"image_describer": {"latency_s": 0.2}})
    results = [worker.result() for worker in start(works, paths, [f"run {number}" for number in range(16)])]
    check_all(results)
    ledger = works.emulator.ledger()
    assert ledger["billed"] == IMAGES and set(ledger["by_image"].values()) == {1}
    assert left_in(works) == ["order.json"]


def test_lists_that_overlap_are_shared_out(works, paths):
    works.emulator.faults({"image_describer": {"latency_s": 0.2}})
    parts = [paths[:60], paths[40:], paths[20:80]]
    workers = [works.start(part, run=run_of(str(number)), concurrency=8) for number, part in enumerate(parts)]
    for part, worker in zip(parts, workers, strict=True):
        check_all([worker.result()], len(part))
    ledger = works.emulator.ledger()
    assert ledger["billed"] == IMAGES and set(ledger["by_image"].values()) == {1}


def test_one_that_skips_leaves_what_others_pay_for(works, paths):
    works.emulator.faults({"image_describer": {"latency_s": 0.5}})
    (first,) = start(works, paths[:50], ["scheduled"], concurrency=4)
    works._wait_for_requests(first, 4)
    (second,) = start(works, paths, ["manual"], on_claimed="skip", concurrency=50)
    result = second.result()
    counts = result["manifest"]["counts"]
    assert result["error"] is None and counts["described"] == 50
    assert counts["pending"] > 0 and counts["pending"] + counts["reused"] == 50
    check_all([first.result()], 50)
    assert works.emulator.ledger()["billed"] == IMAGES


@pytest.mark.slow
@pytest.mark.parametrize("others", [1, 3])
def test_a_killed_owner_leaves_its_images_to_the_others(works, paths, others):
    """They wait about a minute: so long it might only be slow."""
    works.emulator.faults({"image_describer": {"latency_s": 0.3}})
    (owner,) = start(works, paths, ["scheduled"], concurrency=4)
    works._wait_for_requests(owner, 20)
    heirs = start(works, paths, [f"manual {number}" for number in range(others)])
    while len(left_in(works)) < 1 + others:
        time.sleep(0.05)
    before = owner.kill(works.emulator)
    assert before is not None
    began = time.monotonic()
    check_all([heir.result() for heir in heirs])
    assert time.monotonic() - began < 300, "they wait for a minute and not for ever"
    ledger = works.emulator.ledger()
    assert len(ledger["by_image"]) == IMAGES
    assert IMAGES <= ledger["billed"] <= IMAGES + works.most_at_risk(4), "all but its calls in flight are billed once"
    assert left_in(works) == ["order.json"]


@pytest.mark.slow
def test_an_owner_that_was_stopped_for_long_sends_nothing_when_it_wakes_up(works, paths):
    """As on a machine that was suspended: the others have taken over, and it has to learn that first."""
    works.emulator.faults({"image_describer": {"latency_s": 0.3}})
    (owner,) = start(works, paths, ["scheduled"], concurrency=4)
    works._wait_for_requests(owner, 20)
    (heir,) = start(works, paths, ["manual"])
    while len(left_in(works)) < 2:
        time.sleep(0.05)
    owner.child.send_signal(signal.SIGSTOP)
    check_all([heir.result()])
    before = works.emulator.ledger()["requests"]
    owner.child.send_signal(signal.SIGCONT)
    result = owner.result()
    assert "no longer lists this run" in result["error"]
    ledger = works.emulator.ledger()
    assert ledger["requests"] <= before + 1, "a call that was just about to be sent may have been"
    assert len(ledger["by_image"]) == IMAGES and ledger["billed"] <= IMAGES + works.most_at_risk(4)
    counts = result["manifest"]["counts"]
    assert counts["described"] + counts["pending"] + counts["unknown"] == IMAGES and counts["pending"] > 0


def test_the_next_try_of_a_killed_task_goes_on_at_once(works, paths):
    works.emulator.faults({"image_describer": {"latency_s": 0.1}})
    (first,) = start(works, paths, ["scheduled"], concurrency=4)
    works._wait_for_requests(first, 20)
    assert first.kill(works.emulator) is not None
    began = time.monotonic()
    again = works.start(paths, run={**run_of("scheduled"), "try_number": 2}, concurrency=16)
    check_all([again.result()])
    assert time.monotonic() - began < 50, "it waits for nobody, which would take a minute"
    assert IMAGES <= works.emulator.ledger()["billed"] <= IMAGES + works.most_at_risk(4)
    assert left_in(works) == ["order.json"]

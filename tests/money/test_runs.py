"""Whole runs and the runs after them: every image is paid for once. What is billed is the ledger's word."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from airflow_provider_describer.errors import CorruptShard

MANY = int(os.environ.get("DESCRIBER_TEST_IMAGES", "10000"))
"""Twenty seconds on two cores, half of them the emulator's; on a busy machine the variable may ask for fewer."""


def test_out_of_credits_and_topped_up(shop, thousand):
    shop.faults(credits=400 * 0.01, price=0.01)
    broke = shop.describe(thousand, concurrency=32)
    assert broke.error.kind == "insufficient_credits"
    assert broke.counts["described"] == broke.ledger["billed"] == 400
    assert broke.counts["pending"] == 600

    shop.faults(credits=100, price=0.01)
    refused = broke.ledger["requests"] - 400
    rich = shop.describe(thousand, concurrency=32)

    assert rich.error is None
    assert rich.counts["described"] == rich.manifest["calls"] == 600
    assert rich.counts["reused"] == 400
    assert rich.ledger["billed"] == 1000
    print(
        f"\nout of credits: 400 kept, {refused} refused unbilled; then 600 calls, {rich.ledger['billed']} billed in all"
    )


def test_the_next_night_pays_for_what_changed(shop, draw_into, tmp_path):
    folder = tmp_path / "catalog"
    folder.mkdir()
    paths = draw_into(folder, MANY)
    first = shop.describe(paths, concurrency=64)
    assert first.counts["described"] == first.ledger["billed"] == MANY
    shop.emulator.clear_ledger()

    for old, new in zip(paths, draw_into(tmp_path, 37, first=MANY), strict=False):
        new.replace(old)
    renamed = [path.rename(path.with_stem(f"renamed {path.stem}")) for path in paths[100:200]]
    copies = [Path(shutil.copy(path, path.with_stem(f"copy of {path.stem}"))) for path in paths[300:350]]
    night = [*paths[:100], *renamed, *paths[200:], *copies]
    second = shop.describe(night, concurrency=64)

    assert second.lines[0] == f"{MANY + 50} images: 37 new, {MANY + 13} reused; at most 37 calls, $0.555"
    assert second.counts["described"] == second.manifest["calls"] == 37
    assert second.counts["reused"] == MANY + 13
    assert second.ledger["requests"] == second.ledger["billed"] == 37
    print(f"\n{MANY} described; 37 changed, 100 renamed, 50 copied: {second.ledger['billed']} calls")


@pytest.mark.slow
def test_sixteen_processes_share_a_store(works, draw_into, sums):
    folder = works.folder / "pictures"
    folder.mkdir()
    paths = draw_into(folder, 16 * 40)
    slices = [paths[number * 40 : (number + 1) * 40] for number in range(16)]
    works.emulator.faults({"image_describer": {"latency_s": 0.02, "latency_jitter_s": 0.1}})

    started = [
        works.start(part, concurrency=8, run={"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": number})
        for number, part in enumerate(slices)
    ]
    results = [worker.result() for worker in started]

    ledger = works.emulator.ledger()
    assert ledger["billed"] == len(paths) and set(ledger["by_image"]) == set(sums(paths))
    assert set(ledger["by_image"].values()) == {1}
    for part, result in zip(slices, results, strict=True):
        assert result["error"] is None and result["manifest"]["counts"]["described"] == 40
        rows = [json.loads(line) for line in Path(result["manifest"]["results"]).read_text().splitlines()]
        assert {row["uri"] for row in rows} == {str(path) for path in part}
        assert all(row["text"] for row in rows)
    assert works.journaled().outcomes == dict.fromkeys(sums(paths), "described")
    print(f"\n16 processes, {len(paths)} images: {ledger['billed']} billed, none twice")


def test_a_dry_run_calls_nothing(shop, thousand):
    shop.describe(thousand[:60], concurrency=16)
    shop.faults(errors=[{"kind": "harmful", "share": 1}])
    shop.describe(thousand[60:63], concurrency=16)
    shop.emulator.reset()

    lines: list[str] = []
    job = shop.job(thousand[:100], report=lines.append)
    job.dry_run = True
    outcome = job.run()

    assert lines == ["100 images: 37 new, 60 reused, 3 rejected before; at most 37 calls, $0.555"]
    assert outcome.manifest["counts"] == {
        "requested": 100,
        "described": 0,
        "reused": 60,
        "rejected": 3,
        "unknown": 0,
        "pending": 37,
    }
    assert outcome.manifest["calls"] == 0 and outcome.manifest["cost_usd"] == 0.0
    assert shop.emulator.ledger()["requests"] == 0


def test_a_damaged_shard_stops_the_run_before_any_call(shop, thousand):
    shop.describe(thousand[:20])
    shard = next((shop.store / "journal").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    shop.emulator.clear_ledger()
    with pytest.raises(CorruptShard, match=shard.name):
        shop.job(thousand[:40]).run()
    assert shop.emulator.ledger()["requests"] == 0

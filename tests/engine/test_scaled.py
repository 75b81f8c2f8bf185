"""Images that are scaled down: what the vendor gets, what is reported, and that it is part of what was asked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from airflow_provider_describer.images.reference import parse_images

if TYPE_CHECKING:
    from tests.conftest import Shop


def test_large_images_are_scaled_down_and_what_that_saves_is_told(shop: Shop, tmp_path: Path) -> None:
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.frombytes("RGB", (400, 300), os.urandom(400 * 300 * 3)).save(large)
    Image.new("RGB", (20, 20), "red").save(small)

    def run(max_pixels: int | None) -> tuple[dict[str, int], list[str]]:
        lines: list[str] = []
        job = shop.job([large, small], report=lines.append)
        job.requests = parse_images([large, small], job.vendor_calls.vendor, max_pixels=max_pixels)
        return shop.result(job.run(), lines).counts, lines

    counts, lines = run(10_000)
    entries = {entry["image_sha256"]: entry for entry in shop.emulator.ledger()["entries"]}
    assert counts["described"] == 2 and "MB less to send" in lines[-1]
    # The small one is sent as it is, the large one as another and smaller file.
    assert hashlib.sha256(small.read_bytes()).hexdigest() in entries
    assert hashlib.sha256(large.read_bytes()).hexdigest() not in entries
    assert max(entry["image_bytes"] for entry in entries.values()) < large.stat().st_size / 4

    assert run(10_000)[0]["reused"] == 2
    counts, lines = run(None)
    assert counts["described"] == 2 and "less to send" not in lines[-1]
    assert shop.emulator.ledger(entries=False)["billed"] == 4

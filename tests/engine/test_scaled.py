"""Images that are scaled down: what the vendor gets, what is reported, and that it is part of what was asked."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, PngImagePlugin

from airflow_provider_describer.images import prepare
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


def test_a_very_long_image_is_scaled_like_the_others(
    shop: Shop, pictures: Callable[..., list[Path]], tmp_path: Path
) -> None:
    strip = tmp_path / "strip.png"
    Image.frombytes("L", (100_000, 40), os.urandom(4_000_000)).save(strip)
    job = shop.job([])
    job.requests = parse_images([*pictures(20), strip], job.vendor_calls.vendor, max_pixels=2_000_000)
    result = shop.result(job.run(), [])
    assert (result.error, result.counts["described"]) == (None, 21)
    assert result.ledger["billed"] == len(result.ledger["by_image"]) == 21


@pytest.mark.parametrize("raised", [OSError, MemoryError, RuntimeError, UserWarning])
def test_an_image_that_the_library_cannot_write_is_a_row(
    shop: Shop,
    pictures: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    raised: type[Exception],
) -> None:
    paths = [*pictures(6), *pictures(1, "PNG")]
    Image.effect_noise((300, 300), 50).save(paths[-1])

    def fail(*_: Any, **__: Any) -> None:
        raise raised("broken data stream")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    job = shop.job([])
    job.requests = parse_images(paths, job.vendor_calls.vendor, max_pixels=10_000)
    result = shop.result(job.run(), [])
    (row,) = result.of("rejected")
    assert (row["uri"], row["billed"]) == (str(paths[-1]), "no")
    assert row["error"]["kind"] == ("no_memory" if raised is MemoryError else "corrupt")
    assert result.counts["described"] == result.ledger["billed"] == 6


@pytest.mark.parametrize("fault", ["check_content", "_filename"])
@pytest.mark.parametrize("raised", [KeyError, ZeroDivisionError, AssertionError, MemoryError])
def test_a_fault_of_ours_in_one_image_ends_no_run(
    shop: Shop,
    pictures: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    raised: type[Exception],
) -> None:
    # The first is met while images are identified, the second when one is made ready for its call.
    paths = pictures(6)
    wanted = sorted(paths)[3].read_bytes()
    real = getattr(prepare, fault)

    def fail(*given: Any) -> Any:
        if wanted in given or str(paths[3]) in given:
            raise raised("https://h/a.jpg?sig=hush")
        return real(*given)

    monkeypatch.setattr(prepare, fault, fail)
    result = shop.describe(paths)
    (row,) = result.of("rejected")
    assert row["error"]["kind"] == ("no_memory" if raised is MemoryError else "internal_error")
    assert raised.__name__ in row["error"]["message"] and "hush" not in str(result.rows)
    assert result.counts["described"] == result.ledger["billed"] == 5
    # It is looked at again, for nothing, in the next run.
    monkeypatch.undo()
    again = shop.describe(paths)
    assert (again.counts["reused"], again.counts["described"]) == (5, 1)
    assert again.ledger["by_image"] == dict.fromkeys(again.ledger["by_image"], 1) and again.ledger["billed"] == 6


@pytest.mark.parametrize("max_pixels", [None, 2_000])
def test_images_that_every_program_shows_are_described(
    shop: Shop, draw: Callable[..., bytes], tmp_path: Path, max_pixels: int | None
) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    png, jpeg = draw(1, "PNG", (90, 60)), draw(2, "JPEG", (90, 60))
    text = chunk(b"iTXt", b"Comment\0\x01\0\0\0" + zlib.compress(bytes(3_000_000)))
    profile = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000)))
    contents = [jpeg[:-2] + b"SEFT\x64\0\0\0 a trailer"]
    if max_pixels:
        # As it is, the emulator does not take such a PNG either: it reads images with Pillow.
        contents += [png[:33] + text + png[33:], png[:33] + profile + png[33:]]
    paths = [tmp_path / f"{number}.img" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    # Half of one is refused before it is paid for.
    half = tmp_path / "half.jpg"
    half.write_bytes(jpeg[: len(jpeg) // 2] + b"SEFT\x64\0\0\0 a trailer")
    job = shop.job([])
    job.requests = parse_images([*paths, half], job.vendor_calls.vendor, max_pixels=max_pixels)
    result = shop.result(job.run(), [])
    assert [(row["uri"], row["error"]["kind"]) for row in result.of("rejected")] == [(str(half), "corrupt")]
    assert result.counts["described"] == result.ledger["billed"] == len(contents)

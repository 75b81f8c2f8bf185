"""Measure the engine against what it could be: prints one table of ratios, each of two things measured in this run.

``python benchmarks/engine.py [--quick]``; the machine should be otherwise idle. Goals stand beside the figures.
"""

from __future__ import annotations

import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
KB = 1024


@contextmanager
def vendor(latency: float) -> Iterator[str]:
    """Run the cheap vendor beside us."""
    with subprocess.Popen(
        [sys.executable, HERE / "server.py", str(latency)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        assert server.stdin
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()


def tiny_jpeg() -> tuple[bytes, bytes]:
    """Return the first marker of a tiny picture, and all after it: between them goes what makes it large."""
    target = io.BytesIO()
    Image.new("L", (8, 8)).save(target, "JPEG")
    return target.getvalue()[:2], target.getvalue()[2:]


def pictures(folder: Path, count: int, size: int) -> Path:
    """Write distinct JPEGs of about that size: a tiny picture, and noise in its comments."""
    target = folder / f"{count}x{size}"
    target.mkdir()
    start, rest = tiny_jpeg()
    noise = os.urandom(size)
    for number in range(count):
        named = number.to_bytes(8, "big") + noise[8 : size - len(rest)]
        parts = (named[at : at + 65_000] for at in range(0, len(named), 65_000))
        comments = (b"\xff\xfe" + (len(part) + 2).to_bytes(2, "big") + part for part in parts)
        (target / f"{number:06d}.jpg").write_bytes(b"".join((start, *comments, rest)))
    return target


def hollow_pictures(folder: Path, count: int, size: int) -> Path:
    """Write distinct JPEGs of about that size that take next to no place on a disk: their comments are holes."""
    target = folder / f"hollow-{count}x{size}"
    target.mkdir()
    start, rest = tiny_jpeg()
    for number in range(count):
        with (target / f"{number:06d}.jpg").open("wb") as file:
            file.write(start)
            for at in range(0, size - len(rest), 65_000):
                length = min(65_000, size - len(rest) - at)
                file.write(b"\xff\xfe" + (length + 2).to_bytes(2, "big") + number.to_bytes(8, "big"))
                file.seek(length - 8, os.SEEK_CUR)
            file.write(rest)
    return target


def measured(kind: str, url: str, folder: Path, count: int, concurrency: int) -> dict[str, Any]:
    """Run one client to its end and return its figures, with the server's count of connections."""
    with urllib.request.urlopen(f"{url}/reset") as _:
        pass
    command = [sys.executable, HERE / "client.py", kind, url, folder, str(count), str(concurrency)]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert figures["described"] == count, figures
    with urllib.request.urlopen(f"{url}/stats") as answer:
        return {**figures, **json.load(answer)}


def median_of(runs: int, *arguments: Any) -> dict[str, Any]:
    """Return the run of the median wall time."""
    found = sorted((measured(*arguments) for _ in range(runs)), key=lambda one: float(one["wall"]))
    return found[len(found) // 2]


def say(what: str, figure: str, goal: str) -> None:
    """Print one line of the table."""
    print(f"| {what} | {figure} | {goal} |", flush=True)


def against_ideal(folder: Path, rounds: int) -> None:
    """Rate against concurrency / latency."""
    for concurrency, latency, goal in ((64, 4.0, "≥ 0.98"), (64, 0.5, "≥ 0.94")):
        # About as long a run at either latency, so that starting weighs the same.
        count = min(2_000, int(concurrency * rounds * 4.0 / latency)) // concurrency * concurrency
        with vendor(latency) as url:
            found = measured("ours", url, folder, count, concurrency)
        ratio = count * latency / concurrency / found["wall"]
        say(f"rate against the ideal, C={concurrency} at {latency:g} s ({count} images)", f"{ratio:.3f}", goal)
        assert found["connections"] <= concurrency, found


def against_aiohttp(folder: Path, rounds: int) -> None:
    """Rate and CPU against the least that does the same work, and the journal's share."""
    for concurrency, latency, goal in ((16, 0.05, "≥ 0.92"), (64, 0.5, "≥ 0.96")):
        count = 64 * rounds
        kinds = ("ours", "aiohttp", "ours-no-journal")
        with vendor(latency) as url:
            pairs = [[measured(kind, url, folder, count, concurrency) for kind in kinds] for _ in range(3)]
        rate = statistics.median(theirs["wall"] / mine["wall"] for mine, theirs, _ in pairs)
        cpu = statistics.median(mine["cpu"] / theirs["cpu"] for mine, theirs, _ in pairs)
        journal = statistics.median(mine["cpu"] / without["cpu"] for mine, _, without in pairs)
        setting = f"C={concurrency} at {latency * 1000:g} ms"
        say(f"rate against aiohttp, {setting} ({count} images)", f"{rate:.3f}", goal)
        say(f"CPU against aiohttp, {setting}", f"{cpu:.2f} ×", "≤ 4.5 ×")
        say(f"CPU with the journal against without, {setting}", f"{journal:.2f} ×", "≤ 1.05 ×")
        most = max(mine["connections"] for mine, _, _ in pairs)
        say(f"connections opened, {setting}", str(most), f"≤ {concurrency}")


def flatness(folder: Path, count: int) -> None:
    """CPU per image at C=256 against C=8."""
    with vendor(0.05) as url:
        few, many = (median_of(3, "ours", url, folder, count, concurrency)["cpu"] for concurrency in (8, 256))
    say(f"CPU per image, C=256 against C=8 ({count} images)", f"{many / few:.2f} ×", "≤ 1.2 ×")


def memory(folder: Path, few: int, many: int) -> None:
    """Peak memory, and what ten times as many images add."""
    concurrency, size = 32, 500 * KB
    with tempfile.TemporaryDirectory(dir=folder) as place, vendor(0.2) as url:
        large = hollow_pictures(Path(place), many, size)
        warm, less, more = (measured("ours", url, large, count, concurrency)["peak_kb"] for count in (1, few, many))
    share = (less - warm) * KB / (concurrency * size)
    say(f"peak memory over a warm base, {few} × 500 KB, C=32, in C × size", f"{share:.2f}", "≤ 2.2")
    say(f"peak memory, {many} images against {few}", f"{more / less:.2f} ×", "≤ 1.1 ×")


def main() -> None:
    """Print the table."""
    quick = "--quick" in sys.argv[1:]
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"Measured {time.strftime('%Y-%m-%d')} on {machine}, loopback, 100 KB images")
    print()
    print("| what | measured | goal |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = pictures(Path(place), 2_000, 100 * KB)
        against_ideal(folder, 3 if quick else 8)
        against_aiohttp(folder, 10 if quick else 30)
        flatness(folder, 500 if quick else 2_000)
        memory(Path(place), 200 if quick else 2_000, 2_000 if quick else 20_000)


if __name__ == "__main__":
    main()

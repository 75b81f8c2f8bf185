"""Measure the store: what planning, a poke, settling and disk cost as it grows. Prints rows of `engine.py`'s table.

``python benchmarks/store.py [--quick] [--ten-million]``. Every figure comes from a process of its own
(`store_task.py`). S3 is the tests' server in another process, which checks signatures and counts requests.
``--ten-million`` instead makes one store of ten million outcomes with short texts, which takes half an hour.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine import HERE, KB, pictures, say, vendor
from made_store import CATALOG, TEXT_BYTES, content_of, outcomes

from airflow_provider_describer.storage.open_bucket import s3_bucket
from airflow_provider_describer.store.shard import encode_shard, json_line

BUCKET, _, PREFIX = CATALOG.removeprefix("s3://").partition("/")
ROUNDS = 5
LISTED = 5_000
"""Images in the bucket that a sensor watches."""


@dataclass
class Bucket:
    """S3 in another process, with the stores of some local folders."""

    process: subprocess.Popen[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def requests(self) -> int:
        """Return the number of requests since the last call."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


def serve(*folders: str) -> None:
    """Serve a bucket with these folders and images; for each line on stdin, print the requests since the last line."""
    sys.path.append(str(HERE.parent / "tests" / "servers"))
    from s3_server import KEY, REGION, SECRET, Ministack, S3Gate

    with tempfile.TemporaryDirectory() as place, Ministack(Path(place)) as ministack, S3Gate(ministack) as gate:
        gate.make_bucket(BUCKET)
        environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": gate.url,
        }
        os.environ.update(environment)
        bucket = s3_bucket(BUCKET)
        for folder in map(Path, folders):
            for file in filter(Path.is_file, folder.rglob("*")):
                bucket.put(f"{folder.name}/{file.relative_to(folder)}", file)
        print(json.dumps(environment), flush=True)
        for line in sys.stdin:
            for number in map(int, line.split()):
                gate.put_any(BUCKET, f"{PREFIX}/{number:09d}.jpg", content_of(number))
            print(len(gate.received()), flush=True)
            gate.reset()


@contextmanager
def bucket_of(*folders: Path) -> Iterator[Bucket]:
    """Run the server."""
    command = [sys.executable, __file__, "serve", *map(str, folders)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield Bucket(process, json.loads(process.stdout.readline()))
        process.stdin.close()


def task(work: str, *arguments: object, bucket: Bucket | None = None) -> dict[str, float]:
    """Run one piece of work and return its figures; with its requests to the bucket, if there is one."""
    if bucket:
        bucket.requests()
    command = [sys.executable, str(HERE / "store_task.py"), work, *map(str, arguments)]
    environment = {**os.environ, **(bucket.environment if bucket else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, **({"requests": bucket.requests()} if bucket else {})}


def many(number: int) -> str:
    """Return a number for people."""
    return f"{number:,}".replace(",", " ")


def planning(small: tuple[str, int], large: tuple[str, int], bucket: Bucket | None = None) -> None:
    """Plan 1 000 images, half of them known, against a large store and a small one."""
    pairs = [
        [task("plan", store, 1_000, 500, count, bucket=bucket) for store, count in (large, small)]
        for _ in range(ROUNDS)
    ]
    wall, bare = (
        statistics.median(one[name] / other[name] for one, other in pairs) for name in ("wall", "without_loading")
    )
    memory = statistics.median(one["mb"] / other["mb"] for one, other in pairs)
    seconds, bare_s = (statistics.median(one[name] for one, _ in pairs) for name in ("wall", "without_loading"))
    what = f"planning 1 000 images against {many(large[1])} outcomes{' on S3' if bucket else ''}"
    against = f"against {many(small[1])}"
    found = f"{wall:.2f} × ({seconds:.2f} s; without loading Lance {bare:.2f} × and {bare_s:.2f} s)"
    say(f"{what}, time {against}", found, "≤ 1.5 ×")
    say(f"{what}, memory {against}", f"{memory:.2f} × ({pairs[0][0]['mb']:.0f} MB)", "≤ 1.2 ×")
    if bucket:
        say(f"{what}, requests", f"{max(one['requests'] for one, _ in pairs):.0f}", "≤ 40")


def planning_many(store: str, outcomes: int, count: int, goal: str) -> None:
    """Plan very many images, all but a tenth of them known."""
    found = task("plan", store, count, count * 9 // 10, outcomes)
    what = f"planning {many(count)} images against {many(outcomes)} outcomes"
    say(what, f"{found['wall']:.1f} s, {found['mb']:.0f} MB, {found['more_mb']:.0f} MB of them for this", goal)


def pokes(store: str, outcomes: int, bucket: Bucket) -> None:
    """Poke for new images, against the listing and the lookup of as many images."""
    assert bucket.process.stdin
    assert bucket.process.stdout
    numbers = [outcomes * number // LISTED * 2 for number in range(LISTED)]
    print(*numbers, file=bucket.process.stdin, flush=True)
    bucket.process.stdout.readline()
    parts: list[list[dict[str, float]]] = []
    for _ in range(ROUNDS):
        poke = task("poke", CATALOG, store, bucket=bucket)
        assert poke["images"] == sum(number >= outcomes for number in numbers), poke
        listed = task("listing", CATALOG, bucket=bucket)
        lookup = task("plan", store, LISTED, LISTED // 2, outcomes, bucket=bucket)
        parts.append([poke, listed, lookup])
    wall = statistics.median(
        poke["wall"] / (listed["wall"] + lookup["without_loading"]) for poke, listed, lookup in parts
    )
    poke, listed, lookup = parts[0]
    what = f"a poke for the new of {LISTED} objects on S3, {many(outcomes)} outcomes, against listing + lookup"
    requests = f"{poke['requests']:.0f} requests against {listed['requests']:.0f} + {lookup['requests']:.0f}"
    say(what, f"{wall:.2f} × ({poke['wall']:.2f} s), {requests}", "≤ 1.2 ×")


def settling(place: Path, count: int) -> None:
    """CPU of a run with settling against without."""
    folder = pictures(place, count, 4 * KB)
    with vendor(0.05) as url:
        pairs = [[task("run", url, folder, settling) for settling in ("on", "off")] for _ in range(ROUNDS)]
    share = statistics.median(1 - without["cpu"] / one["cpu"] for one, without in pairs)
    each = statistics.median(one["cpu"] for one, _ in pairs) / count * 1000
    say(f"settling's share of a run's CPU, {count} images", f"{share:.1%} (of {each:.1f} ms an image)", "≤ 5 %")


def disk(store: Path, count: int) -> None:
    """Bytes of a table against those of a journal of the same outcomes."""
    some = min(count, 10_000)
    journal = len(encode_shard(map(json_line, outcomes(0, some)))) / some
    table = bytes_in(store) / count
    what = f"disk for {many(count)} outcomes with texts of {TEXT_BYTES} bytes, against the journal"
    say(what, f"{table / journal:.2f} × ({table:.0f} bytes an outcome)", "≤ 1/3")


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def chunks(place: Path, most: int, few: int) -> None:
    """What each image of a first load in mapped chunks costs the store, for most against few images."""
    costs = {}
    for count in (few, most):
        store = place / f"load-{count}"
        costs[count] = {name: value / count for name, value in task("load", store, count).items()}
        shutil.rmtree(store)
    cpu, wall = (costs[most][name] / costs[few][name] for name in ("cpu", "wall"))
    what = f"a first load in chunks of 1 000, the store's cost per image, {many(most)} images against {many(few)}"
    say(what, f"CPU {cpu:.2f} ×, time {wall:.2f} × ({costs[most]['wall'] * 1000:.2f} ms)", "≤ 1.15 ×")


def nights(place: Path, store: Path, outcomes: int, count: int) -> None:
    """Ten new images a night, for many nights."""
    grown = place / "nights"
    # Hard links: the files of a table are never changed.
    shutil.copytree(store, grown, copy_function=os.link)
    before, files = bytes_in(grown), count_files(grown)
    found = task("nights", grown, outcomes, 10, count)
    what = f"{count} nights of 10 new images each, {many(outcomes)} outcomes"
    say(f"{what}, the store's time a night", f"{found['mean']:.2f} s, at most {found['longest']:.1f} s", "")
    now, left = bytes_in(grown) / before, count_files(grown)
    say(f"{what}, disk after against before", f"{now:.2f} ×, {left} files ({files} before)", "bounded")
    shutil.rmtree(grown)


def count_files(folder: Path) -> int:
    """Return how many files there are below a folder."""
    return sum(1 for file in folder.rglob("*") if file.is_file())


def ten_million(place: Path) -> None:
    """Make the largest store once, with short texts, and plan against it."""
    count, store = 10_000_000, place / "ten-million"
    made = task("make", store, count, 40)
    took = f"made in {made['wall'] / 60:.0f} minutes, {bytes_in(store) / 1e9:.1f} GB"
    say(f"a store of {many(count)} outcomes with short texts", took, "")
    for images in (1_000, 100_000):
        planning_many(str(store), count, images, "")


def main() -> None:
    """Print the rows."""
    quick = "--quick" in sys.argv[1:]
    large, small = (100_000 if quick else 1_000_000), 10_000
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if "--ten-million" in sys.argv[1:]:
            ten_million(place)
            return
        stores = {count: place / f"store-{count}" for count in (small, 100_000, large)}
        for count, store in stores.items():
            task("make", store, count, TEXT_BYTES)
        planning((str(stores[small]), small), (str(stores[large]), large))
        planning_many(str(stores[100_000]), 100_000, 100_000, "≤ 3 s, ≤ 200 MB more")
        planning_many(str(stores[large]), large, 10_000 if quick else 100_000, "≤ 10 s, ≤ 400 MB")
        disk(stores[large], large)
        with bucket_of(stores[small], stores[large]) as bucket:
            on_s3 = {count: f"s3://{BUCKET}/{stores[count].name}" for count in (small, large)}
            planning((on_s3[small], small), (on_s3[large], large), bucket)
            pokes(on_s3[large], large, bucket)
        settling(place, 500 if quick else 3_000)
        chunks(place, 20_000 if quick else 100_000, 10_000)
        nights(place, stores[large], large, 100 if quick else 500)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        main()

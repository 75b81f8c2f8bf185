"""Measure reading the objects of a bucket against bare obstore: prints rows of the table of `engine.py`.

``python benchmarks/objects.py [--quick]``. The bucket is the tests' fake GCS in another process; both ways of
reading alternate in this process, each time with new connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from engine import KB, say
from obstore.store import GCSStore

from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.storage.address import ObjectKey
from airflow_provider_describer.storage.open_bucket import gcs_bucket

NAME, CONCURRENCY, SIZE, ROUNDS = "catalog", 32, 100 * KB, 5

Read = Callable[[str], Awaitable[int]]
"""Reads the object of that key and returns its size."""


def serve(count: str) -> None:
    """Serve a bucket of ``count`` objects; for each line on stdin, print the number of requests since the last line."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "servers"))
    from fake_gcs import FakeGcs

    with FakeGcs() as server:
        server.objects.make_bucket(NAME)
        for number in range(int(count)):
            server.objects.put(NAME, key_of(number), os.urandom(SIZE))
        print(json.dumps({"url": server.url, "token": server.access.new_token()}), flush=True)
        for _ in sys.stdin:
            print(len(server.received()), flush=True)
            server.reset()


def key_of(number: int) -> str:
    """Return the key of an object."""
    return f"photos/{number:06d}.jpg"


@dataclass
class Server:
    """The bucket's server, in its own process."""

    process: subprocess.Popen[str]
    url: str
    token: str

    def credentials(self) -> Any:
        """Return credentials, as obstore asks for them."""
        return {"token": self.token, "expires_at": datetime.now(UTC) + timedelta(hours=1)}

    def requests(self) -> int:
        """Return the number of requests since the last call."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@contextmanager
def bucket_of(count: int) -> Iterator[Server]:
    """Run the server."""
    command = [sys.executable, __file__, "serve", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield Server(process, **json.loads(process.stdout.readline()))
        process.stdin.close()


def ours(server: Server) -> Read:
    """Read as a run reads its images."""
    bucket = gcs_bucket(NAME, credential_provider=server.credentials, endpoint=server.url)
    reader = Reader(AsyncClient(timeout=30, connections=1), open_bucket=lambda scheme, name: bucket)

    async def read(key: str) -> int:
        return len((await reader.read(ObjectKey("gs", NAME, key), 10 * SIZE)).data)

    return read


def bare(server: Server) -> Read:
    """Read with obstore alone."""
    store = GCSStore(
        NAME, base_url=server.url, credential_provider=server.credentials, client_options={"allow_http": True}
    )

    async def read(key: str) -> int:
        found = await store.get_async(key)
        return len(bytes(await found.bytes_async()))

    return read


async def read_all(read: Read, count: int) -> None:
    """Read every object, `CONCURRENCY` at a time."""
    keys = map(key_of, range(count))

    async def work() -> None:
        for key in keys:
            assert await read(key) == SIZE

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def measured(way: Callable[[Server], Read], server: Server, count: int) -> dict[str, float]:
    """Return the seconds and the CPU seconds of reading all objects, and the requests for each."""
    server.requests()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    asyncio.run(read_all(way(server), count))
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "requests": server.requests() / count}


def main() -> None:
    """Print the rows."""
    count = 300 if "--quick" in sys.argv[1:] else 1_000
    with bucket_of(count) as server:
        measured(ours, server, count)
        pairs = [(measured(ours, server, count), measured(bare, server, count)) for _ in range(ROUNDS)]
    rate = statistics.median(theirs["wall"] / mine["wall"] for mine, theirs in pairs)
    cpu = statistics.median(mine["cpu"] / theirs["cpu"] for mine, theirs in pairs)
    fastest = count / min(mine["wall"] for mine, _ in pairs)
    requests = max(mine["requests"] for mine, _ in pairs)
    setting = f"{count} objects of a bucket, C={CONCURRENCY}"
    say(f"rate of reading against bare obstore, {setting}", f"{rate:.3f} ({fastest:.0f}/s)", "≥ 0.8")
    say(f"CPU of reading against bare obstore, {setting}", f"{cpu:.2f} ×", "")
    say("requests an object", f"{requests:g}", "1")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        main()

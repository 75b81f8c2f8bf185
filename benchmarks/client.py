"""One measured client in a process of its own: reads pictures, posts each, writes JSONL. Prints its figures as JSON.

``python client.py KIND URL FOLDER COUNT CONCURRENCY`` with KIND one of ``ours``, ``ours-no-journal``, ``aiohttp``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROMPT = "Describe this image in detail."


def ours(url: str, paths: list[str], concurrency: int, *, journal: bool) -> int:
    """Describe the pictures with a Job, as DescribeImagesOperator does."""
    from airflow_provider_describer.account import account_from_connection
    from airflow_provider_describer.engine import job as jobs
    from airflow_provider_describer.engine.limits import TaskLimits
    from airflow_provider_describer.http.flow import VendorCalls
    from airflow_provider_describer.images.reference import parse_images
    from airflow_provider_describer.vendors import get_vendor

    vendor = get_vendor("image_describer")
    account = account_from_connection(vendor.defaults(), conn_id="bench", password="bench", host=url)
    with tempfile.TemporaryDirectory() as store:
        if not journal:
            jobs.MAX_INLINE = len(paths)
        job = jobs.Job(
            VendorCalls(vendor, account),
            parse_images(paths, vendor, prompt=PROMPT),
            limits=TaskLimits(concurrency=concurrency),
            store=store if journal else None,
            report=lambda line: None,
        )
        outcome = job.run()
    if outcome.error:
        raise outcome.error
    return int(outcome.manifest["counts"]["described"])


async def bare_aiohttp(url: str, paths: list[str], concurrency: int) -> int:
    """The least that does the same work: no retries, no checks, no journal."""
    import aiohttp

    described = 0
    queue: Iterator[str] = iter(paths)
    with tempfile.TemporaryFile("w") as results:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

            async def work() -> None:
                nonlocal described
                for path in queue:
                    content = Path(path).read_bytes()  # noqa: ASYNC240  # as a plain script does it
                    form = aiohttp.FormData()
                    form.add_field("prompt", PROMPT)
                    form.add_field("lang", "en")
                    form.add_field("image", content, filename=Path(path).name, content_type="image/jpeg")
                    async with session.post(f"{url}/api/openapi-v2/describe-image", data=form) as answer:
                        text = (await answer.json())["data"]["content"]
                    results.write(json.dumps({"uri": path, "text": text}) + "\n")
                    results.flush()
                    described += 1

            await asyncio.gather(*(work() for _ in range(concurrency)))
    return described


def main(kind: str, url: str, folder: str, count: str, concurrency: str) -> None:
    """Run one client and print its figures."""
    paths = sorted(str(path) for path in Path(folder).iterdir())[: int(count)]
    # Imports are not measured.
    importlib.import_module("aiohttp" if kind == "aiohttp" else "airflow_provider_describer.engine.job")
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    if kind == "aiohttp":
        described = asyncio.run(bare_aiohttp(url, paths, int(concurrency)))
    else:
        described = ours(url, paths, int(concurrency), journal=kind == "ours")
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        json.dumps(
            {"described": described, "wall": wall, "cpu": cpu, "base_kb": before.ru_maxrss, "peak_kb": after.ru_maxrss}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

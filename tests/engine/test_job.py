"""Whole jobs at both vendors on good days: the right words in the right rows, and what a job leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.job import MAX_INLINE
from airflow_provider_describer.errors import BadInput, Unfinished
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.storage.address import masked
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.index import read_history
from airflow_provider_describer.store.rows import Row

if TYPE_CHECKING:
    from tests.conftest import Loopback, Shop, Visit

Pictures = Callable[..., list[Path]]
ROW_KEYS = {field.name for field in fields(Row)}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_image_gets_its_own_description(any_shop: Shop, pictures: Pictures) -> None:
    paths = pictures(40)
    result = any_shop.describe(paths)
    assert result.error is None
    assert result.counts == {"requested": 40, "described": 40, "reused": 0, "rejected": 0, "unknown": 0, "pending": 0}
    by_uri = {row["uri"]: row for row in result.rows}
    for path in paths:
        row = by_uri[str(path)]
        assert row["sha256"] == sha(path)
        assert sha(path)[:12] in row["text"], "the words of another image"
        assert (row["status"], row["billed"], row["cost_usd"], row["error"]) == ("described", "yes", 0.015, None)
    assert result.ledger["by_image"] == {sha(path): 1 for path in paths}


def test_the_bill_is_the_vendors(any_shop: Shop, pictures: Pictures) -> None:
    result = any_shop.describe(pictures(10))
    assert result.ledger["billed"] == result.manifest["calls"] == 10
    assert result.manifest["cost_usd"] == pytest.approx(0.15)
    assert (result.manifest["unknown_calls"], result.manifest["unknown_cost_usd"]) == (0, 0)
    assert result.manifest["elapsed_s"] > 0


@pytest.mark.parametrize(
    ("vendor", "way", "via"),
    [
        ("image_describer", "file", "file"),
        ("image_describer", "inline", "inline"),
        ("segmind", "upload", "url"),
        ("segmind", "inline", "inline"),
    ],
)
def test_every_way_of_sending_sends_the_same_bytes(
    shop: Shop, pictures: Pictures, vendor: str, way: str, via: str
) -> None:
    shop.vendor = vendor
    paths = [*pictures(3, "JPEG"), *pictures(3, "PNG"), *pictures(3, "WEBP")]
    result = shop.describe(paths, fields={"image_transport": way})
    assert set(result.ledger["by_image"]) == {sha(path) for path in paths}
    assert {entry["image_via"] for entry in result.ledger["entries"]} == {via}


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_a_web_image_is_fetched_by_the_vendor_and_its_query_kept_nowhere(
    shop: Shop, loopback: type[Loopback], draw: Callable[..., bytes], vendor: str
) -> None:
    shop.vendor = vendor

    async def serve(visit: Visit) -> None:
        while await visit.request():
            visit.answer(draw(1), "200 OK", 'etag: "abc"')

    async def scene() -> tuple[Any, list[str]]:
        async with loopback(serve) as server:
            lines: list[str] = []
            job = shop.job([f"{server.url}/a.jpg?X-Amz-Signature=hush"], report=lines.append)
            return await job.arun(), lines

    result = shop.result(*asyncio.run(scene()))
    (row,) = result.rows
    assert (row["status"], row["version"]) == ("described", '"abc"')
    assert row["uri"].endswith("/a.jpg?…")
    assert [entry["image_via"] for entry in result.ledger["entries"]] == ["url"]
    kept = "".join(path.read_text(errors="replace") for path in shop.store.rglob("*") if path.is_file())
    # Texts in the table are packed.
    kept += str(list(read_history(open_folder(shop.store))))
    assert "hush" not in f"{kept}{result.manifest}{result.lines}"


@pytest.mark.parametrize("way", ["auto", "inline"])
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("a b.jpg", "/a%20b.jpg"),
        ("a b%20c.jpg \n", "/a%20b%20c.jpg"),
        ("é|.jpg", "/%C3%A9%7C.jpg"),
        ('a"<b>.jpg?q= x', "/a%22%3Cb%3E.jpg?q=%20x"),
    ],
)
def test_a_web_image_with_a_name_that_browsers_encode(
    shop: Shop, loopback: type[Loopback], draw: Callable[..., bytes], name: str, asked: str, way: str
) -> None:
    lines: list[str] = []

    async def serve(visit: Visit) -> None:
        while received := await visit.request():
            lines.append(received.line)
            visit.answer(draw(1), "200 OK", 'etag: "abc"')

    async def scene() -> Any:
        async with loopback(serve) as server:
            return await shop.job([f" {server.url}/{name}"], fields={"image_transport": way}).arun()

    result = shop.result(asyncio.run(scene()), [])
    (row,) = result.rows
    assert (row["status"], result.ledger["billed"]) == ("described", 1)
    # Ours, and the vendor's own where it fetches the image.
    assert set(lines) == {f"GET {asked} HTTP/1.1"} and len(lines) >= 2
    assert row["uri"].endswith(f"/{masked(f'http://h/{name.strip()}')[9:]}")


def test_a_local_file_among_addresses_is_one_row(
    shop: Shop, loopback: type[Loopback], pictures: Pictures, draw: Callable[..., bytes]
) -> None:
    (path,) = pictures(1)

    async def serve(visit: Visit) -> None:
        while await visit.request():
            visit.answer(draw(7), "200 OK", 'etag: "abc"')

    async def scene() -> Any:
        async with loopback(serve) as server:
            return await shop.job([path, f"{server.url}/a.jpg"], fields={"image_transport": "url"}).arun()

    result = shop.result(asyncio.run(scene()), [])
    (row,) = result.of("rejected")
    assert (row["uri"], row["error"]["kind"]) == (str(path), "no_address")
    assert result.counts["described"] == result.ledger["billed"] == 1


def test_prompts_and_languages_reach_the_vendor(shop: Shop, pictures: Pictures) -> None:
    (path,) = pictures(1)
    images = [
        {"uri": path, "prompt": "Welche Farbe? “quoted”", "lang": "de", "id": "one"},
        {"uri": path, "fields": {"title": "Red shoe"}, "id": "two"},
    ]
    result = shop.describe(images, prompt="Describe {title}.")
    asked = {(entry["prompt"], entry["lang"]) for entry in result.ledger["entries"]}
    assert asked == {("Welche Farbe? “quoted”", "de"), ("Describe Red shoe.", "en")}
    assert {(row["id"], row["prompt"], row["lang"]) for row in result.rows} == {
        ("one", "Welche Farbe? “quoted”", "de"),
        ("two", "Describe Red shoe.", "en"),
    }
    assert all(row["prompt"] in row["text"] for row in result.rows)


def test_result_lines_are_json_with_every_key(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(5)
    paths[2].write_bytes(b"")
    result = shop.describe(paths)
    results, failures = Path(result.manifest["results"]), Path(result.manifest["failures"])
    lines = results.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    assert all(set(json.loads(line)) == ROW_KEYS for line in lines)
    (failed,) = failures.read_text(encoding="utf-8").splitlines()
    assert json.loads(failed)["uri"] == str(paths[2])
    assert failed in lines


def test_inline_rows_come_in_the_order_asked(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(30)[::-1]
    shop.faults(latency_s=0.0, latency_jitter_s=0.05)
    result = shop.describe(paths, store=None)
    assert [row["uri"] for row in result.rows] == [str(path) for path in paths]
    assert (result.manifest["store"], result.manifest["results"], result.manifest["failures"]) == (None, None, None)
    assert not shop.store.exists()


def test_a_name_that_a_url_would_cut_is_kept_whole(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    paths = []
    for number, path in enumerate(pictures(3)):
        paths.append(path.rename(tmp_path / f"photo #{number}?x=1.jpg"))
    given = [f"file://{paths[0]}", f"file://{paths[1]}", str(paths[2])]
    result = shop.describe(given)
    assert {row["uri"] for row in result.rows} == set(given)
    assert {row["status"] for row in result.rows} == {"described"}


def test_progress_is_told_to_the_end(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    paths[0].write_bytes(b"")
    last = shop.describe(paths).lines[-1]
    assert last.startswith("6/6 images, ")
    assert re.search(r"5 described, 1 rejected, cost \$0\.075, took [\d.]+ s$", last)


def test_without_a_price_the_cost_is_said_to_be_unknown(shop: Shop, pictures: Pictures) -> None:
    result = shop.describe(pictures(2), fields={"price_per_call": ""})
    assert result.manifest["cost_usd"] is None
    assert "price_per_call" in result.lines[-1]


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"concurrency": 0}, "concurrency is 0, expected a whole number from 1 to 1024"),
        ({"concurrency": 1025}, "concurrency is 1025"),
        ({"max_failure_ratio": 1.5}, "max_failure_ratio is 1.5"),
        ({"max_failure_ratio": -0.1}, "max_failure_ratio is -0.1"),
        ({"max_calls": -1}, "max_calls is -1"),
        ({"max_cost": -0.5}, "max_cost is -0.5"),
        ({"max_cost": 1.0, "fields": {"price_per_call": ""}}, "price_per_call (USD) on connection 'shop'"),
        ({"fields": {"image_transport": "url"}}, "image_transport is 'url'"),
        ({"store": "  "}, "store is blank"),
        ({"store": "ftp://x"}, "store is 'ftp://x'"),
        ({"store": "/etc/hostname"}, "which is a file"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    shop: Shop, pictures: Pictures, limits: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput) as caught:
        shop.describe(pictures(2), **limits)
    assert says in str(caught.value)
    assert shop.emulator.ledger()["requests"] == 0


@pytest.mark.parametrize("images", [[], [[], []], (), iter([])])
@pytest.mark.parametrize("options", [{}, {"store": None}, {"dry_run": True}, {"results_format": "parquet"}])
def test_an_empty_list_is_a_night_with_nothing_to_do(
    any_shop: Shop, images: object, options: dict[str, Any], tmp_path: Path
) -> None:
    if options.get("results_format"):
        pytest.importorskip("pyarrow")
    any_shop.fields["limits_path"] = str(tmp_path / "limits")
    job = any_shop.job(images, **options)
    outcome = job.run()
    assert (outcome.error, outcome.resume_condition) == (None, None)
    assert set(outcome.manifest["counts"].values()) == {0}
    assert outcome.manifest["calls"] == any_shop.emulator.ledger()["requests"] == 0
    for name in ("results", "failures"):
        assert outcome.manifest[name] is None or Path(outcome.manifest[name]).exists()
    assert outcome.manifest.get("descriptions", []) == []


def test_more_than_fits_xcom_is_refused_before_anything_is_sent(shop: Shop) -> None:
    names = [f"{number}.jpg" for number in range(MAX_INLINE + 1)]
    with pytest.raises(BadInput, match="501 descriptions do not fit XCom"):
        shop.describe(names, store=None)
    assert shop.emulator.ledger()["requests"] == 0


@pytest.mark.parametrize("place", ["in a file", "on a read-only filesystem"])
def test_a_store_that_cannot_be_written_is_known_before_the_first_call(
    shop: Shop, pictures: Pictures, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    store = tmp_path / "file" / "store" if place == "in a file" else Path("/proc/store")
    with pytest.raises(Exception, match="store") as caught:
        shop.describe(pictures(2), store=store)
    assert type(caught.value).__module__ == "airflow_provider_describer.errors"
    assert shop.emulator.ledger()["requests"] == 0


ANSWERS = {
    "image_describer": b'{"code": 200, "succeed": true, "data": {"content": "a red shoe"}}',
    "segmind": b'{"descriptions": [{"text": "a red shoe"}]}',
}


@pytest.mark.parametrize("vendor", list(ANSWERS))
def test_stop_lets_what_is_under_way_end_and_starts_nothing_new(
    shop: Shop, pictures: Pictures, loopback: type[Loopback], vendor: str
) -> None:
    """Stopped when the vendor holds four calls: these are answered and kept, the others are left for another run."""
    shop.vendor = vendor

    async def scene() -> Any:
        all_there, gate = asyncio.Event(), asyncio.Event()

        async def hold(visit: Visit) -> None:
            while await visit.request():
                if len(visit.server.requests) == 4:
                    all_there.set()
                await gate.wait()
                visit.answer(ANSWERS[vendor])

        async with loopback(hold) as server:
            fields = {"host": server.url, "image_transport": "inline"}
            job = shop.job(pictures(20), concurrency=4, fields=fields)
            running = asyncio.create_task(job.arun())
            await all_there.wait()
            job.stop()
            # The order to stop has come to the event loop before the first answer does.
            await asyncio.sleep(0)
            gate.set()
            outcome = await running
            assert len(server.requests) == 4
            return outcome

    result = shop.result(asyncio.run(scene()), [])
    assert (result.counts["described"], result.counts["pending"]) == (4, 16)
    assert type(result.error) is Unfinished and "16 of 20" in str(result.error)


def test_the_key_is_told_to_nobody(any_shop: Shop, pictures: Pictures, caplog: pytest.LogCaptureFixture) -> None:
    key = any_shop.emulator.keys[any_shop.vendor]
    any_shop.faults(errors=[{"kind": "unavailable", "first": 3}, {"kind": "wrong_types", "after": 8}])
    with caplog.at_level(logging.DEBUG):
        result = any_shop.describe(pictures(12), concurrency=4)
    vendor_calls = any_shop.vendor_calls()
    request = vendor_calls.vendor.build_check(vendor_calls.account)
    printed = f"{result}{caplog.text}{vendor_calls!r}{request!r}{result.error!r}{any_shop.job(['a.jpg'])!r}"
    kept = "".join(path.read_text(errors="replace") for path in any_shop.store.rglob("*") if path.is_file())
    kept += str(list(read_history(open_folder(any_shop.store))))
    assert key not in printed.replace(repr(any_shop), "")
    assert key not in kept


def test_asks_may_be_given_as_any_sequence(shop: Shop, pictures: Pictures) -> None:
    job = shop.job(pictures(2))
    job.requests = tuple(parse_images(pictures(2), job.vendor_calls.vendor))
    assert asyncio.run(job.arun()).manifest["counts"]["described"] == 2

"""Which listed images are new: those that the store has no outcome of, for what is asked now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.undescribed import TOGETHER, list_undescribed
from airflow_provider_describer.errors import BadInput, BucketError
from airflow_provider_describer.images.listing import ImageFilter
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.storage.bucket import Bucket, Entry
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.index import StoredOutcome, StoreIndex, load_index
from airflow_provider_describer.vendors import get_vendor

if TYPE_CHECKING:
    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]


def new(
    shop: Shop,
    path: object,
    *,
    index: StoreIndex | None = None,
    bucket: Bucket | None = None,
    wanted: ImageFilter | None = None,
    **asked: Any,
) -> list[str]:
    """The uris of the images that are new to the shop's store, or to that index."""
    vendor_calls = shop.vendor_calls()
    found = list_undescribed(
        str(path),
        (lambda scheme, name: bucket) if bucket else None,
        wanted or ImageFilter(),
        partial(parse_images, vendor=vendor_calls.vendor, **asked),
        load_index(open_folder(shop.store)) if index is None else index,
        vendor_calls,
    )
    return [image.uri for image in found]


# --- local files, which have no version: their bytes say whether they are known ---


def test_what_was_described_is_not_new_and_what_has_changed_is(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    paths = pictures(5)
    assert new(shop, tmp_path) == [str(path) for path in paths]
    shop.describe(paths[:3])
    assert new(shop, tmp_path) == [str(path) for path in paths[3:]]
    paths[0].write_bytes(paths[4].read_bytes())
    assert new(shop, tmp_path) == [str(paths[0]), str(paths[3]), str(paths[4])]
    paths[0].write_bytes(paths[1].read_bytes())
    assert new(shop, tmp_path) == [str(paths[3]), str(paths[4])]


def test_a_renamed_image_is_not_new(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    paths = pictures(1)
    shop.describe(paths)
    paths[0].rename(tmp_path / "another name.jpg")
    assert new(shop, tmp_path) == []


def test_what_was_rejected_is_not_new(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    shop.breaks("harmful")
    assert shop.describe(pictures(2)).counts["rejected"] == 2
    assert new(shop, tmp_path) == []


def test_another_question_makes_every_image_new(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    paths = pictures(2)
    shop.describe(paths)
    assert new(shop, tmp_path, prompt="Which colours?") == new(shop, tmp_path, lang="de") == list(map(str, paths))
    assert new(shop, tmp_path, lang=["en", "de"]) == list(map(str, paths))


def test_what_cannot_be_used_is_new_so_that_its_error_is_reported(
    shop: Shop, pictures: Pictures, tmp_path: Path
) -> None:
    shop.describe(pictures(1))
    (tmp_path / "page.jpg").write_text("<!doctype html>")
    assert new(shop, tmp_path) == [str(tmp_path / "page.jpg")]


def test_a_limit_counts_new_images_alone(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    paths = pictures(6)
    shop.describe(paths[:3])
    assert new(shop, tmp_path, wanted=ImageFilter(limit=2)) == list(map(str, paths[3:5]))
    assert new(shop, tmp_path, wanted=ImageFilter(limit=2, types=["png"])) == []


def test_inside_a_running_loop_the_way_out_is_named(shop: Shop, pictures: Pictures, tmp_path: Path) -> None:
    pictures(1)

    async def inside() -> list[str]:
        return new(shop, tmp_path)

    with pytest.raises(BadInput, match="inside a running event loop"):
        asyncio.run(inside())


# --- objects, which are known by name and version and not read ---


class Stock(Bucket):
    """A bucket that lists but cannot be read from."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__("s3", "shop", None)  # type: ignore[arg-type]  # it asks no server
        self._all = entries
        self.pages = 0

    def entries(self, prefix: str = "", *, after: str | None = None) -> Iterator[Sequence[Entry]]:
        for start in range(0, len(self._all), 1000):
            self.pages += 1
            yield self._all[start : start + 1000]

    async def aread(self, key: str, **_: Any) -> Any:
        raise BucketError(f"{self.address(key)} cannot be read: access was refused.", kind="denied")


def entry(number: int, version: str | None = "v1") -> Entry:
    return Entry(f"{number:06}.jpg", 10, version, 0.0)


def knows(*entries: Entry, described: bool = True, **asked: Any) -> StoreIndex:
    """An index of outcomes of these objects."""
    index = StoreIndex()
    uris = [{"uri": f"s3://shop/{one.key}", "version": one.version, "size": one.size} for one in entries]
    for request in parse_images(uris, get_vendor("image_describer"), **asked):
        for key in identity_keys(request.spec, request.image.uri, None, request.image.version, request.image.size):
            status = "described" if described else "rejected"
            index.outcomes[key] = StoredOutcome(described, "2026-01-01", status, "shard", 0, 0)
    return index


def test_an_object_of_a_known_version_is_not_new(shop: Shop) -> None:
    bucket = Stock([entry(1), entry(2), entry(3, "v2")])
    index = knows(entry(1), entry(3, "v1"))
    assert new(shop, "s3://shop/", index=index, bucket=bucket) == ["s3://shop/000002.jpg", "s3://shop/000003.jpg"]
    assert new(shop, "s3://shop/", index=knows(entry(1), entry(2), described=False), bucket=bucket) == [
        "s3://shop/000003.jpg"
    ]
    assert len(new(shop, "s3://shop/", index=index, bucket=bucket, lang="de")) == 3


def test_a_copy_of_known_content_is_not_new(shop: Shop) -> None:
    md5 = "0123456789abcdef0123456789abcdef"
    assert new(shop, "s3://shop/", index=knows(entry(1, md5)), bucket=Stock([entry(2, md5)])) == []


def test_an_image_that_lacks_one_of_the_languages_is_new(shop: Shop) -> None:
    bucket = Stock([entry(1), entry(2)])
    index = knows(entry(1), entry(2))
    index.outcomes |= knows(entry(2), lang="de").outcomes
    assert new(shop, "s3://shop/", index=index, bucket=bucket, lang=["en", "de"]) == ["s3://shop/000001.jpg"]


def test_a_request_that_runs_at_the_vendor_is_not_done(shop: Shop) -> None:
    index = knows(entry(1), described=False)
    running = {"event": "accepted", "call": "c", "keys": list(index.outcomes), "request_id": "running", "at": 1.0}
    index.apply("shard", 0, 0, running)
    assert new(shop, "s3://shop/", index=index, bucket=Stock([entry(1)])) == ["s3://shop/000001.jpg"]


def test_an_object_without_a_version_that_cannot_be_read_is_new(shop: Shop) -> None:
    assert new(shop, "s3://shop/", index=knows(), bucket=Stock([entry(1, None)])) == ["s3://shop/000001.jpg"]


def test_no_more_pages_are_listed_than_new_images_are_wanted(shop: Shop) -> None:
    entries = [entry(number) for number in range(10 * TOGETHER)]
    bucket = Stock(entries)
    index = knows(*entries[: 2 * TOGETHER])
    wanted = ImageFilter(limit=3)
    assert new(shop, "s3://shop/", index=index, bucket=bucket, wanted=wanted) == [
        f"s3://shop/{one.key}" for one in entries[2 * TOGETHER :][:3]
    ]
    assert bucket.pages == 3


def test_what_a_listing_has_looked_up_is_forgotten(shop: Shop) -> None:
    """Else a listing of a million images takes more than a gigabyte."""
    bucket = Stock([entry(number) for number in range(3 * TOGETHER)])
    index = knows(*(entry(number) for number in range(2 * TOGETHER)))
    before = index.copy()
    assert len(new(shop, "s3://shop/", index=index, bucket=bucket)) == TOGETHER
    assert index == before


def test_a_question_that_cannot_be_asked_is_refused(shop: Shop) -> None:
    with pytest.raises(BadInput, match=r"s3://shop/000001\.jpg.*prompt asks for \{title\}"):
        new(shop, "s3://shop/", index=knows(), bucket=Stock([entry(1)]), prompt="The {title}")


def test_names_that_cannot_be_used_are_undescribed(shop: Shop) -> None:
    odd = Entry("a\0.jpg", 10, "v", 0.0)
    assert new(shop, "s3://shop/", index=knows(), bucket=Stock([odd])) == ["s3://shop/a\0.jpg"]
    assert new(shop, "s3://shop/", index=knows(entry(2)), bucket=Stock([entry(2), odd])) == ["s3://shop/a\0.jpg"]

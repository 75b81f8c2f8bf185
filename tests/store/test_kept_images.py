"""The images of a task that has deferred: the same ones are asked about afterwards, in the same words."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.kept_images import keep_images, may_be_secret, read_kept_images
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors import vendors

numpy: Any = pytest.importorskip("numpy")
pandas: Any = pytest.importorskip("pandas")
TASK = TaskInstanceKey("shop", "manual__2026-01-01T00:00:00+00:00", "describe")


class Colour(str, enum.Enum):  # noqa: UP042  # its text is not its value, unlike StrEnum's
    RED = "red"


class Link:
    """A path as Airflow's ObjectStoragePath is one."""

    protocol, path = "s3", "shop/a.jpg"


ODD: list[Any] = [
    "/data/a.jpg",
    Path("/data/b.jpg"),
    Link(),
    ["/data/c.jpg", ("s3://shop/d.jpg",)],
    {"uri": Path("/data/e.jpg"), "version": 7, "size": numpy.int64(5), "id": Decimal("1.50")},
    {"uri": "/data/f.jpg", "size": 5.0, "prompt": None, "lang": float("nan")},
    {"uri": Colour.RED, "fields": {"t": Colour.RED}, "id": "enum"},
    {"uri": "/data/g.jpg", "fields": {"t": 1.0, "not_asked": object()}},
    {"uri": "/data/h.jpg", "fields": {"t": numpy.float32(0.1)}},
    {"uri": "/data/i.jpg", "fields": {"t": date(2026, 1, 31)}},
    {"uri": "/data/j.jpg", "fields": {"t": True}},
    {"uri": "/data/k.jpg", "fields": {"t": "line\u2028break \ud800 ☃ \x00"}},
    # What cannot work is what could not before.
    {"uri": "/data/l.jpg", "fields": {"t": pandas.NA}},
    {"uri": "/data/m.jpg", "fields": {}},
    {"uri": "/data/n.jpg", "fields": ["t"]},
    {"uri": "/data/o.jpg", "titel": "toy"},
    {"uri": None},
    7,
    None,
    "",
    float("nan"),
    pandas.NaT,
    b"/data/p.jpg",
    Decimal(7),
    {"uri": b"/data/q.jpg"},
    {"uri": "/data/r.jpg", "version": b"7"},
    {"uri": "/data/s.jpg", "id": ["a"]},
    {"uri": "/data/t.jpg", "size": Decimal(5)},
    {"uri": "/data/u.jpg", "prompt": Decimal(5)},
    {"uri": "/data/v.jpg", ("a", "tuple"): 1, 2: "x"},
]


@pytest.mark.parametrize("prompt", [None, "Name this {t}."])
@pytest.mark.parametrize("lang", ["en", ["de", "en"]])
def test_the_same_requests_are_made_of_them(tmp_path: Path, prompt: str | None, lang: Any) -> None:
    folder, vendor = open_folder(str(tmp_path)), vendors()["image_describer"]
    keep_images(ODD, folder, TASK)

    def requests(images: Any) -> list[Any]:
        made = parse_images(images, vendor, prompt=prompt, lang=lang)
        return [(one.image.uri, one.image, one.spec, one.id, one.flaw and one.flaw.kind) for one in made]

    assert requests(read_kept_images(folder, TASK)) == requests(ODD)


def test_a_listing_file_stays_one(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    keep_images("s3://shop/listing.jsonl", folder, TASK)
    assert read_kept_images(folder, TASK) == ["s3://shop/listing.jsonl"]


def test_a_later_deferral_replaces_it_and_no_images_are_some_too(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    keep_images(["/data/a.jpg"], folder, TASK)
    keep_images([], folder, TASK)
    assert read_kept_images(folder, TASK) == []
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["describe.jsonl"]


def test_a_file_that_is_gone_is_not_an_empty_list(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"deferred/shop/.+/describe\.jsonl is gone.*Clear the task"):
        read_kept_images(open_folder(str(tmp_path)), TASK)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    keep_images(["/data/a.jpg"], folder, TASK)
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match=r"describe\.jsonl is damaged.*Clear the task"):
        read_kept_images(folder, TASK)


@pytest.mark.parametrize(
    "images",
    [
        ["https://shop.example/a.jpg?signature=s3cret"],
        ["/data/a.jpg", ["https://me:s3cret@shop.example/a.jpg"]],
        [{"uri": "HTTPS://shop.example/a.jpg?signature=s3cret"}],
        [{"uri": "/data/a.jpg", "fields": {"link": "https://shop.example/a?token=s3cret"}}],
        ["https://shop.example/a.jpg#s3cret"],
    ],
)
def test_what_may_be_a_secret(images: Any) -> None:
    assert may_be_secret(images)


@pytest.mark.parametrize(
    "images",
    [
        "s3://shop/listing.jsonl",
        ["/data/a?b#c.jpg", "s3://shop/a?b.jpg", "gs://shop/a#b.jpg", Link()],
        ["https://shop.example/a.jpg", {"uri": "/data/a.jpg", "prompt": "What is it?", "fields": {"n": 1}}, None],
    ],
)
def test_what_is_none(images: Any) -> None:
    assert not may_be_secret(images)

"""What counts as new in a folder, and as having come whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.arrivals.snapshot import (
    ArrivalTerms,
    ListingPass,
    SeenImages,
    fingerprint_of,
    merge_deltas,
)
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing import ListedImage, list_images

if TYPE_CHECKING:
    from clouds import Cloud


def image(name: str, modified: float = 0.0, version: str | None = "1", size: int = 1) -> ListedImage:
    return ListedImage(f"s3://shop/{name}.jpg", version, size, modified)


def seen_of(images: list[ListedImage], most: int = 100) -> SeenImages:
    listing = ListingPass(most)
    assert list(listing.record(images)) == images
    # As a document or XCom keeps it.
    return SeenImages.from_dict(json.loads(json.dumps(listing.seen.to_dict())))


def fingerprint(images: list[ListedImage]) -> str:
    listing = ListingPass(1)
    list(listing.record(images))
    return listing.fingerprint


# --- what has been seen ---


def test_nothing_is_seen_before_the_first_look() -> None:
    assert not SeenImages().has(image("a"))


@pytest.mark.parametrize(
    "now",
    [
        image("b"),
        image("a", version="2"),
        image("a", version=None),
    ],
)
def test_what_is_new_or_changed_is_not_seen(now: ListedImage) -> None:
    seen = seen_of([image("a")])
    assert seen.has(image("a")) and not seen.has(now)


def test_an_object_written_again_with_the_same_content_is_seen() -> None:
    assert seen_of([image("a", 10.0)]).has(image("a", 99.0))


@pytest.mark.parametrize(("size", "modified"), [(2, 10.0), (1, 10.5)])
def test_a_local_file_is_known_by_size_and_time(size: int, modified: float) -> None:
    seen = seen_of([image("a", 10.0, None)])
    assert seen.has(image("a", 10.0, None)) and not seen.has(image("a", modified, None, size))


def test_an_old_image_that_appears_late_is_new_in_a_folder_that_is_remembered_whole() -> None:
    """As one that was moved into the folder, or whose upload took long."""
    assert not seen_of([image("a", 100.0), image("b", 200.0)]).has(image("c", 50.0))


def test_of_a_large_folder_the_latest_are_remembered_each() -> None:
    images = [image(f"{number}", float(number)) for number in range(1000)]
    seen = seen_of(images, most=10)
    assert len(seen.keys) == 10 and seen.since == 990.0
    assert all(seen.has(one) for one in images)
    assert not seen.has(image("late", 995.0)) and not seen.has(image("5", 2000.0, "2"))
    # This is the price, and documented.
    assert seen.has(image("late", 989.0))


def test_images_of_one_moment_stay_together_however_many() -> None:
    images = [image("old", 1.0), *(image(f"{number}", 7.0) for number in range(50))]
    seen = seen_of(images, most=10)
    assert all(seen.has(one) for one in images)
    assert not seen.has(image("another", 7.0))


def test_the_order_of_a_listing_makes_no_difference_to_what_is_seen() -> None:
    images = [image(f"{number}", float(number % 13)) for number in range(200)]
    assert seen_of(images, 20) == seen_of(images[::-1], 20)


def test_names_that_are_no_text_are_seen() -> None:
    odd = ListedImage("/inbox/\udcff.jpg", None, 1, 0.0)
    assert seen_of([odd]).has(odd)


# --- whether anything has changed ---


@pytest.mark.parametrize(
    "changed",
    [
        [],
        [image("a")],
        [image("a"), image("b"), image("c")],
        [image("a"), image("b", version="2")],
        [image("a"), image("c")],
    ],
)
def test_a_fingerprint_tells_any_change(changed: list[ListedImage]) -> None:
    assert fingerprint([image("a"), image("b")]) != fingerprint(changed)


def test_a_fingerprint_is_the_same_for_the_same(cloud: Cloud) -> None:
    bucket = cloud.bucket()
    for name in ("a.jpg", "b.png", "note.txt"):
        bucket.put(name, b"x")
    first = fingerprint_of(cloud.uri, cloud.open_bucket, None)
    bucket.put("note.txt", b"other")
    assert fingerprint_of(cloud.uri, cloud.open_bucket, None) == first
    assert fingerprint_of(cloud.uri, cloud.open_bucket, ["*"]) != first
    bucket.put("b.png", b"other")
    assert fingerprint_of(cloud.uri, cloud.open_bucket, None) != first


# --- when images are handed on ---


@pytest.mark.parametrize(
    ("terms", "ages", "words"),
    [
        (ArrivalTerms(), [], "0 new images, waiting for 1"),
        (ArrivalTerms(), [0.0], None),
        (ArrivalTerms(min_images=3), [0.0, 0.0], "2 new images, waiting for 3"),
        (ArrivalTerms(min_images=3), [0.0, 0.0, 0.0], None),
        (ArrivalTerms(settle_seconds=60), [100.0, 59.0, 80.0], "1.jpg was changed 59 s ago, waiting for 60 s"),
        (ArrivalTerms(settle_seconds=60), [100.0, 60.0], None),
        # A clock that is ahead of ours.
        (ArrivalTerms(settle_seconds=60), [-5.0], "0.jpg was changed 0 s ago"),
    ],
)
def test_images_are_held_back_until_they_are_enough_and_old_enough(
    terms: ArrivalTerms, ages: list[float], words: str | None
) -> None:
    images = [image(f"{number}", 1000.0 - age) for number, age in enumerate(ages)]
    said = terms.reason_to_wait(images, 1000.0, lambda seconds: pytest.fail("objects are not looked at twice"))
    assert (said is None) if words is None else words in (said or "")


def test_it_is_known_when_images_will_have_settled() -> None:
    terms = ArrivalTerms(min_images=2, settle_seconds=60)
    assert terms.settles_at([image("a", 100.0)]) is None
    assert terms.settles_at([image("a", 100.0), image("b", 130.0)]) == 190.0


@pytest.mark.parametrize("change", ["grow", "remove", "touch", "none"])
def test_local_files_are_looked_at_twice(tmp_path: Path, change: str) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in paths:
        path.write_bytes(b"half")
        os.utime(path, (5, 5))
    images = list(list_images(str(tmp_path)))

    def meanwhile(seconds: float) -> None:
        assert 0 < seconds <= 60
        match change:
            case "grow":
                paths[1].write_bytes(b"whole image")
                os.utime(paths[1], (5, 5))
            case "remove":
                paths[1].unlink()
            case "touch":
                os.utime(paths[1], (6, 6))

    said = ArrivalTerms(settle_seconds=60).reason_to_wait(images, 1000.0, meanwhile)
    assert said is None if change == "none" else said == f"{paths[1]} is still changing"


def test_without_settling_there_is_no_pause(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert (
        ArrivalTerms().reason_to_wait(list(list_images(str(tmp_path))), 0.0, lambda seconds: pytest.fail("paused"))
        is None
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_images": 0}, "min_images is 0"),
        ({"min_images": None}, "min_images is None"),
        ({"min_images": 1.5}, "min_images is 1.5"),
        ({"settle_seconds": -1}, "settle_seconds is -1"),
        ({"settle_seconds": "60"}, "settle_seconds is '60'"),
        ({"settle_seconds": float("inf")}, "settle_seconds is inf"),
    ],
)
def test_terms_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ArrivalTerms(**arguments)


def test_of_several_deltas_each_image_is_taken_once_and_as_it_is_now() -> None:
    first = [{"uri": "a", "version": "1"}, {"uri": "b", "version": "1"}]
    second = [{"uri": "b", "version": "2"}, {"uri": "c", "version": "1"}]
    assert merge_deltas([first, second]) == [first[0], second[0], second[1]]

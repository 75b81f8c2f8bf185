"""What a task hands on for its images: themselves while they are few, files of the store where they are many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.store.listings import write_listing
from airflow_provider_describer.store.rows import TaskInstanceKey

RUN = TaskInstanceKey("shop", "manual__2026-01-01T00:00:00+00:00", "group.list")


class Images:
    """So many images, and how many of them were taken."""

    def __init__(self, count: int, uri: str = "/{}.jpg") -> None:
        self._all = ({"uri": uri.format(number), "version": None, "size": 1} for number in range(count))
        self.taken = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        image = next(self._all)
        self.taken += 1
        return image


def hand(images: Images, folder: Folder | None = None, **options: Any) -> Any:
    return write_listing(images, folder, options.pop("run", RUN), **{"inline": 10, "max_chunks": 5, **options})


def uris(numbers: range) -> list[str]:
    return [f"/{number}.jpg" for number in numbers]


def lines(path: str) -> list[str]:
    return [json.loads(line)["uri"] for line in Path(path).read_bytes().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(tmp_path / "store")


@pytest.mark.parametrize("count", [0, 1, 9, 10])
def test_few_images_are_handed_on_themselves(count: int) -> None:
    assert [image["uri"] for image in hand(Images(count))] == uris(range(count))


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (4, [4]), (5, [4, 1]), (8, [4, 4]), (10, [4, 4, 2])])
def test_few_images_are_handed_on_in_chunks(count: int, sizes: list[int]) -> None:
    chunks = hand(Images(count), chunk_size=4)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [image["uri"] for chunk in chunks for image in chunk] == uris(range(count))


def test_many_images_are_listed_in_a_file(folder: Folder, tmp_path: Path) -> None:
    path = hand(Images(11), folder)
    assert path == str(tmp_path / "store/listings/shop/manual__2026-01-01T00:00:00+00:00/group.list.jsonl")
    assert lines(path) == uris(range(11))
    assert json.loads(Path(path).read_text().splitlines()[0]) == {"uri": "/0.jpg", "version": None, "size": 1}


def test_many_images_are_listed_in_a_file_a_chunk(folder: Folder, tmp_path: Path) -> None:
    paths = hand(Images(11), folder, chunk_size=4, run=TaskInstanceKey("shop", "run", "list", 7))
    assert paths == [str(tmp_path / f"store/listings/shop/run/list-7/000{number}.jsonl") for number in range(3)]
    assert [lines(path) for path in paths] == [uris(range(4)), uris(range(4, 8)), uris(range(8, 11))]


def test_a_later_try_replaces_the_files(folder: Folder) -> None:
    first = hand(Images(20), folder)
    assert hand(Images(12), folder) == first
    assert lines(first) == uris(range(12))


def test_names_of_a_run_lead_nowhere_else(folder: Folder, tmp_path: Path) -> None:
    path = Path(hand(Images(11), folder, run=TaskInstanceKey("../..", "a/b", "..")))
    assert path.resolve().is_relative_to(tmp_path / "store/listings")


def test_any_name_is_written_so_that_it_can_be_read(folder: Folder) -> None:
    uri = "/caf\udce9 \u2028\n{}.jpg"
    assert lines(hand(Images(11, uri), folder)) == [uri.format(number) for number in range(11)]


def test_many_images_without_a_store_are_refused_before_all_are_listed() -> None:
    images = Images(1_000_000)
    with pytest.raises(BadInput, match=r"more than 10 images, which do not fit XCom\. Give a store"):
        hand(images)
    assert images.taken == 11


@pytest.mark.parametrize("count", [21, 1_000_000])
def test_more_chunks_than_can_be_mapped_are_refused_before_all_are_listed(folder: Folder, count: int) -> None:
    images = Images(count)
    with pytest.raises(BadInput, match=r"more than 5 chunks of 4 images.*max_map_length.*larger chunk_size"):
        hand(images, folder, chunk_size=4)
    assert images.taken <= 24
    assert len(hand(Images(20), folder, chunk_size=4)) == 5


def test_more_chunks_than_can_be_mapped_are_refused_inline() -> None:
    with pytest.raises(BadInput, match="more than 5 chunks of 1 image,"):
        hand(Images(6), chunk_size=1)


@pytest.mark.parametrize(("name", "value"), [("inline", -1), ("chunk_size", 0), ("chunk_size", -3)])
def test_a_size_that_cannot_be_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"is {value}, expected a whole number"):
        hand(Images(1), None, **{name: value})


def test_none_of_the_images_need_be_in_xcom(folder: Folder) -> None:
    assert lines(hand(Images(1), folder, inline=0)) == uris(range(1))
    assert hand(Images(0), folder, inline=0) == []


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/listings").write_text("in the way")
    with pytest.raises(StoreError, match=r"group\.list\.jsonl cannot be written"):
        hand(Images(11), open_folder(tmp_path / "store"))


@pytest.mark.slow
def test_images_are_never_all_in_memory(folder: Folder) -> None:
    import tracemalloc

    tracemalloc.start()
    hand(Images(50_000), folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000

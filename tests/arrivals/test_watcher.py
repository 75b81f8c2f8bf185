"""A watched folder: whatever happens to its watchers, every image is handed over, and again only where that is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.arrivals.snapshot import ArrivalTerms
from airflow_provider_describer.arrivals.watcher import AGAIN_S, HANDED_OVER_S, NAME, ArrivalWatcher
from airflow_provider_describer.errors import BadInput, BucketError, StoreError
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.storage.address import parse_shared_folder

if TYPE_CHECKING:
    from clouds import Cloud


@dataclass
class Inbox:
    """A folder, or a bucket, into which images come while time passes."""

    path: str
    state: str
    put: Callable[[str, bytes], object]
    open_bucket: Any = None
    now: float = 1e9

    def watch(self, **options: Any) -> ArrivalWatcher:
        """Another watcher, as a triggerer that has just started has it."""
        options = {"clock": lambda: self.now, "pause": lambda seconds: None, **options}
        return ArrivalWatcher(self.path, self.state, self.open_bucket, **options)


def local(tmp_path: Path) -> Inbox:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return Inbox(str(folder), str(tmp_path / "state"), lambda name, data: (folder / name).write_bytes(data))


def in_cloud(cloud: Cloud) -> Inbox:
    bucket = cloud.bucket()
    return Inbox(
        f"{cloud.uri}/inbox",
        f"{cloud.uri}/state",
        lambda name, data: bucket.put(f"inbox/{name}", data),
        cloud.open_bucket,
    )


@pytest.fixture(params=["local", "s3", "gcs"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Inbox:
    if request.param == "local":
        return local(tmp_path)
    return in_cloud(request.getfixturevalue(request.param))


@pytest.fixture
def folder(tmp_path: Path) -> Inbox:
    return local(tmp_path)


def names(delta: dict[str, Any] | None) -> list[str]:
    assert delta is not None
    assert delta["count"] == len(delta["images"])
    return [image["uri"].rpartition("/")[2] for image in delta["images"]]


def test_everything_is_new_at_first_and_then_what_comes(inbox: Inbox) -> None:
    inbox.put("a.jpg", b"1")
    inbox.put("b.jpg", b"2")
    inbox.put("c.txt", b"3")
    watch = inbox.watch()
    first = watch.look()
    assert names(first) == ["a.jpg", "b.jpg"]
    assert watch.look() is None and "0 new images" in watch.status
    inbox.put("c.jpg", b"4")
    inbox.put("b.jpg", b"longer than it was")
    second = watch.look()
    assert names(second) == ["b.jpg", "c.jpg"]
    assert first is not None and second is not None and first["delta"] != second["delta"]
    assert watch.look() is None


def test_a_watcher_that_dies_before_it_is_known_that_its_event_arrived(inbox: Inbox) -> None:
    inbox.put("a.jpg", b"1")
    lost = inbox.watch().look()
    inbox.put("b.jpg", b"2")

    inbox.now += AGAIN_S - 1
    second = inbox.watch()
    assert second.look() is None and "by another watcher" in second.status
    inbox.now += 1
    assert second.look() == lost, "the same delta, under the same id"
    assert names(second.look()) == ["b.jpg"], "then what came meanwhile, and the first delta not again"
    assert second.look() is None


def test_a_watcher_that_dies_later_repeats_nothing(inbox: Inbox) -> None:
    inbox.put("a.jpg", b"1")
    watch = inbox.watch()
    assert watch.look()
    inbox.now += HANDED_OVER_S
    assert watch.look() is None
    inbox.now += 10 * AGAIN_S
    assert inbox.watch().look() is None
    inbox.put("b.jpg", b"2")
    assert names(inbox.watch().look()) == ["b.jpg"]


def test_of_two_watchers_at_once_one_hands_over(inbox: Inbox) -> None:
    inbox.put("a.jpg", b"1")
    one, other = inbox.watch(), inbox.watch()
    assert names(one.look()) == ["a.jpg"]
    assert other.look() is None
    assert one.look() is None
    assert other.look() is None


def test_of_two_watchers_in_the_same_moment_one_hands_over(inbox: Inbox) -> None:
    """The other one looks when the first has read the memory and lists."""
    inbox.put("a.jpg", b"1")
    other = inbox.watch()
    deltas: list[Any] = []

    def clock() -> float:
        if not deltas:
            deltas.append(other.look())
        return inbox.now

    one = inbox.watch(clock=clock)
    assert one.look() is None and one.status == "another watcher was faster"
    assert names(deltas[0]) == ["a.jpg"]
    assert other.look() is None and one.look() is None


def test_many_images_are_handed_over_in_a_file(inbox: Inbox) -> None:
    for number in range(5):
        inbox.put(f"{number}.jpg", b"x")
    delta = inbox.watch(inline=4).look()
    assert delta is not None and delta["count"] == 5
    assert delta["images"].startswith(inbox.state) and delta["images"].endswith(".jsonl")
    found = [item for _, item in read_listing(delta["images"], inbox.open_bucket)]
    assert names({"count": 5, "images": found}) == [f"{number}.jpg" for number in range(5)]
    inbox.now += AGAIN_S
    assert inbox.watch(inline=4).look() == delta


def test_terms_are_waited_for(folder: Inbox) -> None:
    watch = folder.watch(terms=ArrivalTerms(min_images=2))
    folder.put("a.jpg", b"1")
    assert watch.look() is None and "1 new image, waiting for 2" in watch.status
    folder.put("b.jpg", b"2")
    assert names(watch.look()) == ["a.jpg", "b.jpg"]


def test_a_removed_image_that_comes_again_changed_is_new(folder: Inbox) -> None:
    folder.put("a.jpg", b"1")
    folder.put("b.jpg", b"1")
    watch = folder.watch()
    watch.look()
    (Path(folder.path) / "a.jpg").unlink()
    assert watch.look() is None
    folder.put("a.jpg", b"other")
    assert names(watch.look()) == ["a.jpg"]


# --- faults ---


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "path": "/x", "number": 1, "offer": null}',
        b'{"version": 1, "path": "/x", "number": 1, "offer": {}, "seen": {"keys": [], "since": null}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_memory_is_never_taken_for_none(folder: Inbox, content: bytes) -> None:
    folder.put("a.jpg", b"1")
    state = Path(folder.state) / NAME
    state.parent.mkdir()
    state.write_bytes(content)
    with pytest.raises(StoreError, match=NAME) as caught:
        folder.watch().look()
    assert "remove it" in str(caught.value)
    assert state.read_bytes() == content


def test_a_memory_of_another_path_is_left_alone(folder: Inbox, tmp_path: Path) -> None:
    folder.put("a.jpg", b"1")
    folder.watch().look()
    before = (Path(folder.state) / NAME).read_bytes()
    with pytest.raises(BadInput, match="state_path of its own") as caught:
        ArrivalWatcher(str(tmp_path), folder.state).look()
    assert repr(folder.path) in str(caught.value)
    assert (Path(folder.state) / NAME).read_bytes() == before


def test_a_folder_that_vanishes_is_no_empty_one(folder: Inbox) -> None:
    folder.put("a.jpg", b"1")
    watch = folder.watch()
    watch.look()
    hidden = Path(folder.path).rename(Path(folder.path).with_name("gone"))
    with pytest.raises(BadInput, match="there is no folder"):
        watch.look()
    hidden.rename(folder.path)
    assert watch.look() is None, "nothing was forgotten meanwhile"


def test_a_memory_that_cannot_be_written_hands_nothing_over(folder: Inbox) -> None:
    folder.put("a.jpg", b"1")
    Path(folder.state).write_text("a file in the folder's place")
    with pytest.raises(BadInput, match="store is"):
        folder.watch()


def test_a_bucket_that_is_not_there(s3: Cloud) -> None:
    watch = ArrivalWatcher("s3://nobody-has-this/inbox", f"{s3.uri}/state", s3.open_bucket)
    with pytest.raises(BucketError) as caught:
        watch.look()
    assert caught.value.kind == "no_such_bucket"


@pytest.mark.parametrize("path", ["", " ", "watching", "./watching", "https://shop.example/state", "ftp://x/y"])
def test_a_state_path_that_is_another_one_for_each_process(path: str) -> None:
    with pytest.raises(BadInput):
        parse_shared_folder("state_path", path)


def test_nothing_in_the_memory_names_an_image_once_it_is_handed_over(folder: Inbox) -> None:
    folder.put("a.jpg", b"1")
    watch = folder.watch()
    watch.look()
    watch.look()
    kept = json.loads((Path(folder.state) / NAME).read_text())
    assert kept["offer"] is None and len(kept["seen"]["keys"]) == 1
    assert "a.jpg" not in json.dumps(kept)

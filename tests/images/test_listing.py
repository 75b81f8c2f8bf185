"""Which images a listing finds: the same in a folder as in a bucket, page by page, by pattern and by filter."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.arguments import as_path, parse_int, parse_time
from airflow_provider_describer.errors import BadInput, BucketError, UnreadableImage
from airflow_provider_describer.images.listing import ImageFilter, ListedImage, list_images
from airflow_provider_describer.storage.bucket import Bucket, Entry

if TYPE_CHECKING:
    from clouds import Cloud

ANY = ImageFilter(types=["*"])


class Stock(Bucket):
    """A bucket whose listing is what a test says. ``pages`` counts those that were asked for."""

    def __init__(self, pages: Iterator[Sequence[Entry]] | Sequence[Sequence[Entry]] = ()) -> None:
        super().__init__("s3", "shop", None)  # type: ignore[arg-type]  # it asks no server
        self._pages = pages
        self.pages = 0
        self.prefixes: list[str] = []
        self.broken: BucketError | None = None

    def entries(self, prefix: str = "", *, after: str | None = None) -> Iterator[Sequence[Entry]]:
        self.prefixes.append(prefix)
        for page in self._pages:
            self.pages += 1
            yield [entry for entry in page if entry.key.startswith(prefix)]
        if self.broken:
            raise self.broken


def stock(*keys: str, size: int = 10) -> Stock:
    return Stock([[Entry(key, size, f"v-{key}", 1000.0) for key in sorted(keys)]])


def found(bucket: Bucket, path: str, wanted: ImageFilter | None = None) -> list[ListedImage]:
    return list(list_images(path, lambda scheme, name: bucket, wanted))


def keys(bucket: Bucket, path: str, wanted: ImageFilter | None = ANY) -> list[str]:
    return [one.uri.removeprefix("s3://shop/") for one in found(bucket, path, wanted)]


def names(folder: Path, pattern: str = "", wanted: ImageFilter | None = ANY) -> list[str]:
    return [one.uri.removeprefix(f"{folder}/") for one in list_images(f"{folder}/{pattern}", None, wanted)]


def fill(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"0123456789")


def refusal(path: str, wanted: ImageFilter | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        list_images(path, lambda scheme, name: stock(), wanted)
    return str(caught.value)


# --- patterns, which mean the same for folders and buckets ---

TREE = (
    "a.jpg",
    "catalog/a.jpg",
    "catalog/b.jpg",
    "catalog/2024-01/a.jpg",
    "catalog/2024-01/front/a.jpg",
    "catalog/2024-01/front/back.jpg",
    "catalog/2025-01/a.jpg",
    "catalog-old/a.jpg",
)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("", TREE),
        ("**", TREE),
        ("*", ["a.jpg"]),
        ("catalog", [name for name in TREE if name.startswith("catalog/")]),
        ("catalog/", [name for name in TREE if name.startswith("catalog/")]),
        ("catalog/**", [name for name in TREE if name.startswith("catalog/")]),
        ("catalog/*", ["catalog/a.jpg", "catalog/b.jpg"]),
        ("catalog/?.jpg", ["catalog/a.jpg", "catalog/b.jpg"]),
        ("catalog/*/a.jpg", ["catalog/2024-01/a.jpg", "catalog/2025-01/a.jpg"]),
        ("catalog/2024-*/*", ["catalog/2024-01/a.jpg"]),
        ("catalog/2024-*/**", [name for name in TREE if "2024" in name]),
        ("catalog/**/front/*", ["catalog/2024-01/front/a.jpg", "catalog/2024-01/front/back.jpg"]),
        ("catalog/**/a.jpg", [name for name in TREE if name.startswith("catalog/") and name.endswith("/a.jpg")]),
        ("**/**/a.jpg", [name for name in TREE if name.endswith("a.jpg")]),
        ("catalog**", [name for name in TREE if name.startswith("catalog")]),
        ("**/b*.jpg", ["catalog/b.jpg", "catalog/2024-01/front/back.jpg"]),
        ("catalog?old/*", ["catalog-old/a.jpg"]),
        ("catalog?a.jpg", []),
        ("catalog/*.png", []),
        ("catalog/*.jp", []),
        ("CATALOG/*", []),
    ],
)
def test_a_pattern_means_the_same_below_a_folder_and_in_a_bucket(
    tmp_path: Path, pattern: str, matches: Sequence[str]
) -> None:
    fill(tmp_path, *TREE)
    assert keys(stock(*TREE), f"s3://shop/{pattern}") == sorted(matches)
    if pattern == "CATALOG/*":
        with pytest.raises(BadInput, match="there is no folder"):
            names(tmp_path, pattern)
    else:
        assert names(tmp_path, pattern) == sorted(matches)


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("s3://shop", ""),
        ("s3://shop/", ""),
        ("s3://shop/**", ""),
        ("s3://shop/catalog", "catalog/"),
        ("s3://shop/catalog/", "catalog/"),
        ("s3://shop/catalog/**", "catalog/"),
        ("s3://shop/catalog/2024-*/x", "catalog/2024-"),
        ("s3://shop/50% off/#1?/a", "50% off/#1"),
    ],
)
def test_only_what_begins_like_the_pattern_is_asked_for(path: str, prefix: str) -> None:
    bucket = stock()
    assert found(bucket, path) == []
    assert bucket.prefixes == [prefix]


@given(key=st.text(st.characters(codec="utf-8", exclude_characters="/*?"), min_size=1))
def test_names_are_compared_as_they_are(key: str) -> None:
    bucket = stock(f"in/{key}", f"in/{key}x")
    assert keys(bucket, f"s3://shop/in*/{key}") == [f"in/{key}"]
    assert len(keys(bucket, f"s3://shop/in/{'?' * len(key)}")) == 1


@pytest.mark.parametrize(
    "name", ["a b+c.jpg", "50%20off.jpg", "a#1?x=2.jpg", "é\n.jpg", "[a].jpg", "a&b;c.jpg", "*.jpg"]
)
def test_any_character_may_be_in_a_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path, f"x/{name}")
    assert names(tmp_path) == names(tmp_path, "*/*") == [f"x/{name}"]
    (one,) = found(stock(f"x/{name}"), "s3://shop/x/**")
    assert one.uri == f"s3://shop/x/{name}"


# --- buckets ---


def test_an_object_is_told_with_its_version_size_and_time() -> None:
    assert found(Stock([[Entry("a.jpg", 7, "etag", 12.5)]]), "s3://shop/") == [
        ListedImage("s3://shop/a.jpg", "etag", 7, 12.5)
    ]
    opened: list[tuple[str, str]] = []

    def open_bucket(scheme: str, name: str) -> Bucket:
        opened.append((scheme, name))
        return stock()

    assert list(list_images("gs://shop.example/x", open_bucket)) == []
    assert opened == [("gs", "shop.example")]


def test_a_limit_ends_the_listing_with_the_page_that_reaches_it() -> None:
    def endless() -> Iterator[Sequence[Entry]]:
        page = 0
        while True:
            yield [Entry(f"{page:09}-{number:03}.jpg", 1, "v", 0.0) for number in range(1000)]
            page += 1

    bucket = Stock(endless())
    assert len(found(bucket, "s3://shop/**", ImageFilter(limit=1000))) == 1000
    assert bucket.pages == 1
    bucket = Stock(endless())
    assert len(found(bucket, "s3://shop/**/*9.jpg", ImageFilter(limit=101))) == 101
    assert bucket.pages == 2


def test_pages_are_asked_for_as_images_are_taken() -> None:
    bucket = Stock([[Entry(f"{number}.jpg", 1, "v", 0.0)] for number in range(5)])
    images = list_images("s3://shop/", lambda scheme, name: bucket)
    assert bucket.pages == 0
    next(images)
    next(images)
    assert bucket.pages == 2


def test_markers_of_folders_are_no_images() -> None:
    markers = Stock(
        [[Entry("catalog/", 0, "v", 0.0), Entry("catalog/sub", 0, "v", 0.0), Entry("catalog/a", 1, "v", 0.0)]]
    )
    assert keys(markers, "s3://shop/catalog/**") == ["catalog/a"]


def test_an_empty_image_is_listed_so_that_it_is_noticed() -> None:
    assert keys(stock("a.jpg", size=0), "s3://shop/", None) == ["a.jpg"]


def test_a_bucket_that_breaks_off_is_not_taken_for_its_end() -> None:
    bucket = stock("a.jpg")
    bucket.broken = BucketError("s3://shop/ cannot be listed: access was refused.", kind="denied")
    images = list_images("s3://shop/", lambda scheme, name: bucket)
    assert next(images).uri == "s3://shop/a.jpg"
    with pytest.raises(BucketError, match="access was refused"):
        next(images)


# --- buckets of real servers ---


def put(cloud: Cloud, *keys: str) -> Bucket:
    bucket = cloud.bucket()
    for key in keys:
        bucket.put(key, b"0123456789")
    return bucket


def in_cloud(cloud: Cloud, pattern: str = "", wanted: ImageFilter | None = None) -> list[str]:
    images = list_images(f"{cloud.uri}/{pattern}", cloud.open_bucket, wanted)
    return [one.uri.removeprefix(f"{cloud.uri}/") for one in images]


@pytest.mark.parametrize(
    "pattern", ["", "catalog", "catalog/*", "catalog/2024-*/**", "catalog/20*/a.jpg", "cata*/a.jpg", "**/front/*"]
)
def test_a_server_lists_what_a_folder_does(cloud: Cloud, tmp_path: Path, pattern: str) -> None:
    put(cloud, *TREE)
    fill(tmp_path, *TREE)
    assert in_cloud(cloud, pattern) == names(tmp_path, pattern) != []


def test_any_character_may_be_in_a_key(cloud: Cloud) -> None:
    odd = ["50%20off/a b+c.jpg", "a#1?x=2.jpg", "é&;,@.jpg", "日本.jpg", "“{x}”/[a]*.jpg"]
    put(cloud, *odd)
    assert in_cloud(cloud) == sorted(odd)
    assert in_cloud(cloud, "50%20off/a b*") == ["50%20off/a b+c.jpg"]
    assert in_cloud(cloud, "a#1?x=*") == ["a#1?x=2.jpg"]


def test_what_a_listing_tells_is_what_reading_tells(cloud: Cloud) -> None:
    bucket = put(cloud, "a.jpg")
    (one,) = list_images(cloud.uri, cloud.open_bucket)
    content = bucket.read("a.jpg")
    assert content is not None
    assert (one.version, one.size) == (content.version, 10)
    bucket.put("a.jpg", b"other")
    (changed,) = list_images(cloud.uri, cloud.open_bucket)
    assert changed.version not in (None, one.version)
    assert in_cloud(cloud, "", ImageFilter(modified_after=changed.modified)) == ["a.jpg"]
    assert in_cloud(cloud, "", ImageFilter(modified_before=changed.modified)) == []


def test_markers_of_folders_are_none_of_a_servers_images(gcs: Cloud) -> None:
    put(gcs, "catalog/sub/a")
    for marker in ("catalog/", "catalog/sub/"):
        gcs.server.objects.put(gcs.name, marker, b"")  # type: ignore[attr-defined]  # the fake itself
    assert in_cloud(gcs, "catalog/**", ANY) == ["catalog/sub/a"]


def test_a_prefix_of_nothing_is_an_empty_list(cloud: Cloud) -> None:
    put(cloud, "a.jpg")
    assert in_cloud(cloud, "catalog/**") == in_cloud(cloud, "b*") == []


def test_a_bucket_that_is_not_there_is_named(cloud: Cloud) -> None:
    with pytest.raises(BucketError, match=f"{cloud.scheme}://nowhere-at-all") as caught:
        list(list_images(f"{cloud.scheme}://nowhere-at-all/**", cloud.open_bucket))
    assert caught.value.kind == "no_such_bucket"


def test_a_bucket_that_may_not_be_listed_is_not_empty(cloud: Cloud) -> None:
    put(cloud, "a.jpg")
    cloud.server.deny()
    with pytest.raises(BucketError, match=cloud.uri) as caught:
        in_cloud(cloud)
    assert caught.value.kind == "denied"
    assert not any(secret in str(caught.value) for secret in cloud.secrets())


# --- local folders ---


def test_a_file_is_told_with_its_size_and_time(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", (1, 1234))
    assert list(list_images(str(tmp_path))) == [ListedImage(f"{tmp_path}/a.jpg", None, 10, 1234.0)]


@pytest.mark.parametrize("path", ["file://{}/a b", "file://localhost{}/a%20b", "file://{}/a%20b/*"])
def test_a_file_address_is_one_of_a_folder(tmp_path: Path, path: str) -> None:
    fill(tmp_path, "a b/c.jpg")
    assert [one.uri for one in list_images(path.format(tmp_path))] == [f"{tmp_path}/a b/c.jpg"]


def test_relative_paths_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg", "sub/b.jpg")
    monkeypatch.chdir(tmp_path)
    assert [one.uri for one in list_images(".")] == ["./a.jpg", "./sub/b.jpg"]
    assert [one.uri for one in list_images("*.jpg")] == ["a.jpg"]
    assert [one.uri for one in list_images("sub")] == ["sub/b.jpg"]


def test_files_come_in_the_order_in_which_a_bucket_lists_them(tmp_path: Path) -> None:
    files = ["a/z.jpg", "a-b/x.jpg", "a.jpg", "a/b/c.jpg", "B.jpg", "a0.jpg"]
    fill(tmp_path, *files)
    assert names(tmp_path) == sorted(files) == keys(stock(*files), "s3://shop/")


def test_a_link_back_is_not_followed_and_any_other_is(tmp_path: Path) -> None:
    fill(tmp_path, "in/a.jpg", "other/b.jpg")
    (tmp_path / "in/back").symlink_to(tmp_path)
    (tmp_path / "in/self").symlink_to(tmp_path / "in")
    (tmp_path / "in/sub").symlink_to(tmp_path / "other")
    (tmp_path / "other/in").symlink_to(tmp_path / "in")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "other/b.jpg")
    assert names(tmp_path, "in") == ["in/a.jpg", "in/back/other/b.jpg", "in/link.jpg", "in/sub/b.jpg"]


def test_what_is_no_file_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg", "folder.jpg/b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        assert names(tmp_path) == ["a.jpg", "folder.jpg/b.jpg"]


def test_folders_below_the_pattern_are_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg")
    entered: list[str] = []
    scandir = os.scandir

    def watched(path: str) -> Any:
        entered.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    assert names(tmp_path, "*/*") == ["x/b.jpg"]
    assert entered == [f"{tmp_path}/", f"{tmp_path}/x/"]


def test_a_folder_that_goes_while_it_is_listed_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b/c.jpg", "d.jpg")
    images = list_images(str(tmp_path), None, ANY)
    assert next(images).uri == f"{tmp_path}/a.jpg"
    (tmp_path / "b/c.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert [one.uri for one in images] == [f"{tmp_path}/d.jpg"]


@pytest.mark.parametrize("broken", ["scandir", "stat"])
def test_what_cannot_be_read_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    fill(tmp_path, "a.jpg", "locked/b.jpg")
    works: Callable[..., Any] = getattr(os, broken)

    def refused(path: Any, *rest: Any, **more: Any) -> Any:
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied")
        return works(path, *rest, **more)

    monkeypatch.setattr(os, broken, refused)
    images = list_images(str(tmp_path))
    assert next(images).uri == f"{tmp_path}/a.jpg"
    with pytest.raises(UnreadableImage, match=r"locked.*PermissionError: Permission denied"):
        next(images)


def test_a_very_deep_folder_is_listed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not in pytest's own folder: its clean-up recurses.
    top, depth = tempfile.mkdtemp(), 1500
    try:
        monkeypatch.chdir(top)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.jpg").write_bytes(b"x")
        os.chdir(top)
        assert [one.uri for one in list_images("**")] == ["d/" * depth + "a.jpg"]
    finally:
        subprocess.run(["rm", "-rf", top], check=True)


# --- filters ---


@pytest.mark.parametrize(
    ("types", "taken"),
    [
        (None, ["a.JPG", "b.png", "c.jpeg", "g.heic"]),
        (["jpg", "jpeg"], ["a.JPG", "c.jpeg"]),
        ([".PNG"], ["b.png"]),
        (["*"], ["a.JPG", "b.png", "c.jpeg", "d", "e.txt", "f.jpg.tmp", "g.heic"]),
        (["jpg.tmp"], ["f.jpg.tmp"]),
        (("p",), []),
    ],
)
def test_types_are_suffixes_of_names(tmp_path: Path, types: Sequence[str] | None, taken: list[str]) -> None:
    files = ["a.JPG", "b.png", "c.jpeg", "d", "e.txt", "f.jpg.tmp", "g.heic"]
    fill(tmp_path, *files)
    wanted = ImageFilter() if types is None else ImageFilter(types=types)
    assert names(tmp_path, "", wanted) == keys(stock(*files), "s3://shop/", wanted) == taken


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ({"min_size": 2}, ["2.jpg", "3.jpg"]),
        ({"max_size": 2}, ["1.jpg", "2.jpg"]),
        ({"min_size": 2, "max_size": 2}, ["2.jpg"]),
        ({"modified_after": 200}, ["2.jpg", "3.jpg"]),
        ({"modified_before": 200}, ["1.jpg"]),
        ({"modified_after": 100, "modified_before": 200}, ["1.jpg"]),
        ({"modified_after": 300.5}, []),
        ({"limit": 2}, ["1.jpg", "2.jpg"]),
        ({"min_size": 2, "limit": 1}, ["2.jpg"]),
        ({"max_size": 0}, []),
    ],
)
def test_sizes_and_times_are_from_and_to(tmp_path: Path, wanted: dict[str, Any], taken: list[str]) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * number)
        os.utime(tmp_path / f"{number}.jpg", (0, number * 100))
    bucket = Stock([[Entry(f"{number}.jpg", number, "v", number * 100.0) for number in (1, 2, 3)]])
    assert names(tmp_path, "", ImageFilter(**wanted)) == taken
    assert keys(bucket, "s3://shop/", ImageFilter(**wanted)) == taken


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"types": "jpg"}, "types is 'jpg', expected a list of suffixes"),
        ({"types": []}, "types is []"),
        ({"types": ["jpg", ""]}, "types is ['jpg', '']"),
        ({"limit": 0}, "limit is 0, expected a whole number of 1 or more"),
        ({"limit": -1}, "limit is -1"),
        ({"min_size": -5}, "min_size is -5"),
        ({"max_size": 1.5}, "max_size is 1.5, expected a whole number of 0 or more"),
        ({"min_size": 5, "max_size": 4}, "min_size is 5 and max_size 4: no image is of such a size"),
        ({"modified_after": 86400, "modified_before": 86400}, "modified_after is 1970-01-02T00:00:00+00:00 and"),
    ],
)
def test_a_filter_that_lets_nothing_through_is_refused(wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        ImageFilter(**wanted)
    assert says in str(caught.value)


# --- what cannot be listed ---


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "path is blank"),
        ("  ", "path is blank"),
        ("/nowhere/at/all", "path is '/nowhere/at/all', but there is no folder '/nowhere/at/all/'"),
        ("/nowhere/**/*.jpg", "there is no folder '/nowhere/'"),
        ("https://me:hush@x.example/a?sig=hush", "a web address has no listing"),
        ("ftp://x.example/a", "not ftp://"),
        ("s3://", "names no bucket"),
        ("s3://shop-*/a", "a pattern matches keys within one bucket"),
        ("gcs://shop/a", "write gs://shop/a"),
        ("s3://me:hush@shop/a", "before '@'"),
    ],
)
def test_a_path_that_cannot_be_listed_is_named_at_once(path: str, says: str) -> None:
    message = refusal(path)
    assert says in message
    assert "hush" not in message


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    assert "but that is a file; expected a folder" in refusal(f"{tmp_path}/a.jpg")
    assert "there is no folder" in refusal(f"{tmp_path}/a.jpg/*.jpg")


def test_without_buckets_only_folders_can_be_listed() -> None:
    with pytest.raises(BadInput, match="no bucket can be opened here"):
        list_images("s3://shop/a")


# --- arguments ---

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("when", "epoch"),
    [
        (None, None),
        ("", None),
        ("None", None),
        (12.5, 12.5),
        (timedelta(hours=1), NOW - 3600),
        ("1970-01-02", 86400.0),
        ("1970-01-02T00:00:00Z", 86400.0),
        (" 1970-01-02 01:00:00+01:00 ", 86400.0),
        (datetime(1970, 1, 2, tzinfo=UTC), 86400.0),
        (datetime(1970, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))), 86400.0),
        (datetime(1970, 1, 2), 86400.0),  # noqa: DTZ001  # as people write it
    ],
)
def test_a_time_may_be_written_in_many_ways(when: object, epoch: float | None) -> None:
    assert parse_time("modified_after", when, NOW) == epoch


@pytest.mark.parametrize("when", ["yesterday", "31.01.2026", True, ["2026-01-01"], object()])
def test_what_is_no_time_is_refused_by_name(when: object) -> None:
    with pytest.raises(BadInput, match=r"^modified_before is .*expected a "):
        parse_time("modified_before", when, NOW)


@pytest.mark.parametrize(("number", "whole"), [(None, None), ("", None), ("None", None), (3, 3), (" 3 ", 3), ("0", 0)])
def test_a_number_may_come_from_a_template(number: object, whole: int | None) -> None:
    assert parse_int("limit", number) == whole


@pytest.mark.parametrize("number", ["ten", "-1", -1, 1.5, "1e3", "²", True, []])
def test_what_is_no_whole_number_is_refused_by_name(number: object) -> None:
    with pytest.raises(BadInput, match=r"^limit is .*, expected a whole number of 0 or more"):
        parse_int("limit", number)


class Cloudy:
    """As Airflow's ObjectStoragePath: its text names the connection, its path does not."""

    def __init__(self, protocol: str, path: str) -> None:
        self.protocol, self.path = protocol, path

    def __str__(self) -> str:
        return f"{self.protocol}://conn@{self.path}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Cloudy("s3", "shop/a b%20#?.jpg"), "s3://shop/a b%20#?.jpg"),
        (Cloudy("s3a", "shop/a.jpg"), "s3://shop/a.jpg"),
        (Cloudy("gcs", "shop/a://b.jpg"), "gs://shop/a://b.jpg"),
        (Cloudy("file", "/data/50%20off.jpg"), "/data/50%20off.jpg"),
        (Cloudy("", "/data/a.jpg"), "/data/a.jpg"),
        (Path("/data/a.jpg"), "/data/a.jpg"),
        ("s3://shop/a.jpg", "s3://shop/a.jpg"),
        (7, 7),
        (None, None),
    ],
)
def test_a_path_object_is_what_it_stands_for(value: object, text: object) -> None:
    assert as_path(value) == text

"""Listings in files: what is read from JSON lines, CSV and Parquet, and what is said of a line that is wrong."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import BadInput, BucketError, UnreadableImage
from airflow_provider_describer.images.listing_file import is_listing_file, read_listing
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.storage.bucket import Bucket, Content
from airflow_provider_describer.store.shard import json_line
from airflow_provider_describer.vendors import get_vendor

VENDOR = get_vendor("image_describer")


class Shelf(Bucket):
    """A bucket of objects in memory."""

    def __init__(self, **objects: bytes) -> None:
        super().__init__("s3", "shop", None)  # type: ignore[arg-type]  # it asks no server
        self.objects = objects
        self.broken: BucketError | None = None

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        if self.broken:
            raise self.broken
        data = self.objects.get(key)
        return None if data is None else Content(data, "v", len(data))


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Any]]:
    """What a file of that content lists."""

    def read_it(name: str, content: bytes | str) -> list[Any]:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return [item for _, item in read_listing(str(tmp_path / name))]

    return read_it


@pytest.fixture
def complaints(read: Callable[..., list[Any]], tmp_path: Path) -> Callable[..., list[str]]:
    """What is said of each line of a file of that content that is no image, with its folder left out."""

    def complain(name: str, content: bytes | str) -> list[str]:
        return [str(item).replace(f"{tmp_path}/", "") for item in read(name, content) if isinstance(item, BadInput)]

    return complain


@pytest.fixture
def refusal(read: Callable[..., list[Any]], tmp_path: Path) -> Callable[..., str]:
    """What is said of a file of that content, with its folder left out."""

    def refuse(name: str, content: bytes | str) -> str:
        with pytest.raises(BadInput) as caught:
            read(name, content)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refuse


# --- JSON lines ---


@pytest.mark.parametrize("name", ["list.jsonl", "list.ndjson", "LIST.JSONL"])
def test_a_line_is_a_uri_or_a_dict(read: Callable[..., list[Any]], name: str) -> None:
    content = '"s3://shop/a.jpg"\n\n  {"uri": "b.jpg", "fields": {"title": "x"}}\r\n"c\u2028.jpg"'
    assert read(name, content) == ["s3://shop/a.jpg", {"uri": "b.jpg", "fields": {"title": "x"}}, "c\u2028.jpg"]


@given(uri=st.text(st.characters(exclude_categories=())))
def test_any_name_that_is_written_is_read_again(uri: str) -> None:
    shelf = Shelf(**{"x.jsonl": json_line({"uri": uri})})
    assert list(read_listing("s3://shop/x.jsonl", lambda scheme, name: shelf)) == [
        ("s3://shop/x.jsonl line 1", {"uri": uri})
    ]


BAD_LINES = [
    (b"b.jpg", "is not JSON"),
    (b'{"uri": "b.jpg"', "is not JSON"),
    (b'["b.jpg"]', "is a list; expected a uri in quotes or a dict"),
    (b"7", "is a int"),
    (b"null", "is a NoneType"),
    (b'"a\xff.jpg"', "is not UTF-8"),
    (b"[" * 100_000, "is not JSON"),
    (b"9" * 5000, "is not JSON"),
    (b"\x1f\x8b\x08\x00compressed", "is not "),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES)
def test_a_line_that_is_none_is_named_and_the_others_go_on(
    read: Callable[..., list[Any]], complaints: Callable[..., list[str]], line: bytes, says: str
) -> None:
    for content, place in (
        (b'"a.jpg"\n\n%s\n"c.jpg"\n', 3),
        (b'%s\n"a.jpg"\n"c.jpg"', 1),
        (b'"a.jpg"\n"c.jpg"\n%s', 3),
    ):
        (found,) = complaints("list.jsonl", content % line)
        assert found.startswith(f"list.jsonl line {place} {says}")
        assert [item for item in read("list.jsonl", content % line) if isinstance(item, str)] == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize(("line", "says"), BAD_LINES)
def test_a_file_without_a_line_that_can_be_read_is_no_listing(
    refusal: Callable[..., str], line: bytes, says: str
) -> None:
    for content in (line, b"\n%s\n%s\n%s" % (line, line, line)):
        assert says in refusal("list.jsonl", content)


# --- CSV ---


def test_columns_with_a_meaning_and_all_others_as_fields(read: Callable[..., list[Any]]) -> None:
    content = (
        "\ufefftitle,uri,version,size,prompt,lang,id,colour\r\n"
        'Shoe,a.jpg,"v,1",12,"Say\r\n""{title}""",de,7,red\r\n'
        "\r\n"
        ",b.jpg,,,,,,"
    )
    assert read("list.csv", content) == [
        {
            "uri": "a.jpg",
            "version": "v,1",
            "size": "12",
            "prompt": 'Say\r\n"{title}"',
            "lang": "de",
            "id": "7",
            "fields": {"title": "Shoe", "colour": "red"},
        },
        {"uri": "b.jpg", "fields": {"title": "", "colour": ""}},
    ]


def test_a_table_of_uris_alone_has_no_fields(read: Callable[..., list[Any]]) -> None:
    assert read("list.csv", "uri\na.jpg\nb.jpg\n") == [{"uri": "a.jpg"}, {"uri": "b.jpg"}]
    assert read("list.csv", "uri\n") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "list.csv is empty; expected a header row with the column 'uri'"),
        (b"a.jpg\nb.jpg\n", "list.csv line 1 has the columns 'a.jpg'; expected one named 'uri'"),
        (b"URI,title\na.jpg,x\n", "has the columns 'URI', 'title'"),
        (b"uri;title\na.jpg;x\n", "commas between the columns"),
        (b"uri,title,title\na,b,c\n", "list.csv line 1 has the column 'title' twice"),
        (b"uri,title\nb.jpg\n", "list.csv line 2 has 1 cell, expected 2 as in the header"),
        (b"uri,title\na.jpg,red, round\n", "list.csv line 2 has 3 cells, expected 2"),
        (b'uri\n"a.jpg\n', "list.csv line 2 is not CSV"),
        (b'uri\n"a"b.jpg\n', "list.csv line 2 is not CSV"),
        (b"uri\n" + b"a" * 200_000, "list.csv line 2 is not CSV: field larger than field limit"),
        ("uri,title\na.jpg,Schuhgröße\n".encode("latin-1"), "is not UTF-8; save the file as CSV in UTF-8"),
        ("uri\na.jpg\n".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_table_without_a_row_that_can_be_read_is_no_listing(
    refusal: Callable[..., str], content: bytes, says: str
) -> None:
    assert says in refusal("list.csv", content)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"b.jpg", "has 1 cell, expected 2 as in the header"),
        (b"b.jpg,red, round", "has 3 cells, expected 2"),
        (b'"b"b.jpg,x', "is not CSV"),
        (b'"b.jpg,x', "is not CSV"),
        (b'b.jpg,"x', "is not CSV"),
        (b"b.jpg," + b"x" * 200_000, "is not CSV: field larger than field limit"),
        ("b.jpg,Schuhgröße".encode("latin-1"), "is not UTF-8; save the file as CSV in UTF-8"),
        (b"b.jpg,\xed\xb3\xbf", "is not UTF-8"),
    ],
)
def test_a_row_that_is_none_is_named_and_the_others_go_on(
    read: Callable[..., list[Any]], complaints: Callable[..., list[str]], line: bytes, says: str
) -> None:
    rows = ["a.jpg", *(f"{number}.jpg" for number in range(50))]
    text = b"uri,title\r\na.jpg,x\r\n" + line + b"\r\n" + b"".join(b"%d.jpg,x\r\n" % number for number in range(50))
    (found,) = complaints("list.csv", text)
    assert found.startswith(f"list.csv line 3 {says}")
    assert [item["uri"] for item in read("list.csv", text) if isinstance(item, dict)] == rows


def test_quotes_that_are_not_closed_swallow_no_row(
    read: Callable[..., list[Any]], complaints: Callable[..., list[str]]
) -> None:
    lines = [b"%d.jpg,%s" % (number, b'"x' if number % 3 == 1 else b"x") for number in range(3000)]
    text = b"uri,title\n" + b"\n".join(lines)
    assert [item["uri"] for item in read("list.csv", text) if isinstance(item, dict)] == [
        f"{number}.jpg" for number in range(3000) if number % 3 != 1
    ]
    assert len(complaints("list.csv", text)) == 1000


def test_an_image_at_fault_is_named_by_its_line(tmp_path: Path) -> None:
    def complaint(content: str, **options: Any) -> str:
        (tmp_path / "list.csv").write_text(content)
        (bad,) = [request for request in parse_images(tmp_path / "list.csv", VENDOR, **options) if request.flaw]
        return str(bad.flaw).replace(f"{tmp_path}/", "")

    assert complaint("uri,title\na.jpg,x\n,y\n").startswith("list.csv line 3 is None")
    assert complaint("uri,lang\na.jpg,xx\nb.jpg,\n").startswith("list.csv line 2 (a.jpg): lang='xx'")
    assert complaint("uri\nftp://x.example/a.jpg\nb.jpg\n").startswith("list.csv line 2 (ftp://x.example/a.jpg)")
    assert complaint("uri,size\na.jpg,7\nb.jpg,7.5\n").startswith("list.csv line 3 (b.jpg): size is '7.5' (str)")
    assert complaint("uri,size\na.jpg,7\nb.jpg,-7\n").startswith("list.csv line 3 (b.jpg): size is '-7' (str)")
    assert complaint("uri\na.jpg\nb.jpg,c\n").startswith("list.csv line 3 has 2 cells")


def test_a_prompt_for_a_column_that_is_not_there_is_no_images_fault(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,titel\na.jpg,x\nb.jpg,y\n")
    with pytest.raises(BadInput, match=r"line 2 \(a\.jpg\): prompt asks for \{title\}.*fields have titel"):
        parse_images(tmp_path / "list.csv", VENDOR, prompt="The {title}")


# --- Parquet ---


def parquet(table: dict[str, list[Any]], **options: Any) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    writer.write_table(arrow.table(table), sink, **options)
    return sink.getvalue()


def test_a_parquet_file_has_the_same_columns(read: Callable[..., list[Any]]) -> None:
    content = parquet(
        {
            "uri": ["a.jpg", "b.jpg"],
            "size": [12, None],
            "version": ["v", None],
            "id": [7, 8],
            "title": ["Shoe", None],
            "price": [1.5, 2.0],
        }
    )
    assert read("list.parquet", content) == [
        {"uri": "a.jpg", "size": 12, "version": "v", "id": 7, "fields": {"title": "Shoe", "price": 1.5}},
        {"uri": "b.jpg", "id": 8, "fields": {"price": 2.0}},
    ]


def test_a_null_is_not_filled_into_a_prompt() -> None:
    shelf = Shelf(**{"x.parquet": parquet({"uri": ["a.jpg", "b.jpg"], "title": ["Shoe", None]})})
    good, bad = parse_images(
        "s3://shop/x.parquet", VENDOR, prompt="The {title}", open_bucket=lambda scheme, name: shelf
    )
    assert good.spec.prompt == "The Shoe"
    assert str(bad.flaw).startswith("s3://shop/x.parquet row 2 (b.jpg): prompt asks for {title}")


def test_a_value_that_cannot_be_read_is_one_rows(
    read: Callable[..., list[Any]], complaints: Callable[..., list[str]]
) -> None:
    arrow = pytest.importorskip("pyarrow")
    texts = arrow.array([b"a.jpg", b"\xff.jpg", b"c.jpg"]).view(arrow.string())
    content = parquet({"uri": texts, "at": arrow.array([1, 2, 3], arrow.timestamp("us"))})
    assert [item["uri"] for item in read("list.parquet", content) if isinstance(item, dict)] == ["a.jpg", "c.jpg"]
    (found,) = complaints("list.parquet", content)
    assert found.startswith("list.parquet row 2 has a value that cannot be read: UnicodeDecodeError")


def test_rows_are_counted_over_a_whole_file() -> None:
    uris = [f"{number}.jpg" for number in range(10_000)]
    shelf = Shelf(**{"x.parquet": parquet({"uri": uris}, row_group_size=3000)})
    listed = list(read_listing("s3://shop/x.parquet", lambda scheme, name: shelf))
    assert [item["uri"] for _, item in listed if isinstance(item, dict)] == uris
    assert listed[-1][0] == "s3://shop/x.parquet row 10000"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "list.parquet cannot be read as Parquet"),
        (b"PAR1 not at all PAR1", "list.parquet cannot be read as Parquet"),
        (b"uri\na.jpg\n", "list.parquet cannot be read as Parquet"),
    ],
)
def test_what_is_no_parquet_is_named(refusal: Callable[..., str], content: bytes, says: str) -> None:
    pytest.importorskip("pyarrow")
    assert says in refusal("list.parquet", content)


def test_a_parquet_file_that_is_cut_off_is_named(refusal: Callable[..., str]) -> None:
    content = parquet({"uri": [f"{number}.jpg" for number in range(1000)]})
    assert "list.parquet cannot be read as Parquet" in refusal("list.parquet", content[: len(content) // 2])


def test_a_parquet_file_without_uris_is_named(refusal: Callable[..., str]) -> None:
    assert "has the columns 'url', 'title'" in refusal("list.parquet", parquet({"url": ["a"], "title": ["b"]}))


def test_without_pyarrow_the_extra_is_named(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def no_pyarrow(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    assert "pip install 'airflow-provider-describer[parquet]'" in refusal("list.parquet", b"PAR1")


# --- where they lie ---


@pytest.mark.parametrize("way", ["{}", "file://{}"])
def test_a_listing_lies_on_a_disk(tmp_path: Path, way: str) -> None:
    (tmp_path / "x.jsonl").write_text('"a.jpg"\n')
    path = way.format(tmp_path / "x.jsonl")
    assert list(read_listing(path)) == [(f"{path} line 1", "a.jpg")]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_listing_lies_in_a_bucket(scheme: str) -> None:
    shelf, opened = Shelf(**{"a b/#1.csv": b"uri\na.jpg\n"}), []

    def open_bucket(*bucket: str) -> Bucket:
        opened.append(bucket)
        return shelf

    path = f"{scheme}://shop/a b/#1.csv"
    assert list(read_listing(path, open_bucket)) == [(f"{path} line 2", {"uri": "a.jpg"})]
    assert opened == [(scheme, "shop")]


@pytest.mark.parametrize("path", ["/nowhere/x.jsonl", "s3://shop/nowhere.csv", "x.parquet"])
def test_a_listing_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(BadInput, match=f"images is '{path}', but there is no such file"):
        list(read_listing(path, lambda scheme, name: Shelf()))


def test_a_listing_that_cannot_be_read_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(UnreadableImage, match=r"x\.csv' cannot be read: IsADirectoryError"):
        list(read_listing(str(tmp_path / "x.csv")))
    shelf = Shelf()
    shelf.broken = BucketError("s3://shop/x.csv cannot be read: access was refused.", kind="denied")
    with pytest.raises(BucketError, match="access was refused"):
        list(read_listing("s3://shop/x.csv", lambda scheme, name: shelf))


def test_a_listing_is_not_read_from_the_web_nor_without_buckets() -> None:
    with pytest.raises(BadInput, match="not from the web") as caught:
        list(read_listing("https://x.example/list?sig=hush&x=.csv"))
    assert "hush" not in str(caught.value)
    with pytest.raises(BadInput, match="no bucket can be opened here"):
        list(read_listing("s3://shop/x.csv"))


@pytest.mark.parametrize(
    ("name", "listing"),
    [("a.jsonl", True), ("A.CSV", True), ("a.parquet", True), ("a.jpg", False), ("jsonl", False), (b"a.csv", False)],
)
def test_a_listing_is_told_by_its_name(name: object, listing: bool) -> None:
    assert is_listing_file(name) is listing

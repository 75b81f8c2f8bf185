"""The gallery: complete, self-contained, readable without eyes, and safe whatever a vendor answered."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from gallery import image_name, local_path, local_thumbnail, total_cost, write_gallery

ATTACKS = [
    "<script>alert(1)</script>",
    "</style></script><img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "' onmouseover='alert(1)",
    "**<img src=x onerror=alert(1)>**",
    "- </li></ul><iframe src=//evil.example>",
    "[a](javascript:alert(1))",
    "\x00<b\x00>\x1b[31m",
    "&lt;script&gt;",
    "\ud800 lone surrogate",
]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "uri": "/photographs/cat.jpg",
        "version": "1",
        "sha256": "0" * 64,
        "vendor": "segmind",
        "model": "ideogram-describe",
        "prompt": "Describe",
        "lang": "en",
        "status": "described",
        "text": "A **ginger** cat.\n- eyes: green",
        "cost_usd": 0.015,
        "request_id": "req-1",
        "billed": "yes",
        "error": None,
        "described_at": "2026-01-01T00:00:00+00:00",
        "elapsed_s": 4.21,
        "dag_id": "catalog_enrichment",
        "run_id": "manual__1",
        "task_id": "describe",
        "map_index": -1,
        "try_number": 1,
    } | changes


def rejected(**changes: Any) -> dict[str, Any]:
    error = {"kind": "RejectedImage", "message": "not an image: it begins with <!doctype html>"}
    refused = {"status": "rejected", "text": None, "cost_usd": None, "billed": "no", "request_id": None}
    return row(**refused, error=error, elapsed_s=None) | changes


def write(rows: list[dict[str, Any]], folder: Path, title: str = "Gallery", data: bytes | None = None) -> str:
    path = folder / "new" / "gallery.html"
    write_gallery(iter(rows), path, title=title, thumbnail=lambda uri: data)
    assert [file.name for file in path.parent.iterdir()] == ["gallery.html"]
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser makes of the page: its elements, its attributes and the words that are read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_card_says_what_was_described_and_what_it_cost(tmp_path: Path) -> None:
    page = write([row()], tmp_path)
    for words in ("cat.jpg", "<strong>ginger</strong>", "<li>eyes: green</li>", "$0.015", "4.2 s", "req-1"):
        assert words in page
    assert "segmind ideogram-describe · catalog_enrichment / manual__1" in page


def test_a_rejected_image_shows_why(tmp_path: Path) -> None:
    page = write([row(), rejected(uri="/photographs/not_a_picture.jpg")], tmp_path)
    words = Page(page).words
    assert "RejectedImage" in words
    assert "it begins with <!doctype html>" in words
    assert "not billed" in words
    assert page.index("Descriptions") < page.index("Not described")


def test_totals_count_every_status_and_no_reused_cost_twice(tmp_path: Path) -> None:
    rows = [row(), row(elapsed_s=6), row(status="reused"), rejected(), row(status="unknown", cost_usd=None)]
    page = write(rows, tmp_path)
    header = re.sub(r"</?a\b[^>]*>", "", page.partition("</header>")[0])
    totals = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", header))
    assert totals == {
        "described": "2",
        "reused": "1",
        "rejected": "1",
        "unknown": "1",
        "cost, and 1 of unknown price": "$0.03",
        "waited for answers": "18.6 s",
    }


def test_cost_leaves_out_what_this_run_did_not_pay() -> None:
    rows = [row(), row(status="reused"), row(status="pending", billed="no"), rejected()]
    assert total_cost(rows) == (0.015, 0)


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = Page(write([row(), rejected()], tmp_path, data=b"\xff\xd8\xff small"))
    assert [image["src"] for image in page.all("img")] == ["data:image/jpeg;base64,/9j/IHNtYWxs"] * 2
    assert not page.all("script") and not page.all("link")
    assert [link["href"] for link in page.all("a")] == ["#not-described"]
    assert "not-described" in [section["id"] for section in page.all("section")]
    policy = next(meta for meta in page.all("meta") if "http-equiv" in meta)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_have_an_alternative_text_of_bearable_length(tmp_path: Path) -> None:
    long = "A cat, " * 100
    page = Page(write([row(), row(text=long), rejected()], tmp_path, data=b"\x89PNG\r\n\x1a\n"))
    plain, cut, name = (image["alt"] for image in page.all("img"))
    assert plain == "A ginger cat. eyes: green"
    assert cut is not None and len(cut) <= 140 and cut.endswith("A cat, A…")
    assert name == "cat.jpg"


@pytest.mark.parametrize("data", [None, b"", b"<svg onload=alert(1)>"])
def test_what_is_no_known_picture_is_never_embedded(tmp_path: Path, data: bytes | None) -> None:
    page = Page(write([row()], tmp_path, data=data))
    assert not page.all("img")
    assert "no picture to show" in page.words


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("make", [row, rejected])
def test_no_value_can_bring_markup_of_its_own(tmp_path: Path, attack: str, make: Any) -> None:
    texts = ("uri", "text", "lang", "vendor", "model", "prompt", "request_id", "dag_id", "run_id", "billed")
    hostile = make() | dict.fromkeys(texts, attack)
    hostile["error"] = {"kind": attack, "message": attack} if make is rejected else attack
    calm = make() | dict.fromkeys(texts, "calm")
    expected = write([calm], tmp_path / "calm", title="calm", data=b"\xff\xd8\xff")
    page = write([hostile], tmp_path / "hostile", title=attack, data=b"\xff\xd8\xff")
    allowed = {"strong", "ul", "li", "p", "br", "wbr"}
    known = [tag for tag, _ in Page(expected).elements if tag not in allowed]
    assert [tag for tag, _ in Page(page).elements if tag not in allowed] == known
    for _, attributes in Page(page).elements:
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)


@pytest.mark.parametrize("status", [None, "", 7, '"><script>', "described x"])
def test_a_status_that_is_none_is_shown_as_unknown(tmp_path: Path, status: object) -> None:
    page = write([row(status=status)], tmp_path)
    assert '<article class="card unknown">' in page


def test_no_rows_give_a_page_that_says_so(tmp_path: Path) -> None:
    assert "No image was asked for." in write([], tmp_path)


def test_rows_with_holes_are_shown(tmp_path: Path) -> None:
    assert "?" not in Page(write([{}, {"uri": "a.png", "status": "described"}], tmp_path)).words


def test_a_page_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    path.write_text("old")

    def broken(uri: str) -> bytes | None:
        raise RuntimeError(uri)

    with pytest.raises(RuntimeError, match="cat"):
        write_gallery([row()], path, title="new", thumbnail=broken)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/a/b.jpg", "b.jpg"),
        ("b.jpg", "b.jpg"),
        ("s3://bucket/x/%C3%A9.png", "é.png"),
        ("https://shop.example/i/cup.jpg?X-Amz-Signature=secret", "cup.jpg"),
        ("/odd/50%25?.jpg", "50%25?.jpg"),
        ("https://shop.example", "https://shop.example"),
    ],
)
def test_image_name(uri: str, name: str) -> None:
    assert image_name(uri) == name


def test_local_path_knows_paths_and_file_addresses() -> None:
    assert local_path("/a b/c.jpg") == Path("/a b/c.jpg")
    assert local_path("file:///a%20b/c.jpg") == Path("/a b/c.jpg")
    assert local_path("s3://bucket/c.jpg") is None


def test_local_thumbnail_is_a_small_jpeg(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGBA", (2000, 1000), "red").save(tmp_path / "big.png")
    data = local_thumbnail(str(tmp_path / "big.png"), edge=100)
    assert data is not None and data.startswith(b"\xff\xd8\xff")
    (tmp_path / "small.jpg").write_bytes(data)
    with image.open(tmp_path / "small.jpg") as small:
        assert small.size == (100, 50)


def test_local_thumbnail_of_what_cannot_be_shown_is_none(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<!doctype html>")
    assert local_thumbnail(str(tmp_path / "page.jpg")) is None
    assert local_thumbnail(str(tmp_path / "missing.jpg")) is None
    assert local_thumbnail("https://shop.example/cup.jpg") is None

"""A long list always has entries that cannot be described: each gets its row, and the others are paid for once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine.job import MAX_INLINE
from airflow_provider_describer.errors import BadInput, BucketError, DescriberError, TooManyRejected, Unfinished
from airflow_provider_describer.storage.address import masked

if TYPE_CHECKING:
    from clouds import Cloud

    from tests.conftest import Result, Shop

DrawInto = Callable[..., list[Path]]
Sums = Callable[[list[Path]], list[str]]
NAN = float("nan")

BAD_ENTRIES: list[tuple[Any, str]] = [
    (None, "bad_entry"),
    (NAN, "bad_entry"),
    ("", "bad_entry"),
    (" \n", "bad_entry"),
    ({}, "bad_entry"),
    ({"uri": None}, "bad_entry"),
    ({"uri": NAN, "id": 7}, "bad_entry"),
    ({"uri": ""}, "bad_entry"),
    (42, "bad_entry"),
    (True, "bad_entry"),
    (1.5, "bad_entry"),
    (b"a.jpg", "bad_entry"),
    ([[7]], "bad_entry"),
    ({"a.jpg"}, "bad_entry"),
    ({"uri": ["a.jpg"]}, "bad_entry"),
    ({"uri": {"uri": "a.jpg"}}, "bad_entry"),
    ({"url": "a.jpg"}, "bad_entry"),
    ({"uri": "a.jpg", "titel": "x"}, "bad_entry"),
    ({"uri": "a.jpg", "lang": "xx"}, "bad_entry"),
    ({"uri": "a.jpg", "lang": 7}, "bad_entry"),
    ({"uri": "a.jpg", "lang": ["en"]}, "bad_entry"),
    ({"uri": "a.jpg", "prompt": " "}, "bad_entry"),
    ({"uri": "a.jpg", "prompt": 7}, "bad_entry"),
    ({"uri": "a.jpg", "prompt": "\ud800"}, "bad_entry"),
    ({"uri": "a.jpg", "prompt": "The {title}"}, "bad_entry"),
    ({"uri": "a.jpg", "prompt": "The {title}", "fields": {"title": None}}, "bad_entry"),
    ({"uri": "a.jpg", "fields": "red"}, "bad_entry"),
    ({"uri": "a.jpg", "version": ["v"]}, "bad_entry"),
    ({"uri": "a.jpg", "size": -1}, "bad_entry"),
    ({"uri": "a.jpg", "size": "12 KB"}, "bad_entry"),
    ({"uri": "a.jpg", "id": {"no": 7}}, "bad_entry"),
    ("ftp://me:hush@shop.example/a.jpg", "bad_address"),
    ("https://[oops/a.jpg?sig=hush", "bad_address"),
    ("https:///a.jpg", "bad_address"),
    ("https://shop.example:99999/a.jpg", "bad_address"),
    ("file://elsewhere/a.jpg", "bad_address"),
    ("s3://", "bad_address"),
    ("s3://shop", "bad_address"),
    ("s3://shop/", "bad_address"),
    ("gcs://shop/a.jpg", "bad_address"),
    ("s3://my shop/a.jpg", "bad_address"),
    ("http:/shop.example/a.jpg?sig=hush", "bad_address"),
    ("https://shop.example\\a.jpg", "bad_address"),
    ("data:image/png;base64,iVBORw0KGgo=", "bad_address"),
    ("~/a.jpg", "bad_address"),
    ("a\0.jpg", "bad_address"),
]
"""One of each entry that names no image, and the kind that its row has."""


def bad_files(folder: Path) -> dict[str, str]:
    """Files that are no images, and the kind that the row of each has."""
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "drawing.svg").write_text("<svg/>")
    (folder / "folder.jpg").mkdir()
    kinds = {
        "empty.jpg": "empty",
        "page.jpg": "not_an_image",
        "drawing.svg": "unsupported_type",
        "folder.jpg": "not_an_image",
        "nowhere.jpg": "missing",
    }
    return {str(folder / name): kind for name, kind in kinds.items()}


def mixed(good: list[Any], bad: list[Any]) -> list[Any]:
    """The list, with a bad entry after every few good ones."""
    step = max(1, len(good) // (len(bad) + 1))
    entries: list[Any] = []
    for number, entry in enumerate(good):
        entries.append(entry)
        if number % step == step - 1 and bad:
            entries.append(bad.pop(0))
    return [*entries, *bad]


def check(result: Result, sums: list[str], kinds: list[str], duplicates: int, of: int) -> None:
    assert (result.error, len(result.rows), result.counts["requested"]) == (None, of, of)
    assert result.counts["described"] == len(sums) and result.counts["reused"] == duplicates
    rejected = result.of("rejected")
    assert Counter(row["error"]["kind"] for row in rejected) == Counter(kinds)
    assert {(row["billed"], row["text"]) for row in rejected} == {("no", None)} and all(row["uri"] for row in rejected)
    assert {(row["billed"], row["cost_usd"]) for row in result.of("reused")} == {("no", 0.0)}
    assert result.ledger["by_image"] == dict.fromkeys(sums, 1) and result.ledger["billed"] == len(sums)
    assert result.manifest["cost_usd"] == pytest.approx(0.015 * len(sums))
    assert "hush" not in json.dumps(result.rows)


@pytest.mark.parametrize(("rows", "kept"), [(1000, True), (MAX_INLINE, False)])
def test_each_bad_entry_of_a_long_list_is_a_row(
    any_shop: Shop, tmp_path: Path, draw_into: DrawInto, sums: Sums, rows: int, kept: bool
) -> None:
    files = bad_files(tmp_path)
    bad, kinds = [entry for entry, _ in BAD_ENTRIES], [kind for _, kind in BAD_ENTRIES]
    copies = 5
    paths = draw_into(tmp_path, rows - len(bad) - len(files) - copies)
    # Listed twice as it is, as a dict, by another name, three times, and with a name of its own.
    twice: list[Any] = [paths[0], {"uri": str(paths[1])}, f"file://{paths[2]}", paths[0], {"uri": paths[3], "id": "x"}]
    entries = mixed([str(path) for path in paths], [*bad, *files, *twice])
    assert len(entries) == rows
    result = any_shop.describe(entries, **({} if kept else {"store": None}))
    check(result, sums(paths), [*kinds, *files.values()], copies, rows)
    assert {(row["uri"], row["error"]["kind"]) for row in result.of("rejected")} >= set(files.items())
    if kept:
        failures = [json.loads(line) for line in Path(result.manifest["failures"]).read_text().splitlines()]
        assert len(failures) == len(bad) + len(files)
        # The next night costs nothing, and looks at the bad ones again.
        again = any_shop.describe(entries)
        assert (again.counts["reused"], again.counts["rejected"]) == (rows - len(failures), len(failures))
        assert again.ledger["requests"] == result.ledger["requests"]
    else:
        # In the order of the list.
        asked = any_shop.job(entries).requests
        assert [row["uri"] for row in result.rows] == [masked(request.image.uri) for request in asked]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_each_bad_line_of_a_listing_file_is_a_row(
    shop: Shop, tmp_path: Path, draw_into: DrawInto, sums: Sums, suffix: str
) -> None:
    paths = draw_into(tmp_path, 988)
    files = bad_files(tmp_path)
    listing = tmp_path / f"images.{suffix}"
    if suffix == "jsonl":
        bad = ["7", "null", "[]", '{"uri": "a.jpg"', "a.jpg", '"\udcff.jpg"']
        lines = mixed(
            [json.dumps(str(path)) for path in paths], [*bad, *map(json.dumps, files), json.dumps(str(paths[5]))]
        )
    else:
        bad = ["a.jpg", "a.jpg,,,", ",red,", 'a.jpg,"red,', "a.jpg,\udcff,", "a.jpg,red,-7"]
        good = [f"{path},red," for path in paths]
        lines = ["uri,colour,size", *mixed(good, [*bad, *(f"{file},," for file in files), good[5]])]
    listing.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    result = shop.describe(str(listing))
    check(result, sums(paths), [*(["bad_entry"] * len(bad)), *files.values()], 1, 1000)
    messages = [row["error"]["message"] for row in result.rows if row["error"] and row["error"]["kind"] == "bad_entry"]
    assert all(message.startswith(f"{listing} line ") for message in messages)


@pytest.mark.parametrize("ratio", [0.0, 0.05])
def test_too_many_bad_entries_stop_the_run_before_anything_is_spent(
    shop: Shop, tmp_path: Path, draw_into: DrawInto, ratio: float
) -> None:
    paths = draw_into(tmp_path, 20)
    result = shop.describe([*paths, None, "ftp://h/a.jpg"], max_failure_ratio=ratio)
    assert isinstance(result.error, TooManyRejected) and "2 of 22 images" in str(result.error)
    assert (result.counts["rejected"], result.counts["pending"], result.ledger["requests"]) == (2, 20, 0)


def test_the_first_ones_answer_is_that_of_its_copies(
    shop: Shop, tmp_path: Path, draw_into: DrawInto, sums: Sums
) -> None:
    good, harmful = draw_into(tmp_path, 2)
    shop.breaks("harmful", images=sums([harmful]))
    result = shop.describe([good, harmful, good, harmful, harmful], store=None)
    assert [row["status"] for row in result.rows] == ["described", "rejected", "reused", "rejected", "rejected"]
    assert len({row["text"] for row in result.rows}) == 2
    assert [row["cost_usd"] for row in result.rows[::2]][:2] == [0.015, 0.0]
    assert result.ledger["requests"] == 2


@pytest.mark.parametrize("transport", ["auto", "url"])
@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_a_bucket_that_cannot_be_opened_is_its_images_fault(
    shop: Shop, tmp_path: Path, draw_into: DrawInto, s3: Cloud, vendor: str, transport: str
) -> None:
    shop.vendor = vendor
    shop.fields["image_transport"] = transport if transport == "auto" else vendor_way(vendor)
    errors: dict[str, DescriberError] = {
        "unset": BadInput("gs://unset needs the connection 'google_cloud_default', but there is none."),
        "refused": BucketError("s3://refused: the role was refused.", kind="denied"),
        "silent": BucketError("s3://silent: no answer.", kind="unreachable"),
    }

    def open_bucket(scheme: Any, name: str) -> Any:
        if name in errors:
            raise errors[name]
        return s3.open_bucket(scheme, name)

    paths = draw_into(tmp_path, 8)
    s3.bucket().put("a.jpg", paths.pop().read_bytes())
    lost = ["gs://unset/a.jpg", "s3://refused/a.jpg", "s3://nowhere-at-all/a.jpg", "s3://silent/a.jpg"]
    listed = {"uri": "s3://nowhere-at-all/b.jpg", "version": "v", "size": 7}
    result = shop.describe([lost[0], *paths, *lost[1:], listed, f"{s3.uri}/a.jpg"], open_bucket=open_bucket)
    found = {row["uri"]: (row["status"], row["error"] and row["error"]["kind"]) for row in result.rows}
    assert [found[uri] for uri in (*lost, str(listed["uri"]))] == [
        ("rejected", "bucket_not_opened"),
        ("rejected", "denied"),
        ("rejected", "no_such_bucket"),
        ("pending", "unreachable"),
        ("rejected", "no_such_bucket"),
    ]
    assert result.counts["described"] == result.ledger["billed"] == 8 and isinstance(result.error, Unfinished)
    assert set(result.ledger["by_image"].values()) == {1}


def vendor_way(vendor: str) -> str:
    return "file" if vendor == "image_describer" else "inline"

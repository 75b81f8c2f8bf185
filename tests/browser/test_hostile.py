"""Texts, names and addresses of an attacker, and visitors without a login or a right."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from page_server import served
from playwright.sync_api import expect
from stored_rows import make_store, stored_row

SCRIPTS = [
    "<script>window.taken = 1</script>",
    "<img src=x onerror='window.taken = 1'>",
    "<svg onload=window.taken=1>",
    "</p></article><iframe srcdoc='<script>parent.taken=1</script>'>",
    "{{constructor.constructor('window.taken=1')()}}",
    "[text](javascript:window.taken=1)",
]
NAMES = [
    "javascript:window.taken=1",
    "https://example.com/<script>window.taken=1<%2Fscript>.jpg",
    "data:text/html,<script>window.taken=1</script>",
    "/photographs/\u202egpj.exe",
    "../../etc/passwd",
    "/photographs/%2e%2e/%2e%2e/etc/passwd",
    "s3://other/secret.jpg",
]


def cards(page):
    return page.get_by_role("list", name="Descriptions", exact=True).get_by_role("article")


@pytest.fixture
def hostile(tmp_path, photographs):
    """The address of the page for a store with hostile rows, and the path of the store."""
    texts = [*SCRIPTS, "\u202eright to left\u2066 and more", "x" * 1_000_000]
    rows = [stored_row(number, text=text, prompt=text[:100]) for number, text in enumerate(texts)]
    rows += [stored_row(50 + at, uri=name, text=f"Name {at}.", run_id=f"run {name}") for at, name in enumerate(NAMES)]
    (photographs / "link.jpg").symlink_to("/etc/passwd")
    rows.append(stored_row(90, uri=str(photographs / "link.jpg"), text="A link."))
    store = make_store(tmp_path / "stores" / "shown", rows)
    make_store(tmp_path / "stores-of-others", [stored_row(1, text="A secret.")])
    (tmp_path / "stores" / "link").symlink_to(tmp_path / "stores-of-others")
    with served(f"{tmp_path}/stores/*", f"{photographs}/*") as address:
        yield address, store


def test_no_text_is_markup(visit, hostile):
    address, _ = hostile
    page = visit(address, expect_errors=True)
    expect(cards(page)).to_have_count(len(SCRIPTS) + len(NAMES) + 3)
    shown = cards(page).locator(".text").all_text_contents()
    assert set(SCRIPTS) <= set(shown)
    assert page.evaluate("window.taken") is None
    assert page.locator("main iframe, main script, main svg[onload], main a[href^='javascript']").count() == 0
    for number in range(cards(page).count()):
        cards(page).nth(number).get_by_role("button").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("status")).to_contain_text(re.compile("entr"))
        assert [
            link for link in dialog.get_by_role("link").all() if not link.get_attribute("href").startswith("https://")
        ] == []
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
    assert page.evaluate("window.taken") is None


def test_marks_of_direction_stay_in_their_text(visit, hostile):
    page = visit(hostile[0], expect_errors=True)
    name = cards(page).filter(has_text="Name 3.").locator(".name")
    assert name.evaluate("node => getComputedStyle(node).unicodeBidi") in ("isolate", "plaintext", "isolate-override")
    assert cards(page).filter(has_text="right to left").locator(".text").get_attribute("dir") == "auto"


def test_a_text_of_a_megabyte_is_cut_in_the_gallery(visit, hostile):
    page = visit(hostile[0], expect_errors=True)
    long = cards(page).filter(has_text="x" * 1000)
    expect(long).to_have_count(1)
    assert len(long.locator(".text").text_content()) < 5000
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_no_file_outside_the_named_prefixes_is_shown(visit, hostile):
    page = visit(hostile[0], expect_errors=True)
    expect(cards(page).first).to_be_visible()
    asked: list[Any] = []
    page.on("response", lambda response: asked.append(response))  # noqa: PLW0108  # a method is refused
    page.reload(wait_until="networkidle")
    for at in range(len(NAMES)):
        expect(cards(page).filter(has_text=f"Name {at}.")).to_contain_text("No preview")
    expect(cards(page).filter(has_text="A link.")).to_contain_text("No preview")
    assert [response.url for response in asked if "thumbnail" in response.url and response.ok] == []


@pytest.mark.parametrize(
    "store",
    [
        "{above}/stores-of-others",
        "{above}/stores/../stores-of-others",
        "{above}/stores/%2e%2e/stores-of-others",
        "{above}/stores/shown/../../stores-of-others",
        "{above}/stores/link",
        "file://{above}/stores-of-others",
        "s3://other/store",
        "{above}/stores/shown\\..\\..\\stores-of-others",
        "<img src=x onerror=window.taken=1>",
    ],
)
def test_no_store_but_the_named_ones_is_opened(visit, hostile, store):
    address, shown = hostile
    asked = store.format(above=shown.parents[1])
    page = visit(f"{address}?store={quote(asked, safe='')}", expect_errors=True)
    expect(page.get_by_role("alert")).to_contain_text("may not be shown here")
    expect(cards(page)).to_have_count(0)
    assert "A secret." not in page.content()
    assert page.evaluate("window.taken") is None


def test_without_a_login_there_is_only_airflows_login(visit, hostile):
    page = visit(hostile[0], who=None, expect_errors=True)
    expect(page.get_by_role("heading", name="Log in to Airflow")).to_be_visible()
    assert "next=/airflow/describer/" in page.url


def test_a_login_that_has_ended_says_so(visit, hostile):
    page = visit(hostile[0], expect_errors=True)
    expect(cards(page).first).to_be_visible()
    page.context.clear_cookies()
    page.get_by_label("Status").select_option("rejected")
    expect(page.get_by_role("alert")).to_contain_text("You are not logged in any more")
    expect(cards(page)).to_have_count(0)


def test_without_the_right_nothing_is_shown(visit, hostile):
    page = visit(hostile[0], who="nobody", expect_errors=True)
    expect(page.get_by_role("alert")).to_contain_text("needs the right to read Airflow's plugins")
    assert "Name 1." not in page.content()


def test_only_rows_of_readable_dags_are_shown(visit, tmp_path):
    rows = [stored_row(number, dag_id=dag, text=f"Of the {dag} team.") for number, dag in enumerate(("red", "blue"))]
    with served(str(make_store(tmp_path / "store", rows))) as address:
        page = visit(address, who="red")
        expect(cards(page)).to_have_count(1)
        expect(cards(page).first).to_contain_text("Of the red team.")
        expect(page.get_by_role("region", name="Totals")).to_contain_text(re.compile(r"Outcomes\s*1"))
        assert "blue" not in page.content()


def test_a_damaged_store_is_an_error_and_not_empty(visit, tmp_path):
    store = make_store(tmp_path / "store", [stored_row(1)])
    for file in (store / "descriptions.lance" / "_versions").iterdir():
        file.write_bytes(b"damaged")
    with served(str(store)) as address:
        page = visit(address, expect_errors=True)
        expect(page.get_by_role("alert")).to_contain_text("The store cannot be shown")
        expect(page.get_by_role("alert")).to_contain_text("descriptions.lance")


def test_without_the_setting_the_page_says_what_to_do(visit):
    with served("") as address:
        page = visit(address)
        expect(page.get_by_role("alert")).to_contain_text("No store is named in [describer] stores")

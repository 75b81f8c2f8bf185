"""What a person sees and does on the page: the gallery, filters, one image's history; by keyboard, small, and dark."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from page_server import served
from playwright.sync_api import expect
from stored_rows import make_store, stored_row

LARGE = 100_000
EVERY = 1_000
"""Of so many images of the large store one was rejected, and one has a rare word."""


def row_of_many(number):
    if number % EVERY == 7:
        error = {"kind": "harmful_content", "message": "The vendor refuses the image."}
        return stored_row(number, status="rejected", text=None, cost_usd=0.0, billed="no", error=error)
    more = " It is a zebra's 100%_sure." if number % EVERY == 11 else ""
    prompt = "In one sentence." if number % 2 else None
    return stored_row(number, prompt=prompt, text=f"A picture with the number {number}.{more}")


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """The address of the page for a store of 100 000 rows."""
    store = make_store(tmp_path_factory.mktemp("large") / "store", map(row_of_many, range(LARGE)))
    with served(str(store)) as address:
        yield address


@pytest.fixture
def small(tmp_path, photographs):
    """The address of the page for a store with an image that was described twice, reviewed, and one of another DAG."""
    first, third = ({"uri": str(path), "sha256": sha256_of(path)} for path in sorted(photographs.iterdir())[1::2])
    rows = [
        stored_row(1, **first, text="A blue wall in the sun.", dag_id="red"),
        stored_row(2, **first, text="A blue wall in the rain.", prompt="Name the weather.", dag_id="red"),
        stored_row(3, **third, text="A door.", dag_id="blue", failed_rules=["MinWords(8)"]),
        stored_row(4, uri="/elsewhere/0004.jpg", text="A roof.", dag_id="red", review="edited", reviewed_by="Ada"),
    ]
    with served(str(make_store(tmp_path / "store", rows)), f"{photographs}/*") as address:
        yield address


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cards(page):
    return page.get_by_role("list", name="Descriptions", exact=True).get_by_role("article")


def filters_of(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items() if name != "store"}


@pytest.mark.slow
def test_a_large_store_is_shown_page_by_page(visit, large):
    page = visit(large)
    expect(cards(page)).to_have_count(60)
    expect(cards(page).first).to_contain_text(f"number {LARGE - 1}.")
    expect(page.get_by_role("region", name="Totals")).to_contain_text("100,000")
    page.get_by_role("button", name="Show more").click()
    expect(cards(page)).to_have_count(120)
    texts = cards(page).locator(".text").all_text_contents()
    numbers = [int(number) for text in texts for number in re.findall(r"number (\d+)", text)]
    assert len(numbers) == 120
    assert numbers == sorted(set(numbers), reverse=True)


@pytest.mark.slow
def test_filters_are_in_the_address_and_can_be_taken_back(visit, large):
    page = visit(large)
    expect(cards(page)).to_have_count(60)
    page.get_by_label("Status").select_option("rejected")
    expect(cards(page).first).to_contain_text("harmful_content")
    expect(page.get_by_role("region", name="Totals")).to_contain_text(str(LARGE // EVERY))
    assert filters_of(page) == {"status": "rejected"}
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("rejected")
    expect(cards(page).first).to_contain_text("harmful_content")
    page.go_back()
    expect(cards(page).first).to_contain_text(f"number {LARGE - 1}.")
    assert filters_of(page) == {}
    expect(page.get_by_label("Status")).to_have_value("")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["ZEBRA'S", "100%_sure", "zebra"])
def test_a_search_finds_its_words_as_they_are(visit, large, words):
    page = visit(large)
    page.get_by_label("Search in texts").fill(words)
    expect(page.get_by_role("region", name="Totals")).to_contain_text(re.compile(rf"Outcomes\s*{LARGE // EVERY}"))
    expect(cards(page).first).to_contain_text("zebra's 100%_sure")
    page.get_by_label("Search in texts").fill("100x_sure")
    expect(page.get_by_role("status").first).to_contain_text("No description fits these filters.")
    expect(cards(page)).to_have_count(0)


def test_one_images_history_is_side_by_side(visit, small):
    page = visit(small)
    expect(cards(page)).to_have_count(4)
    cards(page).filter(has_text="in the rain").get_by_role("button").click()
    dialog = page.get_by_role("dialog", name="0001.jpg")
    entries = dialog.get_by_role("list", name="History, newest first").get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("Name the weather.")
    expect(entries.first.locator("mark")).to_have_text(["rain."])
    expect(entries.last).to_contain_text("in the sun")
    assert filters_of(page)["image"].endswith("0001.jpg")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # The browser tells the page of it a moment after that.
    expect(page).not_to_have_url(re.compile(r"[?&]image="))
    assert filters_of(page) == {}


def test_an_image_is_shown_where_it_may_be(visit, small):
    page = visit(small)
    shown = cards(page).filter(has_text="in the rain").locator("img")
    expect(shown).to_have_js_property("complete", True)
    assert shown.evaluate("image => image.naturalWidth") == 320
    expect(cards(page).filter(has_text="A roof.")).to_contain_text("No preview")
    expect(cards(page).filter(has_text="A roof.")).to_contain_text("edited")


def test_rules_and_reviews_are_filters(visit, small):
    page = visit(small)
    expect(cards(page)).to_have_count(4)
    page.get_by_label("Failed rule").select_option("MinWords(8)")
    expect(cards(page)).to_have_count(1)
    expect(cards(page).first).to_contain_text("fails MinWords(8)")
    page.get_by_role("button", name="Clear filters").click()
    expect(cards(page)).to_have_count(4)
    page.get_by_label("Review").select_option("edited")
    expect(cards(page)).to_have_count(1)


@pytest.mark.slow
def test_the_cost_by_day_is_a_chart_and_a_table(visit, large):
    page = visit(large)
    chart = page.get_by_role("img", name=re.compile("Cost by day from 2026-03-01"))
    expect(chart).to_be_visible()
    page.get_by_text("Cost by day as a table").click()
    first_day = page.get_by_role("row", name=re.compile("2026-03-02"))
    # 1 440 images a day, one in 1 000 rejected, at 0.015 USD.
    expect(first_day).to_contain_text("$21.5")


def test_the_keyboard_reaches_everything(visit, small):
    page = visit(small)
    expect(cards(page)).to_have_count(4)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the images")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Search in texts")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if focused.endswith("show its history"):
            break
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == focused


def test_a_narrow_window_needs_no_sideways_scrolling(visit, small):
    page = visit(small, viewport={"width": 390, "height": 800})
    expect(cards(page)).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    cards(page).first.get_by_role("button").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 390


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_can_be_read_in_both_themes(visit, small, theme):
    page = visit(small, color_scheme=theme)
    expect(page.get_by_role("region", name="Totals")).to_contain_text("$0.045")
    contrast = page.evaluate(CONTRAST)
    assert contrast["darkness"] == theme
    assert {name: ratio for name, ratio in contrast["ratios"].items() if ratio < 4.5} == {}


# The contrast of WCAG 2 between a text and the nearest background behind it; at least 4.5 is asked for.
CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const rgb = channels(getComputedStyle(at).backgroundColor);
      if (rgb.length < 4 || rgb[3] === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const ratios = {};
  const names = "h1 label .text .name .facts>dt .facts>dd .badge #state figcaption #totals";
  for (const name of names.split(" ")) {
    const node = document.querySelector(name);
    const both = [light(channels(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    ratios[name] = (both[0] + 0.05) / (both[1] + 0.05);
  }
  return { ratios, darkness: light(behind(document.body)) < 0.2 ? "dark" : "light" };
}"""

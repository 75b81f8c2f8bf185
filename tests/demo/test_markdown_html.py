"""The Markdown of descriptions: what is shown, and what can never become markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_html import escape, to_html, to_plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("One line.", "<p>One line.</p>"),
        ("One\ntwo", "<p>One<br>two</p>"),
        ("One\n\nTwo\r\n\r\nThree", "<p>One</p><p>Two</p><p>Three</p>"),
        ("A **bold** word", "<p>A <strong>bold</strong> word</p>"),
        ("**a** and **b**", "<p><strong>a</strong> and <strong>b</strong></p>"),
        ("2 ** 3 ** 4 and ****", "<p>2 ** 3 ** 4 and ****</p>"),
        ("- a\n- **b**", "<ul><li>a</li><li><strong>b</strong></li></ul>"),
        ("* a\n• b", "<ul><li>a</li><li>b</li></ul>"),
        ("Colours:\n1. red\n2) blue\nend", "<p>Colours:</p><ol><li>red</li><li>blue</li></ol><p>end</p>"),
        ("## Overview\nA cat.", "<p><strong>Overview</strong></p><p>A cat.</p>"),
        ("-5 °C, #1 and 3.5 m", "<p>-5 °C, #1 and 3.5 m</p>"),
    ],
)
def test_shows_the_markdown_of_descriptions(text: str, expected: str) -> None:
    assert to_html(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**A** cat\n\n- sits\n- looks", "A cat sits looks"),
        ("# Title\n\ttext", "Title text"),
        ("", ""),
    ],
)
def test_plain_text_has_no_marks(text: str, expected: str) -> None:
    assert to_plain(text) == expected


def test_escape_leaves_nothing_that_ends_an_attribute() -> None:
    assert escape("\"'<>&\x00\x1b") == "&quot;&#x27;&lt;&gt;&amp;\ufffd\ufffd"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[object] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@given(st.lists(st.sampled_from(["**", "*", "- ", "1. ", "# ", "<b>", "</p>", "<br", "&", '"', "a", "\n", " "])))
def test_no_text_becomes_markup_of_its_own(parts: list[str]) -> None:
    parser = _Tags()
    parser.feed(to_html("".join(parts)))
    parser.close()
    assert parser.tags <= {"p", "br", "strong", "ul", "ol", "li"}
    assert parser.attributes == []
    assert parser.open == []

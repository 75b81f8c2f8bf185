"""Converts the simple Markdown of descriptions to HTML that is safe for any text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby

_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_BULLET = re.compile(r"\s*[-*•]\s+(?=\S)")
_NUMBER = re.compile(r"\s*\d{1,3}[.)]\s+(?=\S)")
_BLANK = re.compile(r"\s*\Z")
_NO_MARKER = re.compile(r"(?!)")
_HEADING = re.compile(r"\s*#{1,6}\s+(?=\S)")
# All control characters but tab and newline: browsers drop or misread them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escape(value: object) -> str:
    """Return the value as text that is safe between tags and inside a quoted attribute."""
    return html.escape(_CONTROL.sub("\ufffd", _unix_lines(str(value))), quote=True)


def to_html(text: str) -> str:
    """Return paragraphs, lists, line breaks and **bold** as HTML; everything else is shown as written."""
    return "".join(_blocks(_unix_lines(text).split("\n")))


def to_plain(text: str) -> str:
    """Return the text on one line without Markdown, for a table or a picture's alternative text."""
    lines = (_BOLD.sub(r"\1", _marker(line).sub("", line, count=1)) for line in text.splitlines())
    return " ".join(" ".join(lines).split())


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _blocks(lines: list[str]) -> Iterator[str]:
    for kind, group in groupby(lines, _marker):
        items = [_inline(kind.sub("", line, count=1)) for line in group if line.strip()]
        if not items:
            continue
        if kind is _BULLET or kind is _NUMBER:
            tag = "ul" if kind is _BULLET else "ol"
            yield f"<{tag}>{''.join(f'<li>{item}</li>' for item in items)}</{tag}>"
        elif kind is _HEADING:
            yield "".join(f"<p><strong>{item}</strong></p>" for item in items)
        else:
            yield f"<p>{'<br>'.join(items)}</p>"


def _marker(line: str) -> re.Pattern[str]:
    """Return the pattern of the line's marker. A blank line has its own, because it ends a paragraph."""
    return next((kind for kind in (_BLANK, _BULLET, _NUMBER, _HEADING) if kind.match(line)), _NO_MARKER)


def _inline(text: str) -> str:
    # Escaped first, so that the only markup is the tags that are added here.
    return _BOLD.sub(r"<strong>\1</strong>", escape(text.strip()))

"""Whether a text has Markdown. Every pattern looks a bounded way ahead, so a long text takes time in proportion."""

from __future__ import annotations

import re

_MARKS = re.compile(
    r"""
      ^\ {0,3}\#{1,6}[ \t]+\S                             # heading
    | ^\ {0,3}(?:={3,}|-{3,}|\*{3,}|_{3,})[ \t]*$         # underlined heading, rule
    | ^[ \t]{0,12}(?:[-*+]|\d{1,3}[.)])[ \t]+\S           # list
    | ^\ {0,3}>[ \t]?\S                                   # quote
    | ^[ \t]{0,3}\|?[ \t]*:?-{3,}:?[ \t]*\|               # table
    | ^\ {0,3}(?:`{3}|~{3})                               # code
    | `[^`\n]{1,300}`                                     # code within a line
    | !?\[[^\]\n]{0,300}\]\([^)\n]{1,2000}\)              # link, image
    | (?<![\w*])(\*{1,3})(?=[^\s*])[^*\n]{0,300}(?<=\S)\1(?![\w*])    # bold, italics
    | (?<![\w_])(_{1,3})(?=[^\s_])[^_\n]{0,300}(?<=\S)\2(?![\w_])
    """,
    re.MULTILINE | re.VERBOSE,
)


def has_markdown(text: str) -> bool:
    """Return whether a text has a mark of Markdown that a program would render."""
    return _MARKS.search(text) is not None

"""The rules: each says whether one text passes. Pure; a rule that cannot work is refused when it is made."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.arguments import parse_list, parse_whole, shown
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.rules import language, markdown

if TYPE_CHECKING:
    import regex

MOST_CHARS = 100_000
"""Characters of a text that are looked at, but for `MaxChars`: nothing may hold up a run."""
MOST_SECONDS = 1.0
"""How long a pattern is looked for in one text."""
LONGEST_NAME = 80


class Rule(ABC):
    """One rule. Its text, such as ``MinWords(8)``, is what `parse_rules` takes."""

    def __repr__(self) -> str:
        """Return the rule as it is written in a DAG."""
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]  # all are dataclasses
        return f"{type(self).__name__}({', '.join(repr(list(v) if isinstance(v, tuple) else v) for v in values)})"

    @property
    def name(self) -> str:
        """What rows, manifest and log call it: its text, cut short where that is long."""
        text = repr(self)
        return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"

    @abstractmethod
    def passes(self, text: str) -> bool:
        """Return whether a text passes."""

    def require(self) -> None:  # noqa: B027  # most rules need nothing
        """Load what the rule needs beside this package.

        :raises BadInput: where it is missing.
        """


@dataclass(frozen=True, repr=False)
class MinWords(Rule):
    """A text of at least so many words.

    Words are counted as Unicode divides text (UAX #29): ``it's`` and ``3.5`` are one word, ``well-known`` is two. In
    Chinese and Japanese each ideograph and each hiragana is a word, and a run of katakana is one; in Thai each letter
    is.
    """

    count: int

    def __post_init__(self) -> None:
        _set(self, count=parse_whole("MinWords: count", self.count, 1))

    def passes(self, text: str) -> bool:
        """Return whether a text has so many words, or as many as are looked at."""
        return sum(1 for _ in islice(_words().finditer(text, 0, MOST_CHARS), self.count)) == self.count


@dataclass(frozen=True, repr=False)
class MaxChars(Rule):
    """A text of at most so many characters (Unicode code points), blanks included."""

    count: int

    def __post_init__(self) -> None:
        _set(self, count=parse_whole("MaxChars: count", self.count, 1))

    def passes(self, text: str) -> bool:
        """Return whether a text is so short."""
        return len(text) <= self.count


@dataclass(frozen=True, repr=False)
class Language(Rule):
    """A text in this language, as far as its words tell among the languages that a vendor writes.

    A text without letters is in none. Of one or two words nothing certain can be said. Needs the extra ``language``.
    """

    lang: str

    def __post_init__(self) -> None:
        given: Any = self.lang
        lang = given.strip().lower() if isinstance(given, str) else None
        if lang not in language.LANGUAGES:
            raise BadInput(f"Language: lang is {shown(given)}, expected one of {', '.join(language.LANGUAGES)}.")
        _set(self, lang=lang)

    def passes(self, text: str) -> bool:
        """Return whether a text is in the language."""
        return language.language_of(text) == self.lang

    def require(self) -> None:
        """Load the library that tells languages apart, in one or two seconds; raises `BadInput` where it is missing."""
        language.load()


@dataclass(frozen=True, repr=False)
class NoMarkdown(Rule):
    """A text without headings, lists, quotes, tables, rules, bold, italics, code and links of Markdown.

    A lone asterisk, ``#1``, a dash within a line and ``snake_case`` are none.
    """

    def passes(self, text: str) -> bool:
        """Return whether a text has no Markdown."""
        return not markdown.has_markdown(text[:MOST_CHARS])


@dataclass(frozen=True, repr=False)
class BannedWords(Rule):
    """A text without these words or phrases: whole words, in upper or lower case (``ß`` is ``ss``)."""

    words: Sequence[str]

    def __post_init__(self) -> None:
        expected = "a list of words such as ['cheap', 'bargain']"
        words = parse_list("BannedWords: words", self.words, expected)
        texts = [" ".join(word.split()) if isinstance(word, str) else "" for word in words]
        if not texts or not all(texts):
            raise BadInput(f"BannedWords: words is {repr(words)[:80]}, expected {expected}.")
        _set(self, words=tuple(dict.fromkeys(texts)))

    def passes(self, text: str) -> bool:
        """Return whether a text has none of the words."""
        normal = unicodedata.normalize("NFC", text[:MOST_CHARS])
        return _any_word(tuple(self.words)).search(normal) is None


@dataclass(frozen=True, repr=False)
class Matches(Rule):
    r"""A text in which this regular expression is found; anchor it with ``\A`` and ``\Z`` for the whole text.

    It is one of the library ``regex``, which knows all of Python's ``re``. A text in which one second is not enough to
    look for it fails.
    """

    pattern: str

    def __post_init__(self) -> None:
        given: Any = self.pattern
        if not isinstance(given, str) or not given:
            raise BadInput(f"Matches: pattern is {shown(given)}, expected a regular expression.")
        _pattern(self.pattern)

    def passes(self, text: str) -> bool:
        """Return whether the expression is found."""
        try:
            return _pattern(self.pattern).search(text, 0, MOST_CHARS, timeout=MOST_SECONDS) is not None
        except TimeoutError:
            return False


def failed_rules(rules: Sequence[Rule], text: str | None) -> list[str] | None:
    """Return the names of the rules that a text fails; None without rules or without a text."""
    if not rules or text is None:
        return None
    return [rule.name for rule in rules if not rule.passes(text)]


def _set(rule: Rule, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(rule, name, value)


@lru_cache(maxsize=1)
def _words() -> regex.Pattern[str]:
    """Return what finds the beginning of each word."""
    import regex

    return regex.compile(r"\b(?=[\p{L}\p{N}])", regex.V1 | regex.WORD)


@lru_cache(maxsize=100)
def _any_word(words: tuple[str, ...]) -> regex.Pattern[str]:
    import regex

    parts = (r"\s+".join(map(regex.escape, unicodedata.normalize("NFC", word).split())) for word in words)
    flags = regex.V1 | regex.WORD | regex.IGNORECASE | regex.FULLCASE
    return regex.compile(rf"\b(?:{'|'.join(parts)})\b", flags)


@lru_cache(maxsize=100)
def _pattern(pattern: str) -> regex.Pattern[str]:
    """Return the compiled expression; raises `BadInput` for one that does not compile."""
    import regex

    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise BadInput(f"Matches: pattern is {shown(pattern)}, which is no regular expression: {error}.") from None

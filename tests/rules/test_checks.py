"""What each rule takes and refuses, in the vendors' languages, and on texts that are hostile or huge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.rules import (
    BannedWords,
    Language,
    Matches,
    MaxChars,
    MinWords,
    NoMarkdown,
    Rule,
    checks,
    failed_rules,
    language,
)
from airflow_provider_describer.vendors import vendors

pytest.importorskip("regex")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" … — *** 👍🏽 ", 0),
        ("Ein roter Schuh.", 3),
        ("It's 3.5 cm well-known", 5),
        ("e\u0301tat naïve", 2),
        ("白色背景上的红色鞋子。", 10),
        ("赤いカメラ", 3),
        ("흰색 배경에 빨간 신발", 4),
        ("Красный ботинок", 2),
        ("ايک جوتا", 2),
    ],
)
def test_words_are_counted_as_unicode_divides_text(text: str, words: int) -> None:
    assert not MinWords(words + 1).passes(text)
    assert not words or MinWords(words).passes(text)


def test_a_huge_text_is_looked_at_only_so_far() -> None:
    assert MinWords(8).passes("a b " * 500_000)
    assert not MinWords(1).passes("." * 1_000_000)
    assert not MinWords(100_000).passes("a b " * 500_000)
    assert BannedWords(["cheap"]).passes("." * checks.MOST_CHARS + " cheap")
    assert NoMarkdown().passes("[" * 1_000_000)


@pytest.mark.parametrize(("text", "passes"), [("", True), ("12345", True), ("123456", False), ("ééééé", True)])
def test_chars_are_code_points(text: str, passes: bool) -> None:
    assert MaxChars(5).passes(text) is passes


@pytest.mark.parametrize(
    "text",
    [
        "# A shoe",
        "Shoe\n## Details",
        "- red\n- leather",
        "  * red",
        "1. red\n2. leather",
        "> quoted",
        "a **red** shoe",
        "a *red* shoe",
        "a __red shoe__",
        "a _red_ shoe",
        "***red***",
        "use `code`",
        "```\ncode\n```",
        "see [this](https://example.com)",
        "![](a.jpg)",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "Title\n=====",
        "one\n\n---\n\ntwo",
    ],
)
def test_markdown_is_found(text: str) -> None:
    assert not NoMarkdown().passes(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#1 in sales, bag #3",
        "a lone * asterisk",
        "5 * 3 * 2 cm",
        "size: 3*4*5 cm",
        "snake_case_name and __init__x",
        "red - and white",
        "-5 degrees",
        "A [sic] word",
        "1980. A red car",
        "a < b > c",
        "price | size",
        "#hashtag",
        "it costs ~3 $",
        "f(x)[0](y",
    ],
)
def test_plain_text_is_no_markdown(text: str) -> None:
    assert NoMarkdown().passes(text)


@pytest.mark.parametrize(
    ("words", "text", "passes"),
    [
        (["cheap"], "A CHEAP shoe", False),
        (["cheap"], "the cheapest shoe", True),
        (["cheap"], "dirt-cheap", False),
        (["Straße"], "auf der STRASSE", False),
        (["STRASSE"], "auf der Straße", False),
        (["café"], "a cafe\u0301 table", False),
        (["best  seller"], "our Best\nSeller", False),
        (["C++"], "a book on C++.", False),
        (["a.b"], "a b axb", True),
        (["靴"], "赤い靴", False),
        (["дешёвый"], "ДЕШЁВЫЙ ботинок", False),
        (["one", "two"], "number two", False),
        (["one", "two"], "three", True),
    ],
)
def test_banned_words_are_whole_words_in_any_case(words: list[str], text: str, passes: bool) -> None:
    assert BannedWords(words).passes(text) is passes


@pytest.mark.parametrize(
    ("pattern", "text", "passes"),
    [
        (r"\bred\b", "a red shoe", True),
        (r"\bred\b", "Fred", False),
        (r"\A[A-Z].*\.\Z", "A shoe.", True),
        ("x", "", False),
    ],
)
def test_a_pattern_is_found_anywhere(pattern: str, text: str, passes: bool) -> None:
    assert Matches(pattern).passes(text) is passes


def test_a_pattern_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_SECONDS", 0.05)
    assert not Matches(r"(?:(\w*)(\w*)(\w*)(\w*)(\w*)(\w*)\s?)+\1\2\3\4\5\6!$").passes("a" * 5000 + "?")


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("de", "Ein roter Schuh auf weißem Grund."),
        ("en", "A red shoe on a white background."),
        ("es", "Un zapato rojo sobre fondo blanco."),
        ("fi", "Punainen kenkä valkoisella taustalla."),
        ("fr", "Une chaussure rouge sur fond blanc."),
        ("ja", "白い背景に赤い靴があります。"),
        ("ko", "흰색 배경에 빨간 신발이 있습니다."),
        ("nl", "Een rode schoen op een witte achtergrond."),
        ("pt", "Um sapato vermelho sobre fundo branco."),
        ("ru", "Красный ботинок на белом фоне."),
        ("tr", "Beyaz arka plan üzerinde kırmızı bir ayakkabı."),  # noqa: RUF001
        ("zh", "白色背景上的红色鞋子。"),
    ],
)
def test_each_language_is_told_from_the_others(lang: str, text: str) -> None:
    pytest.importorskip("py3langid")
    assert [one for one in language.LANGUAGES if Language(one).passes(text)] == [lang]
    assert Language(lang).passes(text * 10_000)


@pytest.mark.parametrize("text", ["", " 123 — !", "👍🏽"])
def test_a_text_without_letters_is_in_no_language(text: str) -> None:
    assert not any(Language(lang).passes(text) for lang in language.LANGUAGES)


def test_every_language_of_a_vendor_is_known() -> None:
    assert {lang for vendor in vendors().values() for lang in vendor.languages} <= set(language.LANGUAGES)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"Language needs py3langid: pip install 'airflow-provider-describer\[language\]'"
    ):
        Language("de").require()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinWords(0), "MinWords: count is 0, expected a whole number of 1 or more"),
        (lambda: MinWords(-1), "MinWords: count is -1"),
        (lambda: MinWords(2.5), "MinWords: count is 2.5"),  # type: ignore[arg-type]
        (lambda: MaxChars(True), "MaxChars: count is True"),
        (lambda: MaxChars("many"), "MaxChars: count is 'many'"),  # type: ignore[arg-type]
        (lambda: Language("xx"), "Language: lang is 'xx', expected one of de, en"),
        (lambda: Language(None), "Language: lang is None"),  # type: ignore[arg-type]
        (lambda: BannedWords([]), "BannedWords: words is"),
        (lambda: BannedWords("cheap"), "BannedWords: words is 'cheap', expected a list of words"),
        (lambda: BannedWords(["a", " "]), "BannedWords: words is"),
        (lambda: BannedWords([1]), "BannedWords: words is"),  # type: ignore[list-item]
        (lambda: Matches(""), "Matches: pattern is ''"),
        (lambda: Matches("(a"), r"Matches: pattern is '\(a', which is no regular expression: missing \)"),
        (lambda: Matches("(" * 100_000), "Matches: pattern is"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_it_is_made(make: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()  # type: ignore[operator]


def test_values_are_taken_as_text_too() -> None:
    assert MinWords("8") == MinWords(8)  # type: ignore[arg-type]
    assert BannedWords("['cheap', 'cheap']") == BannedWords(["cheap"])
    assert Language(" DE ") == Language("de")


def test_rules_are_values() -> None:
    assert len({BannedWords(["a"]), BannedWords(["a"]), MinWords(1), MinWords(1)}) == 2
    with pytest.raises(AttributeError):
        MinWords(1).count = 2  # type: ignore[misc]


def test_a_verdict_names_the_rules_that_fail() -> None:
    rules = [MinWords(3), MaxChars(5), NoMarkdown()]
    assert failed_rules(rules, "one two") == ["MinWords(3)", "MaxChars(5)"]
    assert failed_rules([NoMarkdown()], "one two") == []
    assert failed_rules([], "one two") is None
    assert failed_rules(rules, None) is None


def test_a_long_name_is_cut_short() -> None:
    rule = BannedWords([f"word {number}" for number in range(100)])
    assert len(rule.name) == checks.LONGEST_NAME
    assert rule.name.startswith("BannedWords(['word 0', 'word 1'") and rule.name.endswith("…")


@given(st.text())
def test_every_rule_decides_about_every_text(text: str) -> None:
    rules: list[Rule] = [MinWords(2), MaxChars(5), NoMarkdown(), BannedWords(["a", "ß"]), Matches(".")]
    failed = failed_rules(rules, text)
    assert failed is not None and set(failed) <= {rule.name for rule in rules}

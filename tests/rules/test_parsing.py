"""Rules as text: what is written reads back the same, and nothing in a text is executed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

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
    parse_rules,
)

pytest.importorskip("regex")

ALL = [
    MinWords(8),
    MaxChars(500),
    Language("de"),
    NoMarkdown(),
    BannedWords(["cheap", "it's", 'a "b"']),
    Matches(r"\d+ \w"),
]


@pytest.mark.parametrize(
    "given",
    [
        ALL,
        tuple(ALL),
        str(ALL),
        [str(rule) for rule in ALL],
        str([str(rule) for rule in ALL]),
        json.dumps([str(rule) for rule in ALL]),
        [*ALL[:3], *map(str, ALL[3:])],
        f"  {ALL}\n",
    ],
)
def test_rules_and_their_texts_are_the_same(given: object) -> None:
    assert list(parse_rules("rules", given)) == ALL


@pytest.mark.parametrize(
    "given", ["MinWords(8)", "MinWords(count=8)", "['MinWords(8)',]", MinWords(8), "(MinWords(8),)"]
)
def test_one_rule(given: object) -> None:
    assert parse_rules("rules", given) == (MinWords(8),)


@pytest.mark.parametrize("given", [None, "", " ", "None", [], "[]", ()])
def test_no_rules(given: object) -> None:
    assert parse_rules("rules", given) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (8, "rules is 8, expected a list of rules such as"),
        ({"rule": "MinWords", "count": 8}, "rules is a dict, expected a list of rules"),
        ("MinWords", "rules is 'MinWords', expected a list of rules"),
        ("MinWords(8", r"rules is 'MinWords\(8', expected a list"),
        (["MinWrds(8)"], r"rules: rule 1 names the unknown rule 'MinWrds', expected one of MinWords, MaxChars"),
        ([MinWords(8), 3], r"rules: rule 2 is 3, expected a rule such as MinWords\(8\)"),
        ([MinWords], r"rules: rule 1 is a ABCMeta, expected a rule"),
        (["MinWords()"], r"rules: rule 1 is 'MinWords\(\)', which cannot be made: MinWords missing 1 required"),
        (["MinWords(8, 9)"], "cannot be made: MinWords takes"),
        (["MinWords(most=9)"], "cannot be made: MinWords got an unexpected keyword argument 'most'"),
        (["MinWords(-1)"], r"rules: rule 1: MinWords: count is -1"),
        (["Matches('(')"], "which is no regular expression"),
        ([MinWords(8), "MinWords(8)"], r"rules names MinWords\(8\) twice"),
        (["MinWords(open('/etc/passwd'))"], r"rules: rule 1 is"),
        (["__import__('os').system('true')"], r"rules: rule 1 is"),
        (["MinWords(**{'count': 8}, **x)"], r"rules: rule 1 is"),
        (["MinWords(" + "-" * 90_000 + "1)"], r"rules: rule 1 is"),
        ("[" * 5000 + "]" * 5000, "rules is"),
        ("MinWords(8) " * 20_000, "rules is"),
        (["MinWords(8)\0"], r"rules: rule 1 is"),
        ([[MinWords(8)]], r"rules: rule 1 is a list, expected a rule"),
    ],
)
def test_what_cannot_work_is_named(given: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_rules("rules", given)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1), st.integers(1, 10**9))
def test_every_rule_reads_back_from_its_text(words: list[str], count: int) -> None:
    rules = (BannedWords(words), MinWords(count))
    assert parse_rules("rules", str(list(rules))) == rules


@given(st.text())
def test_any_text_is_rules_or_refused(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(parse_rules("rules", text), tuple)

"""Rules as values or as text: ``[MinWords(8), NoMarkdown()]`` in a DAG, a template, a Param or a configuration."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_describer.arguments import is_none, is_undefined, shown
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.rules.checks import (
    BannedWords,
    Language,
    Matches,
    MaxChars,
    MinWords,
    NoMarkdown,
    Rule,
)

RULES: Mapping[str, type[Rule]] = {
    rule.__name__: rule for rule in (MinWords, MaxChars, Language, NoMarkdown, BannedWords, Matches)
}
LONGEST_TEXT = 100_000
_EXPECTED = "expected a list of rules such as [MinWords(8), NoMarkdown()]"


def parse_rules(name: str, value: object) -> tuple[Rule, ...]:
    """Return the rules of an argument; none for None and for a blank text.

    :param value: a list of rules or of their texts (``"MinWords(8)"``), one rule, or the text of either. A rule's
        values are plain: texts, numbers and lists of them.
    :raises BadInput: naming the argument and what cannot work.
    """
    if is_none(value):
        return ()
    found = _read(name, value) if isinstance(value, str) else value
    found = [found] if isinstance(found, Rule) else found
    if not isinstance(found, Iterable) or isinstance(found, bytes | Mapping):
        raise BadInput(f"{name} is {shown(value)}, {_EXPECTED}.")
    rules: list[Rule] = []
    for number, item in enumerate(found, 1):
        place = f"{name}: rule {number}"
        if is_undefined(item):
            raise BadInput(f"{name} is a list whose entry {number} is a template that names something undefined.")
        rule = _read(place, item) if isinstance(item, str) else item
        if not isinstance(rule, Rule):
            raise BadInput(f"{place} is {shown(item)}, expected a rule such as MinWords(8), or its text.")
        if rule.name in (known.name for known in rules):
            raise BadInput(f"{name} names {rule.name} twice, expected each rule once.")
        rules.append(rule)
    return tuple(rules)


def _read(place: str, text: str) -> Any:
    """Return what a text says: a rule, or a list of rules and texts. Nothing in it is executed."""
    try:
        if len(text) > LONGEST_TEXT:
            raise ValueError("it is too long")
        return _value(place, ast.parse(text.strip(), mode="eval").body)
    except BadInput:
        raise
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise BadInput(f"{place} is {shown(text)}, {_EXPECTED}.") from None


def _value(place: str, node: ast.expr) -> Any:
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(place, part) for part in parts]
        case ast.Call(func=ast.Name(id=kind)):
            return _rule(place, kind, node)
    return ast.literal_eval(node)


def _rule(place: str, kind: str, node: ast.Call) -> Rule:
    if kind not in RULES:
        raise BadInput(f"{place} names the unknown rule {kind!r}, expected one of {', '.join(RULES)}.")
    values = [ast.literal_eval(value) for value in node.args]
    named = {value.arg or "": ast.literal_eval(value.value) for value in node.keywords}
    try:
        return RULES[kind](*values, **named)
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None
    except TypeError as error:
        about = str(error).rpartition("__init__() ")[2]
        raise BadInput(f"{place} is {shown(ast.unparse(node))}, which cannot be made: {kind} {about}.") from None

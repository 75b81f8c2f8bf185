"""Caption rules: what a description has to be like. Rows name the rules that their text fails."""

from __future__ import annotations

from airflow_provider_describer.rules.checks import (
    BannedWords,
    Language,
    Matches,
    MaxChars,
    MinWords,
    NoMarkdown,
    Rule,
    failed_rules,
)
from airflow_provider_describer.rules.parsing import parse_rules

__all__ = [
    "BannedWords",
    "Language",
    "Matches",
    "MaxChars",
    "MinWords",
    "NoMarkdown",
    "Rule",
    "failed_rules",
    "parse_rules",
]

"""What a reader of a store wants to see, as a condition of SQL and as a search in texts. Values are data, never SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.store.columns import FACTS, plain
from airflow_provider_describer.store.description_store import literal, one_of

if TYPE_CHECKING:
    import pyarrow as pa

SEARCHED = ("text", "uri", "id")
"""The columns that are searched."""
LONGEST = 1000
"""Characters of a value that is filtered by."""
_OUTCOMES = f"status NOT IN ({', '.join(map(repr, FACTS))})"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are wanted; empty values and None stand for any.

    :param text: is somewhere in the description, the uri or the id, in any case of its letters.
    :param prompt: a whole prompt; empty for rows without one.
    :param rule: the name of a caption rule that the text fails; ``any`` for any rule.
    :param review: what a reviewer has decided; ``any`` for any decision.
    :param dag_ids: rows of these DAGs only, an empty one for rows that no DAG has made; None for all rows.
    """

    text: str = ""
    status: str = ""
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int | None = None
    vendor: str = ""
    prompt: str | None = None
    rule: str = ""
    review: str = ""
    dag_ids: frozenset[str] | None = None

    @property
    def added_columns(self) -> tuple[str, ...]:
        """The columns of the condition that tables of older versions lack; their rows do not meet it."""
        return (("failed_rules",) if self.rule else ()) + (("review",) if self.review else ())

    def condition(self) -> str:
        """Return the condition of SQL that outcomes have to meet, without ``text``.

        :raises BadInput: for a value that is too long.
        """
        if len(self.text) > LONGEST:
            raise BadInput(f"The search text has {len(self.text):,} characters; expected at most {LONGEST:,}.")
        parts = [_OUTCOMES]
        for name in ("status", "dag_id", "run_id", "task_id", "vendor"):
            parts += _equals(name, getattr(self, name))
        if self.map_index is not None:
            if not -1 <= self.map_index < 2**31:
                raise BadInput(
                    f"map_index is {self.map_index:.6g}, expected -1 for no mapped task, or a number from 0."
                )
            parts.append(f"map_index = {self.map_index:d}")
        if self.prompt is not None:
            parts += _equals("prompt", self.prompt) or ["(prompt IS NULL OR prompt = '')"]
        if self.dag_ids is not None:
            parts.append(_in_dags(self.dag_ids))
        if self.rule:
            parts.append(_has(self.rule))
        parts += ["review IS NOT NULL"] if self.review == "any" else _equals("review", self.review)
        return " AND ".join(parts)

    def matches(self, columns: Iterable[pa.Array]) -> pa.Array:
        """Return for each row whether the text is in any of these columns."""
        from pyarrow import compute

        found = None
        for column in columns:
            one = compute.fill_null(compute.match_substring(column, plain(self.text), ignore_case=True), False)
            found = one if found is None else compute.or_(found, one)
        return found


def _in_dags(dag_ids: Iterable[str]) -> str:
    without = "dag_id IS NULL OR dag_id = ''" if "" in dag_ids else ""
    parts = [without, one_of("dag_id", sorted({plain(name) for name in dag_ids} - {""}))]
    return f"({' OR '.join(filter(None, parts)) or 'FALSE'})"


def _has(rule: str) -> str:
    return "array_length(failed_rules) > 0" if rule == "any" else f"array_has(failed_rules, {literal(plain(rule))})"


def _equals(name: str, value: str) -> list[str]:
    if len(value) > 10 * LONGEST:
        raise BadInput(f"{name} has {len(value):,} characters; expected at most {10 * LONGEST:,}.")
    return [one_of(name, [plain(value)])] if value else []

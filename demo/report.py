"""What the demo prints at its end: a table of images and descriptions, and the totals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gallery import image_name, total_cost
from markdown_html import to_plain

Row = dict[str, Any]


def results_file(store: Path) -> Path | None:
    """Return the results file of the store's one run, or None if there is none."""
    found = sorted(store.glob("results/*/*/*.jsonl"))
    return next((path for path in found if not path.name.endswith(".failures.jsonl")), None)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a results file, sorted by image name."""
    with path.open(encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines]
    return sorted(rows, key=lambda row: image_name(row["uri"]))


def table(rows: list[Row], width: int) -> Iterator[str]:
    """Yield the lines of a table of all rows, no wider than ``width``."""
    name_width = min(28, max([len("image"), *(len(image_name(row["uri"])) for row in rows)]))
    words_width = max(24, width - name_width - 24)
    yield _line("image", name_width, "description", words_width, "cost", "seconds")
    yield "─" * (name_width + words_width + 23)
    for row in rows:
        seconds = "" if row.get("elapsed_s") is None else f"{row['elapsed_s']:.2f}"
        yield _line(image_name(row["uri"]), name_width, _words(row), words_width, _cost(row), seconds)


def totals(rows: Iterable[Row], seconds: float) -> str:
    """Return one line with the number of images by status and the cost."""
    rows = list(rows)
    counts = Counter(row["status"] for row in rows)
    parts = [f"{count} {status}" for status, count in counts.items()]
    cost, unpriced = total_cost(rows)
    price = f"${cost:.3f}" + (f" and {unpriced} calls of unknown price" if unpriced else "")
    return f"{len(rows)} images: {', '.join(parts)}; {price}; {seconds:.0f} s in Airflow"


def _line(name: str, name_width: int, words: str, words_width: int, cost: str, seconds: str) -> str:
    left = f"{_cut(name, name_width):{name_width}}  {_cut(words, words_width):{words_width}}"
    return f"{left}  {cost:>10}  {seconds:>7}"


def _words(row: Row) -> str:
    if row.get("text"):
        return to_plain(row["text"])
    error = row.get("error") or {}
    return f"{row['status'].upper()}: {error.get('message') or error.get('kind') or 'no reason given'}"


def _cost(row: Row) -> str:
    if row.get("cost_usd"):
        return f"${row['cost_usd']:.3f}"
    return "not billed" if row.get("billed") == "no" else "unknown"


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"

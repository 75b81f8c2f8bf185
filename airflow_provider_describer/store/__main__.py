"""`python -m airflow_provider_describer.store show|check|history|export|compact PATH`: look at a description store.

A store in a bucket (``s3://…``, ``gs://…``) is opened with the credentials of the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.models import format_usd, plural
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.audit import StoreCheck, StoreSummary, check, summarize
from airflow_provider_describer.store.bill import bill_lines, check_bill, key_variable
from airflow_provider_describer.store.columns import iso
from airflow_provider_describer.store.description_store import DescriptionStore, existing_folder
from airflow_provider_describer.store.export import check_target, export
from airflow_provider_describer.store.settling import compact
from airflow_provider_describer.store.table import NAME
from airflow_provider_describer.store.totals import CallTotals
from airflow_provider_describer.vendors import vendors

MAX_LISTED_CALLS = 20
"""How many open calls are listed; --json lists all."""
MAX_NAME_WIDTH = 60
FILTERS = ("prompt", "lang", "vendor", "model")
"""What export can be limited to."""

Report = tuple[dict[str, Any], Iterable[str]]
"""What a command found, for programs and for people."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 1 if the store is damaged, 2 if there is no store.

    If the reader of its output, such as ``head``, has seen enough, it ends without a word.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: Sequence[str] | None) -> int:
    given = _parser().parse_args(arguments)
    try:
        result, lines = _COMMANDS[given.command](existing_folder(given.path), given)
    except DescriberError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    print(json.dumps(result, indent=2, default=_json) if given.json else "\n".join(lines))
    return 1 if result.get("damaged") else 3 if result.get("differs") else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_describer.store", description="Look at a description store, or compact it."
    )
    commands, parsers = parser.add_subparsers(dest="command", required=True), {}
    for name, summary in (
        ("show", "totals by vendor, prompt and day, and what may have been paid for twice"),
        ("check", "read all of it: is it whole, which calls are open, which outcomes unknown (exit code 1: damaged)"),
        ("history", "all calls for one image, the newest last: texts, prompts, costs"),
        ("export", "write the current description of each image to a file"),
        ("compact", "settle the journal into the table and bring that up to date; safe beside running tasks"),
    ):
        command = parsers[name] = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        command.add_argument(
            "path",
            metavar="PATH",
            help="the folder that tasks name as their store; s3:// and gs:// with this environment's credentials",
        )
        command.add_argument("--json", action="store_true", help="for programs")
    parsers["history"].add_argument("uri", metavar="URI", help="of the image, as tasks list it")
    parsers["export"].add_argument("out", metavar="OUT", type=Path, help="a .parquet, .csv or .jsonl file")
    check_command = parsers["check"]
    with_history = ", ".join(
        f"{name}, with its key in ${key_variable(name)}" for name, vendor in vendors().items() if vendor.keeps_history
    )
    check_command.add_argument(
        "--vendor",
        metavar="NAME",
        help=f"compare a day's bill with the vendor's own instead ({with_history}); exit code 3: they differ",
    )
    check_command.add_argument("--day", metavar="YYYY-MM-DD", help="the day (UTC) of that bill; today by default")
    check_command.add_argument("--host", metavar="URL", help="of a proxy before the vendor, as on the connection")
    for name in FILTERS:
        parsers["export"].add_argument(f"--{name}", help=f"only descriptions of this {name}")
    return parser


def _check(folder: Folder, given: argparse.Namespace) -> Report:
    if given.vendor:
        return _check_bill(folder, given)
    found = check(folder)
    return asdict(found), _check_lines(found)


def _check_bill(folder: Folder, given: argparse.Namespace) -> Report:
    found = check_bill(folder, given.vendor, given.day, given.host)
    return {**asdict(found), "differs": found.differs}, map(_printable_line, bill_lines(found, MAX_LISTED_CALLS))


def _check_lines(found: StoreCheck) -> Iterable[str]:
    whole = found.shards - found.damaged_shards
    yield f"{found.store}: {_counted(found.shards, 'shard')}, {whole:,} whole, {found.damaged_shards:,} damaged"
    if found.table:
        rows, files = _counted(found.table.rows, "row"), _counted(found.table.files, "file")
        yield f"{NAME}: {rows} in {files}, {'damaged' if found.table.damaged else 'whole'}"
    if found.copies:
        yield f"  {_counted(found.copies, 'row is there twice and counts', 'rows are there twice and count')} once"
    for damage in found.damaged:
        yield f"  {damage}"
    for name in found.ignored:
        yield f"  {name} is no shard: every task ignores it"
    running = sum(call.request_id is not None for call in found.open_calls)
    waiting = len(found.open_calls) - running
    run = _counted(running, "request runs", "requests run")
    results = plural(running, "its result", "their results")
    yield f"{run} at the vendor, as far as is known here; the next run fetches {results}"
    yield f"{_counted(waiting, 'call')} sent, or about to be, without an answer here"
    for call in found.open_calls[:MAX_LISTED_CALLS]:
        sent = datetime.fromtimestamp(call.sent_at, UTC).isoformat(" ", "seconds") if call.sent_at else "(unknown time)"
        yield f"  {sent}  {_printable(call.uri)}{'  ' + _printable(call.request_id) if call.request_id else ''}"
    if len(found.open_calls) > MAX_LISTED_CALLS:
        yield f"  … and {len(found.open_calls) - MAX_LISTED_CALLS:,} more (--json lists them all)"
    yield (
        f"{_counted(found.unknown_images, 'image')} without a description for which "
        f"{_counted(found.unknown_calls, 'call')} may have been paid for: on_unknown decides"
    )


def _compact(folder: Folder, _: argparse.Namespace) -> Report:
    store, (before, after) = folder.where(), compact(folder)
    return (
        {"store": store, "shards_before": before, "shards_after": after},
        [f"{store}: {_counted(before, 'shard is', 'shards are')} now {after:,}"],
    )


def _history(folder: Folder, given: argparse.Namespace) -> Report:
    rows = DescriptionStore(folder).history(given.uri).to_pylist()
    return {"store": folder.where(), "uri": given.uri, "rows": rows}, _history_lines(folder.where(), rows)


def _history_lines(store: str, rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield f"{store}: {_counted(len(rows), 'call has', 'calls have')} ended for this image"
    for row in rows:
        cost = "cost unknown" if row["cost_usd"] is None else format_usd(row["cost_usd"])
        asked = [row["vendor"], row["model"], row["lang"], row["prompt"]]
        yield ""
        yield f"{row['described_at'].isoformat(' ', 'seconds')}  {row['status']}  {cost}  {_printable(row['uri'])}"
        yield f"  {'  '.join(_printable(one) for one in asked if one)}"
        said = row["text"] or (row["error"] or {}).get("message") or (row["error"] or {}).get("kind")
        if said:
            yield f"  {_printable(said)}"


def _export(folder: Folder, given: argparse.Namespace) -> Report:
    check_target(given.out)
    count = export(
        DescriptionStore(folder).current_batches(**{name: getattr(given, name) for name in FILTERS}), given.out
    )
    report = {"store": folder.where(), "file": str(given.out), "descriptions": count}
    return report, [f"{given.out}: {_counted(count, 'description')}"]


def _json(value: datetime) -> str:
    return iso(value)


def _show(folder: Folder, _: argparse.Namespace) -> Report:
    summary = summarize(folder)
    return summary.to_dict(), _summary_lines(summary)


def _summary_lines(summary: StoreSummary) -> Iterable[str]:
    yield summary.store
    tables = {"vendor": summary.by_vendor, "prompt": summary.by_prompt, "day (UTC)": summary.by_day}
    for heading, totals in (*tables.items(), ("", {"total": summary.total})):
        yield ""
        yield from _table(heading, totals)
    yield ""
    lost, have = summary.lost_calls, plural(summary.lost_calls, "has", "have")
    yield f"{_counted(lost, 'call was', 'calls were')} sent and {have} no answer here"
    twice = summary.described_again + summary.perhaps_twice
    cost = "the cost is unknown" if summary.twice_cost_usd is None else f"at most {format_usd(summary.twice_cost_usd)}"
    yield (
        f"{_counted(twice, 'call was', 'calls were')}, or may have been, paid for a second time "
        f"({_counted(summary.described_again, 'image')} described again, "
        f"{_counted(summary.perhaps_twice, 'answer')} lost): {cost}"
    )


def _table(heading: str, totals: Mapping[str, CallTotals]) -> Iterable[str]:
    unpriced = any(one.unpriced for one in totals.values())
    rows = [[heading, "described", "rejected", "unknown", "cost", *(["of no known price"] if unpriced else [])]]
    for name, one in sorted(totals.items()):
        counts = [f"{count:,}" for count in (one.described, one.rejected, one.unknown)]
        cost = "unknown" if one.unpriced and not one.cost_usd else format_usd(one.cost_usd)
        rows.append([_short(name), *counts, cost, *([f"{one.unpriced:,}"] if unpriced else [])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {plural(count, one, many)}"


def _short(name: str) -> str:
    line = _printable(name)
    return line if len(line) <= MAX_NAME_WIDTH else line[: MAX_NAME_WIDTH - 1] + "…"


def _printable_line(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] + _printable(line)


def _printable(text: str) -> str:
    """Return the text as one line without control characters, as a terminal would act on them."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_COMMANDS = {"show": _show, "check": _check, "history": _history, "export": _export, "compact": _compact}

if __name__ == "__main__":
    sys.exit(main())

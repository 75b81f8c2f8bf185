"""`python -m airflow_provider_describer.store check|compact|show PATH`: look at a description store, or compact it.

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
from typing import Any

from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.models import format_usd, plural
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.audit import CallTotals, StoreCheck, StoreSummary, check, open_store, summarize
from airflow_provider_describer.store.bill import KEY_VARIABLE, bill_lines, check_bill
from airflow_provider_describer.store.settling import compact

MAX_LISTED_CALLS = 20
"""How many open calls are listed; --json lists all."""
MAX_NAME_WIDTH = 60

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
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_describer.store", description="Look at a description store, or compact it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (
        ("check", "read every shard: is it whole, which calls are open, which outcomes unknown (exit code 1: damaged)"),
        ("compact", "merge the journal's shards into few; safe beside running tasks"),
        ("show", "totals by vendor, prompt and day, and what may have been paid for twice"),
    ):
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.add_argument(
            "path",
            metavar="PATH",
            help="the folder that tasks name as their store; s3:// and gs:// with this environment's credentials",
        )
        command.add_argument("--json", action="store_true", help="for programs")
        if name == "check":
            command.add_argument(
                "--vendor",
                metavar="NAME",
                help=f"compare a day's bill with the vendor's own (segmind, with its key in ${KEY_VARIABLE}) instead; "
                "exit code 3: they differ",
            )
            command.add_argument("--day", metavar="YYYY-MM-DD", help="the day (UTC) of that bill; today by default")
            command.add_argument("--host", metavar="URL", help="of a proxy before the vendor, as on the connection")
    given = parser.parse_args(arguments)
    try:
        folder = open_store(given.path)
        is_bill = given.command == "check" and given.vendor
        result, lines = _check_bill(folder, given) if is_bill else _COMMANDS[given.command](folder)
    except DescriberError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines))
    return 1 if result.get("damaged") else 3 if result.get("differs") else 0


def _check(folder: Folder) -> Report:
    found = check(folder)
    return asdict(found), _check_lines(found)


def _check_bill(folder: Folder, given: argparse.Namespace) -> Report:
    found = check_bill(folder, given.vendor, given.day, given.host)
    return {**asdict(found), "differs": found.differs}, map(_printable_line, bill_lines(found, MAX_LISTED_CALLS))


def _check_lines(found: StoreCheck) -> Iterable[str]:
    whole = found.shards - len(found.damaged)
    yield f"{found.store}: {_counted(found.shards, 'shard')}, {whole:,} whole, {len(found.damaged):,} damaged"
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


def _compact(folder: Folder) -> Report:
    store, (before, after) = folder.where(), compact(folder)
    return (
        {"store": store, "shards_before": before, "shards_after": after},
        [f"{store}: {_counted(before, 'shard is', 'shards are')} now {after:,}"],
    )


def _show(folder: Folder) -> Report:
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


_COMMANDS = {"check": _check, "compact": _compact, "show": _show}

if __name__ == "__main__":
    sys.exit(main())

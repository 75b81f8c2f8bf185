"""`python -m airflow_provider_describer.store check|compact|show PATH`: a description store, looked at by people.

A store in a bucket (``s3://…``, ``gs://…``) is opened with the credentials that the environment has.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BadInput, StoreError
from airflow_provider_describer.models import format_usd
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.audit import Check, Show, Sums, check, open_store, show
from airflow_provider_describer.store.compaction import compact

if TYPE_CHECKING:
    from airflow_provider_describer.storage.address import Scheme
    from airflow_provider_describer.storage.bucket import Bucket

SHOWN = 20
"""How many open calls are listed; all of them with --json."""
WIDEST = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 1 where the store is damaged, 2 where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_describer.store", description="Look at a description store, or tidy it up."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("check", "read every shard: is it whole, which calls are open, which outcomes unknown (exit code 1: damaged)"),
        ("compact", "merge the journal's shards into few; safe beside running tasks"),
        ("show", "totals by vendor, prompt and day, and what may have been paid for twice"),
    ):
        command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        command.add_argument(
            "path",
            metavar="PATH",
            help="the folder that tasks name as their store; s3:// and gs:// with this environment's credentials",
        )
        command.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    try:
        return _COMMANDS[given.command](open_store(given.path, _open_bucket), as_json=given.json)
    except (BadInput, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1


def _open_bucket(scheme: Scheme, name: str) -> Bucket:
    from airflow_provider_describer.storage.open_bucket import bucket_from_environment

    return bucket_from_environment(scheme, name)


def _check(folder: Folder, *, as_json: bool) -> int:
    found = check(folder)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join(_check_lines(found)))
    return 1 if found.damaged else 0


def _check_lines(found: Check) -> Iterable[str]:
    whole = found.shards - len(found.damaged)
    yield f"{found.store}: {found.shards:,} shards, {whole:,} whole, {len(found.damaged):,} damaged"
    for damage in found.damaged:
        yield f"  {damage}"
    for name in found.ignored:
        yield f"  {name} is no shard: every task ignores it"
    running = sum(call.request_id is not None for call in found.open_calls)
    waiting = len(found.open_calls) - running
    yield f"{running:,} requests run at the vendor, as far as is known here; the next run fetches their results"
    yield f"{waiting:,} calls sent, or about to be, without an answer here"
    for call in found.open_calls[:SHOWN]:
        sent = datetime.fromtimestamp(call.sent_at, UTC).isoformat(" ", "seconds") if call.sent_at else "(unknown time)"
        yield f"  {sent}  {_printable(call.uri)}{'  ' + _printable(call.request_id) if call.request_id else ''}"
    if len(found.open_calls) > SHOWN:
        yield f"  … and {len(found.open_calls) - SHOWN:,} more (--json lists them all)"
    yield (
        f"{found.unknown_images:,} images without a description for which {found.unknown_calls:,} calls may have been "
        "paid for: on_unknown decides about them"
    )


def _compact(folder: Folder, *, as_json: bool) -> int:
    before, after = compact(folder)
    if as_json:
        print(json.dumps({"store": folder.where(), "shards_before": before, "shards_after": after}))
    else:
        print(f"{folder.where()}: {before:,} shards are now {after:,}")
    return 0


def _show(folder: Folder, *, as_json: bool) -> int:
    found = show(folder)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join(_show_lines(found)))
    return 0


def _show_lines(found: Show) -> Iterable[str]:
    yield found.store
    for heading, sums in (("vendor", found.by_vendor), ("prompt", found.by_prompt), ("day (UTC)", found.by_day)):
        yield ""
        yield from _table(heading, sums)
    yield ""
    yield from _table("", {"total": found.total})
    yield ""
    yield f"{found.lost_calls:,} calls were sent and have no answer here"
    twice = found.described_again + found.perhaps_twice
    yield (
        f"{twice:,} calls were, or may have been, paid for a second time ({found.described_again:,} images described "
        f"again, {found.perhaps_twice:,} answers lost): at most {format_usd(found.twice_cost_usd)}"
    )


def _table(heading: str, sums: Mapping[str, Sums]) -> Iterable[str]:
    unpriced = any(one.unpriced for one in sums.values())
    head = [heading, "described", "rejected", "unknown", "cost", *(["of no known price"] if unpriced else [])]
    rows = [head]
    for name, one in sorted(sums.items()):
        counts = [f"{count:,}" for count in (one.described, one.rejected, one.unknown)]
        rows.append([_short(name), *counts, format_usd(one.cost_usd), *([f"{one.unpriced:,}"] if unpriced else [])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()


def _short(name: str) -> str:
    line = _printable(name)
    return line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"


def _printable(text: str) -> str:
    """One line that a terminal shows as it is, whatever a vendor or a file's name has in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_COMMANDS = {"check": _check, "compact": _compact, "show": _show}

if __name__ == "__main__":
    sys.exit(main())

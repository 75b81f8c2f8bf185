"""Images whose text fails a rule are asked once more, with the stricter prompt; one of the two texts is in the row."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from airflow_provider_describer.engine.plan import IdentifiedImage, Plan, make_plan
from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.rules import Rule, failed_rules
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.index import StoreIndex
from airflow_provider_describer.store.rows import Row

TEXTS = ("described", "reused")
"""The statuses of rows with a text."""


class SpooledRows:
    """Rows by a number, in a temporary file of this machine: they are many, and their texts long."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._places: dict[int, tuple[int, int]] = {}

    def __setitem__(self, number: int, row: Row) -> None:
        line = json.dumps(row.to_dict()).encode()
        try:
            place = self._file.seek(0, 2)
            self._file.write(line)
        except OSError as error:
            raise StoreError(f"The temporary file of second tries cannot be written: {error}.") from None
        self._places[number] = place, len(line)

    def __getitem__(self, number: int) -> Row:
        place, length = self._places[number]
        self._file.seek(place)
        return Row(**json.loads(self._file.read(length)))

    def get(self, number: int) -> Row | None:
        """Return a row, or None."""
        return self[number] if number in self._places else None

    def __contains__(self, number: object) -> bool:
        return number in self._places

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Give the file up."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Held:
    request: DescribeRequest
    stricter: DescribeRequest


class SecondTries:
    """Holds back the rows of the first pass whose texts fail a rule, until the second pass has ended."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._first = SpooledRows()
        self.rows = SpooledRows()
        """Those of the second pass, by `id` of its requests."""

    @property
    def requests(self) -> list[DescribeRequest]:
        """The requests of the second pass."""
        return [held.stricter for held in self._held.values()]

    def by_place(self, out: Collection[int]) -> list[tuple[int, list[DescribeRequest]]]:
        """Return the requests by the place of the connection that has described the image, but for those ``out``."""
        found: dict[int, list[DescribeRequest]] = {}
        for request in self.requests if self._held else ():
            if request.place not in out:
                found.setdefault(request.place, []).append(request)
        return sorted(found.items())

    @property
    def left(self) -> int:
        """How many second tries a limit has left to a later run."""
        rows = (self.rows.get(id(held.stricter)) for held in self._held.values())
        return sum(row is not None and (row.error or {}).get("kind") == "budget" for row in rows)

    def hold(self, request: DescribeRequest, row: Row) -> bool:
        """Hold a row back, if its text fails a rule and there is another prompt; a reviewed text is as it should be."""
        if request.stricter is None or not row.failed_rules or row.status not in TEXTS or row.review:
            return False
        self._held[id(request)] = _Held(request, replace(request, spec=request.stricter, stricter=None, chain=()))
        self._first[id(request)] = row
        return True

    def holds(self, request: DescribeRequest) -> bool:
        """Whether the row of a request is held back."""
        return id(request) in self._held

    def take(self) -> Iterator[tuple[DescribeRequest, Row, Row]]:
        """Yield each request with its first row and the one that is to be shown, and hold none any more."""
        held, self._held = self._held, {}
        try:
            for key, one in held.items():
                first = self._first[key]
                yield one.request, first, better(first, self.rows.get(id(one.stricter)))
        finally:
            self._first.close()
            self.rows.close()


def better(first: Row, second: Row | None) -> Row:
    """Return the row of the text that fails fewer rules, the second one if they fail as many.

    Its cost is that of both calls, as far as this run has made them. Where the second try has brought no text, or is of
    another content, as the image was changed meanwhile, the first text stays.
    """
    if second is None:
        return first
    shown = first
    if second.status in TEXTS and (not first.sha256 or second.sha256 in (None, first.sha256)):
        fails = [len(row.failed_rules or ()) for row in (first, second)]
        shown = second if fails[1] <= fails[0] else first
    costs = [0.0 if row.cost_usd is None and row.billed == "no" else row.cost_usd for row in (first, second)]
    known = [cost for cost in costs if cost is not None]
    cost = round(sum(known), 9) if len(known) == 2 else None
    return replace(shown, cost_usd=cost, lost_calls=first.lost_calls + second.lost_calls)


def failing_images(plan: Plan, index: StoreIndex, rules: Sequence[Rule]) -> list[IdentifiedImage]:
    """Return the images of a plan whose known text fails a rule, and that have a stricter prompt; blocking."""
    entries = sorted(plan.having("reuse"), key=lambda entry: entry.known or ())
    found = []
    for entry, row in zip(entries, index.rows(entry.first.keys for entry in entries), strict=True):
        if row["status"] == "described" and not row.get("review") and failed_rules(rules, row["text"]):
            found += [image for image in entry.all if image.request.stricter]
    return found


def count_second_calls(plan: Plan, failing: Iterable[IdentifiedImage], index: StoreIndex, terms: dict[str, Any]) -> int:
    """Return how many second calls there may be: one for each image that gets a new text, and for each whose known
    text fails and of which the store knows no second one. Blocking.
    """
    new = (entry for entry in plan.entries if entry.action in ("call", "attach", "ask", "claimed"))
    most = sum(len({image.request.stricter for image in entry.all} - {None}) for entry in new)
    second = [_identified(image) for image in failing]
    index.look_up(key for image in second for key in image.keys)
    return most + make_plan(second, index, **terms).calls


def _identified(image: IdentifiedImage) -> IdentifiedImage:
    request, spec = image.request, image.request.stricter
    assert spec is not None, "it is asked a second time"
    shown = request.image
    keys = identity_keys(spec, shown.uri, image.sha256, image.version or shown.version, shown.size)
    return IdentifiedImage(replace(request, spec=spec, stricter=None, chain=()), keys, image.sha256, image.version)

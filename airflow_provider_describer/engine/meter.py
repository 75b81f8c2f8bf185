"""What watches a run from outside: metrics and traces. It is told of calls and totals, and changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_describer.engine.progress import Totals
from airflow_provider_describer.errors import Billed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndedCall:
    """One billable call that has ended.

    :param uri: the image, as rows show it.
    :param seconds: from when it was sent until it ended; of a call that runs at the vendor, until its result is there.
    :param cost_usd: what it has cost, or may have cost; None where no price is known.
    :param error: the kind of its error; None where it brought a description.
    """

    uri: str
    seconds: float
    cost_usd: float | None
    billed: Billed
    request_id: str | None = None
    error: str | None = None


class Meter(Protocol):
    """What a run tells of itself, all of it from the thread of the run's event loop. Nothing here may block."""

    def begin(self, known: Totals) -> None:
        """The run begins. ``known`` has been told before, by the same task before it waited."""

    def waited(self, seconds: float) -> None:
        """A call was held back so long, by the account's rate, its day's money or a pause that the vendor wants."""

    def call(self, ended: EndedCall) -> None:
        """A call has ended."""

    def count(self, totals: Totals) -> None:
        """The run has come so far; about every five seconds, and at its end."""

    def end(self, totals: Totals, error: BaseException | None) -> None:
        """The run has ended, with this error if any. The last thing that is told."""


class Meters:
    """Several meters as one. One that fails is left out from there on: a run never ends because of its metrics."""

    def __init__(self, meters: Sequence[Meter] = ()) -> None:
        self._meters = list(meters)

    def begin(self, known: Totals) -> None:
        self._tell(lambda meter: meter.begin(known))

    def waited(self, seconds: float) -> None:
        self._tell(lambda meter: meter.waited(seconds))

    def call(self, ended: EndedCall) -> None:
        self._tell(lambda meter: meter.call(ended))

    def count(self, totals: Totals) -> None:
        self._tell(lambda meter: meter.count(totals))

    def end(self, totals: Totals, error: BaseException | None) -> None:
        self._tell(lambda meter: meter.end(totals, error))

    def _tell(self, tell: Callable[[Meter], None]) -> None:
        for meter in tuple(self._meters):
            try:
                tell(meter)
            except Exception as error:  # noqa: BLE001  # whatever a backend raises: the run's answers are paid for
                self._meters.remove(meter)
                log.warning("%s is left out of this run: %s: %s", type(meter).__name__, type(error).__name__, error)


@dataclass(frozen=True, slots=True)
class CallMeter:
    """Tells a meter of the calls of a second pass; its images were counted in the first one."""

    meter: Meter

    def begin(self, known: Totals) -> None:
        pass

    def waited(self, seconds: float) -> None:
        self.meter.waited(seconds)

    def call(self, ended: EndedCall) -> None:
        self.meter.call(ended)

    def count(self, totals: Totals) -> None:
        pass

    def end(self, totals: Totals, error: BaseException | None) -> None:
        pass


class PartMeter:
    """Tells a meter of the part that one connection of a chain has in a run, over all of its passes.

    :param is_first: whether it is the first connection, whose part has what the task instance has done before.
    """

    def __init__(self, meter: Meter, *, is_first: bool) -> None:
        self._meter, self._is_first = meter, is_first
        self._done, self._began = Totals(), Totals()
        self._has_started = self._has_begun = False

    def start(self, totals: Totals, requested: int) -> None:
        """A pass of this connection begins, over so many images; the run has come to ``totals``."""
        if self._has_started or not self._is_first:
            self._began = totals.copy()
        self._has_started = True
        self._done.requested = max(self._done.requested, requested)

    def stop(self, totals: Totals) -> None:
        """The pass has ended."""
        self.count(totals)
        self._done = self._part(totals)
        self._began = totals.copy()

    def add_calls(self, calls: int, totals: Totals) -> None:
        """Count the calls of second tries, and what they have cost."""
        self._done.add_calls(totals)
        self._done.calls += calls

    def begin(self, known: Totals) -> None:
        """The connection's part begins, once."""
        if not self._has_begun:
            self._has_begun = True
            self._meter.begin(self._part(known) if self._is_first else Totals())

    def waited(self, seconds: float) -> None:
        self._meter.waited(seconds)

    def call(self, ended: EndedCall) -> None:
        self._meter.call(ended)

    def count(self, totals: Totals) -> None:
        self._meter.count(self._part(totals))

    def end(self, totals: Totals, error: BaseException | None) -> None:
        """The run has ended; nothing is told of a connection that had no part in it."""
        if self._has_started:
            self._meter.end(self._done, error)

    def _part(self, totals: Totals) -> Totals:
        return self._done.with_growth(self._began, totals)

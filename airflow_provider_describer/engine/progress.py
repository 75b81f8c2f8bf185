"""How far a run has come: its totals, the line in the task log, the manifest in XCom."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.engine.limits import Budget, TaskLimits
from airflow_provider_describer.engine.plan import OnUnknown
from airflow_provider_describer.errors import Billed, DescriberError, RateLimited, TooManyRejected, Unfinished
from airflow_provider_describer.models import format_usd, plural
from airflow_provider_describer.store.rows import STATUSES


@dataclass(slots=True)
class Totals:
    """What a run has done so far.

    ``calls`` counts billable requests sent. ``cost_usd`` is known to be paid (None while no price is known), of which
    ``failed_cost_usd`` brought no description; ``unknown_calls`` were sent and their answers lost, and may have cost
    ``unknown_cost_usd`` more. ``known_before`` counts images that needed no call: they say nothing about the rate.
    ``saved_bytes`` were not sent as images were scaled down. ``held`` images are unknown and are not called again.
    ``limit_reached`` is the limit, with its value, that allows no further call. ``refusal`` is why the account's limits
    allow none now, where they do not. ``idle_at`` and ``waits`` are as in `CarriedTotals`. ``skipped`` images are left
    to other runs. ``failed_rules`` counts by rule the descriptions that fail it; None without rules. ``idle_at_of`` is
    as in `CarriedTotals`. ``fallbacks`` counts by vendor, status and reason the images that had a text from another
    connection than the first one of the chain; None without a chain.
    """

    requested: int = 0
    began: float = field(default_factory=time.monotonic)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    calls: int = 0
    cost_usd: float | None = None
    failed_cost_usd: float = 0.0
    unknown_calls: int = 0
    unknown_cost_usd: float = 0.0
    limit_reached: str = ""
    newly_rejected: int = 0
    last_rejection: str = ""
    saved_bytes: int = 0
    known_before: int = 0
    held: int = 0
    refusal: RateLimited | None = None
    idle_at: float = 0.0
    waits: int = 0
    skipped: int = 0
    failed_rules: dict[str, int] | None = None
    idle_at_of: dict[str, float] = field(default_factory=dict)
    fallbacks: dict[str, Any] | None = None

    @classmethod
    def resumed(cls, requested: int, carried: CarriedTotals, *, is_priced: bool) -> Self:
        """Return the totals of a task instance that has done ``carried`` before."""
        return cls(
            requested=requested,
            cost_usd=carried.cost_usd if is_priced else None,
            failed_cost_usd=carried.cost_usd,
            calls=carried.calls,
            unknown_calls=carried.unknown_calls,
            unknown_cost_usd=carried.unknown_cost_usd,
            idle_at=carried.idle_at,
            waits=carried.waits,
            idle_at_of=dict(carried.idle_at_of),
        )

    def carry(self, elapsed_s: float) -> CarriedTotals:
        """Return what the task instance is to be resumed with."""
        return CarriedTotals(
            self.calls,
            self.failed_cost_usd,
            self.unknown_calls,
            self.unknown_cost_usd,
            elapsed_s,
            self.idle_at,
            self.waits,
            dict(self.idle_at_of),
        )

    @property
    def budget_reached(self) -> bool:
        """Whether a limit of the task or its account allows no further call."""
        return bool(self.limit_reached)

    @property
    def recorded(self) -> int:
        """How many images have a row."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """How many images have an outcome; a pending one is left for a later run."""
        return self.recorded - self.counts["pending"]

    def count_rejected(self, why: str | None) -> None:
        """Count an image that this run has rejected."""
        self.newly_rejected += 1
        self.last_rejection = why or self.last_rejection

    def count_failed_rules(self, names: Iterable[str] | None, by: int = 1) -> None:
        """Count the rules that a description fails."""
        if self.failed_rules is not None:
            for name in names or ():
                self.failed_rules[name] += by

    def count_fallback(self, vendor: str, status: str, kind: str, by: int = 1) -> None:
        """Count an image that has its text from ``vendor``, as the first connection of the chain gave none."""
        if self.fallbacks is not None:
            found = self.fallbacks.setdefault(vendor, {"described": 0, "reused": 0, "why": []})
            found[status] += by
            if kind not in found["why"]:
                found["why"].append(kind)

    def count_paid(self, cost: float | None) -> None:
        """Count a call that brought a description."""
        if cost is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost

    def count_failed_call(self, billed: Billed, price: float | None) -> None:
        """Count a call without a description that was, or may have been, paid for."""
        if billed == "unknown":
            self.unknown_calls += 1
            self.unknown_cost_usd += price or 0.0
        elif billed == "yes" and price is not None:
            self.count_paid(price)
            self.failed_cost_usd += price

    def add_calls(self, other: Totals) -> None:
        """Count the calls of another part of the run, and what they have cost; its images are counted elsewhere."""
        self.calls += other.calls
        self.count_paid(other.cost_usd)
        self.failed_cost_usd += other.failed_cost_usd
        self.unknown_calls += other.unknown_calls
        self.unknown_cost_usd += other.unknown_cost_usd
        self.saved_bytes += other.saved_bytes
        self.waits = other.waits

    def copy(self) -> Totals:
        """Return these totals as they are now."""
        return replace(self, counts=dict(self.counts))

    def with_growth(self, began: Totals, now: Totals) -> Totals:
        """Return these totals, and what others have grown by in images, calls and known cost."""
        counts = {name: self.counts[name] + max(0, now.counts[name] - began.counts[name]) for name in self.counts}
        calls, cost = self.calls + max(0, now.calls - began.calls), self.cost_usd
        if now.cost_usd is not None:
            cost = (cost or 0.0) + max(0.0, now.cost_usd - (began.cost_usd or 0.0))
        return replace(self, counts=counts, calls=calls, cost_usd=cost)

    def manifest(
        self, *, vendor: str, store: str | None, results: str | None, failures: str | None, elapsed_s: float
    ) -> dict[str, Any]:
        """Return the summary that goes to XCom: small, whatever the number of images."""
        summary: dict[str, Any] = {
            "store": store,
            "results": results,
            "failures": failures,
            "vendor": vendor,
            "counts": {"requested": self.requested, **self.counts},
            "calls": self.calls,
            "cost_usd": None if self.cost_usd is None else round(self.cost_usd, 6),
            "unknown_calls": self.unknown_calls,
            "unknown_cost_usd": round(self.unknown_cost_usd, 6),
            "elapsed_s": round(elapsed_s, 3),
        }
        if self.fallbacks is not None:
            summary["fallbacks"] = self.fallbacks
        return summary if self.failed_rules is None else {**summary, "failed_rules": dict(self.failed_rules)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The manifest, and the error that the task should end with, if any.

    With a ``resume_condition`` the run was left as it may not wait so long: the task is to be resumed with ``carried``.
    ``warning`` is for the task's log: a limit has left images pending, or images are held. ``budget`` is what the task
    instance has left. ``refusal`` says when the account allows calls again, where its own limits have stopped the run.
    ``skipped`` images are left to other runs. ``limit_reached`` is the limit, with its value, that has left images
    pending; empty where none has. ``second_tries_left`` were left as a limit allows none.
    """

    manifest: dict[str, Any]
    error: DescriberError | None
    resume_condition: ResumeCondition | None = None
    carried: CarriedTotals = field(default_factory=CarriedTotals)
    warning: str | None = None
    budget: Budget = field(default_factory=Budget)
    refusal: DescriberError | None = None
    skipped: int = 0
    limit_reached: str = ""
    second_tries_left: int = 0


def progress_line(
    totals: Totals, now: float, paused_until: float | None = None, *, waits_for_rate: float | None = None
) -> str:
    """Return one line: done/total, rate, rejected, cost so far, time left.

    :param now: as of ``time.monotonic()``.
    :param paused_until: epoch seconds before which the vendor takes no call; None if it takes calls now.
    :param waits_for_rate: the account's calls a minute, where nothing is under way as the next call waits for them.
    """
    elapsed = max(now - totals.began, 1e-9)
    rate = (totals.done - totals.known_before) / elapsed
    left = (totals.requested - totals.recorded) / rate if rate else None
    parts = [f"{totals.done}/{totals.requested} {plural(totals.requested, 'image')}", f"{rate:.1f}/s"]
    parts += [f"{totals.counts[name]} {name}" for name in STATUSES if totals.counts[name]]
    # What no call was sent for has cost nothing, whatever a call costs.
    parts.append(f"cost {format_usd(totals.cost_usd if totals.calls else totals.cost_usd or 0.0)}")
    if totals.unknown_calls:
        more = format_usd(totals.unknown_cost_usd)
        calls = plural(totals.unknown_calls, "call")
        parts.append(f"{totals.unknown_calls} {calls} of unknown outcome (up to {more} more)")
    if totals.saved_bytes > 0:
        parts.append(f"{totals.saved_bytes / 1e6:.1f} MB less to send")
    if paused_until is not None and totals.recorded < totals.requested:
        until = datetime.fromtimestamp(paused_until, UTC)
        parts.append(f"the vendor takes no call until {until:%Y-%m-%dT%H:%M:%SZ}")
    if waits_for_rate is not None:
        parts.append(f"waiting for the account's rate of {waits_for_rate:g} a minute")
    parts.append(f"took {_span(elapsed)}" if totals.recorded >= totals.requested else f"{_span(left)} left")
    return ", ".join(parts)


def rules_line(totals: Totals) -> str:
    """Return one line: how many descriptions fail which rule; for a run with rules."""
    described = totals.counts["described"] + totals.counts["reused"]
    failed = [f"{count} {plural(count, 'fails', 'fail')} {name}" for name, count in (totals.failed_rules or {}).items()]
    found = [one for one in failed if not one.startswith("0 ")]
    return f"rules: of {described} {plural(described, 'description')} {', '.join(found) or 'none fails any'}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def too_many_rejected(totals: Totals, max_failure_ratio: float) -> TooManyRejected | None:
    """Return the error for more rejected images than a task allows, or None."""
    if totals.newly_rejected <= max_failure_ratio * totals.requested:
        return None
    return TooManyRejected(
        f"{_of_all(totals.newly_rejected, totals)} {plural(totals.newly_rejected, 'was', 'were')} rejected, more than "
        f"max_failure_ratio={max_failure_ratio} allows; the last one: {totals.last_rejection}"
    )


def verdict(
    totals: Totals, limits: TaskLimits, stopped_by: DescriberError | None, on_unknown: OnUnknown
) -> DescriberError | None:
    """Return the error that a run should end with, or None if it did what it could and was allowed to."""
    if stopped_by is not None:
        return stopped_by
    if too_many := too_many_rejected(totals, limits.max_failure_ratio):
        return too_many
    left = totals.counts["pending"] - totals.skipped if not totals.budget_reached else 0
    left += totals.counts["unknown"] - totals.held if on_unknown == "retry" else 0
    if left:
        return Unfinished(
            f"{_of_all(left, totals)} could not be described now; each row's error says why. "
            f"Running again goes on with {plural(left, 'it', 'them')}."
        )
    return None


def run_warning(totals: Totals, limits: TaskLimits) -> str | None:
    """Return what the log of a run warns of, or None.

    It warns of images that were rejected but not too many, that a limit or ``on_claimed`` has left, that another
    connection than the first one has described, and that are held.
    """
    warnings = []
    if (rejected := totals.newly_rejected) and too_many_rejected(totals, limits.max_failure_ratio) is None:
        was = plural(rejected, "was", "were")
        warnings.append(f"{_of_all(rejected, totals)} {was} rejected; the last one: {totals.last_rejection}")
    left, held, most = totals.counts["pending"] - totals.skipped, totals.held, limits.max_lost_calls
    if totals.budget_reached and left:
        warnings.append(
            f"{totals.limit_reached} allows no further call: {_of_all(left, totals)} {plural(left, 'is', 'are')} left "
            f"pending. A later DAG run goes on with {plural(left, 'it', 'them')}."
        )
    if skipped := totals.skipped:
        warnings.append(
            f"{_of_all(skipped, totals)} {plural(skipped, 'is', 'are')} left pending with on_claimed='skip', as other "
            f"runs are describing {plural(skipped, 'it', 'them')}."
        )
    for vendor, found in (totals.fallbacks or {}).items():
        if described := found["described"]:
            warnings.append(
                f"{_of_all(described, totals)} {plural(described, 'was', 'were')} described by {vendor}, as connections"
                f" before it gave none ({', '.join(found['why'])})."
            )
    if held:
        warnings.append(
            f"{_of_all(held, totals)} {plural(held, 'is', 'are')} held: for each, {most} {plural(most, 'call')} "
            f"(max_lost_calls) or more were sent and never answered, and may have been paid for. A higher "
            "max_lost_calls sends such an image again."
        )
    return " ".join(warnings) or None


def _of_all(count: int, totals: Totals) -> str:
    return f"{count} of {totals.requested} {plural(totals.requested, 'image')}"

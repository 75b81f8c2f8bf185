"""Decide what becomes of each call, reproducibly and whatever the order in which calls arrive."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b

from airflow_provider_describer.emulator.faults import FaultPlan, Rule, VendorFaults, read_plan


@dataclass(frozen=True, slots=True)
class Call:
    """What tells one call from another: the same image, prompt and language again is the next attempt."""

    vendor: str
    image: str
    prompt: str | None
    lang: str | None


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a call: None or a kind of fault, and how long it takes."""

    kind: str | None
    latency_s: float
    fails_later: bool
    # Picks one of several forms of the same fault.
    variant: int


class Dice:
    """The faults in force, and the counts of calls that they depend on."""

    def __init__(self) -> None:
        self.use(read_plan({}))

    def use(self, plan: FaultPlan) -> None:
        """Put a plan in force; all counts start anew."""
        self.plan = plan
        self.calls: Counter[str] = Counter()
        self.attempts: Counter[Call] = Counter()
        self.windows: dict[str, tuple[float, int]] = {}

    def faults(self, vendor: str) -> VendorFaults:
        return self.plan.vendors[vendor]

    def fate(self, call: Call) -> Fate:
        """Count a well-formed call, and return what becomes of it."""
        faults = self.faults(call.vendor)
        self.calls[call.vendor] += 1
        self.attempts[call] += 1
        attempt = self.attempts[call]
        kind = self.kind(call, attempt, self.calls[call.vendor])
        return Fate(
            kind=kind,
            latency_s=faults.latency_s + faults.latency_jitter_s * self.roll("latency", call, attempt),
            fails_later=self.roll("v2_fail", call, attempt) < faults.v2_fail_share,
            variant=int(self.roll("variant", call, attempt) * 1_000_000),
        )

    def kind(self, call: Call, attempt: int, number: int) -> str | None:
        rolled = self.roll("errors", call, attempt)
        passed = 0.0
        for rule in self.faults(call.vendor).errors:
            # One roll for all shares, each its own stretch, so that 5 % and 5 % make 10 %.
            missed = rule.share is not None and not passed <= rolled < passed + rule.share
            passed += rule.share or 0.0
            if not missed and applies(rule, call, attempt, number):
                return rule.kind
        return None

    def poll_fails(self, vendor: str, job: str, poll: int) -> bool:
        """Tell whether the nth poll of a job is answered with a gateway error."""
        return self.spread("poll", vendor, job, str(poll)) < self.faults(vendor).v2_poll_errors

    def over_limit(self, vendor: str) -> float | None:
        """Count a request against the vendor's rate limit; return when the limit resets if it is over it."""
        faults = self.faults(vendor)
        if faults.requests_per_minute is None:
            return None
        now = time.time()
        resets_at, used = self.windows.get(vendor, (0.0, 0))
        if now >= resets_at:
            resets_at, used = now + faults.rate_window_s, 0
        if used >= faults.requests_per_minute:
            return resets_at
        self.windows[vendor] = (resets_at, used + 1)
        return None

    def roll(self, what: str, call: Call, attempt: int) -> float:
        # repr keeps "no prompt" apart from an empty one.
        return self.spread(what, call.vendor, call.image, repr((call.prompt, call.lang)), str(attempt))

    def spread(self, *parts: str) -> float:
        """Return a number from 0 up to 1 that depends on the seed and `parts` alone."""
        text = "\0".join((str(self.plan.seed), *parts))
        return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big") / (1 << 56)


def applies(rule: Rule, call: Call, attempt: int, number: int) -> bool:
    """Tell whether all of a rule's countable conditions hold for the nth call and attempt."""
    return (
        (rule.images is None or call.image.startswith(rule.images))
        and (rule.first is None or number <= rule.first)
        and (rule.after is None or number > rule.after)
        and (rule.attempts is None or attempt <= rule.attempts)
    )

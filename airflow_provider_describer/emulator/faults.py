"""The faults in force, and what they do to each call.

A random decision depends only on the seed, the call and the number of its attempt. So the same calls meet the same
faults again, in whatever order they arrive.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

from airflow_provider_describer.emulator.fault_settings import BILLED_KINDS, FaultPlan, FaultRule
from airflow_provider_describer.emulator.image_info import ImageInfo


@dataclass(frozen=True, slots=True)
class Call:
    """A well-formed billable call. An equal call is another attempt; its image may come from another address.

    `image_uri` is the image's address or data URI as it was sent, or None for a file part.
    """

    vendor: str
    image: ImageInfo
    prompt: str | None = None
    lang: str | None = None
    image_uri: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CallFaults:
    """What happens to one call. `variant` selects one of several forms of a fault."""

    kind: str | None
    latency_s: float
    fails_later: bool
    variant: int

    @property
    def error(self) -> str | None:
        """The kind, if the vendor answers with an error; None for a damaged or a lost answer."""
        return None if self.kind in (*BILLED_KINDS, "stuck") else self.kind


class FaultInjector:
    """The plan in force, and the counts of calls that its rules depend on."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.calls: Counter[str] = Counter()
        self.attempts: Counter[Call] = Counter()
        self.history_requests = 0
        self.rate_windows: dict[str, tuple[float, int]] = {}

    def next_call(self, call: Call) -> CallFaults:
        """Count a call and return what happens to it."""
        settings = self.plan.vendors[call.vendor]
        self.calls[call.vendor] += 1
        self.attempts[call] += 1
        attempt = self.attempts[call]
        return CallFaults(
            kind=self._kind(call, attempt),
            latency_s=settings.latency_s + settings.latency_jitter_s * self._random_for("latency", call, attempt),
            fails_later=self._random_for("v2_fail", call, attempt) < settings.v2_fail_share,
            variant=int(self._random_for("variant", call, attempt) * 1_000_000),
        )

    def poll_fails(self, vendor: str, image_sha256: str, poll: int) -> bool:
        """Return whether the nth poll of a v2 request is answered with a gateway error."""
        return self._random("poll", vendor, image_sha256, str(poll)) < self.plan.vendors[vendor].v2_poll_errors

    def is_history_gap(self, vendor: str, image_sha256: str, request: int) -> bool:
        """Return whether the nth call that reached a vendor never appears in its request history."""
        return self._random("gap", vendor, image_sha256, str(request)) < self.plan.vendors[vendor].history_gaps

    def history_fails(self, vendor: str) -> bool:
        """Count a request for a vendor's history and return whether it is answered with a gateway error."""
        self.history_requests += 1
        return self._random("history", vendor, str(self.history_requests)) < self.plan.vendors[vendor].history_errors

    def count_request(self, vendor: str) -> float | None:
        """Count a request against the vendor's rate limit; return when the limit resets if it is exceeded."""
        settings = self.plan.vendors[vendor]
        if settings.requests_per_minute is None:
            return None
        now = time.time()
        resets_at, used = self.rate_windows.get(vendor, (0.0, 0))
        if now >= resets_at:
            resets_at, used = now + settings.rate_window_s, 0
        if used >= settings.requests_per_minute:
            return resets_at
        self.rate_windows[vendor] = (resets_at, used + 1)
        return None

    def _kind(self, call: Call, attempt: int) -> str | None:
        drawn = self._random_for("errors", call, attempt)
        start = 0.0
        for rule in self.plan.vendors[call.vendor].errors:
            # Each share is its own part of the range from 0 to 1, so that 5 % and 5 % make 10 %.
            end = start + (rule.share or 0.0)
            in_share = rule.share is None or start <= drawn < end
            start = end
            if in_share and conditions_hold(rule, call, attempt, self.calls[call.vendor]):
                return rule.kind
        return None

    def _random_for(self, purpose: str, call: Call, attempt: int) -> float:
        # repr distinguishes a missing prompt from an empty one.
        return self._random(purpose, call.vendor, call.image.sha256, repr((call.prompt, call.lang)), str(attempt))

    def _random(self, *parts: str) -> float:
        """Return a number from 0 up to 1 that depends on the seed and `parts` alone."""
        text = "\0".join((str(self.plan.seed), *parts))
        return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big") / (1 << 56)


def conditions_hold(rule: FaultRule, call: Call, attempt: int, number: int) -> bool:
    """Return whether a rule's conditions other than `share` hold for the vendor's nth call."""
    return (
        (rule.images is None or call.image.sha256.startswith(rule.images))
        and (rule.first is None or number <= rule.first)
        and (rule.after is None or number > rule.after)
        and (rule.attempts is None or attempt <= rule.attempts)
    )

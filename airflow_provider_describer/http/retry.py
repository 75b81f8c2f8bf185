"""Decides when a failed call is tried again. Does not sleep."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from airflow_provider_describer.errors import AmbiguousCall, DescriberError, RateLimited, VendorUnavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after how long a call is tried again. All times in seconds.

    :param attempts: calls in total before an unavailable vendor is given up.
    :param base: first pause of the exponential back-off. It doubles each time; jitter takes up to half of it off.
    :param cap: longest back-off.
    :param max_wait: longest pause that the vendor may ask for; if it asks for more, the call is given up, and the
        error's ``retry_at`` says when it would work.
    :param longest_outage: like ``max_wait``, for a vendor that is unavailable.
    :param rate_limited_attempts: like ``attempts``, for rate limits.
    :param resend_unknown: how often a call whose answer was lost is sent again although it may have been billed; 0
        leaves that decision to a person or a later run.
    """

    attempts: int = 5
    base: float = 1.0
    cap: float = 60.0
    max_wait: float = 900.0
    longest_outage: float = inf
    rate_limited_attempts: int = 30
    resend_unknown: int = 0

    def wait(self, error: DescriberError, *, attempt: int, jitter: float, now: float) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up.

        :param attempt: how many attempts have failed with this kind of error, from 1.
        :param jitter: a random number in [0, 1).
        :param now: epoch seconds.
        """
        if attempt >= self._limit(error):
            return None
        backoff = min(self.cap, self.base * 2.0 ** (attempt - 1)) * (0.5 + jitter / 2)
        named = getattr(error, "retry_at", None)
        if named is None or named <= now:
            # A time in the past is no reason to call at once: the clocks differ, and we would do so at every attempt.
            return backoff
        # A little later than the vendor says, and spread out: clocks differ, and other calls wait too.
        wait = max(0.0, named - now) + min(1.0, backoff) * jitter
        longest = min(self.max_wait, self.longest_outage if isinstance(error, VendorUnavailable) else inf)
        return wait if wait <= longest else None

    def _limit(self, error: DescriberError) -> int:
        match error:
            case RateLimited():
                return self.rate_limited_attempts
            case VendorUnavailable():
                return self.attempts
            case AmbiguousCall() if type(error) is AmbiguousCall:  # not `RequestExpired`
                return self.resend_unknown + 1
        return 0

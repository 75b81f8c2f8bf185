"""Why a run stops before it is done, and until when: a moment, or requests that run at the vendor. Pure values.

A run that must wait longer than it may hold its worker for leaves a `ResumeCondition` behind. Whoever resumes it plans
again from the store, so a `ResumeCondition` carries ids, times and sums only: no images, no secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Self

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.models import Running

SHORTEST_S = 15.0
"""No deferral is shorter: Airflow may mark a task failed that resumes within seconds of deferring."""
FETCH_WITHIN_S = 45 * 60.0
"""Segmind keeps a finished request for about an hour after its submission; whoever waits is back well before."""
WATCHED = 100
"""So many running requests are polled while waiting; when the oldest have ended, there is work to resume for."""


@dataclass(frozen=True, slots=True)
class CarriedTotals:
    """What one task instance has done before it was resumed, where the journal does not say it.

    ``cost_usd`` is only what calls without a description have cost; ``elapsed_s`` the time worked, without waiting.
    """

    calls: int = 0
    cost_usd: float = 0.0
    unknown_calls: int = 0
    unknown_cost_usd: float = 0.0
    elapsed_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as a trigger keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `to_dict` gave."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ResumeCondition:
    """What is waited for.

    :param until: epoch seconds before which nothing can be called, or None where only ``requests`` are waited for.
    :param requests: ids of requests that run at the vendor, with the epoch seconds of their submission.
    """

    until: float | None = None
    requests: Sequence[tuple[str, float]] = ()

    @classmethod
    def for_requests(cls, running: Iterable[Running]) -> Self:
        """Return a wait for the requests that were submitted first."""
        oldest = sorted((one.submitted_at, one.request_id) for one in running)[:WATCHED]
        return cls(None, tuple((request_id, at) for at, request_id in oldest))

    def not_later_than(self) -> float | None:
        """Return the moment at which to resume, whatever the requests do: while their results can still be fetched."""
        latest = min((at for _, at in self.requests), default=None)
        if latest is None:
            return self.until
        latest += FETCH_WITHIN_S
        return latest if self.until is None else min(latest, self.until)


def longest_wait(defer_after: float, *, can_defer: bool) -> float | None:
    """Return the seconds that a run may wait in its worker; None for any, as a run that cannot defer has to.

    :raises BadInput: for a ``defer_after`` below 15 seconds.
    """
    if defer_after < SHORTEST_S:
        raise BadInput(
            f"defer_after is {defer_after!r}, expected at least {SHORTEST_S:.0f} s: Airflow may fail a task that "
            "resumes right after it has deferred."
        )
    return defer_after if can_defer else None


def time_left(limit: timedelta | None, began: float, now: float) -> timedelta | None:
    """Return what is left of a task's time limit (None for no limit) ``now``; both times are epoch seconds."""
    if limit is None:
        return None
    return max(timedelta(0), limit - timedelta(seconds=now - began))


@dataclass(slots=True)
class DeferPolicy:
    """Whether a run has waited long enough, and for what. Decides; waits nowhere.

    :param seconds: the longest wait that it sits out; None for any.
    """

    seconds: float | None = None
    out: bool = field(default=False, init=False)
    """Whether the run is to be left."""
    _until: float | None = field(default=None, init=False)
    _moved: float | None = field(default=None, init=False)

    def moved(self, now: float) -> None:
        """A call was made, or has ended. ``now`` as of a clock that is never set."""
        self._moved = now

    def must_wait(self, seconds: float, until: float) -> bool:
        """No call can be made for so many seconds; return whether that is too long.

        :param until: epoch seconds at which it makes sense to go on.
        """
        if self.seconds is None or seconds <= self.seconds:
            return False
        self._until, self.out = max(self._until or 0.0, until), True
        return True

    def only_polls(self, now: float) -> bool:
        """A request was asked about and runs on; return whether nothing else has happened for too long."""
        self._moved = now if self._moved is None else self._moved
        if self.seconds is None or now - self._moved <= self.seconds:
            return False
        self.out = True
        return True

    def wait(self, running: Iterable[Running]) -> ResumeCondition | None:
        """Return what the run that was left waits for; None where it was not.

        :param running: the requests that it has left running at the vendor.
        """
        return replace(ResumeCondition.for_requests(running), until=self._until) if self.out else None

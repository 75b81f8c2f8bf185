"""When a run is left instead of waited for, and what it waits for then. Pure values.

All of it may stand in Airflow's database: ids, times and sums, no images and no secrets. A resumed run plans again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.http.flow import RESULTS_KEPT_S
from airflow_provider_describer.models import Running, plural

SHORTEST_S = 15.0
"""No deferral is shorter: Airflow may fail a task that resumes within seconds of deferring."""
FETCH_WITHIN_S = 45 * 60.0
"""Segmind keeps a finished request for about an hour after its submission; a resumed run is back well before."""
MAX_POLLED = 100
"""Running requests that are polled during a deferral: the oldest."""
ENOUGH = 0.5
"""When this share of them has ended, the others are waited for only while they go on ending."""
QUIET_S = 60.0
"""They do not go on ending if none has for this long."""
LONGEST_AFTER_FIRST_S = 300.0
"""The longest that a request which has ended waits for the others: a resumed run takes a worker slot and plans anew."""


@dataclass(frozen=True, slots=True)
class CarriedTotals:
    """What a task instance has done before it was resumed, as far as the journal does not say it.

    ``cost_usd`` is only what calls without a description have cost; ``elapsed_s`` the time worked, without waiting.
    ``idle_at`` is the epoch second from which the account's rate allows a whole burst of calls again. ``waits`` counts
    the deferrals in a row that were for images of other runs. ``idle_at_of`` is ``idle_at`` of further connections.
    """

    calls: int = 0
    cost_usd: float = 0.0
    unknown_calls: int = 0
    unknown_cost_usd: float = 0.0
    elapsed_s: float = 0.0
    idle_at: float = 0.0
    waits: int = 0
    idle_at_of: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the totals that `to_dict` was called on."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ResumeCondition:
    """When to resume.

    :param until: epoch seconds before which no call can start, or None if only ``requests`` are waited for.
    :param requests: ids of requests that run at the vendor, with the epoch seconds of their submission.
    :param conn_id: the connection that they run at; empty for the task's own.
    """

    until: float | None = None
    requests: Sequence[tuple[str, float]] = ()
    conn_id: str = ""

    def __str__(self) -> str:
        """What is waited for, for people."""
        waits = []
        if self.until is not None:
            waits.append(f"{datetime.fromtimestamp(self.until, UTC):%Y-%m-%dT%H:%M:%SZ}")
        if count := len(self.requests):
            waits.append(f"{count} {plural(count, 'request')} at the vendor")
        return " and ".join(waits) or "the vendor"

    def not_later_than(self, began: float = 0.0) -> float | None:
        """Return when to resume whatever is known of the requests; None for a run that waits for nothing.

        That is while results can still be fetched. A request that runs on past that moment is waited for until the
        vendor has forgotten it, which the resumed run records.

        :param began: epoch seconds at which the deferral began.
        """
        moments = [] if self.until is None else [self.until]
        for _, at in self.requests:
            fetch_at = at + FETCH_WITHIN_S
            moments.append(fetch_at if fetch_at > began else at + RESULTS_KEPT_S)
        return min(moments, default=None)


class ResumePolicy:
    """Whether a deferred run is to be resumed, from what polls have shown. Decides; neither polls nor waits.

    It is to be resumed when there is work for it: its moment has come, all of its requests have ended, or enough of
    them, and the others take long. A request that never ends keeps no results of others, and one that has ended late is
    fetched at once.

    :param began: epoch seconds at which the deferral began.
    """

    def __init__(self, condition: ResumeCondition, began: float) -> None:
        self._submitted = dict(condition.requests)
        self._until = condition.until
        self.not_later_than = condition.not_later_than(began)
        """Epoch seconds at which it is due in any case, or None."""
        self.to_poll = [
            request for request, at in condition.requests if condition.until is None or at + FETCH_WITHIN_S <= began
        ]
        """Requests that are worth a poll: where a moment is waited for, only those that have little time left."""
        self._ended: dict[str, float] = {}

    def note_ended(self, requests: Iterable[str], now: float) -> None:
        """A poll at ``now`` has shown that these requests have ended, well or not."""
        for request in requests:
            self._ended.setdefault(request, now)
        self.to_poll = [request for request in self.to_poll if request not in self._ended]

    def is_due(self, now: float) -> bool:
        """Return whether to resume at ``now`` (epoch seconds)."""
        if self.not_later_than is None or now >= self.not_later_than:
            return True
        if any(now >= self._submitted[request] + FETCH_WITHIN_S for request in self._ended):
            return True
        if self._until is not None or not self._ended:
            return False
        if len(self._ended) == len(self._submitted) or now >= min(self._ended.values()) + LONGEST_AFTER_FIRST_S:
            return True
        is_quiet = now >= max(self._ended.values()) + QUIET_S
        return is_quiet and len(self._ended) >= ENOUGH * len(self._submitted)


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
    """Whether a run has to wait longer than it may, and for what. Decides; waits nowhere.

    :param max_wait: seconds; None for any wait.
    """

    max_wait: float | None = None
    is_leaving: bool = field(default=False, init=False)
    """Whether the run is to be left."""
    _until: float | None = field(default=None, init=False)
    _progress_at: float | None = field(default=None, init=False)

    def note_progress(self, now: float) -> None:
        """A call was sent or has ended at ``now`` (monotonic)."""
        self._progress_at = now

    def is_too_long(self, seconds: float, until: float) -> bool:
        """Return whether no call can start for longer than the run may wait.

        :param until: epoch seconds at which to resume then.
        """
        if self.max_wait is None or seconds <= self.max_wait:
            return False
        self.leave(until)
        return True

    def leave(self, until: float) -> None:
        """Let the run be left and resumed at ``until`` (epoch seconds)."""
        self._until, self.is_leaving = max(self._until or 0.0, until), True

    def polls_too_long(self, now: float, seconds: float) -> bool:
        """Return whether a run that does nothing but poll is to be left.

        :param now: when it has last polled (monotonic); nothing else has happened for too long then,
        :param seconds: or the next poll comes so late, as the vendor allows none before.
        """
        self._progress_at = now if self._progress_at is None else self._progress_at
        if self.max_wait is None or (
            now - self._progress_at <= self.max_wait and seconds <= max(self.max_wait, SHORTEST_S)
        ):
            return False
        self.is_leaving = True
        return True

    def resume_condition(self, running: Iterable[Running]) -> ResumeCondition | None:
        """Return when to resume a run that is left; None for any other.

        :param running: the requests that it has left running at the vendor.
        """
        if not self.is_leaving:
            return None
        oldest = sorted((one.submitted_at, one.request_id) for one in running)[:MAX_POLLED]
        return ResumeCondition(self._until, tuple((request_id, at) for at, request_id in oldest))

"""One call as a generator of steps, which `http/client.py` carries out. The generator itself does no I/O.

A flow yields a `Request` and is sent the `Response`, or the `DescriberError` of a failed request is thrown into it. It
yields an `Admit` and is sent the `Picture`. It also yields `Sleep` and `Accepted`, and returns its result.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any, TypeVar

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import DescriberError, RateLimited, RequestExpired, VendorUnavailable
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.models import Description, HistoryRecord, Picture, Running, Spec
from airflow_provider_describer.vendors.secrets import parse_masked
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response

T = TypeVar("T")

POLL_ATTEMPTS = 20
"""About ten minutes of failed polls: a request that runs at the vendor is being paid for, and polls are free."""
RESULTS_KEPT_S = 3600.0
"""How long after its submission the vendor keeps a request: what has not been fetched by then never will be."""
LAST_POLLS_S = 60.0
"""How long polls of a request that is older may be tried again."""
HISTORY_PAGES = 500
"""The most pages of the vendor's books that are read at once."""
HISTORY_POLICY = RetryPolicy(attempts=3, rate_limited_attempts=3, max_wait=60.0)
"""How often a page is asked for: whether the books can be read decides no more than whether a call is sent again."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait ``seconds``. ``because`` is the error of a failed attempt, or None while a request runs at the vendor."""

    seconds: float
    because: DescriberError | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """A billable request is next: wait until it may be sent, then sign the picture's address if it needs that."""

    picture: Picture


@dataclass(frozen=True, slots=True)
class Accepted:
    """The vendor runs the request and may bill it: record its id before anything else."""

    running: Running


Step = Request | Admit | Sleep | Accepted
Flow = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class VendorCalls:
    """The calls to one vendor with one account and one retry policy."""

    vendor: Vendor
    account: Account
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random

    def describe(self, spec: Spec, picture: Picture, *, upload: bool = False) -> Flow[Description]:
        """Have the picture described; with ``upload`` its bytes go to the vendor's storage first.

        :raises DescriberError: that of the last attempt.
        """
        if upload:
            picture = yield from self.upload(picture)
        parse = partial(self.vendor.parse_response, self.account, spec)
        secrets: list[str] = []
        answer = yield from self._attempts(partial(self._billable, spec, picture, secrets), parse)
        if isinstance(answer, Description):
            return answer
        yield Accepted(answer)
        return (yield from self.fetch(spec, answer, tuple(secrets)))

    def fetch(self, spec: Spec, running: Running, secrets: tuple[str, ...] = ()) -> Flow[Description]:
        """Wait for a request that runs at the vendor. Sends only GETs, which are free and safe to repeat.

        :param secrets: of the request itself, where they are known: its result may quote them.
        :raises RequestExpired: the vendor no longer knows it, or has not finished it within `RESULTS_KEPT_S`.
        """
        polls = 0
        policy = replace(self.policy, attempts=max(self.policy.attempts, POLL_ATTEMPTS))
        until = max(running.submitted_at + RESULTS_KEPT_S, self.clock() + LAST_POLLS_S)
        while True:
            yield Sleep(poll_pause(polls) if running.status != "COMPLETED" else 0.0)
            try:
                parse = partial(self.vendor.parse_poll, self.account, spec, running)
                poll = self.vendor.build_poll(self.account, running)
                poll = replace(poll, secrets=tuple(dict.fromkeys((*poll.secrets, *secrets))))
                answer = yield from self._attempts(poll, parse, policy, until)
            except DescriberError as error:
                if isinstance(error, VendorUnavailable) and self._is_too_old(running):
                    raise _expired(running, f"the last poll failed: {error}") from None
                if error.request_id is None:
                    # The error says nothing about the request, which may go on and be billed.
                    error.request_id, error.billed = running.request_id, "unknown"
                raise
            if isinstance(answer, Description):
                return answer
            polls += 1
            running = answer
            # A finished one has its result fetched, however old it is.
            if running.status != "COMPLETED" and self._is_too_old(running):
                raise _expired(running, f"its status is {running.status}")

    def _is_too_old(self, running: Running) -> bool:
        return self.clock() >= running.submitted_at + RESULTS_KEPT_S

    def upload(self, picture: Picture) -> Flow[Picture]:
        """Put the picture on the vendor's storage and return it with its address there. Free of charge."""
        request = self.vendor.build_upload(self.account, picture)
        url = yield from self._attempts(request, partial(self.vendor.parse_upload, self.account))
        return replace(picture, content=None, url=url)

    def credits(self) -> Flow[float]:
        """Return the balance in USD. Free of charge."""
        request = self.vendor.build_credits(self.account)
        return (yield from self._attempts(request, partial(self.vendor.parse_credits, self.account)))

    def check(self) -> Flow[str]:
        """Check the API key with one request and return what the vendor said. Free of charge."""
        request = self.vendor.build_check(self.account)
        response = yield request
        return parse_masked(partial(self.vendor.parse_check, self.account), response, request.secrets)

    def has_ended(self, request_id: str) -> Flow[bool]:
        """Poll once whether a request has ended, well or not. A GET, free and safe to repeat."""
        running = Running(request_id, self.clock())
        try:
            response = yield self.vendor.build_poll(self.account, running)
            answer = self.vendor.parse_poll(self.account, self.vendor.spec(), running, response)
        except (RateLimited, VendorUnavailable):
            return False
        except DescriberError:
            # Expired, failed, or a problem of the account: `fetch` raises it.
            return True
        return isinstance(answer, Description) or answer.status == "COMPLETED"

    def history(self, since: float) -> Flow[list[HistoryRecord]]:
        """Return what the vendor's own books say of the account's calls since that moment, each once. Free of charge.

        :param since: epoch seconds.
        :raises DescriberError: the books cannot be read, or not as far back.
        """
        found: dict[tuple[str, str | None], HistoryRecord] = {}
        for page in range(1, HISTORY_PAGES + 1):
            request = self.vendor.build_history(self.account, since, page)
            parse = partial(self.vendor.parse_history, self.account, page=page)
            answer = yield from self._attempts(request, parse, HISTORY_POLICY)
            before = len(found)
            for record in answer.records:
                found[record.request_id, record.text] = record
            times = [record.created_at for record in answer.records]
            # A page of other models' calls alone says nothing; one that only repeats what was read ends the books.
            is_past = bool(times) and times[0] < since and sorted(times, reverse=True) == times != times[::-1]
            if answer.is_last or is_past or (times and len(found) == before):
                return one_each(record for record in found.values() if record.created_at >= since)
        raise VendorUnavailable(
            f"{self.vendor.title}'s request history has more than {HISTORY_PAGES} pages since "
            f"{datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}"
        )

    def _billable(self, spec: Spec, picture: Picture, secrets: list[str]) -> Flow[Request]:
        """Wait until the call may be made, and return its request; its secrets are added to those of earlier ones."""
        picture = yield Admit(picture)
        request = self.vendor.build_request(self.account, spec, picture)
        secrets += request.secrets
        return request

    def _attempts(
        self,
        request: Request | Callable[[], Flow[Request]],
        parse: Callable[[Response], T],
        policy: RetryPolicy | None = None,
        until: float = inf,
    ) -> Flow[T]:
        """Send until there is an answer or the policy gives up. Attempts are counted per type of error.

        :param until: epoch seconds after which no attempt follows.
        """
        policy = policy or self.policy
        failed: dict[type[DescriberError], int] = {}
        while True:
            try:
                ready = request if isinstance(request, Request) else (yield from request())
                return parse_masked(parse, (yield ready), ready.secrets)
            except DescriberError as error:
                attempt = failed[type(error)] = failed.get(type(error), 0) + 1
                now = self.clock()
                wait = policy.wait(error, attempt=attempt, jitter=self.jitter(), now=now)
                if wait is None or now + wait > until:
                    raise
                reason = error
            yield Sleep(wait, because=reason)


def _expired(running: Running, found: str) -> RequestExpired:
    return RequestExpired(
        f"request {running.request_id} has brought no description within {RESULTS_KEPT_S / 60:.0f} min of its "
        f"submission ({found}), and the vendor keeps none for longer; it may have been billed, or be billed yet",
        request_id=running.request_id,
    )


def one_each(records: Iterable[HistoryRecord]) -> list[HistoryRecord]:
    """Return one record for each request: those of several outputs become one, with all of their texts."""
    found: dict[str, HistoryRecord] = {}
    for record in records:
        other = found.setdefault(record.request_id, record)
        if other is not record:
            texts = dict.fromkeys(text for text in (other.text, record.text) if text)
            # Read at two moments, a request may have ended between them.
            best = min(other, record, key=lambda one: ("completed", "failed", "running").index(one.status))
            found[record.request_id] = replace(best, text="\n\n".join(texts) or None)
    return list(found.values())


def poll_pause(polls: int) -> float:
    """Return the seconds before the next poll: a model takes 4 s when warm and minutes when cold."""
    return min(15.0, 1.5 ** min(polls, 20))

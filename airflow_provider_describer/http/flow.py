"""One call as a generator of steps, written once and driven by `http/client.py`.

A flow yields a `Request` (and is sent the `Response`, or has the `DescriberError` of a failed sending thrown in), a
`Admit` (and is sent the `Picture`), a `Sleep`, or an `Accepted`, and returns its result. It does nothing itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import DescriberError, RateLimited, RequestExpired, VendorUnavailable
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.models import Description, Picture, Running, Spec
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response

T = TypeVar("T")

POLL_ATTEMPTS = 20
"""About ten minutes of trouble: what runs at the vendor is being paid for, and asking for it is free."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait that many seconds; ``because`` of a failed attempt, or None while a request runs at the vendor."""

    seconds: float
    because: DescriberError | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """A billable request is next: wait until it may be sent, then sign the picture's address, if it is to be signed."""

    picture: Picture


@dataclass(frozen=True, slots=True)
class Accepted:
    """The vendor runs the request and may bill it: keep its id before anything else."""

    running: Running


Step = Request | Admit | Sleep | Accepted
Flow = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class VendorCalls:
    """Whose account, at which vendor, how patiently: what all calls of a task have in common."""

    vendor: Vendor
    account: Account
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random

    def describe(self, spec: Spec, picture: Picture, *, upload: bool = False) -> Flow[Description]:
        """Ask for a description of the picture; with ``upload`` its bytes go to the vendor's storage first.

        :raises DescriberError: the leaf of the last attempt.
        """
        if upload:
            picture = yield from self.upload(picture)
        answer = yield from self._attempts(
            partial(self._billed, spec, picture), partial(self.vendor.parse_response, self.account, spec)
        )
        if isinstance(answer, Description):
            return answer
        yield Accepted(answer)
        return (yield from self.fetch(spec, answer))

    def fetch(self, spec: Spec, running: Running) -> Flow[Description]:
        """Wait for a request that runs at the vendor. Only GETs: free and safe to repeat.

        :raises RequestExpired: where the vendor has forgotten it.
        """
        asked = 0
        policy = replace(self.policy, attempts=max(self.policy.attempts, POLL_ATTEMPTS))
        while True:
            yield Sleep(poll_pause(asked) if running.status != "COMPLETED" else 0.0)
            try:
                answer = yield from self._attempts(
                    partial(_once, self.vendor.build_poll(self.account, running)),
                    partial(self.vendor.parse_poll, self.account, spec, running),
                    policy,
                )
            except DescriberError as error:
                if error.request_id is None:
                    # Nobody answered for the request: it may go on, and be billed.
                    error.request_id, error.billed = running.request_id, "unknown"
                raise
            if isinstance(answer, Description):
                return answer
            asked += 1
            running = answer

    def upload(self, picture: Picture) -> Flow[Picture]:
        """Put the picture on the vendor's storage and return it as the address there. Free of charge."""
        url = yield from self._attempts(
            partial(_once, self.vendor.build_upload(self.account, picture)),
            partial(self.vendor.parse_upload, self.account),
        )
        return replace(picture, content=None, url=url)

    def credits(self) -> Flow[float]:
        """Ask for the balance in USD. Free of charge."""
        request = self.vendor.build_credits(self.account)
        return (yield from self._attempts(partial(_once, request), partial(self.vendor.parse_credits, self.account)))

    def check(self) -> Flow[str]:
        """Ask whether the key is good, once. Free of charge."""
        response = yield self.vendor.build_check(self.account)
        return self.vendor.parse_check(self.account, response)

    def has_ended(self, request_id: str) -> Flow[bool]:
        """Look once whether a request that runs at the vendor has ended, however. A GET: free and safe to repeat."""
        running = Running(request_id, self.clock())
        try:
            response = yield self.vendor.build_poll(self.account, running)
            answer = self.vendor.parse_poll(self.account, self.vendor.spec(), running, response)
        except (RateLimited, VendorUnavailable):
            return False
        except DescriberError:
            # Expired, failed, or an account at fault: whoever fetches it says so.
            return True
        return isinstance(answer, Description) or answer.status == "COMPLETED"

    def _billed(self, spec: Spec, picture: Picture) -> Flow[Response]:
        """Wait for the call's turn and make it."""
        picture = yield Admit(picture)
        return (yield from _once(self.vendor.build_request(self.account, spec, picture)))

    def _attempts(
        self, send: Callable[[], Flow[Response]], parse: Callable[[Response], T], policy: RetryPolicy | None = None
    ) -> Flow[T]:
        """Send until it is answered or given up. Attempts are counted by the kind of what went wrong."""
        policy = policy or self.policy
        failed: dict[type[DescriberError], int] = {}
        while True:
            try:
                return parse((yield from send()))
            except DescriberError as error:
                attempt = failed[type(error)] = failed.get(type(error), 0) + 1
                wait = policy.wait(error, attempt=attempt, jitter=self.jitter(), now=self.clock())
                if wait is None or isinstance(error, RequestExpired):
                    raise
                reason = error
            yield Sleep(wait, because=reason)


def _once(request: Request) -> Flow[Response]:
    response: Response = yield request
    return response


def poll_pause(asked: int) -> float:
    """Return the seconds before the next look at a running request: a model takes 4 s warm and minutes cold."""
    return min(15.0, 1.0 * 1.5 ** min(asked, 20))

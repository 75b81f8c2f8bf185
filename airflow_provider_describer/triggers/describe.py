"""The trigger of `DescribeImagesOperator`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_describer.engine.deferral import SHORTEST_S, ResumeCondition, ResumePolicy
from airflow_provider_describer.hooks.describer import DescriberHook

POLL_EVERY_S = 15.0
"""Seconds between two polls of all running requests."""
CONNECTIONS = 4
"""How many requests are polled at the same time."""
POLL_TIMEOUT_S = 15.0
"""The longest that one poll may take, in seconds; the connection's ``timeout`` is meant for calls."""
ROUND_S = 60.0
"""The longest that a poll of all running requests may take."""


class VendorTrigger(BaseTrigger):
    """Waits until a given time, or until enough requests that run at the vendor have ended. It sends only free GETs.

    It may run again from the start, or twice at once: it changes nothing. It may fire too early, but never too late:
    the operator plans again from its store.

    There is no ``on_kill``, because no vendor can cancel a request. If the task is cleared or marked meanwhile, the
    request is paid and in the store, and the next run that asks for the image fetches its result.

    :param describer_conn_id: the connection whose vendor is asked.
    :param until: epoch seconds, or None.
    :param requests: a pair ``[request id, epoch seconds of its submission]`` for each request.
    :param carried: given back in the event.
    :param began: epoch seconds at which the task began; given back too.
    """

    def __init__(
        self,
        *,
        describer_conn_id: str,
        until: float | None = None,
        requests: Sequence[Sequence[Any]] = (),
        carried: dict[str, Any] | None = None,
        began: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow annotates no constructor of a trigger
        self.describer_conn_id = describer_conn_id
        self.until = until
        self.requests = [list(request) for request in requests]
        self.carried = carried or {}
        self.began = began

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the metadata database keeps: ids, times and sums."""
        names = ("describer_conn_id", "until", "requests", "carried", "began")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once with ``{"carried": …, "began": …}``."""
        started = time.time()
        requests = tuple((str(request_id), float(at)) for request_id, at in self.requests)
        policy = ResumePolicy(ResumeCondition(self.until, requests), started)
        if policy.to_poll:
            await self._poll(policy)
        elif policy.not_later_than is not None:
            await asyncio.sleep(max(0.0, policy.not_later_than - time.time()))
        # The wait may have been over at once.
        await asyncio.sleep(max(0.0, started + SHORTEST_S - time.time()))
        yield TriggerEvent({"carried": self.carried, "began": self.began})

    async def _poll(self, policy: ResumePolicy) -> None:
        """Poll until the run is to be resumed."""
        hook = DescriberHook(self.describer_conn_id)
        try:
            # A triggerer of Airflow 3.1 dies if a trigger is cancelled while it waits for an answer of its supervisor.
            await asyncio.shield(hook.aload())
        except Exception as error:  # noqa: BLE001  the worker that resumes reports it
            self.log.warning("The connection cannot be read here: %s", error)
            return
        vendor_calls = hook.vendor_calls()
        async with hook.client(CONNECTIONS, timeout=POLL_TIMEOUT_S) as client:

            async def look(request: str) -> None:
                if await client.arun(vendor_calls.has_ended(request)):
                    policy.note_ended([request], time.time())

            while not policy.is_due(time.time()):
                await asyncio.sleep(POLL_EVERY_S)
                # Without an end to the round, slow answers could delay it past the moment to resume.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_S):
                        await asyncio.gather(*map(look, policy.to_poll))

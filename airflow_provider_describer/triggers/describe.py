"""The trigger of `DescribeImagesOperator`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_describer.engine.deferral import SHORTEST_S, ResumeCondition
from airflow_provider_describer.hooks.describer import DescriberHook

POLL_EVERY_S = 15.0
"""Seconds between two polls of all running requests."""
CONNECTIONS = 4
"""How many requests are polled at the same time."""


class VendorTrigger(BaseTrigger):
    """Waits until a given time, or until requests that run at the vendor have ended. It sends only free GETs.

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
        wait = ResumeCondition(self.until, tuple((str(request_id), float(at)) for request_id, at in self.requests))
        latest = wait.not_later_than()
        if wait.until is None and wait.requests:
            await self._poll(wait, latest)
        elif latest is not None:
            await asyncio.sleep(max(0.0, latest - time.time()))
        # The wait may have been over at once.
        await asyncio.sleep(max(0.0, started + SHORTEST_S - time.time()))
        yield TriggerEvent({"carried": self.carried, "began": self.began})

    async def _poll(self, wait: ResumeCondition, latest: float | None) -> None:
        """Poll until no request runs any more, or until the vendor will soon forget their results."""
        hook = DescriberHook(self.describer_conn_id)
        try:
            # A triggerer of Airflow 3.1 dies if a trigger is cancelled while it waits for an answer of its supervisor.
            await asyncio.shield(hook.aload())
        except Exception as error:  # noqa: BLE001  the worker that resumes reports it
            self.log.warning("The connection cannot be read here: %s", error)
            return
        vendor_calls = hook.vendor_calls()
        running = [request_id for request_id, _ in wait.requests]
        async with hook.client(CONNECTIONS) as client:
            while running and (latest is None or time.time() < latest):
                await asyncio.sleep(POLL_EVERY_S)
                ended = await asyncio.gather(
                    *(client.arun(vendor_calls.has_ended(request_id)) for request_id in running)
                )
                running = [request_id for request_id, over in zip(running, ended, strict=True) if not over]

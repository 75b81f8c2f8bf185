"""The trigger of a task that waits for its vendor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_describer.engine.deferral import SHORTEST_S, ResumeCondition
from airflow_provider_describer.hooks.describer import DescriberHook

POLL_EVERY_S = 15.0
"""Between two looks at all running requests."""
AT_A_TIME = 4
"""Connections with which running requests are looked at."""


class VendorTrigger(BaseTrigger):
    """
    Waits until a moment, or until requests that run at the vendor have ended. Sends nothing but GETs, which are free.

    May be run again from the start, or twice at once: it changes nothing. It fires too early rather than never: whoever
    resumes plans again from the store.

    There is no ``on_kill``: no vendor lets a request be cancelled. What runs there when somebody clears or marks the
    task is paid for, stands in the store, and its result is fetched by the next run that asks for the image.

    :param describer_conn_id: the connection whose vendor is asked.
    :param until: epoch seconds, or None.
    :param requests: ``[request id, epoch seconds of its submission]`` each.
    :param carried: handed back in the event.
    :param began: epoch seconds at which the task began; handed back too.
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
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "describer_conn_id": self.describer_conn_id,
                "until": self.until,
                "requests": self.requests,
                "carried": self.carried,
                "began": self.began,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once with ``{"carried": …, "began": …}``."""
        started = time.time()
        wait = ResumeCondition(self.until, tuple((str(request_id), float(at)) for request_id, at in self.requests))
        latest = wait.not_later_than()
        if wait.until is None and wait.requests:
            await self._watch(wait, latest)
        elif latest is not None:
            await asyncio.sleep(max(0.0, latest - time.time()))
        # Waiting may have been over at once.
        await asyncio.sleep(max(0.0, started + SHORTEST_S - time.time()))
        yield TriggerEvent({"carried": self.carried, "began": self.began})

    async def _watch(self, wait: ResumeCondition, latest: float | None) -> None:
        """Poll until none of the requests runs any more, or their results would soon be forgotten."""
        hook = DescriberHook(self.describer_conn_id)
        try:
            # Cancelled in the middle of a question to its supervisor, a triggerer of Airflow 3.1 ends with all it runs.
            await asyncio.shield(hook.aload())
        except Exception as error:  # noqa: BLE001  whatever it is, the worker that resumes says it
            self.log.warning("The connection cannot be read here: %s", error)
            return
        vendor_calls = hook.vendor_calls()
        running = [request_id for request_id, _ in wait.requests]
        async with hook.client(AT_A_TIME) as client:
            while running and (latest is None or time.time() < latest):
                await asyncio.sleep(POLL_EVERY_S)
                ended = await asyncio.gather(
                    *(client.arun(vendor_calls.has_ended(request_id)) for request_id in running)
                )
                running = [request_id for request_id, over in zip(running, ended, strict=True) if not over]

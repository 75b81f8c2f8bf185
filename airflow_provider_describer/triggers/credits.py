"""The trigger of `CreditsSensor`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_describer.engine.deferral import SHORTEST_S
from airflow_provider_describer.errors import DescriberError, RetryLater
from airflow_provider_describer.hooks.describer import DescriberHook


class CreditsTrigger(BaseTrigger):
    """Asks for an account's balance until it is high enough, or until asking fails for good. Free of charge.

    It may fire too early, but never too late: the sensor looks again. The arguments are those of the sensor; it looks
    every ``poke_interval`` seconds, at least 15, and gives ``deadline`` back in its event.
    """

    def __init__(
        self, *, describer_conn_id: str, min_credits: float, poke_interval: float, deadline: float = 0.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow annotates no constructor of a trigger
        self.describer_conn_id = describer_conn_id
        self.min_credits = min_credits
        self.poke_interval = poke_interval
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("describer_conn_id", "min_credits", "poke_interval", "deadline")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once with ``{"deadline": …}``."""
        while True:
            # Sleeps first, because the worker has just looked.
            await asyncio.sleep(max(SHORTEST_S, self.poke_interval))
            try:
                # A new hook each time: the connection's key may have been replaced.
                if await DescriberHook(self.describer_conn_id).acredits() >= self.min_credits:
                    break
            except RetryLater as error:
                self.log.warning("The balance is not known now: %s", error)
            except DescriberError as error:
                # The sensor meets the same error and fails with it.
                self.log.warning("The balance cannot be read: %s", error)
                break
        yield TriggerEvent({"deadline": self.deadline})

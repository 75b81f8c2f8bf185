"""The trigger of a sensor that waits for an account to be topped up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_describer.engine.deferral import SHORTEST_S
from airflow_provider_describer.errors import DescriberError, RetryLater
from airflow_provider_describer.hooks.describer import DescriberHook


class CreditsTrigger(BaseTrigger):
    """
    Asks for the balance of an account until it is high enough, or nobody can tell any more. Free of charge.

    Fires too early rather than never: whoever resumes asks for itself.

    :param describer_conn_id: the connection.
    :param min_credits: USD.
    :param poke_interval: seconds between two looks; at least 15.
    :param deadline: epoch seconds; handed back in the event.
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
        """Return what the metadata database keeps."""
        names = ("describer_conn_id", "min_credits", "poke_interval", "deadline")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once with ``{"deadline": …}``."""
        while True:
            # The first look was the worker's.
            await asyncio.sleep(max(SHORTEST_S, self.poke_interval))
            try:
                # A hook of its own each time: somebody may have put another key into the connection.
                if await DescriberHook(self.describer_conn_id).acredits() >= self.min_credits:
                    break
            except RetryLater as error:
                self.log.warning("The balance is not known now: %s", error)
            except DescriberError as error:
                # The worker meets the same error, and ends with it.
                self.log.warning("The balance cannot be asked for: %s", error)
                break
        yield TriggerEvent({"deadline": self.deadline})

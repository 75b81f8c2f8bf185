"""The trigger of a sensor that waits for an account to be topped up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_describer.errors import DescriberError, RateLimited, VendorUnavailable
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.waiting import SHORTEST_S


class CreditsTrigger(BaseTrigger):
    """
    Asks for the balance of an account until it is high enough. Free of charge.

    :param describer_conn_id: the connection.
    :param min_credits: USD.
    :param poke_interval: seconds between two looks; at least 15.
    """

    def __init__(self, *, describer_conn_id: str, min_credits: float, poke_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow annotates no constructor of a trigger
        self.describer_conn_id = describer_conn_id
        self.min_credits = min_credits
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the metadata database keeps."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "describer_conn_id": self.describer_conn_id,
                "min_credits": self.min_credits,
                "poke_interval": self.poke_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once with ``{"balance": USD}``, or with ``{"error": text}`` where asking again would not help."""
        hook = DescriberHook(self.describer_conn_id)
        while True:
            # The first look was the worker's.
            await asyncio.sleep(max(SHORTEST_S, self.poke_interval))
            try:
                balance = await hook.acredits()
            except (RateLimited, VendorUnavailable) as error:
                self.log.warning("The balance is not known now: %s", error)
            except DescriberError as error:
                yield TriggerEvent({"error": str(error)})
                return
            else:
                if balance >= self.min_credits:
                    yield TriggerEvent({"balance": balance})
                    return

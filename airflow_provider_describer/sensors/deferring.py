"""What sensors have in common that wait in the triggerer: a look in the worker first, and one after each event."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, BaseSensorOperator, PokeReturnValue, conf

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger


class DeferringSensor(BaseSensorOperator):
    """
    Pokes as its mode says, or, deferrable, looks once and waits in the triggerer until another look may help.

    :param deferrable: wait in the triggerer and not in a worker.
    """

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    @abstractmethod
    def look(self, context: Context) -> PokeReturnValue:
        """Look once."""

    @abstractmethod
    def waits(self, deadline: float) -> BaseTrigger:
        """Return what waits after a look in vain. Its event hands back the deadline (epoch seconds)."""

    def poke(self, context: Context) -> PokeReturnValue:
        """Look, and in a deferrable task leave the worker where that was in vain."""
        found = self.look(context)
        if not found and self.deferrable:
            self._defer(time.time() + self.timeout)
        return found

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Look again, and return what has been found or wait on, no longer than the deadline."""
        found = self.look(context)
        if found:
            return found.xcom_value
        return self._defer(float(event["deadline"]))

    def _defer(self, deadline: float) -> None:
        left = deadline - time.time()
        if left <= 0:
            raise AirflowSensorTimeout(f"Sensor has timed out: it has waited for {self.timeout:.0f} s.")
        self.defer(trigger=self.waits(deadline), method_name="resume", timeout=timedelta(seconds=left))

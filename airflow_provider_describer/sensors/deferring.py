"""The base of sensors that wait in the triggerer: they look in the worker first, and again after each event."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_describer.operators.arguments import check_partial, given_arguments

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger


class DeferringSensor(BaseSensorOperator):
    """A sensor that pokes as its mode says or, if deferrable, looks once and defers until another look may help.

    :param deferrable: wait in the triggerer and not in a worker. By default as ``[operators] default_deferrable`` says.
        (templated)
    """

    template_fields: Sequence[str] = ("deferrable",)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        deferrable: bool | str = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return what is left to expand; raises `BadInput` for a value that cannot work."""
        check_partial(cls, kwargs)
        return super().partial(**kwargs)

    @cached_property
    def given(self) -> Any:
        """The values of all arguments of the task that runs, each as an attribute; raises `BadInput`, naming one."""
        return given_arguments(self)

    @abstractmethod
    def look(self, context: Context) -> PokeReturnValue:
        """Look once."""

    @abstractmethod
    def make_trigger(self, deadline: float) -> BaseTrigger:
        """Return what waits after a look in vain. Its event gives the deadline (epoch seconds) back."""

    def poke(self, context: Context) -> PokeReturnValue:
        """Look, and defer if that was in vain and the sensor is deferrable."""
        found = self.look(context)
        if not found and self.given.deferrable:
            self._defer(time.time() + self.timeout)
        return found

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Look again; return what was found, or defer again until the deadline."""
        found = self.look(context)
        if found:
            return found.xcom_value
        return self._defer(float(event["deadline"]))

    def _defer(self, deadline: float) -> None:
        left = deadline - time.time()
        if left <= 0:
            raise AirflowSensorTimeout(f"The sensor has timed out after {self.timeout:.0f} s.")
        self.defer(trigger=self.make_trigger(deadline), method_name="execute_complete", timeout=timedelta(seconds=left))

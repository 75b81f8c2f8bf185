"""Waits until an account has been topped up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_describer.errors import DescriberError, RateLimited, VendorUnavailable
from airflow_provider_describer.hooks.describer import DescriberHook, SegmindHook
from airflow_provider_describer.operators.failures import airflow_error, airflow_errors
from airflow_provider_describer.triggers.credits import CreditsTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class CreditsSensor(BaseSensorOperator):
    """
    Wait until the account of a connection has at least so many credits. Asking costs nothing.

    Put it before a task that has failed for want of credits: once somebody has topped up, the run goes on. Returns the
    balance in USD.

    :param describer_conn_id: connection of type ``segmind``; Image Describer publishes no balance and is refused with
        an error. (templated)
    :param min_credits: USD that the balance must have reached.
    :param deferrable: wait in the triggerer and not in a worker.
    """

    template_fields: Sequence[str] = ("describer_conn_id",)
    ui_color = "#e8f1ff"

    def __init__(
        self,
        *,
        describer_conn_id: str = SegmindHook.default_conn_name,
        min_credits: float,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.describer_conn_id = describer_conn_id
        self.min_credits = min_credits
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look at once, and wait as the mode says."""
        if not self.deferrable:
            return super().execute(context)
        if found := self.poke(context):
            return found.xcom_value
        return self.defer(
            trigger=CreditsTrigger(
                describer_conn_id=self.describer_conn_id,
                min_credits=self.min_credits,
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask for the balance; a vendor that cannot be reached now is asked again."""
        try:
            balance = DescriberHook(self.describer_conn_id).credits()
        except (RateLimited, VendorUnavailable) as error:
            self.log.warning("The balance is not known now: %s", error)
            return PokeReturnValue(is_done=False)
        except DescriberError as error:
            raise airflow_error(error) from error
        self.log.info("The balance is $%.3f; waiting for $%.3f.", balance, self.min_credits)
        return PokeReturnValue(is_done=balance >= self.min_credits, xcom_value=balance)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> float:
        """Return the balance that the trigger has seen, or end as it says."""
        if "error" in event:
            # The error itself does not come through the database: asked here again, the same one is raised.
            with airflow_errors():
                DescriberHook(self.describer_conn_id).credits()
            raise AirflowException(event["error"])
        return float(event["balance"])

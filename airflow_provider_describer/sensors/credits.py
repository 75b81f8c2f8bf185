"""The sensor that waits until an account has been topped up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_describer.errors import RetryLater
from airflow_provider_describer.hooks.describer import DescriberHook, SegmindHook
from airflow_provider_describer.links.describer import VendorLink, show_links
from airflow_provider_describer.models import format_usd
from airflow_provider_describer.operators.arguments import check_arguments
from airflow_provider_describer.operators.base import task_instance_key
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.sensors.deferring import DeferringSensor
from airflow_provider_describer.triggers.credits import CreditsTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class CreditsSensor(DeferringSensor):
    """Wait until the account of a connection has enough credits. Asking costs nothing.

    Put it before a task that fails for want of credits: once the account has been topped up, the run goes on. Returns
    the balance in USD.

    It also takes the argument of :class:`~airflow_provider_describer.sensors.deferring.DeferringSensor`.

    :param describer_conn_id: connection of type ``segmind``. Image Describer publishes no balance: the task fails.
        (templated)
    :param min_credits: the balance to wait for, in USD. (templated)
    """

    template_fields: Sequence[str] = ("describer_conn_id", "min_credits", *DeferringSensor.template_fields)
    operator_extra_links = (VendorLink(),)

    def __init__(
        self, *, describer_conn_id: str = SegmindHook.default_conn_name, min_credits: float | str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.describer_conn_id = describer_conn_id
        self.min_credits = min_credits
        check_arguments(self)

    def look(self, context: Context) -> PokeReturnValue:
        """Ask for the balance. If the vendor cannot be reached now, the next look asks again."""
        with airflow_errors():
            given, hook = self.given, DescriberHook(self.given.describer_conn_id)
            show_links(self, task_instance_key(context), dashboard=hook.vendor.dashboard_url)
            try:
                balance = hook.credits()
            except RetryLater as error:
                self.log.warning("The balance is not known now: %s", error)
                return PokeReturnValue(is_done=False)
        wanted = f"waiting for {format_usd(given.min_credits)}" if balance < given.min_credits else "that is enough"
        self.log.info("The balance is %s; %s.", format_usd(balance), wanted)
        return PokeReturnValue(is_done=balance >= given.min_credits, xcom_value=balance)

    def make_trigger(self, deadline: float) -> CreditsTrigger:
        return CreditsTrigger(
            describer_conn_id=self.given.describer_conn_id,
            min_credits=self.given.min_credits,
            poke_interval=self.poke_interval,
            deadline=deadline,
        )

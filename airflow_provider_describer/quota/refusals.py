"""What is said where an account's own limits allow no call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import RateLimited
from airflow_provider_describer.models import format_usd


def day_is_spent(account: Account, now: float) -> RateLimited:
    """Return the error for a day whose ``max_cost_per_day`` is spent; it works again from the next UTC midnight."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return RateLimited(
        f"Connection {account.conn_id!r}: max_cost_per_day is {format_usd(account.max_cost_per_day)}, and what is left "
        f"of it today does not pay for another call (price_per_call {format_usd(account.price_per_call)}). Nothing was "
        f"sent. Try again from {midnight:%Y-%m-%dT%H:%MZ}, or raise the limit under Admin > Connections.",
        kind="day_budget_spent",
        retry_at=midnight.timestamp(),
    )


def must_wait(account: Account, at: float, paused_until: float) -> RateLimited:
    """Return the error for a wait that is longer than the caller may sit out.

    :param at: epoch seconds at which a call may start.
    :param paused_until: epoch seconds before which the vendor wants no call.
    """
    why = (
        f"requests_per_minute is {account.requests_per_minute:g}"
        if account.requests_per_minute
        else "what is left of max_cost_per_day is set aside for calls under way"
    )
    if paused_until >= at - 1.0:
        why = "the vendor has asked for a pause"
    moment = datetime.fromtimestamp(at, UTC)
    return RateLimited(
        f"Connection {account.conn_id!r}: {why}, and the next call may start at {moment:%Y-%m-%dT%H:%M:%SZ}. Nothing "
        "was sent. Try again then.",
        retry_at=at,
    )

"""An account at a vendor, as an Airflow connection describes it. Knows nothing of Airflow."""

from __future__ import annotations

from airflow_provider_describer.account.account import Account, Defaults, ImageTransport, account_from_connection
from airflow_provider_describer.account.fields import Field

__all__ = ["Account", "Defaults", "Field", "ImageTransport", "account_from_connection"]

"""From a connection's account to its limits: which document, and what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadConnection, BadInput
from airflow_provider_describer.quota.leases import Rate
from airflow_provider_describer.quota.shared import SharedLimits
from airflow_provider_describer.storage.address import bucket_address, local_path
from airflow_provider_describer.storage.cas_document import BucketDocument, CasDocument, LocalDocument

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket


def open_quota(
    account: Account, open_bucket: OpenBucket | None = None, *, clock: Callable[[], float] = time.time
) -> SharedLimits:
    """Return the account's limits, not yet entered: shared where it has a ``limits_path``, else of this task alone.

    :raises BadConnection: for a ``limits_path`` that cannot be shared.
    """
    rate = Rate(account.requests_per_minute) if account.requests_per_minute else None
    cell = open_document(account, open_bucket) if account.limits_path else None
    return SharedLimits(
        cell, rate=rate, max_cost_per_day=account.max_cost_per_day, price=account.price_per_call, clock=clock
    )


def open_document(account: Account, open_bucket: OpenBucket | None = None) -> CasDocument:
    """Return the document of the account's limits; nothing is read yet."""
    path, name = account.limits_path or "", document_name(account.vendor, account.conn_id)
    try:
        address = bucket_address(path)
    except BadInput as error:
        raise _wrong(account, f"{error}") from None
    if address is not None:
        if open_bucket is None:
            raise _wrong(account, f"lies in {address.scheme}://{address.bucket}, and nothing here can open a bucket.")
        folder = address.key.rstrip("/")
        return BucketDocument(open_bucket(address.scheme, address.bucket), f"{folder}/{name}" if folder else name)
    folder_path = local_path(path) if "://" not in path or path.lower().startswith("file://") else None
    if folder_path is None or not folder_path.is_absolute():
        # A relative path would be another folder for every process that is started elsewhere.
        raise _wrong(account, "is no address that processes can share: expected /a/folder, s3://… or gs://….")
    return LocalDocument(folder_path / name)


def document_name(vendor: str, conn_id: str) -> str:
    """Return the document's file name: another one for every vendor and connection id."""
    # Dots too: a name that begins with one would be hidden.
    name = quote(f"{vendor}--{conn_id}", safe="").replace(".", "%2E")
    if len(name) > 200:
        name = f"{name[:160]}--{blake2b(name.encode(), digest_size=16).hexdigest()}"
    return f"{name}.limits.json"


def _wrong(account: Account, what: str) -> BadConnection:
    return BadConnection(f"Connection {account.conn_id!r}: limits_path {what} Correct it under Admin > Connections.")

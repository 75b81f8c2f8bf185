"""The shared state as a JSON document. It is checked field by field: money that it forgot would be spent again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import BadConnection, BadInput, StoreError
from airflow_provider_describer.quota.leases import Grant, Lease, Leases, Money
from airflow_provider_describer.storage.cas_document import CasDocument, change_document
from airflow_provider_describer.storage.open_bucket import OpenBucket
from airflow_provider_describer.storage.redis_document import open_shared_document

FORMAT, VERSION = "airflow-provider-describer limits", 1

Step = Callable[[Leases, float], tuple[Leases, Grant]]
"""From the state and the clock to the next state and what it grants."""


class LeaseDocument:
    """The shared state in its document. Blocking: call it in a thread."""

    def __init__(self, document: CasDocument, clock: Callable[[], float]) -> None:
        self._document, self._clock = document, clock
        self._exists = False

    def read(self) -> Leases:
        """Return the state; raise `StoreError` where the document cannot be read, is damaged or newer, or vanished."""
        return self._decode(self._document.load()[0])

    def change(self, step: Step) -> Grant:
        """Apply the step to the state, again where another process was faster. An unchanged state is not written.

        :raises StoreError: as `read`; and where it cannot be written, or it is unknown whether it was.
        """
        grants: list[Grant] = []

        def apply(content: bytes | None) -> bytes | None:
            leases = self._decode(content)
            changed, grant = step(leases, self._clock())
            grants.append(grant)
            return None if grant.expired or changed == leases else encode_leases(changed)

        self._exists = change_document(self._document, apply)[0] is not None
        return grants[-1]

    def _decode(self, content: bytes | None) -> Leases:
        if content is None and self._exists:
            raise StoreError(
                f"{self._document.where} has vanished while it was in use. It counts what this connection has spent "
                "today, so no further call is made. Restore it, or run again, which counts from zero.",
                kind="limits",
            )
        self._exists = self._exists or content is not None
        return decode_leases(self._document.where, content)


def encode_leases(leases: Leases) -> bytes:
    """Return the state as bytes: the fields of `Leases` and `Lease` are the keys of the JSON document."""
    document = {"format": FORMAT, "version": VERSION, **asdict(leases)}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode_leases(where: str, content: bytes | None) -> Leases:
    """Return the state; a new one where ``content`` is None. Errors name the address, ``where``.

    :raises StoreError: ``kind`` is ``corrupt_limits``; where the document is damaged or of another version.
    """
    if content is None:
        return Leases()
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise ValueError("another format")
        if document["version"] != VERSION:
            raise StoreError(
                f"{where} was written in version {document['version']!r} of its format; this release reads version "
                f"{VERSION}. Install one version of airflow-provider-describer on all workers. No call was made.",
                kind="corrupt_limits",
            )
        return Leases(
            next_at=_time(document["next_at"]),
            free=tuple(_time(slot) for slot in document["free"]),
            paused_until=_time(document["paused_until"]),
            spent=_money(document["spent"]),
            holders={name: _lease(lease) for name, lease in document["holders"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StoreError(
            f"{where} is damaged. It counts what this connection has spent today, so no call is made. Restore it; or "
            "remove it while no task runs: today's spending is then counted from zero.",
            kind="corrupt_limits",
        ) from None


def _lease(value: Mapping[str, Any]) -> Lease:
    until, sharing_until = _time(value["until"]), _time(value["sharing_until"])
    return Lease(until, sharing_until, _money(value["spent"]), _money(value["held"]))


def _money(value: Mapping[str, Any]) -> Money:
    return {day: int(_checked(amount, int)) for day, amount in value.items()}


def _time(value: object) -> float:
    return float(_checked(value, (int, float)))


def _checked(value: Any, types: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, types) or not 0 <= value < math.inf:
        raise ValueError("neither a time nor an amount")
    return value


def open_limits_document(account: Account, open_bucket: OpenBucket | None = None) -> CasDocument:
    """Return the document at the account's ``limits_path``; nothing is read yet.

    :raises BadConnection: where processes cannot share that path.
    """
    name = document_name(account.vendor, account.conn_id)
    try:
        return open_shared_document("the path", account.limits_path or "", name, open_bucket)
    except BadInput as error:
        raise BadConnection(
            f"Connection {account.conn_id!r}: limits_path is wrong: {error} Correct it under Admin > Connections."
        ) from None


def document_name(vendor: str, conn_id: str) -> str:
    """Return the document's file name, which differs for every vendor and connection id."""
    # A name with a dot at its start would be hidden.
    name = quote(f"{vendor}--{conn_id}", safe="").replace(".", "%2E")
    if len(name) > 200:
        name = f"{name[:160]}--{blake2b(name.encode(), digest_size=16).hexdigest()}"
    return f"{name}.limits.json"

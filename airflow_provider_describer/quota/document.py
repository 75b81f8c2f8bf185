"""The document as bytes: JSON of one version, checked field by field, as what it forgets would be spent again."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.leases import Grant, Lease, Leases, Money
from airflow_provider_describer.storage.cas_document import CasDocument, Changed, Token

VERSION = 1
_FORMAT = "airflow-provider-describer limits"
TRIES = 20
"""Swaps that others were faster at, one after the other, before an exchange is left for later."""

Step = Callable[[Leases, float], tuple[Leases, Grant]]
"""From the document and the clock to the next document and what came of it."""


class LeaseDocument:
    """The document in its cell. Blocking: for a thread of its own.

    ``exchanges`` counts the steps, ``swaps`` the attempts at writing that they took.
    """

    def __init__(self, cell: CasDocument, clock: Callable[[], float]) -> None:
        self._cell, self._clock = cell, clock
        self._seen = False
        self.exchanges = self.swaps = 0

    def read(self) -> Leases:
        """Return what it says now.

        :raises StoreError: where it cannot be read, is damaged, newer, or has vanished while it was used.
        """
        return self._load()[0]

    def change(self, step: Step) -> Grant:
        """Apply the step to what it says now, and again where others were faster; write only what changes something.

        :raises StoreError: as `read` does, and where it cannot be written; nobody may know then whether it was.
        """
        self.exchanges += 1
        for number in range(TRIES):
            leases, token = self._load()
            changed, grant = step(leases, self._clock())
            if grant.expired or changed == leases:
                return grant
            try:
                self.swaps += 1
                self._cell.swap(encode_leases(changed), token)
            except Changed:
                pause = max(0.002, self._cell.rest / 20) * 2.0 ** min(number, 5)
            except StoreError as error:
                if error.kind != "throttled":
                    raise
                pause = 2 * self._cell.rest
            else:
                self._seen = True
                return grant
            time.sleep(pause * random.random())  # noqa: S311  no secret
        raise StoreError(f"{self._cell.where} is written by others all the time.", kind="throttled")

    def _load(self) -> tuple[Leases, Token]:
        content, token = self._cell.load()
        if content is None and self._seen:
            raise StoreError(
                f"{self._cell.where} has vanished while it was used. It counts what this connection has spent today, "
                "so nothing more is called. Restore it; or run again, which counts from zero.",
                kind="limits",
            )
        self._seen = self._seen or content is not None
        return decode_leases(self._cell.where, content), token


def encode_leases(leases: Leases) -> bytes:
    """Return the document as bytes."""
    document = {
        "format": _FORMAT,
        "version": VERSION,
        "next_at": leases.next_at,
        "free": leases.free,
        "paused_until": leases.paused_until,
        "spent": leases.spent,
        "holders": {
            name: {
                "until": lease.until,
                "sharing_until": lease.sharing_until,
                "spent": lease.spent,
                "held": lease.held,
            }
            for name, lease in leases.holders.items()
        },
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode_leases(where: str, content: bytes | None) -> Leases:
    """Return the document; a new one where there is none yet (``content`` is None).

    :param where: where it lies, for errors.
    :raises StoreError: ``kind`` is ``corrupt_limits``; where it is damaged or of a newer version.
    """
    if content is None:
        return Leases()
    try:
        document = json.loads(content)
        if document["format"] != _FORMAT:
            raise ValueError("it is no such document")
        if document["version"] != VERSION:
            raise StoreError(
                f"{where} was written in version {document['version']!r} of its format; this release reads version "
                f"{VERSION}. Have one version of airflow-provider-describer on all workers; nothing has been called.",
                kind="corrupt_limits",
            )
        return Leases(
            next_at=_moment(document["next_at"]),
            free=tuple(_moment(moment) for moment in document["free"]),
            paused_until=_moment(document["paused_until"]),
            spent=_money(document["spent"]),
            holders={name: _lease(lease) for name, lease in document["holders"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StoreError(
            f"{where} is damaged. It counts what this connection has spent today, so nothing is called. Restore it; or "
            "remove it while no task runs, which means that today's spending is counted from zero.",
            kind="corrupt_limits",
        ) from None


def _lease(value: Mapping[str, Any]) -> Lease:
    return Lease(
        until=_moment(value["until"]),
        sharing_until=_moment(value["sharing_until"]),
        spent=_money(value["spent"]),
        held=_money(value["held"]),
    )


def _moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError("no moment")
    return float(value)


def _money(value: Mapping[str, object]) -> Money:
    money: dict[str, int] = {}
    for day, amount in value.items():
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
            raise ValueError("no sum")
        money[day] = amount
    return money

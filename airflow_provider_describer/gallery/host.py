"""What the page needs of the server that it is in: who asks, the settings, and the connections of stores."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_describer.storage.open_bucket import OpenBucket


class NoAccess(Exception):
    """Whoever asks is logged in and may not see the page."""


class Reader(Protocol):
    """Whoever asks, who may see the page."""

    def readable(self, dag_ids: Collection[str]) -> frozenset[str]:
        """Return which of these DAGs this reader may read."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the page is told by the server that it is in.

    :param reader: a FastAPI dependency that returns the `Reader`. It raises HTTPException 401 or 403 where the request
        has no valid login, and `NoAccess` for a user without the right.
    :param login: returns the address of a login form that leads to a path afterwards.
    :param stores: returns the setting ``[describer] stores``.
    :param images: returns the setting ``[describer] images``.
    :param open_bucket: returns what opens buckets with a ``storage_conn_id``, or with the default connections.
    """

    reader: Callable[..., Any]
    login: Callable[[str], str]
    stores: Callable[[], str]
    images: Callable[[], str]
    open_bucket: Callable[[str | None], OpenBucket]

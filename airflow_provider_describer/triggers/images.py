"""Triggers that notice new images. They only list: no image is read, and nothing is paid."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_describer.arrivals.snapshot import ArrivalTerms, fingerprint_of
from airflow_provider_describer.arrivals.watcher import HANDED_OVER_S, ArrivalWatcher
from airflow_provider_describer.engine.deferral import SHORTEST_S
from airflow_provider_describer.engine.task_arguments import read_arguments
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.storage.open_bucket import OpenBucket


class ListingTrigger(BaseTrigger):
    """Waits for `NewImagesSensor` until a listing has changed or a time has come. It may fire too early, but never too
    late: the sensor looks again.

    :param fingerprint: of the listing before.
    :param poll_interval: seconds between two listings; at least 15.
    :param until: epoch seconds at which to fire in any case, or None.
    :param deadline: epoch seconds; given back in the event.
    """

    def __init__(
        self,
        *,
        path: str,
        fingerprint: str,
        types: Sequence[str] | None = None,
        storage_conn_id: str | None = None,
        poll_interval: float = 60.0,
        until: float | None = None,
        deadline: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow annotates no constructor of a trigger
        self.path = path
        self.fingerprint = fingerprint
        self.types = None if types is None else list(types)
        self.storage_conn_id = storage_conn_id
        self.poll_interval = poll_interval
        self.until = until
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("path", "fingerprint", "types", "storage_conn_id", "poll_interval", "until", "deadline")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once with ``{"deadline": …}``."""
        pause, open_bucket = max(SHORTEST_S, self.poll_interval), None
        while True:
            due = self.until is not None and self.until - time.time() <= pause
            await asyncio.sleep(max(SHORTEST_S, (self.until or 0.0) - time.time()) if due else pause)
            if due:
                break
            try:
                open_bucket = open_bucket or await open_buckets(self.storage_conn_id, self.path)
                if await asyncio.to_thread(fingerprint_of, self.path, open_bucket, self.types) != self.fingerprint:
                    break
            except (DescriberError, AirflowException) as error:
                # The sensor meets the same error and knows whether to wait on.
                self.log.warning("%s cannot be listed now: %s", self.path, error)
                break
        yield TriggerEvent({"deadline": self.deadline})


class NewImagesTrigger(BaseEventTrigger):
    """Fires an event whenever there are new or changed images in a bucket or a folder; for an ``AssetWatcher``.

    The event's ``extra["payload"]`` is ``{"delta": id, "count", "images", "path", "state"}``: ``images`` is a list as
    ``DescribeImagesOperator(images=…)`` takes it, or the path of a file that lists them. At the first look every image
    is new.

    What was seen is kept in ``state_path``, so no image is lost when a triggerer ends, is killed or runs the trigger
    twice. Each event is fired at least once. A triggerer that ends within 30 seconds of firing may not have stored the
    event, so it is fired again, with the same ``delta`` and the same images; ``arrived_images`` (in
    ``operators.assets``) drops the duplicate, and with a store nothing is paid twice. A paused DAG gets no events.

    The state remembers the 100 000 images that were changed last: in a larger folder, an image that appears or is
    changed with an older time is missed. If listing fails, the triggerer's log says why, and the next look tries again.

    :param path: ``s3://bucket/inbox``, ``gs://…``, an absolute path or a pattern, as for ``ListImagesOperator``.
    :param state_path: a folder for the state of this path alone, in a bucket or as an absolute path.
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for both; by default ``aws_default``
        or ``google_cloud_default``.
    :param types: suffixes of names, such as ``["jpg", "png"]``; ``["*"]`` for every name. By default those of images.
    :param min_images: wait for at least this many new images.
    :param settle_seconds: wait until each of them is at least this old, and no local file grows between two looks.
    :param poll_interval: seconds between two looks.
    :param inline_limit: the most images that the event itself lists; more are listed in a file below ``state_path``.
    :raises BadInput: naming an argument that cannot work.
    """

    def __init__(
        self,
        *,
        path: Any,
        state_path: Any,
        storage_conn_id: str | None = None,
        types: Sequence[str] | None = None,
        min_images: int = 1,
        settle_seconds: float = 0.0,
        poll_interval: float = 60.0,
        inline_limit: int = 100,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow annotates no constructor of a trigger
        # Read here, so that the DAG's import error shows a mistake and not only the triggerer's log.
        given = read_arguments(
            {
                "path": path,
                "state_path": state_path,
                "storage_conn_id": storage_conn_id,
                "types": types,
                "min_images": min_images,
                "settle_seconds": settle_seconds,
                "poll_interval": poll_interval,
                "inline_limit": inline_limit,
            },
            now=0.0,
        )
        self.path: str = given.path
        self.state_path: str = given.state_path
        self.storage_conn_id: str | None = given.storage_conn_id
        self.types: list[str] | None = given.types
        self.min_images: int = given.min_images
        self.settle_seconds: float = given.settle_seconds
        self.poll_interval: float = given.poll_interval
        self.inline_limit: int = given.inline_limit

    def serialize(self) -> tuple[str, dict[str, Any]]:
        # Equal arguments make an equal trigger.
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire whenever images have arrived; never ends."""
        watcher: ArrivalWatcher | None = None
        logged = ""
        while True:
            delta = None
            try:
                watcher = watcher or await self._watcher()
                delta = await asyncio.to_thread(watcher.look)
                status = watcher.status
            except (DescriberError, AirflowException) as error:
                # Goes on, because Airflow would start a failed trigger again at once, over and over.
                status = f"{type(error).__name__}: {error}"
                self.log.error("%s: %s", self.path, status)
            else:
                if status != logged:
                    self.log.info("%s: %s", self.path, status or "new images")
            logged = status
            if delta is not None:
                yield TriggerEvent(delta)
            await asyncio.sleep(self.poll_interval if delta is None else HANDED_OVER_S)

    async def _watcher(self) -> ArrivalWatcher:
        return ArrivalWatcher(
            self.path,
            self.state_path,
            await open_buckets(self.storage_conn_id, self.path, self.state_path),
            self.types,
            ArrivalTerms(self.min_images, self.settle_seconds),
            self.inline_limit,
            time.time,
        )


async def open_buckets(storage_conn_id: str | None, *paths: str) -> OpenBucket:
    """Open the buckets of these paths, in the one kind of thread in which a triggerer can read connections."""
    open_bucket = buckets_of(storage_conn_id)
    await sync_to_async(open_ahead)(open_bucket, paths)
    return open_bucket

"""Triggers that see images arrive. They list, and read or pay for none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_describer.arguments import as_path, check_seconds
from airflow_provider_describer.arrivals.snapshot import ArrivalTerms, fingerprint_of
from airflow_provider_describer.arrivals.watcher import HANDED_OVER_S, ArrivalWatcher, parse_state_path
from airflow_provider_describer.engine.deferral import SHORTEST_S
from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.hooks.storage import buckets_of, open_ahead
from airflow_provider_describer.storage.open_bucket import OpenBucket


class ListingTrigger(BaseTrigger):
    """
    Waits until a listing is another one than it was, or a moment has come. Fires too early rather than never: whoever
    resumes looks for itself.

    :param path: what is listed.
    :param fingerprint: of the listing as it was.
    :param types: suffixes of names, as for ``NewImagesSensor``.
    :param storage_conn_id: connection for a bucket.
    :param poll_interval: seconds between two listings; at least 15.
    :param until: epoch seconds at which to fire in any case, or None.
    :param deadline: epoch seconds; handed back in the event.
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
        """Return what the metadata database keeps."""
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
                open_bucket = open_bucket or await opened(self.storage_conn_id, self.path)
                if await asyncio.to_thread(fingerprint_of, self.path, open_bucket, self.types) != self.fingerprint:
                    break
            except (DescriberError, AirflowException) as error:
                # The worker meets the same error, and knows whether it may pass.
                self.log.warning("%s cannot be listed now: %s", self.path, error)
                break
        yield TriggerEvent({"deadline": self.deadline})


_ARGUMENTS = (
    "path",
    "state_path",
    "storage_conn_id",
    "types",
    "min_images",
    "settle_seconds",
    "poll_interval",
    "inline_limit",
)


class NewImagesTrigger(BaseEventTrigger):
    """
    Tells again and again what is new or changed in a bucket or a folder; for an ``AssetWatcher``.

    The event's ``extra["payload"]`` is ``{"delta": id, "count", "images", "path", "state"}``: ``images`` is a list as
    ``DescribeImagesOperator(images=…)`` takes it, or the path of a file that lists them. At the first look every image
    is new.

    What has been seen is kept in ``state_path``, so that a triggerer which ends, is killed or runs the trigger twice
    loses no image. An event is fired at least once: a triggerer that ends within half a minute after it was fired may
    have told the database or not, so it comes again, with the same ``delta`` and the same images; never otherwise.
    ``arrived_images`` (in ``operators.assets``) drops what came twice, and with a store nothing is paid for twice. What
    fires while a DAG is paused, Airflow keeps from that DAG.

    Of a folder with more than 100 000 images an older one is not noticed where it appears, or is changed, with a time
    before that of the 100 000 latest. Where listing fails, the triggerer's log says why, and it is tried again.

    :param path: ``s3://bucket/inbox``, ``gs://…``, a folder or a pattern, as for ``ListImagesOperator``.
    :param state_path: a folder for this path's memory, local or in a bucket; another one for each path.
    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform`` for both; by default ``aws_default``
        or ``google_cloud_default``.
    :param types: suffixes of names, such as ``["jpg", "png"]``; ``["*"]`` for every name. By default those of images.
    :param min_images: so many new images before an event is fired.
    :param settle_seconds: and none of them younger than that, nor, of local files, growing between two looks.
    :param poll_interval: seconds between two looks.
    :param inline_limit: images that the event names itself; of more it names a file below ``state_path``.
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
        self.path = _text("path", path)
        self.state_path = _text("state_path", state_path)
        self.storage_conn_id = storage_conn_id
        self.types = None if types is None else list(types)
        self.min_images = min_images
        self.settle_seconds = settle_seconds
        self.poll_interval = poll_interval
        self.inline_limit = inline_limit
        # Where the DAG is parsed, and not in a log that nobody reads.
        ArrivalTerms(min_images, settle_seconds)
        parse_state_path(self.state_path)
        check_seconds("poll_interval", poll_interval, 1)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the metadata database keeps; the same arguments, the same trigger."""
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in _ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire whenever images have arrived; never ends."""
        watch: ArrivalWatcher | None = None
        said = ""
        while True:
            delta = None
            try:
                watch = watch or await self._watch()
                delta = await asyncio.to_thread(watch.look)
                now_said = watch.status
            except (DescriberError, AirflowException) as error:
                # Going on: a trigger that has failed is started again at once, over and over.
                now_said = f"{type(error).__name__}: {error}"
                self.log.error("%s: %s", self.path, now_said)
            else:
                if now_said != said:
                    self.log.info("%s: %s", self.path, now_said or "new images")
            said = now_said
            if delta is not None:
                yield TriggerEvent(delta)
            await asyncio.sleep(self.poll_interval if delta is None else HANDED_OVER_S)

    async def _watch(self) -> ArrivalWatcher:
        return ArrivalWatcher(
            self.path,
            self.state_path,
            await opened(self.storage_conn_id, self.path, self.state_path),
            self.types,
            ArrivalTerms(self.min_images, self.settle_seconds),
            self.inline_limit,
            time.time,
        )


async def opened(storage_conn_id: str | None, *paths: str) -> OpenBucket:
    """Open the buckets of these paths in a triggerer, whose connections only `sync_to_async` reads from a thread."""
    open_bucket = buckets_of(storage_conn_id)
    await sync_to_async(open_ahead)(open_bucket, paths)
    return open_bucket


def _text(name: str, path: object) -> str:
    text = as_path(path)
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{name} is {text!r}, expected something like 's3://bucket/inbox'.")
    return text

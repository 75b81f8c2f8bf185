"""Get an image's bytes out of what a client sent, and look at each distinct image once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_describer.emulator.fetch import FetchError, fetch
from airflow_provider_describer.emulator.image_info import Sight, UnreadableError, look

MOST_BYTES = 25 * 1024 * 1024
SIGHTS_KEPT = 4096
QUICK_BYTES = 1024 * 1024
DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>.*)", re.DOTALL)

A = TypeVar("A")
R = TypeVar("R")


class ImageRefusedError(Exception):
    """The image cannot be had or read; the message says why."""


@dataclass(frozen=True, slots=True)
class Received:
    """An image as it arrived: its bytes, how they came, and the media type that was claimed for them."""

    data: bytes
    via: str
    claimed_type: str | None = None


class Intake:
    """Reads images off the event loop, and each distinct one only once."""

    def __init__(self) -> None:
        # Fetching waits for the network; decoding must not wait behind it.
        self.fetchers = ThreadPoolExecutor(32, thread_name_prefix="fetch")
        self.workers = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self.sights: OrderedDict[str, asyncio.Future[Sight]] = OrderedDict()

    async def receive(self, uri: str, timeout_s: float) -> Received:
        """Return what a data URI holds or an http(s) URL leads to; raise ImageRefusedError for others."""
        if uri.startswith("data:"):
            return await self.run(from_data_uri, uri)
        if not uri.startswith(("http://", "https://")):
            raise ImageRefusedError("image is neither an http(s) URL nor a base64 data URI")
        loop = asyncio.get_running_loop()
        try:
            data = await loop.run_in_executor(self.fetchers, fetch, uri, MOST_BYTES, timeout_s)
        except FetchError as error:
            raise ImageRefusedError(f"image URL could not be fetched: {error}") from error
        return Received(data, "url")

    async def fingerprint(self, received: Received) -> str:
        return await self.run(sha256, received.data)

    async def look(self, received: Received, fingerprint: str) -> Sight:
        """Return what the image shows; raise ImageRefusedError where it is no whole image of its type."""
        if len(received.data) > MOST_BYTES:
            raise ImageRefusedError(f"image of {len(received.data)} bytes is larger than {MOST_BYTES}")
        try:
            sight = await asyncio.shield(self.sight(received.data, fingerprint))
        except UnreadableError as error:
            # The error is kept for the next time, and would gather a longer traceback at each.
            raise ImageRefusedError(f"image cannot be used: {error.with_traceback(None)}") from None
        if received.claimed_type not in (None, sight.media_type):
            raise ImageRefusedError(
                f"image was sent as {received.claimed_type!r} but is {sight.media_type!r}",
            )
        return sight

    def sight(self, data: bytes, fingerprint: str) -> asyncio.Future[Sight]:
        known = self.sights.get(fingerprint)
        if known is None:
            loop = asyncio.get_running_loop()
            known = loop.run_in_executor(self.workers, look, data, fingerprint)
            self.sights[fingerprint] = known
            if len(self.sights) > SIGHTS_KEPT:
                self.sights.popitem(last=False)
        else:
            self.sights.move_to_end(fingerprint)
        return known

    async def run(self, work: Callable[[A], R], argument: A) -> R:
        # Handing a small one to a thread costs more than the work itself.
        if isinstance(argument, str | bytes) and len(argument) < QUICK_BYTES:
            return work(argument)
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, argument)


def from_data_uri(uri: str) -> Received:
    """Return the image in a base64 data URI; raise ImageRefusedError where it is not one."""
    found = DATA_URI.fullmatch(uri)
    if found is None:
        raise ImageRefusedError("image is not a data URI of the form data:image/jpeg;base64,…")
    try:
        data = base64.b64decode(found["data"], validate=True)
    except binascii.Error as error:
        raise ImageRefusedError(f"image is a data URI with broken base64 ({error})") from error
    return Received(data, "inline", found["type"].lower())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Get an image's bytes from what a client sent: a file, a data URI or a URL; and measure each distinct image once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from airflow_provider_describer.emulator.image_info import ImageInfo, ImageRefusedError, measure

MAX_BYTES = 25 * 1024 * 1024
DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>.*)", re.DOTALL)
LOOPBACK = re.compile(r"localhost|127\.[\d.]+|::1")


@dataclass(frozen=True, slots=True)
class ReceivedImage:
    """An image as it arrived. `via` is file, inline or url; `claimed_type` is the media type the client gave."""

    data: bytes
    via: str
    claimed_type: str | None = None


class ImageReader:
    """Fetches and decodes images outside the event loop, and measures each distinct image once."""

    def __init__(self) -> None:
        # Two pools, so that decoding never waits for the network.
        self.fetchers = ThreadPoolExecutor(32, thread_name_prefix="fetch")
        self.workers = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self.infos: dict[str, asyncio.Future[ImageInfo]] = {}

    async def load(self, uri: str, timeout_s: float) -> ReceivedImage:
        """Return the image in a data URI or behind an http(s) URL; raise ImageRefusedError if there is none."""
        if uri.startswith("data:"):
            return from_data_uri(uri)
        if not uri.startswith(("http://", "https://")):
            raise ImageRefusedError("image is neither an http(s) URL nor a base64 data URI")
        data = await asyncio.get_running_loop().run_in_executor(self.fetchers, fetch, uri, timeout_s)
        return ReceivedImage(data, "url")

    async def measure(self, received: ReceivedImage, sha256: str) -> ImageInfo:
        """Return the image's measurements; raise ImageRefusedError if it is incomplete or of another type."""
        if len(received.data) > MAX_BYTES:
            raise ImageRefusedError(f"image of {len(received.data)} bytes is larger than {MAX_BYTES}")
        if sha256 not in self.infos:
            loop = asyncio.get_running_loop()
            self.infos[sha256] = loop.run_in_executor(self.workers, measure, received.data, sha256)
        try:
            info = await asyncio.shield(self.infos[sha256])
        except ImageRefusedError as error:
            # A new error: the cached one would collect a longer traceback each time it is raised.
            raise ImageRefusedError(str(error.with_traceback(None))) from None
        if received.claimed_type not in (None, info.media_type):
            raise ImageRefusedError(f"image was sent as {received.claimed_type!r} but is {info.media_type!r}")
        return info


def from_data_uri(uri: str) -> ReceivedImage:
    """Return the image in a base64 data URI; raise ImageRefusedError if it is not one."""
    match = DATA_URI.fullmatch(uri)
    if match is None:
        raise ImageRefusedError("image is not a data URI of the form data:image/jpeg;base64,…")
    try:
        data = base64.b64decode(match["data"], validate=True)
    except binascii.Error as error:
        raise ImageRefusedError(f"image is a data URI with broken base64 ({error})") from error
    return ReceivedImage(data, "inline", match["type"].lower())


def fetch(url: str, timeout_s: float) -> bytes:
    """Fetch an image like a vendor does; raise ImageRefusedError, without the URL in it, if that fails."""
    deadline = time.monotonic() + timeout_s
    body = bytearray()
    try:
        request = urllib.request.Request(url, headers={"user-agent": "describer-emulator"})  # noqa: S310  see opener_for
        with opener_for(url).open(request, timeout=timeout_s) as response:
            while piece := response.read1(65536):
                body += piece
                if len(body) > MAX_BYTES:
                    raise ValueError(f"it is larger than {MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise ValueError("it took too long")
            expected = response.headers.get("content-length")
        if expected is not None and expected.isdecimal() and int(expected) != len(body):
            raise ValueError(f"it broke off after {len(body)} of {expected} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageRefusedError(f"image URL could not be fetched: it answered {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ImageRefusedError(f"image URL could not be fetched: {str(error) or type(error).__name__}") from error
    return bytes(body)


def opener_for(url: str) -> urllib.request.OpenerDirector:
    """Return an opener for http and https only, without a proxy if the URL points to this machine."""
    is_local = LOOPBACK.fullmatch(urllib.parse.urlsplit(url).hostname or "")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_local else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener

"""Fetch an image URL the way a vendor does: over HTTP, with a limit on its size and on the time it takes."""

from __future__ import annotations

import http.client
import ipaddress
import time
import urllib.error
import urllib.parse
import urllib.request


class FetchError(Exception):
    """The URL did not lead to a whole answer; the message says why and never repeats the URL."""


def fetch(url: str, most_bytes: int, timeout_s: float) -> bytes:
    """Return the body of the answer that `url` leads to."""
    deadline = time.monotonic() + timeout_s
    request = urllib.request.Request(url, headers={"user-agent": "describer-emulator"})  # noqa: S310  see opener_for
    try:
        with opener_for(url).open(request, timeout=timeout_s) as answer:
            body = read(answer, most_bytes, deadline)
            expected = answer.headers.get("content-length")
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"it answered {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(str(error) or type(error).__name__) from error
    if expected is not None and expected.isdecimal() and int(expected) != len(body):
        raise FetchError(f"it broke off after {len(body)} of {expected} bytes")
    return body


def read(answer: http.client.HTTPResponse, most_bytes: int, deadline: float) -> bytes:
    body = bytearray()
    while piece := answer.read1(65536):
        body += piece
        if len(body) > most_bytes:
            raise FetchError(f"it is larger than {most_bytes} bytes")
        if time.monotonic() > deadline:
            raise FetchError("it took too long")
    return bytes(body)


def opener_for(url: str) -> urllib.request.OpenerDirector:
    """Return an opener that knows http and https only, and no proxy on the way to this machine itself."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_local(url) else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def is_local(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

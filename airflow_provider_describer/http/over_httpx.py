"""What httpx does for the transport: reads addresses, unpacks answers, makes the SSL context, and goes the ways that
`http/connections.py` does not, through a proxy of the environment or over a transport that was passed in.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.request import getproxies, proxy_bypass

import httpx

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.http.connections import (
    KEEP_ALIVE_S,
    Answer,
    AnswerLost,
    CannotBeAsked,
    NotSent,
    Outgoing,
    TooLarge,
    Way,
)
from airflow_provider_describer.http.line import Patience, Server
from airflow_provider_describer.storage.address import mask_query


class Target(NamedTuple):
    """What an address says: the way to its server, and what the request's head repeats of it."""

    way: Way
    host: str
    path: bytes
    authorization: str | None


@lru_cache(maxsize=512)
def target_of(address: str) -> Target:
    """Take an address apart. Remembered, as reading one costs as much as sending a request.

    :raises BadInput: where it is none that can be asked.
    """
    shown = repr(mask_query(address))
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise BadInput(f"{shown} is not a URL: {error}", kind="bad_address") from None
    if not url.host or (url.port or 0) > 65535:
        raise BadInput(f"{shown} names no host and port to ask.", kind="bad_address")
    if url.scheme not in ("http", "https"):
        raise BadInput(f"{shown} cannot be asked: expected http:// or https://.", kind="bad_address")
    tls, host = url.scheme == "https", url.netloc.decode("ascii")
    server = Server(tls, url.raw_host.decode("ascii"), url.port or (443 if tls else 80))
    login = f"{url.username}:{url.password}".encode() if url.userinfo else None
    authorization = f"Basic {b64encode(login).decode()}" if login else None
    return Target(Way(server, _proxy(url.scheme, host)), host, url.raw_path, authorization)


@lru_cache(maxsize=1024)
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the usual environment variables name; looked up once, as every call needs it."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the process's SSL context; it takes 35 ms to make."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def through(proxy: str) -> httpx.AsyncBaseTransport:
    """Return a transport through the proxy, of one connection.

    :raises BadInput: where the proxy cannot be used.
    """
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S)
    try:
        return httpx.AsyncHTTPTransport(verify=ssl_context(), limits=limits, proxy=proxy)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        # The text of the error may hold the proxy's password.
        raise BadInput(
            f"the proxy {mask_query(proxy)!r} of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be "
            f"used ({type(error).__name__}). Expected something like http://proxy:3128; socks5:// needs the package "
            "socksio."
        ) from None


class OverHttpx:
    """A slot that asks over an httpx transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport, patience: Patience) -> None:
        self._transport = transport
        timeout = httpx.Timeout(None, connect=patience.connect, read=patience.read, write=patience.write)
        self._extensions = {"timeout": timeout.as_dict()}

    async def ask(self, outgoing: Outgoing) -> Answer:
        """Send and return the whole answer, unpacked; raises as `Slot` says."""
        body = _Body(outgoing.body)
        request = httpx.Request(
            outgoing.method, outgoing.url, headers=outgoing.headers, stream=body, extensions=self._extensions
        )
        try:
            response = await self._transport.handle_async_request(request)
            try:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    _keep(content, chunk, outgoing.max_answer)
            finally:
                await response.aclose()
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise CannotBeAsked(f"{type(error).__name__}: {error}") from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
            if body.taken and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise AnswerLost(said) from None
            raise NotSent(said) from None
        # What says how it was packed no longer holds.
        headers = [header for header in response.headers.raw if header[0].lower() != b"content-encoding"]
        return Answer(response.status_code, [(name.lower(), value) for name, value in headers], bytes(content))

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


class _Body(httpx.AsyncByteStream):
    """A request's body, handed over once; knows whether all of it was taken. Nothing is joined or kept."""

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = chunks
        self.taken = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        # Reached only when the last chunk has been written and the next one is asked for.
        self.taken = True


def unpacked(answer: Answer, limit: int) -> Answer:
    """Undo the answer's content encoding. We ask for none, but a file may be stored packed.

    :raises AnswerLost: it cannot be unpacked.
    :raises TooLarge: it is larger than that many bytes.
    """
    content = bytearray()
    packed = httpx.Response(answer.status, headers=answer.headers, stream=_Pieces(answer.content))
    try:
        for chunk in packed.iter_bytes():
            _keep(content, chunk, limit)
    except httpx.DecodingError as error:
        raise AnswerLost(f"{type(error).__name__}: {error}") from None
    return answer._replace(content=bytes(content))


class _Pieces(httpx.SyncByteStream):
    """Bytes in small pieces, as each may be a thousand times as large unpacked."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), 4096):
            yield self._content[start : start + 4096]


def _keep(content: bytearray, chunk: bytes, limit: int) -> None:
    content += chunk
    if len(content) > limit:
        raise TooLarge(f"the answer is larger than {limit} bytes")

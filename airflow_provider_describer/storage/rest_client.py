"""Lists a bucket and reads its objects by plain requests, in which a key is any text.

obstore drops a slash at either end of a key, and refuses a whole listing for one key with ``//``, ``.``, ``..`` or a
control character. Both clouds answer the same requests; how they are authorized differs (`authorization.py`).
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.storage.bucket import PAGE, Content, Entry
from airflow_provider_describer.storage.bucket_errors import AnswerRefused, NotAListing, ObjectNotThere

if TYPE_CHECKING:
    from airflow_provider_describer.storage.address import Scheme

ANSWER_TIMEOUT_S = 120.0
"""Seconds in which an answer must have come whole."""
Authorize = Callable[[str, str, str], Mapping[str, str]]
"""``(host, path, query) -> headers`` for a GET; path and query are encoded as they are sent."""

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_ERROR_BYTES = 4096
_SAFE = "/-_.~"
"""What version 4 signatures leave as it is in a path."""


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often, and for how many seconds, to retry while a store throttles or cannot be reached.

    Each wait is random, up to three times the last one: 15 seconds in all, on average.
    """

    retries: int = 8
    first: float = 0.2
    longest: float = 10.0
    in_all: float = 60.0


class _Line:
    """One connection at a time, which is cut when an answer takes too long in all.

    httpx limits the time between two bytes only, so a server that sends one now and then would hold a thread for ever.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._socket: socket.socket | None = None
        self.is_overdue = False

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], target: str) -> Iterator[httpx.Response]:
        """Send a GET; its answer must have been read within `ANSWER_TIMEOUT_S`."""
        self.is_overdue = False
        timer = threading.Timer(ANSWER_TIMEOUT_S, self._cut)
        timer.daemon = True
        timer.start()
        try:
            extensions = {"target": target.encode(), "trace": self._trace}
            with self._client.stream("GET", url, headers=headers, extensions=extensions) as answer:
                yield answer
                if self.is_overdue:
                    # Without a length, an answer that was cut looks whole.
                    raise httpx.ReadTimeout("late", request=answer.request)
        finally:
            timer.cancel()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._forget()
            # A copy: TLS takes the socket over, and it is to be cut during the handshake too.
            self._socket = info["return_value"].get_extra_info("socket").dup()

    def _cut(self) -> None:
        self.is_overdue = True
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._forget()


@dataclass(frozen=True)
class RestClient:
    """One bucket at ``url``, which includes the bucket's name where it is part of the path. Blocking.

    :param certificates: as obstore's ``root_certificate`` and ``allow_invalid_certificates``.
    """

    scheme: Scheme
    name: str
    url: str
    authorize: Authorize
    retry: RetrySettings
    certificates: Mapping[str, Any]

    def pages(self, prefix: str, after: str | None) -> Iterator[Sequence[Entry]]:
        """Yield the objects whose keys begin with ``prefix`` and sort after ``after``, page by page, on demand."""
        asked = {"list-type": "2", "max-keys": str(PAGE), "prefix": prefix, "start-after": after or ""}
        if self.scheme == "s3":
            # Without it, XML changes a carriage return and cannot express other control characters.
            asked["encoding-type"] = "url"
        with self._client() as client:
            last, token = after, ""
            while True:
                _, body = self._get(client, self._path, {**asked, "continuation-token": token})
                try:
                    entries, token = _parse_page(body)
                except ElementTree.ParseError:
                    if self.scheme == "s3" or not body.lstrip().startswith(b"<?xml"):
                        raise NotAListing from None
                    yield from self._json_pages(client, prefix, last)
                    return
                if entries:
                    last = entries[-1].key
                    yield entries
                if not token:
                    return

    def _json_pages(self, client: _Line, prefix: str, after: str | None) -> Iterator[Sequence[Entry]]:
        """Yield pages of GCS's JSON API, which expresses any name."""
        fields = "nextPageToken,items(name,size,md5Hash,etag,updated)"
        asked = {"prefix": prefix, "startOffset": after or "", "maxResults": str(PAGE), "fields": fields}
        base = self._path.removesuffix(f"/{self.name}")
        token = ""
        while True:
            path = f"{base}/storage/v1/b/{quote(self.name, safe='')}/o"
            _, body = self._get(client, path, {**asked, "pageToken": token})
            found = json.loads(body)
            entries = [_json_entry(item) for item in found.get("items", ())]
            if entries := [entry for entry in entries if entry.key != after]:
                yield entries
            token = found.get("nextPageToken", "")
            if not token:
                return

    def read(self, key: str, *, max_bytes: int | None, start: int = 0, length: int | None = None) -> Content:
        """Read an object, or a part of it, as it is stored. Of one that is larger than ``max_bytes``, read nothing."""
        # GCS would otherwise unpack what is stored packed, and tell neither its size nor a part of it.
        headers = {"accept-encoding": "gzip"}
        if start or length is not None:
            end = "" if length is None else start + max(length, 1) - 1
            headers["range"] = f"bytes={start}-{end}"
        path = f"{self._path}/{quote(key, safe=_SAFE)}"
        with self._client() as client:
            try:
                answer, data = self._get(client, path, {}, headers, max_bytes)
            except AnswerRefused as error:
                if error.status != 416:
                    raise
                answer, data = self._get(client, path, {}, {"accept-encoding": "gzip"}, max_bytes)
                data = b""
        total = answer.get("content-range", "").rpartition("/")[2] or answer.get("content-length", "")
        size = int(total) if total.isdigit() else len(data)
        etag = answer.get("etag", "").strip('"') or None
        wanted = data if length is None else data[:length]
        return Content(wanted, etag, size, answer.get("content-encoding", ""))

    @property
    def _path(self) -> str:
        return quote(urlsplit(self.url).path.rstrip("/"), safe=_SAFE)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        if self.certificates.get("allow_invalid_certificates"):
            return httpx.create_ssl_context(verify=False)
        context = httpx.create_ssl_context()
        if certificate := self.certificates.get("root_certificate"):
            # A file of certificates may have comments in any language.
            context.load_verify_locations(cadata=bytes(certificate).decode("ascii", "ignore"))
        return context

    def _client(self) -> _Line:
        return _Line(httpx.Client(verify=self._tls, timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=5.0)))

    def _get(
        self,
        client: _Line,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """Return an answer's headers and body; of a body of more than ``max_bytes`` nothing. Retries like obstore."""
        given = sorted((name, value) for name, value in query.items() if value)
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='-_.~')}" for name, value in given)
        began, wait, tries = time.monotonic(), self.retry.first, 0
        while True:
            try:
                return self._get_once(client, path, text, headers or {}, max_bytes)
            except AnswerRefused as error:
                if error.status and error.status not in _RETRIED:
                    raise
                if tries == self.retry.retries or time.monotonic() - began + wait > self.retry.in_all:
                    raise
            tries += 1
            time.sleep(wait)
            wait = min(self.retry.longest, random.uniform(self.retry.first, wait * 3))  # noqa: S311  # not a secret

    def _get_once(
        self, client: _Line, path: str, query: str, headers: Mapping[str, str], max_bytes: int | None
    ) -> tuple[Mapping[str, str], bytes]:
        parts = urlsplit(self.url)
        # Not as part of the URL, whose path would be normalized: a key may have the part "..".
        target = f"{path or '/'}?{query}" if query else path or "/"
        authorized = {**headers, **self.authorize(parts.netloc, path or "/", query), "host": parts.netloc}
        try:
            with client.get(f"{parts.scheme}://{parts.netloc}/", authorized, target) as answer:
                if answer.status_code not in (200, 206):
                    _raise_refused(answer.status_code, answer.read()[:_ERROR_BYTES].decode(errors="replace"))
                length = answer.headers.get("content-length", "")
                if max_bytes is not None and length.isdigit() and _total(answer.headers) > max_bytes:
                    return answer.headers, b""
                return answer.headers, _read(answer, max_bytes, raw="accept-encoding" in headers)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            if isinstance(error, AnswerRefused | ObjectNotThere):
                raise
            why = f"not whole within {ANSWER_TIMEOUT_S:g} s" if client.is_overdue else type(error).__name__
            raise AnswerRefused(0, f"no answer from {parts.scheme}://{parts.netloc} ({why})") from None


def _total(headers: Mapping[str, str]) -> int:
    total = headers.get("content-range", "").rpartition("/")[2]
    return int(total if total.isdigit() else headers["content-length"])


def _read(answer: httpx.Response, max_bytes: int | None, *, raw: bool) -> bytes:
    content = bytearray()
    for chunk in answer.iter_raw() if raw else answer.iter_bytes():
        content += chunk
        if max_bytes is not None and len(content) > max_bytes:
            break
    return bytes(content)


def _raise_refused(status: int, body: str) -> None:
    text = f"status code: {status}: {body}"
    if status == 404 and "<Code>NoSuchBucket</Code>" not in body:
        raise ObjectNotThere(status, text)
    raise AnswerRefused(status, text)


def _parse_page(body: bytes) -> tuple[list[Entry], str]:
    """Return a page's objects, and the token of the next page, or ''.

    :raises NotAListing: the server that answers is no object store.
    """
    root = ElementTree.fromstring(body)  # noqa: S314  # from the store that is also trusted with credentials
    # The clouds' namespaces differ.
    namespace, is_listing, _ = root.tag.partition("ListBucketResult")
    if not is_listing:
        raise NotAListing
    encoded = root.findtext(f"{namespace}EncodingType") == "url"
    names = [f"{namespace}{name}" for name in ("Key", "Size", "ETag", "LastModified")]
    entries = [_entry(*map(one.findtext, names), encoded=encoded) for one in root.iterfind(f"{namespace}Contents")]
    more = root.findtext(f"{namespace}IsTruncated", "").lower() == "true"
    return entries, root.findtext(f"{namespace}NextContinuationToken", "") if more else ""


def _entry(key: str | None, size: str | None, etag: str | None, modified: str | None, *, encoded: bool) -> Entry:
    if not key or not size or not modified:
        raise NotAListing
    if encoded:
        key = unquote_plus(key, errors="surrogateescape")
    return Entry(key, int(size), (etag or "").strip('"') or None, datetime.fromisoformat(modified).timestamp())


def _json_entry(item: Mapping[str, str]) -> Entry:
    # The name of a content in the XML API, which reads objects: its MD5, or of one without an MD5 this.
    version = b64decode(item["md5Hash"]).hex() if "md5Hash" in item else f"-{item['etag']}"
    modified = datetime.fromisoformat(item["updated"]).timestamp()
    return Entry(item["name"], int(item["size"]), version, modified)

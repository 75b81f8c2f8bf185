"""S3 with a catalog of any size: the catalog's objects are made as they are asked for, all others are ministack's.

A million uploads would take longer than what is measured. The client sees no difference: the gate of the tests checks
each signature, and a page of a listing has as many objects, with names, sizes, ETags and times, as S3 sends.
``python catalog_server.py`` reads orders from stdin, one JSON object a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

from engine import tiny_jpeg
from loopback import Answer, Request, xml_error
from made_store import CATALOG, content_of
from s3_server import KEY, REGION, SECRET, Ministack, S3Gate

from airflow_provider_describer.storage.open_bucket import s3_bucket

BUCKET, _, KNOWN = CATALOG.removeprefix("s3://").partition("/")
FRESH = "fresh"
"""The folder of images that no store knows."""
STORES = "stores"
PAGE = 1000
_START, _REST = tiny_jpeg()
Figures = dict[str, dict[str, int]]


def picture(number: int) -> bytes:
    """Return a small JPEG, whose bytes are those of no other number."""
    comment = b"image %09d" % number
    return _START + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + _REST


class CatalogGate(S3Gate):
    """Makes the objects of two folders, and counts requests and bytes by what they are for.

    `KNOWN` has the images of `made_store`, those that have ``changed`` as pictures; `FRESH` has pictures alone.
    """

    def __init__(self, ministack: Ministack) -> None:
        super().__init__(ministack)
        self.counts = {KNOWN: 0, FRESH: 0}
        self.changed: frozenset[int] = frozenset()
        self.seen: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def content(self, folder: str, number: int) -> bytes:
        """Return an object's bytes."""
        return picture(number) if folder == FRESH or number in self.changed else content_of(number)

    def respond(self, request: Request) -> Answer | None:
        """Answer and count; no request is kept."""
        answer = self.answer(request)
        with self._lock:
            seen = self.seen[_purpose(request)]
            seen["requests"] += 1
            seen["bytes"] += len(request.body) + len(answer.body)
        return answer

    def answer(self, request: Request) -> Answer:
        folder = _folder(request)
        if folder not in self.counts:
            return super().answer(request)
        refused = self._check(request)
        if refused:
            return refused
        if "list-type" in request.query:
            return Answer(200, self._page(folder, request.query), {"Content-Type": "application/xml"})
        number = request.path.rpartition("/")[2].removesuffix(".jpg")
        if request.method != "GET" or not number.isdigit() or int(number) >= self.counts[folder]:
            return xml_error(404, "NoSuchKey")
        content = self.content(folder, int(number))
        about = {"ETag": f'"{_md5(content)}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return Answer(200, content, {"Content-Type": "image/jpeg", **about})

    def _page(self, folder: str, query: dict[str, str]) -> bytes:
        """Return one page of a listing; the token is the number of its first object."""
        first = int(query.get("continuation-token", "0"))
        end = min(self.counts[folder], first + int(query.get("max-keys", PAGE)))
        more = end < self.counts[folder]
        entries = []
        for number in range(first, end):
            content = self.content(folder, number)
            entries.append(
                f"<Contents><Key>{folder}/{number:09d}.jpg</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{_md5(content)}&quot;</ETag><Size>{len(content)}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{folder}/</Prefix><EncodingType>url</EncodingType><MaxKeys>{PAGE}</MaxKeys>"
            f"<KeyCount>{end - first}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{f'<NextContinuationToken>{end}</NextContinuationToken>' if more else ''}{''.join(entries)}"
            "</ListBucketResult>"
        ).encode()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _key(request: Request) -> str:
    """Return the key that is asked for, or the prefix of a listing."""
    key = request.path.removeprefix(f"/{BUCKET}").removeprefix("/")
    return key or request.query.get("prefix", "")


def _folder(request: Request) -> str:
    return _key(request).partition("/")[0]


def _purpose(request: Request) -> str:
    """Return what a request is for: ``listing`` or ``images`` of the catalog, or a folder of the store."""
    parts = _key(request).split("/")
    if parts[0] in (KNOWN, FRESH):
        return "listing" if "list-type" in request.query else "images"
    return parts[2] if len(parts) > 2 else "store"


def serve() -> None:
    """Serve until stdin ends."""
    with tempfile.TemporaryDirectory() as place, Ministack(Path(place)) as ministack, CatalogGate(ministack) as gate:
        gate.make_bucket(BUCKET)
        environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": gate.url,
        }
        os.environ.update(environment)
        print(json.dumps(environment), flush=True)
        orders: dict[str, Callable[..., Any]] = {
            "upload": _upload,
            "catalog": lambda folder, count, changed: _set(gate, folder, count, changed),
            "seen": lambda: _seen(gate),
        }
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(orders[name](*arguments)), flush=True)


def _upload(folder: str) -> str:
    """Put a local store into the bucket; return its address."""
    bucket, place = s3_bucket(BUCKET), Path(folder)
    for file in filter(Path.is_file, place.rglob("*")):
        bucket.put(f"{STORES}/{place.name}/{file.relative_to(place)}", file)
    return f"s3://{BUCKET}/{STORES}/{place.name}"


def _set(gate: CatalogGate, folder: str, count: int, changed: list[int]) -> None:
    """Say how many objects a folder has, and which of them have changed since the store was made."""
    gate.counts[folder], gate.changed = count, frozenset(changed)


def _seen(gate: CatalogGate) -> Figures:
    """Return the requests and bytes since the last time, by what they were for."""
    seen, gate.seen = gate.seen, defaultdict(Counter)
    return {purpose: dict(figures) for purpose, figures in seen.items()}


if __name__ == "__main__":
    serve()

"""Makes stores as years of runs leave them, and the images that their outcomes are of."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pydoc_data.topics import topics
from typing import Any

from airflow_provider_describer.engine.plan import IdentifiedImage
from airflow_provider_describer.models import DescribeRequest, Image, Spec
from airflow_provider_describer.storage.folder import Folder
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.shard import SETTLED, Event, settled_mark
from airflow_provider_describer.store.table import SettledTable
from airflow_provider_describer.vendors import get_vendor

CATALOG = "s3://bench/catalog"
FIRST_S = 1_700_000_000
"""When the first image was described, in epoch seconds; then one a second."""
RUN = 1_000
"""Images of one run."""
GROUP = 50_000
"""Rows that are added at once."""
TEXT_BYTES = 1_500


@cache
def spec() -> Spec:
    """Return what all images are asked."""
    return get_vendor("image_describer").spec()


def content_of(number: int) -> bytes:
    """Return the bytes of an image, as the bucket has them."""
    return b"image %d" % number


def request_for(number: int) -> DescribeRequest:
    """Return what is asked about an image, as a listing of its bucket gives it."""
    content = content_of(number)
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return DescribeRequest(Image(f"{CATALOG}/{number:09d}.jpg", etag, len(content)), spec())


def identified(number: int) -> IdentifiedImage:
    """Return an image as a plan gets it, unread."""
    request = request_for(number)
    image = request.image
    keys = identity_keys(spec(), image.uri, None, image.version, image.size)
    return IdentifiedImage(request, keys, None, image.version)


def outcome(number: int, text_bytes: int = TEXT_BYTES) -> Event:
    """Return the event of a described image, with all of its identities."""
    image = request_for(number).image
    sha256 = hashlib.sha256(content_of(number)).hexdigest()
    return {
        "event": "outcome",
        "call": hashlib.blake2b(content_of(number), digest_size=12).hexdigest(),
        "keys": list(identity_keys(spec(), image.uri, sha256, image.version, image.size)),
        "uri": image.uri,
        "version": image.version,
        "sha256": sha256,
        "vendor": spec().vendor,
        "model": spec().model,
        "prompt": spec().prompt,
        "lang": spec().lang,
        "status": "described",
        "text": prose(number, text_bytes),
        "cost_usd": 0.015,
        "request_id": None,
        "billed": "yes",
        "error": None,
        "described_at": _iso(FIRST_S + number),
        "elapsed_s": 3.0 + number % 1999 / 1000,
        "dag_id": "enrich_catalog",
        "run_id": f"scheduled__{_iso(FIRST_S + number - number % RUN)}",
        "task_id": "describe",
        "map_index": -1,
        "try_number": 1,
        "id": None,
        "lost_calls": 0,
    }


def outcomes(first: int, count: int, **more: Any) -> Iterator[Event]:
    """Yield the events of images ``first`` to ``first + count``."""
    return (outcome(number, **more) for number in range(first, first + count))


def fill(folder: Folder, count: int, **more: Any) -> None:
    """Write a store whose table has that many described images."""
    table = SettledTable(folder)
    for first in range(0, count, GROUP):
        table.add(outcomes(first, min(GROUP, count - first), **more), is_new=True)
        table.maintain()
    table.maintain(at_once=True)
    folder.create(SETTLED, settled_mark())


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


@cache
def _sentences() -> list[str]:
    """Return English sentences: those of Python's own manual."""
    return [f"{' '.join(one.split())}." for one in " ".join(topics.values()).split(". ") if 40 < len(one) < 400]


def prose(number: int, size: int) -> str:
    """Return a text of about that many bytes, the same for the same number; it compresses about as descriptions do."""
    chance, known = random.Random(number).random, _sentences()
    text, length = [], 0
    while length < size:
        text.append(known[int(chance() * len(known))])
        length += len(text[-1]) + 1
    return " ".join(text)[:size]

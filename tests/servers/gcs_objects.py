"""The state of the fake GCS: buckets of objects, each with a generation that conditions refer to."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import google_crc32c

PAGE = 1000


class Refused(Exception):
    """A request is refused, with this status and error code."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code


@dataclass(frozen=True)
class Stored:
    """One generation of an object."""

    bucket: str
    name: str
    data: bytes = field(repr=False)
    generation: int
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_encoding: str = ""
    cache_control: str = ""
    metageneration: int = 1
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def md5(self) -> bytes:
        return hashlib.md5(self.data).digest()

    @property
    def e_tag(self) -> str:
        return f'"{self.md5.hex()}"'

    @property
    def time(self) -> str:
        return self.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    @cached_property
    def hashes(self) -> dict[str, str]:
        crc32c = google_crc32c.value(self.data).to_bytes(4, "big")
        return {"crc32c": base64.b64encode(crc32c).decode(), "md5": base64.b64encode(self.md5).decode()}

    def resource(self) -> dict[str, Any]:
        """Return it as the JSON API does."""
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.content_type,
            "size": str(len(self.data)),
            "md5Hash": self.hashes["md5"],
            "crc32c": self.hashes["crc32c"],
            "etag": base64.b64encode(self.generation.to_bytes(8, "big")).decode(),
            "timeCreated": self.time,
            "updated": self.time,
            "storageClass": "STANDARD",
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True)
class Condition:
    """A condition on the current generation; 0 stands for no object."""

    match: int | None = None
    differ: int | None = None

    def check(self, current: Stored | None) -> None:
        generation = current.generation if current else 0
        if self.match is not None and self.match != generation:
            raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
        if self.differ is not None and self.differ == generation:
            raise Refused(304, "NotModified")


@dataclass(frozen=True)
class Page:
    """A page of a listing; ``last`` is the key that the next page continues after, or None on the last page."""

    objects: Sequence[Stored]
    prefixes: Sequence[str]
    last: str | None


class Objects:
    """All buckets."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, Stored]] = {}
        self._lock = threading.RLock()
        self._generation = 1_700_000_000_000_000

    def make_bucket(self, name: str) -> None:
        with self._lock:
            if name in self._buckets:
                raise Refused(409, "BucketAlreadyOwnedByYou")
            self._buckets[name] = {}

    def has_bucket(self, name: str) -> bool:
        return name in self._buckets

    def _bucket(self, name: str) -> dict[str, Stored]:
        if name not in self._buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        return self._buckets[name]

    def put(self, bucket: str, name: str, data: bytes, condition: Condition = Condition(), **properties: Any) -> Stored:
        with self._lock:
            current = self._bucket(bucket)
            condition.check(current.get(name))
            self._generation += 1
            given = {key: value for key, value in properties.items() if value}
            stored = current[name] = Stored(bucket, name, data, self._generation, **given)
            return stored

    def get(self, bucket: str, name: str, condition: Condition = Condition(), generation: str | None = None) -> Stored:
        with self._lock:
            current = self._bucket(bucket).get(name)
        if current is None or generation not in (None, str(current.generation)):
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        condition.check(current)
        return current

    def exchange(self, old: Stored, new: Stored) -> None:
        """Change an object's metadata; its generation stays."""
        with self._lock:
            if self._bucket(old.bucket).get(old.name) is old:
                self._bucket(old.bucket)[old.name] = new

    def delete(self, bucket: str, name: str, condition: Condition = Condition()) -> None:
        with self._lock:
            self.get(bucket, name, condition)
            del self._bucket(bucket)[name]

    def page(
        self, bucket: str, prefix: str = "", delimiter: str = "", after: str = "", start: str = "", limit: int = PAGE
    ) -> Page:
        """List keys after ``after``, from ``start`` on; those below a delimiter are one prefix."""
        with self._lock:
            current = dict(self._bucket(bucket))
        keys = sorted(key for key in current if key.startswith(prefix) and key > after and key >= start)
        objects: list[Stored] = []
        prefixes: list[str] = []
        last = None
        for key in keys:
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            folder = f"{prefix}{head}{cut}" if cut else None
            if folder and (folder in prefixes or after.startswith(folder)):
                last = key
                continue
            if len(objects) + len(prefixes) == min(limit, PAGE):
                return Page(objects, prefixes, last)
            if folder:
                prefixes.append(folder)
            else:
                objects.append(current[key])
            last = key
        return Page(objects, prefixes, None)

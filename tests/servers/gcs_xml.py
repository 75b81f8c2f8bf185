"""The XML API of a fake GCS, ``/bucket/key``: what obstore speaks, and what signed addresses lead to."""

from __future__ import annotations

import re
import secrets
from email.utils import format_datetime
from urllib.parse import unquote
from xml.sax.saxutils import escape

from gcs_objects import Condition, Objects, Refused, Stored
from loopback import Answer, Asked

XML = {"Content-Type": "application/xml"}


class XmlApi:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._uploads: dict[str, dict[int, bytes]] = {}

    def answer(self, asked: Asked) -> Answer:
        bucket, _, key = asked.raw_path[1:].partition("/")
        bucket, key, query = unquote(bucket), unquote(key), asked.query
        match asked.method:
            case "GET" if not key:
                return self._list(bucket, query)
            case "GET" | "HEAD":
                return media(self._objects.get(bucket, key, generation=query.get("generation")), asked)
            case "PUT" if "uploadId" in query:
                self._uploads[query["uploadId"]][int(query["partNumber"])] = asked.body
                return Answer(200, headers={"ETag": f'"{query["partNumber"]}"'})
            case "PUT":
                return self._put(bucket, key, asked, asked.body)
            case "POST" if "uploads" in query:
                return self._begin(bucket, key)
            case "POST" if "uploadId" in query:
                return self._complete(bucket, key, asked)
            case "DELETE" if "uploadId" in query:
                self._uploads.pop(query["uploadId"], None)
                return Answer(204)
            case "DELETE":
                self._objects.delete(bucket, key)
                return Answer(204)
        raise Refused(405, "MethodNotAllowed")

    def _list(self, bucket: str, query: dict[str, str]) -> Answer:
        page = self._objects.page(
            bucket,
            query.get("prefix", ""),
            query.get("delimiter", ""),
            after=query.get("continuation-token") or query.get("start-after", ""),
            limit=int(query.get("max-keys", "1000")),
        )
        parts = [f"<IsTruncated>{'true' if page.last else 'false'}</IsTruncated>"]
        if page.last:
            parts.append(f"<NextContinuationToken>{escape(page.last)}</NextContinuationToken>")
        parts += [
            f"<Contents><Key>{escape(one.name)}</Key><Generation>{one.generation}</Generation><ETag>{one.e_tag}</ETag>"
            f"<LastModified>{one.time}</LastModified><Size>{len(one.data)}</Size></Contents>"
            for one in page.objects
        ]
        parts += [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in page.prefixes]
        body = f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>{''.join(parts)}</ListBucketResult>"
        return Answer(200, body.encode(), XML)

    def _put(self, bucket: str, key: str, asked: Asked, data: bytes) -> Answer:
        match = asked.headers.get("x-goog-if-generation-match")
        condition = Condition(match=None if match is None else int(match))
        stored = self._objects.put(bucket, key, data, condition, content_type=asked.headers.get("Content-Type"))
        return Answer(200, headers=_about(stored))

    def _begin(self, bucket: str, key: str) -> Answer:
        if not self._objects.has_bucket(bucket):
            raise Refused(404, "NoSuchBucket")
        upload = secrets.token_hex(8)
        self._uploads[upload] = {}
        told = f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
        body = f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>"
        return Answer(200, body.encode(), XML)

    def _complete(self, bucket: str, key: str, asked: Asked) -> Answer:
        parts = self._uploads.pop(asked.query["uploadId"])
        wanted = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", asked.body.decode())]
        answer = self._put(bucket, key, asked, b"".join(parts[number] for number in wanted))
        e_tag = answer.headers["ETag"]
        body = f"<CompleteMultipartUploadResult><ETag>{e_tag}</ETag></CompleteMultipartUploadResult>"
        return Answer(200, body.encode(), {**answer.headers, **XML})


def media(stored: Stored, asked: Asked) -> Answer:
    """The bytes of an object, or the range of them that is asked for."""
    headers = {**_about(stored), "Content-Type": stored.content_type, "Accept-Ranges": "bytes"}
    size = len(stored.data)
    asked_range = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.headers.get("Range", ""))
    if asked_range:
        first, last = asked_range.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size:
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return Answer(206, stored.data[start:end], headers)
    return Answer(200, stored.data, headers)


def _about(stored: Stored) -> dict[str, str]:
    return {
        "ETag": stored.e_tag,
        "Last-Modified": format_datetime(stored.at, usegmt=True),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": ",".join(f"{name}={value}" for name, value in stored.hashes.items()),
        "x-goog-stored-content-length": str(len(stored.data)),
    }

"""The XML API of a fake GCS, ``/bucket/key``: used by obstore and by signed URLs."""

from __future__ import annotations

import gzip
import re
import secrets
from email.utils import format_datetime
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from gcs_objects import Condition, Objects, Refused, Stored
from loopback import Answer, Request

XML = {"Content-Type": "application/xml"}


class XmlApi:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._uploads: dict[str, dict[int, bytes]] = {}

    def answer(self, request: Request) -> Answer:
        bucket, _, key = request.raw_path[1:].partition("/")
        bucket, key, query = unquote(bucket), unquote(key), request.query
        match request.method:
            case "GET" if not key:
                return self._list(bucket, query)
            case "GET" | "HEAD":
                return media(self._objects.get(bucket, key, generation=query.get("generation")), request)
            case "PUT" if "uploadId" in query:
                if query["uploadId"] not in self._uploads:
                    # A client that gives up aborts the upload while other parts are under way.
                    raise Refused(404, "NoSuchUpload")
                self._uploads[query["uploadId"]][int(query["partNumber"])] = request.body
                return Answer(200, headers={"ETag": f'"{query["partNumber"]}"'})
            case "PUT":
                return self._put(bucket, key, request, request.body)
            case "POST" if "uploads" in query:
                return self._begin(bucket, key)
            case "POST" if "uploadId" in query:
                return self._complete(bucket, key, request)
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
        as_url = query.get("encoding-type") == "url"
        parts = ["<EncodingType>url</EncodingType>"] if as_url else []
        parts += [f"<IsTruncated>{'true' if page.last else 'false'}</IsTruncated>"]
        if page.last:
            parts.append(f"<NextContinuationToken>{escape(page.last)}</NextContinuationToken>")
        shown = quote if as_url else escape
        parts += [
            f"<Contents><Key>{shown(one.name)}</Key><Generation>{one.generation}</Generation><ETag>{one.e_tag}</ETag>"
            f"<LastModified>{one.time}</LastModified><Size>{len(one.data)}</Size></Contents>"
            for one in page.objects
        ]
        parts += [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in page.prefixes]
        body = f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>{''.join(parts)}</ListBucketResult>"
        return Answer(200, body.encode(), XML)

    def _put(self, bucket: str, key: str, request: Request, data: bytes) -> Answer:
        match = request.headers.get("x-goog-if-generation-match")
        condition = Condition(match=None if match is None else int(match))
        stored = self._objects.put(bucket, key, data, condition, content_type=request.headers.get("Content-Type"))
        return Answer(200, headers=_headers(stored))

    def _begin(self, bucket: str, key: str) -> Answer:
        if not self._objects.has_bucket(bucket):
            raise Refused(404, "NoSuchBucket")
        upload = secrets.token_hex(8)
        self._uploads[upload] = {}
        fields = f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
        body = f"<InitiateMultipartUploadResult>{fields}</InitiateMultipartUploadResult>"
        return Answer(200, body.encode(), XML)

    def _complete(self, bucket: str, key: str, request: Request) -> Answer:
        parts = self._uploads.pop(request.query["uploadId"])
        wanted = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", request.body.decode())]
        answer = self._put(bucket, key, request, b"".join(parts[number] for number in wanted))
        e_tag = answer.headers["ETag"]
        body = f"<CompleteMultipartUploadResult><ETag>{e_tag}</ETag></CompleteMultipartUploadResult>"
        return Answer(200, body.encode(), {**answer.headers, **XML})


def media(stored: Stored, request: Request) -> Answer:
    """Return an object's bytes, or the requested range of them; one that is stored packed as a client can read it."""
    headers = {**_headers(stored), "Content-Type": stored.content_type, "Accept-Ranges": "bytes"}
    if stored.cache_control:
        headers["Cache-Control"] = stored.cache_control
    if stored.content_encoding:
        headers["x-goog-stored-content-encoding"] = stored.content_encoding
        accepted = "gzip" in request.headers.get("Accept-Encoding", "") or "no-transform" in stored.cache_control
        if stored.content_encoding == "gzip" and not accepted:
            # "Decompressive transcoding": of unknown length, and always whole.
            return Answer(200, gzip.decompress(stored.data), {**headers, "Transfer-Encoding": "chunked"})
        headers["Content-Encoding"] = stored.content_encoding
    size = len(stored.data)
    wanted_range = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if wanted_range:
        first, last = wanted_range.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size:
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return Answer(206, stored.data[start:end], headers)
    return Answer(200, stored.data, headers)


def _headers(stored: Stored) -> dict[str, str]:
    return {
        "ETag": stored.e_tag,
        "Last-Modified": format_datetime(stored.at, usegmt=True),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": ",".join(f"{name}={value}" for name, value in stored.hashes.items()),
        "x-goog-stored-content-length": str(len(stored.data)),
    }

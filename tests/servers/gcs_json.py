"""The JSON API of a fake GCS, ``/storage/v1/b/…``: used by google-cloud-storage, and so by Airflow's GCSHook."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from gcs_objects import Condition, Objects, Refused
from gcs_xml import media
from loopback import Answer, Request

PATHS = re.compile(r"/(?P<kind>upload/|resumable/upload/|download/)?storage/v1/b(/(?P<rest>.*))?")


def is_json_api(request: Request) -> bool:
    return PATHS.fullmatch(request.raw_path) is not None


@dataclass
class Upload:
    """A resumable upload that has begun."""

    bucket: str
    metadata: Mapping[str, Any]
    condition: Condition
    data: bytearray = field(default_factory=bytearray)


class JsonApi:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._uploads: dict[str, Upload] = {}

    def answer(self, request: Request) -> Answer:
        found = PATHS.fullmatch(request.raw_path)
        assert found
        bucket, slash, rest = (found["rest"] or "").partition("/o")
        bucket = unquote(bucket)
        if "upload" in (found["kind"] or ""):
            return self._upload(bucket, request)
        if not bucket:
            self._objects.make_bucket(json.loads(request.body)["name"])
            return _json(_bucket(json.loads(request.body)["name"]))
        if not slash:
            if not self._objects.has_bucket(bucket):
                raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
            return _json(_bucket(bucket))
        if not rest:
            return self._list(bucket, request.query)
        copy = re.fullmatch(r"/(.+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.+)", rest)
        if copy:
            name, to_bucket, to_name = map(unquote, copy.groups())
            return self._copy(bucket, name, to_bucket, to_name, request)
        return self._object(bucket, unquote(rest[1:]), request, as_media=found["kind"] == "download/")

    def _list(self, bucket: str, query: dict[str, str]) -> Answer:
        token = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        page = self._objects.page(
            bucket,
            query.get("prefix", ""),
            query.get("delimiter", ""),
            after=token,
            start=query.get("startOffset", ""),
            limit=int(query.get("maxResults", "1000")),
        )
        payload: dict[str, Any] = {"kind": "storage#objects", "prefixes": list(page.prefixes)}
        payload["items"] = [one.resource() for one in page.objects]
        if page.last:
            payload["nextPageToken"] = base64.urlsafe_b64encode(page.last.encode()).decode()
        return _json(payload)

    def _object(self, bucket: str, name: str, request: Request, *, as_media: bool) -> Answer:
        condition, generation = _condition(request.query), request.query.get("generation")
        if request.method == "DELETE":
            self._objects.delete(bucket, name, condition)
            return Answer(204)
        stored = self._objects.get(bucket, name, condition, generation)
        if request.method == "PATCH":
            given = json.loads(request.body)
            metadata = {**stored.metadata, **(given.get("metadata") or {})}
            changed = replace(stored, metadata=metadata, metageneration=stored.metageneration + 1)
            self._objects.exchange(stored, changed)
            return _json(changed.resource())
        return media(stored, request) if as_media or request.query.get("alt") == "media" else _json(stored.resource())

    def _copy(self, bucket: str, name: str, to_bucket: str, to_name: str, request: Request) -> Answer:
        stored = self._objects.get(bucket, name)
        condition = _condition(request.query)
        copy = self._objects.put(to_bucket, to_name, stored.data, condition, content_type=stored.content_type)
        size = str(len(copy.data))
        payload = {"done": True, "totalBytesRewritten": size, "objectSize": size, "resource": copy.resource()}
        return _json({"kind": "storage#rewriteResponse", **payload})

    # -- uploads: media, multipart (metadata and bytes in one body), and resumable ------------------------------------

    def _upload(self, bucket: str, request: Request) -> Answer:
        query = request.query
        condition = _condition(query)
        if "upload_id" in query:
            return self._continue(query["upload_id"], request)
        match query.get("uploadType"):
            case "media":
                metadata = {"name": query["name"], "contentType": request.headers.get("Content-Type")}
                return self._store(bucket, metadata, request.body, condition)
            case "multipart":
                metadata, data = _two_parts(request)
                return self._store(bucket, {"name": query.get("name"), **metadata}, data, condition)
        metadata = {"name": query.get("name"), **json.loads(request.body or b"{}")}
        upload = secrets.token_hex(8)
        self._uploads[upload] = Upload(bucket, metadata, condition)
        host = request.headers["Host"]
        address = f"http://{host}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={upload}"
        return Answer(200, headers={"Location": address, "X-GUploader-UploadID": upload})

    def _continue(self, upload_id: str, request: Request) -> Answer:
        upload = self._uploads[upload_id]
        sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("Content-Range", ""))
        if sent and sent[1]:
            del upload.data[int(sent[1]) :]
        upload.data += request.body
        if sent and (sent[2] == "*" or len(upload.data) < int(sent[2])):
            return Answer(308, headers={"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {})
        return self._store(upload.bucket, upload.metadata, bytes(upload.data), upload.condition)

    def _store(self, bucket: str, metadata: Mapping[str, Any], data: bytes, condition: Condition) -> Answer:
        given = {"content_type": metadata.get("contentType"), "metadata": metadata.get("metadata")}
        return _json(self._objects.put(bucket, metadata["name"], data, condition, **given).resource())


def json_error(error: Refused) -> Answer:
    payload = {
        "code": error.status,
        "message": error.message,
        "errors": [{"reason": error.code, "message": error.message}],
    }
    return _json({"error": payload}, error.status)


def _json(payload: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(payload).encode(), {"Content-Type": "application/json"})


def _bucket(name: str) -> dict[str, str]:
    return {"kind": "storage#bucket", "name": name, "id": name, "location": "US", "storageClass": "STANDARD"}


def _condition(query: Mapping[str, str]) -> Condition:
    match, differ = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
    return Condition(int(match) if match is not None else None, int(differ) if differ is not None else None)


def _two_parts(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return an object's metadata and its bytes."""
    boundary = re.search(r"boundary=['\"]?([^'\";]+)", request.headers["Content-Type"])
    assert boundary
    _, first, second, _ = request.body.split(b"--" + boundary[1].encode())
    (_, metadata), (head, data) = (re.split(rb"\r?\n\r?\n", part.lstrip(), maxsplit=1) for part in (first, second))
    payload = json.loads(metadata)
    content_type = re.search(rb"content-type:\s*([^\r\n]+)", head, re.IGNORECASE)
    if content_type:
        payload.setdefault("contentType", content_type[1].decode())
    return payload, data.removesuffix(b"\n").removesuffix(b"\r")

"""The JSON API of a fake GCS, ``/storage/v1/b/…``: what google-cloud-storage and so Airflow's GCSHook speak."""

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
from loopback import Answer, Asked

PATHS = re.compile(r"/(?P<kind>upload/|resumable/upload/|download/)?storage/v1/b(/(?P<rest>.*))?")


def is_json_api(asked: Asked) -> bool:
    return PATHS.fullmatch(asked.raw_path) is not None


@dataclass
class Upload:
    """A resumable upload that has begun."""

    bucket: str
    about: Mapping[str, Any]
    condition: Condition
    data: bytearray = field(default_factory=bytearray)


class JsonApi:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._uploads: dict[str, Upload] = {}

    def answer(self, asked: Asked) -> Answer:
        found = PATHS.fullmatch(asked.raw_path)
        assert found
        bucket, slash, rest = (found["rest"] or "").partition("/o")
        bucket = unquote(bucket)
        if "upload" in (found["kind"] or ""):
            return self._upload(bucket, asked)
        if not bucket:
            self._objects.make_bucket(json.loads(asked.body)["name"])
            return _json(_bucket(json.loads(asked.body)["name"]))
        if not slash:
            if not self._objects.has_bucket(bucket):
                raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
            return _json(_bucket(bucket))
        if not rest:
            return self._list(bucket, asked.query)
        copied = re.fullmatch(r"/(.+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/(.+)", rest)
        if copied:
            name, to_bucket, to_name = map(unquote, copied.groups())
            return self._copy(bucket, name, to_bucket, to_name, asked)
        return self._object(bucket, unquote(rest[1:]), asked, as_media=found["kind"] == "download/")

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
        told: dict[str, Any] = {"kind": "storage#objects", "prefixes": list(page.prefixes)}
        told["items"] = [one.resource() for one in page.objects]
        if page.last:
            told["nextPageToken"] = base64.urlsafe_b64encode(page.last.encode()).decode()
        return _json(told)

    def _object(self, bucket: str, name: str, asked: Asked, *, as_media: bool) -> Answer:
        condition, generation = _condition(asked.query), asked.query.get("generation")
        if asked.method == "DELETE":
            self._objects.delete(bucket, name, condition)
            return Answer(204)
        stored = self._objects.get(bucket, name, condition, generation)
        if asked.method == "PATCH":
            given = json.loads(asked.body)
            about = {**stored.metadata, **(given.get("metadata") or {})}
            changed = replace(stored, metadata=about, metageneration=stored.metageneration + 1)
            self._objects.exchange(stored, changed)
            return _json(changed.resource())
        return media(stored, asked) if as_media or asked.query.get("alt") == "media" else _json(stored.resource())

    def _copy(self, bucket: str, name: str, to_bucket: str, to_name: str, asked: Asked) -> Answer:
        stored = self._objects.get(bucket, name)
        condition = _condition(asked.query)
        copy = self._objects.put(to_bucket, to_name, stored.data, condition, content_type=stored.content_type)
        size = str(len(copy.data))
        told = {"done": True, "totalBytesRewritten": size, "objectSize": size, "resource": copy.resource()}
        return _json({"kind": "storage#rewriteResponse", **told})

    # -- uploads: all at once, with a description before the bytes, or bit by bit --------------------------------------

    def _upload(self, bucket: str, asked: Asked) -> Answer:
        query = asked.query
        condition = _condition(query)
        if "upload_id" in query:
            return self._continue(query["upload_id"], asked)
        match query.get("uploadType"):
            case "media":
                about = {"name": query["name"], "contentType": asked.headers.get("Content-Type")}
                return self._store(bucket, about, asked.body, condition)
            case "multipart":
                about, data = _two_parts(asked)
                return self._store(bucket, {"name": query.get("name"), **about}, data, condition)
        about = {"name": query.get("name"), **json.loads(asked.body or b"{}")}
        upload = secrets.token_hex(8)
        self._uploads[upload] = Upload(bucket, about, condition)
        host = asked.headers["Host"]
        address = f"http://{host}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={upload}"
        return Answer(200, headers={"Location": address, "X-GUploader-UploadID": upload})

    def _continue(self, upload_id: str, asked: Asked) -> Answer:
        upload = self._uploads[upload_id]
        sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", asked.headers.get("Content-Range", ""))
        if sent and sent[1]:
            del upload.data[int(sent[1]) :]
        upload.data += asked.body
        if sent and (sent[2] == "*" or len(upload.data) < int(sent[2])):
            return Answer(308, headers={"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {})
        return self._store(upload.bucket, upload.about, bytes(upload.data), upload.condition)

    def _store(self, bucket: str, about: Mapping[str, Any], data: bytes, condition: Condition) -> Answer:
        given = {"content_type": about.get("contentType"), "metadata": about.get("metadata")}
        return _json(self._objects.put(bucket, about["name"], data, condition, **given).resource())


def json_error(error: Refused) -> Answer:
    told = {
        "code": error.status,
        "message": error.message,
        "errors": [{"reason": error.code, "message": error.message}],
    }
    return _json({"error": told}, error.status)


def _json(told: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})


def _bucket(name: str) -> dict[str, str]:
    return {"kind": "storage#bucket", "name": name, "id": name, "location": "US", "storageClass": "STANDARD"}


def _condition(query: Mapping[str, str]) -> Condition:
    match, differ = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
    return Condition(int(match) if match is not None else None, int(differ) if differ is not None else None)


def _two_parts(asked: Asked) -> tuple[dict[str, Any], bytes]:
    """What is told about an object, and its bytes."""
    boundary = re.search(r"boundary=['\"]?([^'\";]+)", asked.headers["Content-Type"])
    assert boundary
    _, first, second, _ = asked.body.split(b"--" + boundary[1].encode())
    (_, about), (head, data) = (re.split(rb"\r?\n\r?\n", part.lstrip(), maxsplit=1) for part in (first, second))
    told = json.loads(about)
    content_type = re.search(rb"content-type:\s*([^\r\n]+)", head, re.IGNORECASE)
    if content_type:
        told.setdefault("contentType", content_type[1].decode())
    return told, data.removesuffix(b"\n").removesuffix(b"\r")

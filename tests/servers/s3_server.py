"""S3 for tests: ministack in a process of its own, behind a gate that checks signatures and fails on demand."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from loopback import Answer, LoopbackServer, Request, xml_error

KEY, SECRET = "AKIASHOPCATALOG12345", "sesame/" + secrets.token_urlsafe(24)
"""The key that the gate knows from the start; it learns those that STS hands out."""

REGION = "eu-central-1"
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive", "date", "server"}


class Ministack:
    """The process. Only the gate uses its ``port``."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._log = folder / "ministack.log"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINISTACK_"))},
            "BIND_HOST": "127.0.0.1",  # it would listen everywhere
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "s3,sts,iam",
            "LOG_LEVEL": "ERROR",
            "S3_DATA_DIR": str(folder / "data"),
            "STATE_DIR": str(folder / "state"),
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "MINISTACK_REGION": REGION,
        }
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "ministack"]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ministack does not start:\n{self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class S3Gate(LoopbackServer):
    """Passes on requests with a valid signature; ministack itself checks presigned URLs only."""

    def __init__(self, ministack: Ministack) -> None:
        super().__init__()
        self._port = ministack.port
        self._known = {KEY: SECRET}
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def make_bucket(self, name: str) -> None:
        self._put(f"/{name}", b"")

    def put_any(self, bucket: str, key: str, data: bytes, encoding: str = "") -> None:
        """Write an object whose key may be any text."""
        self._put(f"/{bucket}/{quote(key, safe='/')}", data, *([("Content-Encoding", encoding)] if encoding else []))

    def _put(self, target: str, data: bytes, *headers: tuple[str, str]) -> None:
        signed = f"AWS4-HMAC-SHA256 Credential={KEY}/20250114/{REGION}/s3/aws4_request, SignedHeaders=host, Signature=0"
        made = self._forward("PUT", target, [("Host", "127.0.0.1"), ("Authorization", signed), *headers], data)
        assert made.status == 200, made

    def answer(self, request: Request) -> Answer:
        refused = self._check(request)
        if refused:
            return refused
        answer = self._forward(request.method, request.target, request.headers.items(), request.body)
        if b"<SecretAccessKey>" in answer.body:
            text = answer.body.decode()
            key, secret = (re.findall(f"<{name}>([^<]+)<", text)[0] for name in ("AccessKeyId", "SecretAccessKey"))
            self._known[key] = secret
        return answer

    def _forward(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        connection = self._connection()
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        self._idle.append((time.monotonic(), connection))
        copied = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        length = response.getheader("Content-Length")
        return Answer(response.status, content, {**copied, **({"Content-Length": length} if length else {})})

    def _connection(self) -> http.client.HTTPConnection:
        """Return a connection that was used within a second: ministack closes idle ones."""
        while self._idle:
            used_at, connection = self._idle.pop()
            if time.monotonic() - used_at < 1:
                return connection
            connection.close()
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for _, connection in self._idle:
            connection.close()

    def _check(self, request: Request) -> Answer | None:
        """Check a version 4 signature in the headers. Like S3, the refusal quotes the canonical request."""
        given = request.headers.get("Authorization", "")
        signed = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=(.+?)/(.+), ?SignedHeaders=(.+), ?Signature=(.+)", given)
        if not signed:
            # A presigned URL has its signature in the query.
            return None if "X-Amz-Signature" in request.query else xml_error(403, "AccessDenied", "Access Denied")
        key, scope, names, signature = signed.groups()
        if key not in self._known:
            return xml_error(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist.")
        canonical = _canonical(request, names)
        text = "\n".join(
            ["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
        )
        if hmac.compare_digest(_signature(self._known[key], scope, text), signature):
            return None
        body = (
            "<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match."
            f"</Message><AWSAccessKeyId>{key}</AWSAccessKeyId><SignatureProvided>{signature}</SignatureProvided>"
            f"<CanonicalRequest>{escape(canonical)}</CanonicalRequest></Error>"
        )
        return Answer(403, body.encode(), {"Content-Type": "application/xml"})


def _canonical(request: Request, names: str) -> str:
    """Return the canonical request, which is what the client signs."""
    given = parse_qsl(request.raw_query, keep_blank_values=True)
    fields = [f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in given]
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names.split(";"))
    payload = request.headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()
    return "\n".join([request.method, request.raw_path, "&".join(sorted(fields)), headers, names, payload])


def _signature(secret: str, scope: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()

"""S3: ministack in a process of its own, behind a gate that checks signatures, can be told to fail, and remembers."""

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

from loopback import Answer, Asked, LoopbackServer, xml_error

KEY, SECRET = "AKIASHOPCATALOG12345", "sesame/" + secrets.token_urlsafe(24)
"""The one key that the gate knows from the start; those that STS hands out it learns."""

REGION = "eu-central-1"
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive", "date", "server"}


class Ministack:
    """The process. ``port`` is its own, which nothing but the gate needs to know."""

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
    """Lets through what is signed rightly; ministack itself checks no more than the signatures of addresses."""

    def __init__(self, ministack: Ministack) -> None:
        super().__init__()
        self._port = ministack.port
        self._known = {KEY: SECRET}
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def make_bucket(self, name: str) -> None:
        signed = f"AWS4-HMAC-SHA256 Credential={KEY}/20250114/{REGION}/s3/aws4_request, SignedHeaders=host, Signature=0"
        made = self._forward("PUT", f"/{name}", [("Host", "127.0.0.1"), ("Authorization", signed)], b"")
        assert made.status == 200, made

    def answer(self, asked: Asked) -> Answer:
        refused = self._check(asked)
        if refused:
            return refused
        answer = self._forward(asked.method, asked.target, asked.headers.items(), asked.body)
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
        told = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        length = response.getheader("Content-Length")
        return Answer(response.status, content, {**told, **({"Content-Length": length} if length else {})})

    def _connection(self) -> http.client.HTTPConnection:
        """One that was used a moment ago: ministack closes those that idle for seconds."""
        while self._idle:
            used_at, connection = self._idle.pop()
            if time.monotonic() - used_at < 1:
                return connection
            connection.close()
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def __exit__(self, *about: object) -> None:
        super().__exit__(*about)
        for _, connection in self._idle:
            connection.close()

    def _check(self, asked: Asked) -> Answer | None:
        """Check a signature of version 4 in the headers, as S3 does, which tells what it should have been made of."""
        given = asked.headers.get("Authorization", "")
        signed = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=(.+?)/(.+), ?SignedHeaders=(.+), ?Signature=(.+)", given)
        if not signed:
            # An address may be signed instead.
            return None if "X-Amz-Signature" in asked.query else xml_error(403, "AccessDenied", "Access Denied")
        key, scope, names, signature = signed.groups()
        if key not in self._known:
            return xml_error(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist.")
        request = _canonical(asked, names)
        text = "\n".join(
            ["AWS4-HMAC-SHA256", asked.headers["x-amz-date"], scope, hashlib.sha256(request.encode()).hexdigest()]
        )
        if hmac.compare_digest(_signature(self._known[key], scope, text), signature):
            return None
        body = (
            "<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match."
            f"</Message><AWSAccessKeyId>{key}</AWSAccessKeyId><SignatureProvided>{signature}</SignatureProvided>"
            f"<CanonicalRequest>{escape(request)}</CanonicalRequest></Error>"
        )
        return Answer(403, body.encode(), {"Content-Type": "application/xml"})


def _canonical(asked: Asked, names: str) -> str:
    """The request as it is signed."""
    given = parse_qsl(asked.raw_query, keep_blank_values=True)
    fields = [f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in given]
    headers = "".join(f"{name}:{' '.join(asked.headers.get(name, '').split())}\n" for name in names.split(";"))
    payload = asked.headers.get("x-amz-content-sha256") or hashlib.sha256(asked.body).hexdigest()
    return "\n".join([asked.method, asked.raw_path, "&".join(sorted(fields)), headers, names, payload])


def _signature(secret: str, scope: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()

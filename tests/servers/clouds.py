"""Both clouds for tests: one server each for the whole session, and a bucket for each test."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fake_gcs import FakeGcs
from loopback import LoopbackServer
from s3_server import KEY, REGION, SECRET, Ministack, S3Gate

from airflow_provider_describer.storage.address import Scheme
from airflow_provider_describer.storage.bucket import Bucket
from airflow_provider_describer.storage.open_bucket import gcs_bucket, s3_bucket
from airflow_provider_describer.storage.rest_client import RetrySettings

QUICK = RetrySettings(retries=2, first=0.01, longest=0.05)
"""Retries only briefly."""


@dataclass
class Cloud:
    """A server of one cloud, and the name of a bucket there that no other test uses."""

    scheme: Scheme
    server: LoopbackServer
    name: str
    environment: dict[str, str]
    """Variables that lead the cloud's own libraries to the server and the credentials."""
    _credentials: Callable[[], Any]

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.name}"

    def bucket(self, name: str | None = None, **settings: Any) -> Bucket:
        """Open this bucket, or another one; ``settings`` as of `s3_bucket` and `gcs_bucket`."""
        given = {"credential_provider": self._credentials, "endpoint": self.server.url, "retry": QUICK, **settings}
        if self.scheme == "s3":
            return s3_bucket(name or self.name, **{"region": REGION, **given})
        return gcs_bucket(name or self.name, **given)

    def open_bucket(self, scheme: Scheme, name: str) -> Bucket:
        """An `OpenBucket` for this cloud."""
        assert scheme == self.scheme
        return self.bucket(name)

    def put_any(self, key: str, data: bytes, encoding: str = "", **more: Any) -> None:
        """Write an object of any key, as another program may have, with its Content-Encoding."""
        if isinstance(self.server, S3Gate):
            self.server.put_any(self.name, key, data, encoding)
        else:
            assert isinstance(self.server, FakeGcs)
            self.server.objects.put(self.name, key, data, content_encoding=encoding, **more)

    def secrets(self) -> list[str]:
        """Return what no message may contain."""
        return [SECRET] if self.scheme == "s3" else [str(self._credentials()["token"])]


@contextmanager
def s3_cloud(folder: Path) -> Iterator[Callable[[], Cloud]]:
    """Start S3; yield a function that makes a new bucket."""
    with Ministack(folder) as ministack, S3Gate(ministack) as gate:

        def new() -> Cloud:
            name = f"shop-{secrets.token_hex(6)}"
            gate.reset()
            gate.make_bucket(name)
            environment = {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": REGION,
                "AWS_ENDPOINT_URL": gate.url,
            }
            credentials = {"access_key_id": KEY, "secret_access_key": SECRET, "token": None, "expires_at": _later()}
            return Cloud("s3", gate, name, environment, lambda: credentials)

        yield new


@contextmanager
def gcs_cloud(folder: Path) -> Iterator[Callable[[], Cloud]]:
    """Start GCS; yield a function that makes a new bucket."""
    with FakeGcs() as server:
        key_file = folder / "service_account.json"
        key_file.write_text(json.dumps(server.access.key_file))
        environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(key_file), "STORAGE_EMULATOR_HOST": server.url}
        credentials = {"token": server.access.new_token(), "expires_at": _later()}

        def new() -> Cloud:
            name = f"shop-{secrets.token_hex(6)}"
            server.reset()
            server.objects.make_bucket(name)
            return Cloud("gs", server, name, environment, lambda: credentials)

        yield new


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=12)

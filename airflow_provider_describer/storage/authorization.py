"""The headers that authorize a plain GET: a version 4 signature at S3, a bearer token at GCS."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_describer.storage.bucket_errors import NoCredentials

FRESH_FOR = timedelta(minutes=5)
"""Credentials without an expiry are asked for again after this."""
_NEARLY = timedelta(minutes=1)
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def can_ask(provider: object) -> bool:
    """Whether a credential provider of obstore can be asked from blocking code."""
    return callable(provider) and not any(
        inspect.iscoroutinefunction(one)
        for one in (provider, getattr(provider, "__call__", None))  # noqa: B004
    )


class Credentials:
    """What a provider of obstore gives, asked for once until shortly before it expires. Is such a provider itself.

    ``config`` are the settings of a store that the provider brings along, such as a profile's region.
    """

    def __init__(self, provider: Callable[[], Mapping[str, Any]]) -> None:
        self._provider = provider
        self.config: Mapping[str, Any] = getattr(provider, "config", None) or {}
        self._lock = threading.Lock()
        self._held: Mapping[str, Any] = {}
        self._until = datetime.min.replace(tzinfo=UTC)

    def get(self) -> Mapping[str, Any]:
        """Return them; raise `NoCredentials`, naming the class of what the provider has raised."""
        try:
            return self()
        except Exception as error:  # noqa: BLE001  # a provider may raise anything, with a secret in its text
            raise NoCredentials(f"credential provider: {type(error).__name__}") from None

    def __call__(self) -> Mapping[str, Any]:
        """Return them, or raise what the provider does."""
        with self._lock:
            now = datetime.now(UTC)
            if now >= self._until:
                self._held = self._provider()
                expires_at = self._held.get("expires_at")
                self._until = now + FRESH_FOR if expires_at is None else expires_at - _NEARLY
            return self._held


def bearer(credentials: Credentials) -> Callable[[str, str, str], Mapping[str, str]]:
    """Return what authorizes requests of GCS."""
    return lambda host, path, query: {"authorization": f"Bearer {credentials.get()['token']}"}


def signature_v4(
    credentials: Credentials, region: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Callable[[str, str, str], Mapping[str, str]]:
    """Return what signs requests of S3, as the AWS documentation describes for a GET without a body."""

    def sign(host: str, path: str, query: str) -> Mapping[str, str]:
        held, now = credentials.get(), clock()
        moment, scope = now.strftime("%Y%m%dT%H%M%SZ"), f"{now:%Y%m%d}/{region}/s3/aws4_request"
        headers = {"host": host, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": moment}
        if token := held.get("token"):
            headers["x-amz-security-token"] = token
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"GET\n{path}\n{query}\n{lines}\n{names}\n{_EMPTY_SHA256}"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{held['secret_access_key']}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"{held['access_key_id']}/{scope}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    return sign

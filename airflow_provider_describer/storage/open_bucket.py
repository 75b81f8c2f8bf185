"""Making buckets: from the environment's credentials, or from those that somebody hands over."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.address import Scheme, mask_query
from airflow_provider_describer.storage.bucket import Bucket, Signer

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSCredentialProvider, RetryConfig, S3CredentialProvider

OpenBucket = Callable[[Scheme, str], Bucket]
"""``(scheme, bucket name) -> Bucket``: whoever can open a bucket, knowing the credentials."""


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often, and for how many seconds, to wait for a store that throttles or is not there.

    Each wait is drawn at random, up to three times the last one: a quarter of a minute in all, on average.
    """

    retries: int = 8
    first: float = 0.2
    longest: float = 10.0
    in_all: float = 60.0


def bucket_from_environment(scheme: Scheme, name: str) -> Bucket:
    """Return a bucket, opened as the cloud's own tools would here: by variables, profiles and metadata servers.

    :raises BadInput: where the library is missing, or there are no credentials.
    """
    if scheme == "s3":
        return s3_bucket(name, credential_provider=_boto3_credentials())
    return gcs_bucket(name, credential_provider=_google_credentials())


def s3_bucket(  # noqa: PLR0913  # a connection's settings, each with a default
    name: str,
    *,
    credential_provider: S3CredentialProvider | None = None,
    endpoint: str | None = None,
    region: str | None = None,
    anonymous: bool = False,
    virtual_hosted: bool = False,
    client_options: Mapping[str, Any] | None = None,
    retry: RetrySettings = RetrySettings(),
    signer: Signer | None = None,
) -> Bucket:
    """Return a bucket of S3, or of a store that speaks its language at ``endpoint``.

    :param credential_provider: called for credentials, and again before they expire; without one, obstore looks for
        AWS_ACCESS_KEY_ID, a web identity, and the container's or the machine's role.
    :param virtual_hosted: the bucket's name is part of the host's, as some endpoints ask for.
    :param client_options: obstore's, over ours: proxies, certificates, time limits.
    :raises BadInput: where the library is missing, or these settings cannot work.
    """
    store = _library("amazon").S3Store
    endpoint = _endpoint(endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    settings: dict[str, Any] = {"virtual_hosted_style_request": virtual_hosted}
    if endpoint:
        # What the bucket's name is part of is told whole.
        settings["endpoint"] = endpoint.replace("://", f"://{name}.", 1) if virtual_hosted else endpoint
    if region:
        settings["region"] = region
    if anonymous:
        settings["skip_signature"] = True
    elif credential_provider is not None:
        settings["credential_provider"] = credential_provider
    return _bucket("s3", name, store, settings, endpoint, client_options, retry, signer)


def gcs_bucket(
    name: str,
    *,
    credential_provider: GCSCredentialProvider | None = None,
    endpoint: str | None = None,
    anonymous: bool = False,
    client_options: Mapping[str, Any] | None = None,
    retry: RetrySettings = RetrySettings(),
    signer: Signer | None = None,
) -> Bucket:
    """Return a bucket of Google Cloud Storage. Arguments are as in `s3_bucket`.

    :param credential_provider: without one, obstore looks for GOOGLE_APPLICATION_CREDENTIALS and the machine's account.
    :raises BadInput: where the library is missing, or these settings cannot work.
    """
    store = _library("google").GCSStore
    endpoint = _endpoint(endpoint, "STORAGE_EMULATOR_HOST")
    settings: dict[str, Any] = {"base_url": endpoint} if endpoint else {}
    if anonymous:
        settings["skip_signature"] = True
    elif credential_provider is not None:
        settings["credential_provider"] = credential_provider
    return _bucket("gs", name, store, settings, endpoint, client_options, retry, signer)


def _endpoint(given: str | None, *variables: str) -> str | None:
    """The endpoint, or the one that the cloud's own libraries take from these variables; None for the cloud's own."""
    endpoint = given or next(filter(None, map(os.environ.get, variables)), "")
    if endpoint and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", endpoint, re.IGNORECASE):
        shown = mask_query(endpoint)
        raise BadInput(f"endpoint is {shown!r}, expected an address such as 'https://storage.example.com'.")
    return endpoint.rstrip("/") or None


def _bucket(
    scheme: Scheme,
    name: str,
    make_store: Callable[..., Any],
    settings: Mapping[str, Any],
    endpoint: str | None,
    client_options: Mapping[str, Any] | None,
    retry: RetrySettings,
    signer: Signer | None,
) -> Bucket:
    options: ClientConfig = {
        "connect_timeout": "5s",
        "timeout": "2min",
        # Credentials and contents in clear text only where the endpoint's address asks for it.
        "allow_http": (endpoint or "").lower().startswith("http://"),
        **(client_options or {}),  # type: ignore[typeddict-item]
    }
    retry_config: RetryConfig = {
        "max_retries": retry.retries,
        "retry_timeout": timedelta(seconds=retry.in_all),
        "backoff": {
            "init_backoff": timedelta(seconds=retry.first),
            "max_backoff": timedelta(seconds=retry.longest),
            "base": 3,
        },
    }
    try:
        store = make_store(name, **settings, client_options=options, retry_config=retry_config)
    except Exception as error:  # noqa: BLE001  # told by class: the library's text may quote a setting's value
        raise BadInput(
            f"{scheme}://{name} cannot be opened ({type(error).__name__}): check the bucket's name, and the "
            "connection's endpoint, region and credentials."
        ) from None
    return Bucket(scheme, name, store, signer=signer)


def _library(extra: str) -> Any:
    try:
        from obstore import store
    except ImportError:
        raise BadInput(
            f"Object storage needs the package obstore: pip install 'airflow-provider-describer[{extra}]'."
        ) from None
    return store


def _boto3_credentials() -> S3CredentialProvider | None:
    """All that boto3 finds, profiles too; None where it is not installed: obstore then looks for itself."""
    if find_spec("boto3") is None or find_spec("obstore") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except Exception as error:  # noqa: BLE001  # a profile of that name, a file that cannot be read, nothing at all…
        raise BadInput(
            f"There are no AWS credentials in this environment ({type(error).__name__}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from None


def _google_credentials() -> GCSCredentialProvider | None:
    """All that google-auth finds; None where it is not installed: obstore then looks for itself."""
    if find_spec("google") is None or find_spec("google.auth") is None or find_spec("obstore") is None:
        return None
    import google.auth
    from obstore.auth.google import GoogleCredentialProvider

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
        return GoogleCredentialProvider(credentials)
    except Exception as error:  # noqa: BLE001  # a file that cannot be read, nothing at all…
        raise BadInput(
            f"There are no Google credentials in this environment ({type(error).__name__}): set "
            "GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, or log in with gcloud."
        ) from None

"""Opening buckets: with the environment's credentials, or with those of a connection."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.address import Scheme, mask_query
from airflow_provider_describer.storage.authorization import Credentials, bearer, can_ask, signature_v4
from airflow_provider_describer.storage.bucket import Bucket, Signer
from airflow_provider_describer.storage.rest_client import Authorize, RestClient, RetrySettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSCredentialProvider, RetryConfig, S3CredentialProvider

OpenBucket = Callable[[Scheme, str], Bucket]
"""``(scheme, bucket name) -> Bucket``: opens a bucket with credentials of its own.

It is asked for each image: one that opens anew every time, as `bucket_from_environment` does, belongs in
``functools.cache``.
"""


class BucketOptions(TypedDict, total=False):
    """What the buckets of both clouds take. ``client_options`` are obstore's, and override ours.

    Without a ``credential_provider``, which is called for credentials and again before they expire, obstore takes those
    of the cloud's usual variables and of the machine's role or account; then only keys that obstore can express are
    read and listed.
    """

    credential_provider: S3CredentialProvider | GCSCredentialProvider | None
    anonymous: bool
    client_options: Mapping[str, Any] | None
    retry: RetrySettings
    signer: Signer | None


def bucket_from_environment(scheme: Scheme, name: str) -> Bucket:
    """Return a bucket with the credentials of the cloud's own tools; raise `BadInput` without them or obstore."""
    if scheme == "s3":
        return s3_bucket(name, credential_provider=_boto3_credentials())
    return gcs_bucket(name, credential_provider=_google_credentials())


def s3_bucket(
    name: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    virtual_hosted: bool = False,
    **options: Unpack[BucketOptions],
) -> Bucket:
    """Return a bucket of S3, or of an S3-compatible store at ``endpoint``.

    :param virtual_hosted: the bucket's name is part of the host's name, as some endpoints require.
    :raises BadInput: where obstore is missing, or these settings cannot work.
    """
    endpoint = _endpoint(endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    settings: dict[str, Any] = {"virtual_hosted_style_request": virtual_hosted}
    if endpoint:
        # obstore wants the whole host.
        settings["endpoint"] = endpoint.replace("://", f"://{name}.", 1) if virtual_hosted else endpoint
    if region:
        settings["region"] = region
    # As obstore does.
    held = getattr(options.get("credential_provider"), "config", None) or {}
    region = region or held.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = region or "us-east-1"
    base = endpoint or f"https://s3.{region}.amazonaws.com"
    url = base.replace("://", f"://{name}.", 1) if virtual_hosted else f"{base}/{name}"
    others = {"aws_region": region, "aws_virtual_hosted_style_request": str(virtual_hosted).lower()}
    if endpoint:
        others["aws_endpoint"] = settings["endpoint"]
    return _bucket("s3", name, endpoint, settings, url, partial(signature_v4, region=region), others, **options)


def gcs_bucket(name: str, *, endpoint: str | None = None, **options: Unpack[BucketOptions]) -> Bucket:
    """Return a bucket of Google Cloud Storage; errors as for `s3_bucket`."""
    endpoint = _endpoint(endpoint, "STORAGE_EMULATOR_HOST")
    settings = {"base_url": endpoint} if endpoint else {}
    url = f"{endpoint or 'https://storage.googleapis.com'}/{name}"
    others = {"google_base_url": endpoint} if endpoint else {}
    return _bucket("gs", name, endpoint, settings, url, bearer, others, **options)


def _endpoint(given: str | None, *variables: str) -> str | None:
    """Return the endpoint, or the one in these variables of the cloud's own libraries; None for the cloud's own."""
    endpoint = given or next(filter(None, map(os.environ.get, variables)), "")
    if endpoint and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", endpoint, re.IGNORECASE):
        raise BadInput(
            f"endpoint is {mask_query(endpoint)!r}, expected an address such as 'https://storage.example.com'."
        )
    return endpoint.rstrip("/") or None


def _bucket(
    scheme: Scheme,
    name: str,
    endpoint: str | None,
    settings: dict[str, Any],
    url: str,
    authorized_by: Callable[[Credentials], Authorize],
    others: dict[str, str],
    **options: Unpack[BucketOptions],
) -> Bucket:
    """Open a bucket; ``others`` are the settings by which other libraries find it, without its credentials."""
    make_store = _store_class(scheme)
    provider: Any = options.get("credential_provider")
    authorize: Authorize | None = None
    if options.get("anonymous"):
        settings["skip_signature"] = True
        authorize = _unsigned
    elif provider is not None:
        if can_ask(provider):
            # Both obstore and our own requests use what one request for credentials gives.
            provider = Credentials(provider)
            authorize = authorized_by(provider)
        settings["credential_provider"] = provider
    client_options: ClientConfig = {
        "connect_timeout": "5s",
        "timeout": "2min",
        # Credentials and contents in clear text only where the endpoint's address asks for it.
        "allow_http": (endpoint or "").lower().startswith("http://"),
        **(options.get("client_options") or {}),  # type: ignore[typeddict-item]
    }
    retry = options.get("retry", RetrySettings())
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
        store = make_store(name, **settings, client_options=client_options, retry_config=retry_config)
    except Exception as error:  # noqa: BLE001  # only its class is shown: obstore's text may quote a setting's value
        raise BadInput(
            f"{scheme}://{name} cannot be opened ({type(error).__name__}): check the bucket's name, and the "
            "connection's endpoint, region and credentials."
        ) from None
    rest = RestClient(scheme, name, url, authorize, retry, client_options) if authorize else None
    anonymous = bool(options.get("anonymous"))
    others |= {name: str(value).lower() for name, value in client_options.items() if isinstance(value, bool)}
    return Bucket(
        scheme,
        name,
        store,
        signer=options.get("signer"),
        rest=rest,
        anonymous=anonymous,
        options=partial(_options, scheme, others, anonymous, provider),
    )


_OPTION_NAMES: dict[Scheme, dict[str, str]] = {
    "s3": {
        "access_key_id": "aws_access_key_id",
        "secret_access_key": "aws_secret_access_key",
        "token": "aws_session_token",
    },
    "gs": {"token": "google_storage_token"},
}
"""The options of object_store for what providers of obstore give."""


def _options(scheme: Scheme, others: Mapping[str, str], anonymous: bool, provider: Any) -> dict[str, str]:
    if anonymous:
        return {**others, "aws_skip_signature" if scheme == "s3" else "google_skip_signature": "true"}
    held: Mapping[str, Any] = {} if provider is None else provider.get() if can_ask(provider) else {}
    return {**others, **{name: held[ours] for ours, name in _OPTION_NAMES[scheme].items() if held.get(ours)}}


def _unsigned(host: str, path: str, query: str) -> Mapping[str, str]:
    return {}


def _store_class(scheme: Scheme) -> Any:
    try:
        from obstore import store
    except ImportError:
        extra = "amazon" if scheme == "s3" else "google"
        raise BadInput(
            f"Object storage needs the package obstore: pip install 'airflow-provider-describer[{extra}]'."
        ) from None
    return store.S3Store if scheme == "s3" else store.GCSStore


def _boto3_credentials() -> S3CredentialProvider | None:
    """Return all that boto3 finds, profiles included; None where it is missing: obstore then looks for itself."""
    if find_spec("boto3") is None or find_spec("obstore") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except Exception as error:  # noqa: BLE001  # no such profile, a file that cannot be read, no credentials…
        raise BadInput(
            f"There are no AWS credentials in this environment ({type(error).__name__}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from None


def _google_credentials() -> GCSCredentialProvider | None:
    """Return all that google-auth finds; None where it is missing: obstore then looks for itself."""
    if find_spec("google") is None or find_spec("google.auth") is None or find_spec("obstore") is None:
        return None
    import google.auth
    from obstore.auth.google import GoogleCredentialProvider

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
        return GoogleCredentialProvider(credentials)
    except Exception as error:  # noqa: BLE001  # a file that cannot be read, no credentials…
        raise BadInput(
            f"There are no Google credentials in this environment ({type(error).__name__}): set "
            "GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, or log in with gcloud."
        ) from None

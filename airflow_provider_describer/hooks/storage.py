"""S3 and GCS buckets through Airflow's own connections: credentials, endpoints and presigned URLs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException

from airflow_provider_describer.errors import BadConnection, BadInput, BucketError
from airflow_provider_describer.hooks.connection import missing_connection, quiet_masker, read_connection
from airflow_provider_describer.storage.address import Scheme, bucket_address, mask_query
from airflow_provider_describer.storage.bucket import Bucket, Signed, Signer
from airflow_provider_describer.storage.open_bucket import OpenBucket, gcs_bucket, s3_bucket

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.credentials import Credentials
    from obstore.store import S3Credential

LONGEST_S = 604_800
"""The longest life of a presigned URL, seven days, at both clouds."""
FRESH_FOR = timedelta(minutes=30)
"""Credentials without an expiry are read again after this: a file or a variable may have changed."""
_CONN_TYPES = {"s3": "aws", "gs": "google_cloud_platform"}


def buckets_of(storage_conn_id: str | None = None) -> OpenBucket:
    """
    Return what opens buckets with the credentials of an Airflow connection.

    Open buckets before an event loop runs, because reading a connection blocks, and never at a DAG file's top level,
    because a client does not survive a fork. Each bucket is opened once.

    :param storage_conn_id: connection of type ``aws`` or ``google_cloud_platform``, for buckets of its cloud. By
        default, and for the other cloud, ``aws_default`` or ``google_cloud_default``.
    :raises BadInput: if the connection is missing, has another type or has no credentials, or if the cloud's packages
        are not installed.
    :raises BucketError: if the cloud refuses to give credentials or cannot be reached.
    """

    @cache
    def open_bucket(scheme: Scheme, name: str) -> Bucket:
        conn_id = storage_conn_id if storage_conn_id and _is_of(storage_conn_id, scheme) else None
        with quiet_masker():
            return _OPENERS[scheme](name, conn_id)

    return open_bucket


def open_ahead(open_bucket: OpenBucket, needed: Iterable[str | None], images: Iterable[str] = ()) -> OpenBucket:
    """
    Open the bucket of every uri that has one, before an event loop runs; return what gives the opened buckets.

    Some images may be in a bucket that cannot be opened. Its error is raised when such an image is read.

    :param needed: uris without which nothing can be done, such as the store's.
    :raises DescriberError: for one of these, where no image at all is in a bucket that can be opened, and for a
        ``storage_conn_id`` that is wrong.
    """
    for key in filter(None, map(bucket_address, filter(None, needed))):
        open_bucket(key.scheme, key.bucket)
    buckets = {(key.scheme, key.bucket) if key else None for key in map(bucket_address, images)}
    failed: dict[tuple[Scheme, str], BadInput | BucketError] = {}
    for bucket in filter(None, buckets):
        try:
            open_bucket(*bucket)
        except BadConnection:
            raise
        except (BadInput, BucketError) as error:
            failed[bucket] = error
    if failed and buckets == set(failed):
        raise next(iter(failed.values()))

    def opened(scheme: Scheme, name: str) -> Bucket:
        if error := failed.get((scheme, name)):
            raise error.with_traceback(None)
        return open_bucket(scheme, name)

    return opened


def _is_of(conn_id: str, scheme: Scheme) -> bool:
    try:
        conn_type = read_connection(conn_id, f"storage_conn_id is {conn_id!r}", _CONN_TYPES[scheme]).conn_type
    except BadInput as error:
        raise BadConnection(str(error)) from None
    if conn_type not in _CONN_TYPES.values():
        raise BadConnection(
            f"storage_conn_id is {conn_id!r}, a connection of type {conn_type!r}; expected one of type "
            f"{' or '.join(map(repr, _CONN_TYPES.values()))}."
        )
    return bool(conn_type == _CONN_TYPES[scheme])


def _needs(scheme: Scheme, name: str, conn_id: str) -> str:
    return f"{scheme}://{name} needs the connection {conn_id!r} (or another one in storage_conn_id)"


def _missing(extra: str, error: ImportError) -> BadInput:
    return BadInput(
        f"Object storage needs a package that is not installed ({error.name or error}): "
        f"pip install 'airflow-provider-describer[{extra}]'."
    )


def _bad_credentials(conn_id: str, error: Exception) -> BadInput:
    return BadInput(
        f"Connection {conn_id!r} has credentials that cannot work ({_text(error)}). Correct them, or leave them "
        "all empty to use the environment's."
    )


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _open_s3(name: str, conn_id: str | None) -> Bucket:
    try:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore import UNSIGNED
    except ImportError as error:
        raise _missing("amazon", error) from None
    hook = S3Hook(aws_conn_id=conn_id or S3Hook.default_conn_name)
    endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3")
    style = (hook.config.s3 or {}).get("addressing_style") or ("path" if endpoint else "auto")
    settings: dict[str, Any] = {
        "endpoint": endpoint,
        "virtual_hosted": style == "virtual",
        "client_options": _certificates(str(hook.aws_conn_id), hook.verify),
    }
    if hook.config.signature_version is UNSIGNED:
        return s3_bucket(name, anonymous=True, region=hook.region_name, **settings)
    session, credentials = _session_of(name, hook)
    return s3_bucket(
        name,
        credential_provider=lambda: _for_obstore(credentials),
        region=hook.region_name or session.region_name,
        signer=_s3_signer(name, hook, session, credentials, endpoint, style),
        **settings,
    )


def _session_of(name: str, hook: S3Hook) -> tuple[Any, Credentials]:
    from botocore import exceptions as boto

    try:
        session = hook.get_session()
        credentials = session.get_credentials()
    except (boto.ProfileNotFound, boto.PartialCredentialsError, boto.ParamValidationError) as error:
        raise _bad_credentials(str(hook.aws_conn_id), error) from None
    except (boto.BotoCoreError, boto.ClientError) as error:
        raise _aws_failure(name, hook, error) from None
    if credentials is None:
        # Airflow's hook takes a missing connection for an empty one.
        conn_id = str(hook.aws_conn_id)
        read_connection(conn_id, _needs("s3", name, conn_id), _CONN_TYPES["s3"])
        raise BadInput(
            f"Connection {hook.aws_conn_id!r} has no AWS credentials, and neither has the environment. Fill in the "
            "access key and the secret key, or a role."
        )
    return session, credentials


def _s3_signer(
    name: str, hook: S3Hook, session: Any, credentials: Credentials, endpoint: str | None, style: str
) -> Signer:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = hook.config.merge(Config(signature_version="s3v4", s3={"addressing_style": style}))
    try:
        # Not the hook's client: without a region, or in us-east-1, it signs with the old signature version 2.
        client = session.client("s3", endpoint_url=endpoint, verify=hook.verify, config=config)
    except ValueError:
        raise BadInput(
            f"Connection {hook.aws_conn_id!r}: its extra's endpoint_url is {mask_query(str(endpoint))!r}, expected an "
            "address such as 'https://storage.example.com'."
        ) from None

    def sign(key: str, seconds: float) -> Signed:
        try:
            # Refreshes them first, because a URL signed with a role's token expires with the token.
            credentials.get_frozen_credentials()
            expiry = _expiry(credentials)
            left = LONGEST_S if expiry is None else expiry.timestamp() - time.time()
            lives = int(min(seconds, LONGEST_S, left))
            url = client.generate_presigned_url("get_object", {"Bucket": name, "Key": key}, ExpiresIn=lives)
        except (BotoCoreError, ClientError) as error:
            raise _aws_failure(name, hook, error) from None
        return Signed(url, time.time() + lives)

    return sign


def _aws_failure(name: str, hook: S3Hook, error: Exception) -> BucketError:
    """Return the error for a role that is refused, or a token service that does not answer."""
    from botocore.exceptions import ConnectionError, HTTPClientError  # noqa: A004  # botocore's own

    kind = "unreachable" if isinstance(error, (ConnectionError, HTTPClientError)) else "bad_credentials"
    return BucketError(
        f"s3://{name}: connection {hook.aws_conn_id!r} could not get credentials ({_text(error)}).", kind=kind
    )


def _for_obstore(credentials: Credentials) -> S3Credential:
    """Return what obstore signs with until ``expires_at``, which is never past the expiry of a role's token."""
    frozen = credentials.get_frozen_credentials()
    fresh_until = datetime.now(UTC) + FRESH_FOR
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": min(fresh_until, _expiry(credentials) or fresh_until),
    }


def _expiry(credentials: Credentials) -> datetime | None:
    """Return when a role's credentials expire; None for others."""
    expiry: datetime | None = getattr(credentials, "_expiry_time", None)
    return expiry.astimezone(UTC) if expiry else None


def _certificates(conn_id: str, verify: bool | str | None) -> dict[str, Any] | None:
    """Return the client options for the connection's ``verify``: False, or the path of a CA certificate."""
    if not isinstance(verify, str):
        return {"allow_invalid_certificates": True} if verify is False else None
    try:
        return {"root_certificate": Path(verify).read_bytes()}
    except OSError as error:
        raise BadInput(
            f"Connection {conn_id!r}: its extra's verify is {verify!r}, which cannot be read ({error})."
        ) from None


def _open_gcs(name: str, conn_id: str | None) -> Bucket:
    try:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
        from obstore.auth.google import GoogleCredentialProvider
    except ImportError as error:
        raise _missing("google", error) from None
    conn_id = conn_id or GCSHook.default_conn_name
    try:
        hook = GCSHook(gcp_conn_id=conn_id)
        credentials, _ = hook.get_credentials_and_project_id()
    except AirflowNotFoundException:
        raise missing_connection(conn_id, _needs("gs", name, conn_id), _CONN_TYPES["gs"]) from None
    except (AirflowException, GoogleAuthError, KeyError, OSError, ValueError) as error:
        raise _bad_credentials(conn_id, error) from None
    # The places where Airflow's Google provider and Google's own library look for it.
    endpoint = hook.extras.get("gcs.endpoint") or os.environ.get("STORAGE_EMULATOR_HOST") or None
    if isinstance(credentials, AnonymousCredentials):
        return gcs_bucket(name, anonymous=True, endpoint=endpoint)
    return gcs_bucket(
        name,
        credential_provider=GoogleCredentialProvider(credentials),
        endpoint=endpoint,
        signer=_gcs_signer(name, conn_id, credentials, endpoint),
    )


def _gcs_signer(name: str, conn_id: str, credentials: Any, endpoint: str | None) -> Signer:
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    try:
        bucket = storage.Client(project="", credentials=credentials).bucket(name)
    except ValueError as error:
        raise BadInput(f"gs://{name} cannot be opened: {error}") from None
    at_endpoint = {"api_access_endpoint": endpoint} if endpoint else {}

    def sign(key: str, seconds: float) -> Signed:
        lives = timedelta(seconds=int(min(seconds, LONGEST_S)))
        try:
            url = bucket.blob(key).generate_signed_url(version="v4", expiration=lives, **at_endpoint)
        except AttributeError:
            raise BucketError(
                f"gs://{name}: the credentials of connection {conn_id!r} are a bare token, which cannot sign "
                "addresses. Use a service account's key or an impersonated account, or image_transport 'upload'.",
                kind="unsupported",
            ) from None
        except (GoogleAuthError, OSError) as error:
            # Google signs for an impersonated account, so the network is involved.
            kind = "denied" if "PERMISSION_DENIED" in str(error) else "unreachable"
            raise BucketError(f"gs://{name}: connection {conn_id!r} cannot sign ({_text(error)}).", kind=kind) from None
        return Signed(url, time.time() + lives.total_seconds())

    return sign


_OPENERS: dict[Scheme, Callable[[str, str | None], Bucket]] = {"s3": _open_s3, "gs": _open_gcs}

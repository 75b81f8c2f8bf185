"""Buckets opened with Airflow's connections, at servers that check tokens and signatures."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from loopback import Answer

from airflow_provider_describer.errors import BadInput, BucketError, DescriberError
from airflow_provider_describer.hooks.storage import LONGEST_S, _for_obstore, buckets_of, open_ahead
from airflow_provider_describer.storage.bucket import Bucket, Signed

if TYPE_CHECKING:
    from clouds import Cloud

ROLE = "arn:aws:iam::000000000000:role/catalog"
CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "STORAGE_EMULATOR_HOST", "CLOUDSDK_", "BOTO")
Connect = Callable[..., None]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No credentials but those of a connection, and no connection but a test's own."""
    pytest.importorskip("airflow.providers.amazon.aws.hooks.s3")
    pytest.importorskip("airflow.providers.google.cloud.hooks.gcs")
    for name in [name for name in os.environ if name.startswith(CLOUD_VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return monkeypatch


@pytest.fixture
def aws(s3: Cloud, connect: Connect) -> Connect:
    """Define the connection ``minio``, of the server's own key, with these extras."""

    def define(conn_id: str = "minio", *, login: str | None = None, password: str | None = None, **extra: Any) -> None:
        keys = s3.environment
        connect(
            conn_id,
            conn_type="aws",
            login=login or keys["AWS_ACCESS_KEY_ID"],
            password=password or keys["AWS_SECRET_ACCESS_KEY"],
            extra={"endpoint_url": s3.server.url, "region_name": keys["AWS_REGION"], **extra},
        )

    return define


@pytest.fixture
def google(gcs: Cloud, connect: Connect) -> Connect:
    """Define the connection ``gcp``, of the server's own service account or of what is given, with these extras."""

    def define(conn_id: str = "gcp", **extra: Any) -> None:
        named = {"key_path", "keyfile_dict", "credential_config_file", "is_anonymous"} & set(extra)
        key = {} if named else {"keyfile_dict": json.dumps(key_file(gcs))}
        connect(conn_id, conn_type="google_cloud_platform", extra={"gcs.endpoint": gcs.server.url, **key, **extra})

    return define


def key_file(gcs: Cloud) -> dict[str, str]:
    key: dict[str, str] = gcs.server.access.key_file  # type: ignore[attr-defined]  # which the fake GCS has
    return key


def opened(cloud: Cloud, conn_id: str | None) -> Bucket:
    return buckets_of(conn_id)(cloud.scheme, cloud.name)


def get(signed: Signed) -> tuple[int, bytes]:
    """What anybody gets at the address: the status and the content."""
    try:
        with urllib.request.urlopen(signed.url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def told(signed: Signed) -> dict[str, str]:
    """The fields of the address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(signed.url).query).items()}


def failure(conn_id: str | None, cloud: Cloud) -> DescriberError:
    with pytest.raises(DescriberError) as caught:
        opened(cloud, conn_id)
    return caught.value


def check_it_works(bucket: Bucket) -> None:
    """It writes, reads in both ways, lists, and signs what anybody may read."""
    bucket.create("a/b c#é.jpg", b"picture")
    assert asyncio.run(bucket.aread("a/b c#é.jpg", max_bytes=10)).data == b"picture"
    content = bucket.read("a/b c#é.jpg")
    assert content is not None and content.data == b"picture"
    assert [entry.key for page in bucket.entries("a/") for entry in page] == ["a/b c#é.jpg"]
    signed = bucket.sign("a/b c#é.jpg", 600)
    assert get(signed) == (200, b"picture")
    assert 0 <= time.time() + 600 - signed.expires_at < 60
    assert get(Signed(signed.url.replace("a/b", "a/x"), 0))[0] == 403


# --- S3 ---


@pytest.mark.parametrize(("extra", "region"), [({}, "eu-central-1"), ({"region_name": "us-east-1"}, "us-east-1")])
def test_keys_of_a_connection(s3: Cloud, aws: Connect, extra: dict[str, Any], region: str) -> None:
    aws(**extra)
    bucket = opened(s3, "minio")
    check_it_works(bucket)
    check_version_4(bucket, region)


def check_version_4(bucket: Bucket, region: str) -> None:
    fields = told(bucket.sign("x", 60))
    assert fields["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256" and "AWSAccessKeyId" not in fields
    assert fields["X-Amz-Credential"].split("/")[2:] == [region, "s3", "aws4_request"]


def test_keys_in_the_extra_without_a_region_and_an_endpoint_of_s3_alone(s3: Cloud, connect: Connect) -> None:
    keys = {name.lower(): s3.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    endpoints = {"endpoint_url": "http://127.0.0.1:1", "service_config": {"s3": {"endpoint_url": s3.server.url}}}
    connect("minio", conn_type="aws", extra={**keys, **endpoints})
    bucket = opened(s3, "minio")
    check_it_works(bucket)
    check_version_4(bucket, "us-east-1")


def test_a_connection_without_keys_takes_the_environments(
    s3: Cloud, connect: Connect, environment: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        environment.setenv(name, value)
    connect("minio", conn_type="aws", extra={"endpoint_url": s3.server.url})
    check_it_works(opened(s3, "minio"))
    # Without aws_default, the Amazon provider takes the environment as it is.
    assert opened(s3, None).read("a/b c#é.jpg") is not None


def test_a_sessions_token(s3: Cloud, aws: Connect) -> None:
    role = assumed(s3)
    aws(login=role["AccessKeyId"], password=role["SecretAccessKey"], aws_session_token=role["SessionToken"])
    s3.server.reset()
    bucket = opened(s3, "minio")
    check_it_works(bucket)
    sent = s3.server.received("PUT")
    assert [asked.headers["x-amz-security-token"] for asked in sent] == [role["SessionToken"]]
    assert told(bucket.sign("x", 60))["X-Amz-Security-Token"] == role["SessionToken"]


def assumed(s3: Cloud) -> dict[str, str]:
    """Credentials as STS gives them, for an hour."""
    boto3 = pytest.importorskip("boto3")
    keys = {name.lower(): s3.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    sts = boto3.session.Session(**keys, region_name="eu-central-1").client("sts", endpoint_url=s3.server.url)
    role: dict[str, str] = sts.assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
    return role


def role_of(s3: Cloud, **extra: Any) -> dict[str, Any]:
    """The extra of a connection with a role; the endpoint of the connection itself is not asked for roles."""
    return {"role_arn": ROLE, "service_config": {"sts": {"endpoint_url": s3.server.url}}, **extra}


def test_an_assumed_role(s3: Cloud, aws: Connect) -> None:
    aws(**role_of(s3))
    s3.server.reset()
    bucket = opened(s3, "minio")
    assert [asked.body.count(b"AssumeRole") for asked in s3.server.received("POST")] == [1]
    check_it_works(bucket)
    [written] = s3.server.received("PUT")
    assert written.headers["x-amz-security-token"]
    assert s3.environment["AWS_ACCESS_KEY_ID"] not in written.headers["Authorization"]
    assert len(s3.server.received("POST")) == 1


def test_an_address_dies_with_the_role(s3: Cloud, aws: Connect) -> None:
    aws(**role_of(s3, assume_role_kwargs={"DurationSeconds": 1800}))
    signed = opened(s3, "minio").sign("x", 7200)
    assert 1700 < signed.expires_at - time.time() <= 1800
    assert 1700 < int(told(signed)["X-Amz-Expires"]) <= 1800


def test_a_role_that_soon_ends_is_asked_for_again_before_an_address_is_signed(s3: Cloud, aws: Connect) -> None:
    # Of the last fifteen minutes, nothing is given away.
    aws(**role_of(s3, assume_role_kwargs={"DurationSeconds": 900}))
    bucket = opened(s3, "minio")
    first, second = told(bucket.sign("x", 7200)), told(bucket.sign("x", 7200))
    assert first["X-Amz-Security-Token"] != second["X-Amz-Security-Token"]


def test_credentials_are_not_kept_past_the_end_of_a_role() -> None:
    from botocore.credentials import Credentials, RefreshableCredentials

    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=20)
    metadata = {"access_key": "a", "secret_key": "b", "token": "c", "expiry_time": ends.isoformat()}
    role = RefreshableCredentials.create_from_metadata(metadata, lambda: metadata, "sts-assume-role")
    assert _for_obstore(role)["expires_at"] == ends
    kept = _for_obstore(Credentials("a", "b"))["expires_at"]
    assert kept is not None and timedelta(minutes=20) < kept - datetime.now(UTC) <= timedelta(minutes=30)


def test_a_role_that_is_refused(s3: Cloud, aws: Connect) -> None:
    aws(**role_of(s3))
    s3.server.deny(method="POST")
    error = failure("minio", s3)
    assert type(error) is BucketError and error.kind == "bad_credentials"
    assert "connection 'minio' could not get credentials (ClientError: " in str(error) and "AssumeRole" in str(error)


def test_a_token_service_that_cannot_be_reached(s3: Cloud, aws: Connect) -> None:
    unreachable = {"service_config": {"sts": {"endpoint_url": "http://127.0.0.1:1"}}}
    aws(**{**role_of(s3), **unreachable, "config_kwargs": {"retries": {"max_attempts": 0}}})
    error = failure("minio", s3)
    assert type(error) is BucketError and error.kind == "unreachable"
    assert "connection 'minio'" in str(error) and "http://127.0.0.1:1" in str(error)


@pytest.fixture
def by_web_identity(s3: Cloud, aws: Connect, tmp_path: Path) -> Bucket:
    """A bucket with a role that is asked for only when it is needed."""
    (tmp_path / "token").write_text("a.b.c")
    web = {"federation": "file", "token_file": str(tmp_path / "token")}
    named = {f"assume_role_with_web_identity_{name}": value for name, value in web.items()}
    aws(**role_of(s3, assume_role_method="assume_role_with_web_identity", **named))
    bucket = opened(s3, "minio")
    assert s3.server.requests == []
    return bucket


def test_a_role_that_is_refused_when_it_is_needed(s3: Cloud, by_web_identity: Bucket) -> None:
    s3.server.deny(method="POST")
    for act in (lambda: by_web_identity.sign("x", 60), lambda: by_web_identity.read("x")):
        with pytest.raises(BucketError) as caught:
            act()
        assert caught.value.kind == "bad_credentials"


def test_the_first_address_dies_with_the_role_that_is_asked_for_to_sign_it(s3: Cloud, by_web_identity: Bucket) -> None:
    ends = (datetime.now(UTC) + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"AccessKeyId": "ASIA1", "SecretAccessKey": "hush", "SessionToken": "token", "Expiration": ends}
    credentials = "".join(f"<{name}>{value}</{name}>" for name, value in given.items())
    body = f"<Credentials>{credentials}</Credentials>"
    for name in ("AssumeRoleWithWebIdentityResult", "AssumeRoleWithWebIdentityResponse"):
        body = f"<{name}>{body}</{name}>"
    s3.server.instead(Answer(200, body.encode(), {"Content-Type": "text/xml"}), method="POST")
    signed = by_web_identity.sign("x", 7200)
    assert 1700 < signed.expires_at - time.time() <= 1800
    assert 1700 < int(told(signed)["X-Amz-Expires"]) <= 1800


def test_seven_days_at_most(s3: Cloud, gcs: Cloud, aws: Connect, google: Connect) -> None:
    aws()
    google()
    for cloud, conn_id, name in ((s3, "minio", "X-Amz-Expires"), (gcs, "gcp", "X-Goog-Expires")):
        bucket = opened(cloud, conn_id)
        bucket.put("x", b"x")
        signed = bucket.sign("x", 30 * 24 * 3600)
        assert told(signed)[name] == str(LONGEST_S) and get(signed) == (200, b"x")
        assert abs(time.time() + LONGEST_S - signed.expires_at) < 60


def test_a_wrong_secret(s3: Cloud, aws: Connect) -> None:
    aws(password="hush-hush")
    bucket = opened(s3, "minio")
    bucket.sign("x", 60)
    with pytest.raises(BucketError) as caught:
        bucket.read("x")
    assert caught.value.kind == "bad_credentials" and "hush" not in str(caught.value)


def test_a_public_bucket(s3: Cloud, gcs: Cloud, connect: Connect, google: Connect) -> None:
    unsigned = {"endpoint_url": s3.server.url, "config_kwargs": {"signature_version": "unsigned"}}
    connect("minio", conn_type="aws", extra=unsigned)
    google(is_anonymous=True)
    for cloud, conn_id in ((s3, "minio"), (gcs, "gcp")):
        cloud.server.reset()
        bucket = opened(cloud, conn_id)
        with pytest.raises(BucketError):
            bucket.read("x")
        [asked] = cloud.server.requests
        assert "Authorization" not in asked.headers
        with pytest.raises(BucketError) as caught:
            bucket.sign("x", 60)
        assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({}, "Connection 'bare' has no AWS credentials, and neither has the environment. Fill in the access key"),
        ({"profile_name": "none"}, "Connection 'bare' has credentials that cannot work (ProfileNotFound: "),
        (
            {"verify": "/no/such/ca.pem"},
            "Connection 'bare': its extra's verify is '/no/such/ca.pem', which cannot be read",
        ),
        (
            {"endpoint_url": "minio:9000"},
            "'bare': its extra's endpoint_url is 'minio:9000', expected an address such as",
        ),
        ({"endpoint_url": "ftp://u:hush@minio"}, "endpoint is 'ftp://minio', expected an address such as 'https://"),
        ({"role_arn": ROLE, "assume_role_kwargs": {"DurationSeconds": 1}}, "cannot work (ParamValidationError: "),
    ],
)
def test_an_aws_connection_that_cannot_work(s3: Cloud, connect: Connect, extra: dict[str, Any], says: str) -> None:
    keys = {"login": "AKIA", "password": "hush"} if {"verify", "endpoint_url", "role_arn"} & set(extra) else {}
    connect("bare", conn_type="aws", extra=extra, **keys)
    error = failure("bare", s3)
    assert type(error) is BadInput and says in str(error)
    assert "hush" not in str(error)


@pytest.mark.parametrize("verify", [True, False, "a file"])
def test_settings_of_certificates_are_taken(s3: Cloud, aws: Connect, verify: bool | str) -> None:
    import certifi

    aws(verify=certifi.where() if verify == "a file" else verify)
    check_it_works(opened(s3, "minio"))


# --- GCS ---


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_a_service_accounts_key(gcs: Cloud, google: Connect, form: Callable[[Any], Any]) -> None:
    google(keyfile_dict=form(key_file(gcs)))
    bucket = opened(gcs, "gcp")
    assert gcs.server.requests == []
    check_it_works(bucket)
    assert len(gcs.server.received(path="^/token$")) == 1
    gcs.server.reset()
    signed = bucket.sign("x", 60)
    assert told(signed)["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
    assert gcs.server.requests == []


def test_a_key_file_and_the_endpoint_of_the_environment(
    gcs: Cloud, connect: Connect, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("STORAGE_EMULATOR_HOST", gcs.server.url)
    connect(
        "gcp", conn_type="google_cloud_platform", extra={"key_path": gcs.environment["GOOGLE_APPLICATION_CREDENTIALS"]}
    )
    check_it_works(opened(gcs, "gcp"))
    environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcs.environment["GOOGLE_APPLICATION_CREDENTIALS"])
    connect("google_cloud_default", conn_type="google_cloud_platform")
    assert opened(gcs, None).read("a/b c#é.jpg") is not None


@pytest.fixture
def internet(environment: pytest.MonkeyPatch) -> Any:
    """Google's own hosts, as far as tests answer for them; this machine's servers are asked as ever."""
    import requests_mock

    with requests_mock.Mocker(real_http=True) as mocker:
        yield mocker


@pytest.mark.filterwarnings("ignore:The load_credentials_from_file method is deprecated")  # as Airflow's hook uses it
def test_a_bare_token_reads_and_cannot_sign(gcs: Cloud, google: Connect, internet: Any) -> None:
    user = {"type": "authorized_user", "client_id": "shop", "client_secret": "hush", "refresh_token": "hush-hush"}
    google(credential_config_file=user)
    token = gcs.server.access.new_token()  # type: ignore[attr-defined]  # which the fake GCS has
    internet.post("https://oauth2.googleapis.com/token", json={"access_token": token, "expires_in": 3600})
    bucket = opened(gcs, "gcp")
    bucket.put("x", b"x")
    with pytest.raises(BucketError) as caught:
        bucket.sign("x", 60)
    assert caught.value.kind == "unsupported"
    said = str(caught.value)
    assert "connection 'gcp' are a bare token" in said and "service account's key" in said
    assert "hush" not in said and token not in said


IAM = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"


def impersonation(gcs: Cloud, internet: Any) -> str:
    """Let the IAM service act for the fake's own account, by whose key addresses are checked; return its token."""
    from google.auth.crypt import RSASigner

    account = key_file(gcs)
    signer = RSASigner.from_service_account_info(account)
    token: str = gcs.server.access.new_token()  # type: ignore[attr-defined]  # which the fake GCS has

    def sign(request: Any, _: object) -> dict[str, str]:
        signature = signer.sign(base64.b64decode(request.json()["payload"]))
        return {"keyId": "1", "signedBlob": base64.b64encode(signature).decode()}

    expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"accessToken": token, "expireTime": expires}
    internet.post(f"{IAM}{account['client_email']}:generateAccessToken", json=given)
    internet.post(f"{IAM}{account['client_email']}:signBlob", json=sign)
    internet.get(f"{IAM}{account['client_email']}/allowedLocations", status_code=404)
    return token


def test_an_impersonated_account(gcs: Cloud, google: Connect, internet: Any) -> None:
    token = impersonation(gcs, internet)
    google(impersonation_chain=key_file(gcs)["client_email"])
    check_it_works(opened(gcs, "gcp"))
    [written] = gcs.server.received("PUT")
    assert written.headers["Authorization"] == f"Bearer {token}"
    asked = [request.path.rpartition(":")[2] for request in internet.request_history if request.method == "POST"]
    assert sorted(asked) == ["/token", "generateaccesstoken", "signblob"]


@pytest.mark.parametrize("denied", [True, False])
def test_an_impersonated_account_whose_signature_is_not_given(
    gcs: Cloud, google: Connect, internet: Any, denied: bool
) -> None:
    import requests

    impersonation(gcs, internet)
    google(impersonation_chain=key_file(gcs)["client_email"])
    told = {"error": {"code": 403, "message": "Permission 'signBlob' denied", "status": "PERMISSION_DENIED"}}
    answer = {"status_code": 403, "json": told} if denied else {"exc": requests.ConnectTimeout("too slow")}
    internet.post(f"{IAM}{key_file(gcs)['client_email']}:signBlob", **answer)
    with pytest.raises(BucketError, match="connection 'gcp' cannot sign") as caught:
        opened(gcs, "gcp").sign("x", 60)
    assert caught.value.kind == ("denied" if denied else "unreachable")
    assert ("Permission 'signBlob' denied" if denied else "too slow") in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"keyfile_dict": "{hush"}, "Invalid key JSON"),
        ({"keyfile_dict": {"type": "service_account"}}, "KeyError: 'private_key'"),
        ({"keyfile_dict": {"private_key": "hush"}}, "MalformedError: "),
        ({"key_path": "/no/such/key.json"}, "FileNotFoundError: "),
        ({"key_path": "/key.p12"}, "Legacy P12"),
        ({}, "DefaultCredentialsError: "),
    ],
)
def test_a_google_connection_that_cannot_work(gcs: Cloud, connect: Connect, extra: dict[str, Any], says: str) -> None:
    connect("gcp", conn_type="google_cloud_platform", extra=extra)
    error = failure("gcp", gcs)
    assert type(error) is BadInput and "Connection 'gcp' has credentials that cannot work (" in str(error)
    assert says in str(error) and "hush" not in str(error)


def test_a_key_that_is_not_known(gcs: Cloud, google: Connect) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    google(keyfile_dict={**key_file(gcs), "private_key": other.decode()})
    bucket = opened(gcs, "gcp")
    with pytest.raises(BucketError) as caught:
        bucket.read("x")
    assert caught.value.kind == "bad_credentials" and "RefreshError" in str(caught.value)
    assert get(bucket.sign("x", 60))[0] == 403


# --- which connection ---


def test_a_connection_is_for_its_own_cloud_and_the_other_has_its_default(
    s3: Cloud, gcs: Cloud, aws: Connect, google: Connect
) -> None:
    aws()
    aws("aws_default", password="another one")
    google()
    google("google_cloud_default", is_anonymous=True)
    for conn_id, works, other in (("minio", s3, gcs), ("gcp", gcs, s3)):
        open_bucket = buckets_of(conn_id)
        assert open_bucket(works.scheme, works.name).read("x") is None
        with pytest.raises(BucketError) as caught:
            open_bucket(other.scheme, other.name).read("x")
        # Google refuses a caller without credentials by the same status.
        assert caught.value.kind == ("bad_credentials" if other is s3 else "denied")
    google("google_cloud_default")
    assert buckets_of("minio")("gs", gcs.name).read("x") is None
    assert buckets_of(None)("gs", gcs.name).read("x") is None


def test_a_bucket_is_opened_once_and_ahead(s3: Cloud, gcs: Cloud, aws: Connect, google: Connect) -> None:
    aws()
    google("google_cloud_default")
    open_bucket = buckets_of("minio")
    open_ahead(
        open_bucket, [f"{s3.uri}/a.jpg", f"{gcs.uri}/b.jpg", None, "c.jpg", "https://h/d.jpg", f"{s3.uri}/e.jpg"]
    )
    s3_bucket, gcs_bucket = open_bucket("s3", s3.name), open_bucket("gs", gcs.name)
    os.environ.pop("AIRFLOW_CONN_MINIO")
    os.environ.pop("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT")
    assert open_bucket("s3", s3.name) is s3_bucket and open_bucket("gs", gcs.name) is gcs_bucket
    assert repr(s3_bucket) == f"Bucket('{s3.uri}/')"


def test_a_bucket_that_cannot_be_opened_is_told_by_its_own_images(s3: Cloud, gcs: Cloud, aws: Connect) -> None:
    # Google's default connection is not there.
    aws()
    images = [f"{s3.uri}/a.jpg", f"{gcs.uri}/b.jpg", "/data/c.jpg"]
    open_bucket = open_ahead(buckets_of("minio"), [f"{s3.uri}/store", None], images)
    assert open_bucket("s3", s3.name).read("x") is None
    for _ in range(2):
        with pytest.raises(BadInput, match=r"gs://.* needs the connection 'google_cloud_default'"):
            open_bucket("gs", gcs.name)


def test_a_bucket_that_is_needed_or_the_only_one_must_open(s3: Cloud, gcs: Cloud, aws: Connect) -> None:
    aws()
    good, bad = f"{s3.uri}/a.jpg", f"{gcs.uri}/b.jpg"
    for needed, images in (([bad], [good]), ([], [bad]), ([good], [bad, bad])):
        with pytest.raises(BadInput, match="needs the connection 'google_cloud_default'"):
            open_ahead(buckets_of("minio"), needed, images)
    # A setting of the task is blamed on no image.
    with pytest.raises(BadInput, match="storage_conn_id is 'nowhere', but there is no such connection"):
        open_ahead(buckets_of("nowhere"), [], [good, "/data/c.jpg"])


@pytest.mark.parametrize("name", ["-shop", "shop-", "_"])
def test_a_name_that_no_bucket_has(gcs: Cloud, google: Connect, name: str) -> None:
    google("google_cloud_default")
    open_bucket = open_ahead(buckets_of(), [], [f"{gcs.uri}/a.jpg", f"gs://{name}/a.jpg"])
    assert open_bucket("gs", gcs.name).read("x") is None
    with pytest.raises(BadInput, match=f"gs://{name} cannot be opened"):
        open_bucket("gs", name)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_another_type_of_connection(connect: Connect, scheme: Any) -> None:
    connect("web", conn_type="http", password="hush", host="h")
    with pytest.raises(BadInput) as caught:
        buckets_of("web")(scheme, "shop")
    said = str(caught.value)
    assert "storage_conn_id is 'web', a connection of type 'http'" in said
    assert "'aws' or 'google_cloud_platform'" in said and "hush" not in said


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_no_such_connection(airflow_db: None, scheme: Any) -> None:
    with pytest.raises(BadInput, match="storage_conn_id is 'nowhere', but there is no such connection"):
        buckets_of("nowhere")(scheme, "shop")


def test_no_default_connection_for_google(airflow_db: None, gcs: Cloud) -> None:
    error = failure(None, gcs)
    assert type(error) is BadInput
    assert f"{gcs.uri} needs the connection 'google_cloud_default'" in str(error) and "storage_conn_id" in str(error)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize("package", ["the provider", "obstore"])
def test_packages_that_are_missing(
    aws: Connect, google: Connect, environment: pytest.MonkeyPatch, scheme: Any, package: str
) -> None:
    aws()
    google()
    hooks = {"s3": "airflow.providers.amazon.aws.hooks.s3", "gs": "airflow.providers.google.cloud.hooks.gcs"}
    for name in [name for name in sys.modules if package == "obstore" and re.match(r"obstore\b", name)]:
        environment.setitem(sys.modules, name, None)
    environment.setitem(sys.modules, "obstore" if package == "obstore" else hooks[scheme], None)
    with pytest.raises(BadInput) as caught:
        buckets_of({"s3": "minio", "gs": "gcp"}[scheme])(scheme, "shop")
    extra = {"s3": "amazon", "gs": "google"}[scheme]
    assert f"pip install 'airflow-provider-describer[{extra}]'" in str(caught.value)
    assert ("obstore" if package == "obstore" else hooks[scheme]) in str(caught.value)


def test_no_secret_in_a_log(
    s3: Cloud, gcs: Cloud, aws: Connect, google: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    aws(**role_of(s3))
    google()
    with caplog.at_level(logging.INFO):
        signed = [opened(s3, "minio").sign("x", 60), opened(gcs, "gcp").sign("x", 60)]
    hidden = [
        *s3.secrets(),
        *(fields[name] for one in signed for fields in [told(one)] for name in fields if "Sig" in name),
    ]
    assert len(hidden) >= 3
    shown = caplog.text + repr(signed)
    assert not [one for one in hidden if one in shown]

"""The test servers are as strict as the real ones; checked with the clouds' own libraries, where installed."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, timedelta

import pytest


def get(url):
    """Return the status and the content."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def google(gcs):
    """The bucket in google-cloud-storage, with a service account's key."""
    storage = pytest.importorskip("google.cloud.storage")
    account = pytest.importorskip("google.oauth2.service_account").Credentials.from_service_account_info(
        gcs.server.access.key_file
    )
    client = storage.Client("shop", account, client_options={"api_endpoint": gcs.server.url})
    yield client.bucket(gcs.name)
    client.close()


def test_google_writes_reads_lists_and_deletes(gcs, google):
    blob = google.blob("a/b c.txt")
    blob.upload_from_string(b"0123456789", content_type="text/plain")
    assert gcs.bucket().read("a/b c.txt").data == b"0123456789"
    assert blob.download_as_bytes(start=2, end=4) == b"234" and blob.exists()
    large = google.blob("large", chunk_size=256 * 1024)
    large.upload_from_string(b"x" * 600_000)
    assert large.download_as_bytes() == b"x" * 600_000
    assert gcs.bucket().read("large").size == 600_000
    google.copy_blob(blob, google, "a/copy")
    listed = google.client.list_blobs(google, delimiter="/")
    assert [one.name for one in listed] == ["large"] and listed.prefixes == {"a/"}
    blob.delete()
    assert not blob.exists() and google.blob("a/copy").exists()
    assert gcs.server.requests[0].path == "/token"


def test_google_lists_page_by_page(gcs, google):
    for number in range(1500):
        gcs.server.objects.put(gcs.name, f"{number:04d}", b"")
    assert [one.name for one in google.client.list_blobs(google)] == [f"{number:04d}" for number in range(1500)]
    assert len(gcs.server.received("GET", "/o$")) == 2


def test_generations_are_compared(google):
    refused = pytest.importorskip("google.api_core.exceptions").PreconditionFailed
    blob = google.blob("x")
    blob.upload_from_string("1", if_generation_match=0)
    for generation in (0, 1):
        with pytest.raises(refused):
            blob.upload_from_string("2", if_generation_match=generation)
    blob.upload_from_string("2", if_generation_match=blob.generation)
    assert blob.download_as_bytes() == b"2"


def test_addresses_signed_by_google(google):
    google.blob("a b").upload_from_string(b"seen")
    signed = google.blob("a b").generate_signed_url(timedelta(minutes=5), version="v4")
    assert get(signed) == (200, b"seen")
    for broken in (
        signed.replace("a%20b", "other"),
        signed.replace("X-Goog-Expires=300", "X-Goog-Expires=301"),
        signed[:-4] + "0000",
        signed + "&more=1",
    ):
        assert get(broken)[0] == 403
    assert get(google.blob("a b").generate_signed_url(timedelta(seconds=-1), version="v4"))[0] == 400
    assert get(signed.partition("?")[0])[0] == 401


def test_tokens_are_checked(gcs):
    assert get(f"{gcs.server.url}/{gcs.name}/x")[0] == 401
    body = b"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=a.b.c"
    assert get(urllib.request.Request(f"{gcs.server.url}/token", data=body)) == (400, b'{"error": "invalid_grant"}')


def s3_client(s3, **credentials):
    """The bucket in boto3."""
    boto3 = pytest.importorskip("boto3")
    config = pytest.importorskip("botocore.config").Config(signature_version="s3v4", s3={"addressing_style": "path"})
    given = {
        "aws_access_key_id": s3.environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": s3.environment["AWS_SECRET_ACCESS_KEY"],
        "region_name": s3.environment["AWS_REGION"],
        **credentials,
    }
    session = boto3.session.Session(**given)
    return session.client("s3", endpoint_url=s3.server.url, config=config), session


def test_boto3_writes_and_reads(s3):
    client, _ = s3_client(s3)
    client.put_object(Bucket=s3.name, Key="a b+c", Body=b"seen", IfNoneMatch="*")
    assert s3.bucket().read("a b+c").data == b"seen"
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=s3.name, Key="a b+c", Body=b"again", IfNoneMatch="*")
    listed = client.list_objects_v2(Bucket=s3.name, Prefix="a b+", Delimiter="/")
    assert [one["Key"] for one in listed["Contents"]] == ["a b+c"]


def test_signatures_of_headers_are_checked(s3):
    client, _ = s3_client(s3, aws_secret_access_key="wrong")
    with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket=s3.name)
    client, _ = s3_client(s3, aws_access_key_id="AKIAUNKNOWN")
    with pytest.raises(client.exceptions.ClientError, match="InvalidAccessKeyId"):
        client.list_objects_v2(Bucket=s3.name)


def test_addresses_signed_by_boto3(s3):
    client, _ = s3_client(s3)
    s3.bucket().put("a b", b"seen")
    signed = client.generate_presigned_url("get_object", Params={"Bucket": s3.name, "Key": "a b"}, ExpiresIn=300)
    assert get(signed) == (200, b"seen")
    for broken in (
        signed.replace("a%20b", "other"),
        signed.replace("Expires=300", "Expires=301"),
        signed[:-4] + "0000",
    ):
        assert get(broken)[0] == 403
    assert get(signed.partition("?")[0])[0] == 403


def test_an_assumed_role_has_access(s3):
    _, session = s3_client(s3)
    sts = session.client("sts", endpoint_url=s3.server.url)
    role = sts.assume_role(RoleArn="arn:aws:iam::000000000000:role/catalog", RoleSessionName="test")["Credentials"]
    credentials = {
        "access_key_id": role["AccessKeyId"],
        "secret_access_key": role["SecretAccessKey"],
        "token": role["SessionToken"],
        "expires_at": role["Expiration"].astimezone(UTC),
    }
    bucket = s3.bucket(credential_provider=lambda: credentials)
    bucket.put("x", b"x")
    assert bucket.read("x").data == b"x"
    assert s3.server.requests[-1].headers["x-amz-security-token"] == role["SessionToken"]

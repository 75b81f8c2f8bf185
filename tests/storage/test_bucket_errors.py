"""Errors of both clouds: their kind, the object, what to do, and never a secret."""

from __future__ import annotations

import asyncio
import socket
import traceback

import pytest
from loopback import Answer, xml_error

from airflow_provider_describer.errors import BucketError

ACTS = {
    "read": lambda bucket: bucket.read("k"),
    "aread": lambda bucket: asyncio.run(bucket.aread("k", max_bytes=9)),
    "entries": lambda bucket: list(bucket.entries()),
    "create": lambda bucket: bucket.create("k", b""),
    "put": lambda bucket: bucket.put("k", b""),
    "replace": lambda bucket: bucket.replace("k", b"", "0"),
    "replace nothing": lambda bucket: bucket.replace("k", b"", None),
    "delete": lambda bucket: bucket.delete("k"),
}


@pytest.fixture(params=ACTS)
def act(request):
    """Each operation."""
    return ACTS[request.param]


def failure(act, bucket):
    with pytest.raises(BucketError) as caught:
        act(bucket)
    return caught.value


@pytest.mark.parametrize("act", [name for name in ACTS if name != "replace"], indirect=True)
def test_a_bucket_that_is_not_there(cloud, act):
    error = failure(act, cloud.bucket("no-such-bucket"))
    assert error.kind == "no_such_bucket"
    assert "no-such-bucket" in str(error) and "endpoint" in str(error)


def test_denied(bucket, cloud, act):
    cloud.server.deny()
    error = failure(act, bucket)
    assert error.kind == "denied"
    assert str(error).startswith(f"{cloud.uri}/") and "403" in str(error) and "credentials" in str(error)


def test_throttled_for_a_moment(bucket, cloud):
    bucket.put("k", b"x")
    for name in ("read", "aread", "entries", "put", "delete"):
        cloud.server.slow_down(times=2)
        ACTS[name](bucket)


def test_throttled_for_long(bucket, cloud, act):
    cloud.server.slow_down(times=float("inf"))
    error = failure(act, bucket)
    assert error.kind == "throttled"
    assert "503" in str(error) and "concurrency" in str(error)
    assert len(cloud.server.requests) > 1


@pytest.mark.parametrize("status", [429, 500, 502, 504])
def test_other_ways_of_not_answering(bucket, cloud, status):
    cloud.server.fail(status, "InternalError", times=float("inf"))
    error = failure(ACTS["read"], bucket)
    assert error.kind == ("throttled" if status == 429 else "unreachable")
    assert f"({status}" in str(error)


def test_no_server_listens(cloud, act):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        error = failure(act, cloud.bucket(endpoint=f"http://{host}"))
    assert error.kind == "unreachable"
    assert host in str(error)


def test_connections_are_cut(bucket, cloud, act):
    cloud.server.cut(times=float("inf"))
    assert failure(act, bucket).kind == "unreachable"


LOGIN = {"Content-Type": "text/html"}
LIKE_AN_OBJECT = {**LOGIN, "ETag": '"e"', "Last-Modified": "Tue, 14 Jan 2025 08:00:00 GMT"}


@pytest.mark.parametrize("act", ["create", "put", "replace", "replace nothing"], indirect=True)
def test_a_login_page_takes_no_write(cloud, act):
    cloud.server.instead(Answer(200, b"<html>Log in</html>", LOGIN), times=99)
    assert failure(act, cloud.bucket()).kind in ("unreachable", "unsupported")


@pytest.mark.parametrize("headers", [LOGIN, LIKE_AN_OBJECT], ids=["plain", "like an object"])
def test_a_login_page_is_not_an_empty_listing(cloud, headers):
    """obstore takes it for one; every image would be paid for again."""
    cloud.server.instead(Answer(200, b"<html>Log in</html>", headers), times=99)
    assert failure(ACTS["entries"], cloud.bucket()).kind == "unreachable"


def test_an_empty_listing_with_credentials_that_may_list_but_not_read(bucket, cloud):
    cloud.server.deny(path="nothing-")
    assert list(bucket.entries()) == []


@pytest.mark.parametrize(
    "answer",
    [
        xml_error(301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint."),
        xml_error(400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'"),
    ],
    ids=["redirect", "malformed"],
)
def test_another_region(s3, act, answer):
    s3.server.instead(answer, times=float("inf"))
    error = failure(act, s3.bucket())
    assert error.kind == "wrong_region" and "region_name" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ExpiredToken", "bad_credentials"),
        (400, "InvalidToken", "bad_credentials"),
        (400, "RequestTimeout", "unreachable"),
        (400, "KMS.DisabledException", "denied"),
        (400, "KMS.ThrottlingException", "throttled"),
        (400, "UserProjectMissing", "denied"),
        (400, "InvalidRequest", "denied"),
        (400, "KeyTooLongError", "bad_key"),
        (401, "AuthenticationRequired", "bad_credentials"),
        (403, "AccessDenied", "denied"),
        (403, "AllAccessDisabled", "denied"),
        (403, "InvalidAccessKeyId", "bad_credentials"),
        (403, "InvalidObjectState", "archived"),
        (403, "RequestTimeTooSkewed", "bad_credentials"),
        (403, "SignatureDoesNotMatch", "bad_credentials"),
        (404, "NoSuchBucket", "no_such_bucket"),
        (404, "NoSuchKey", "no_such_object"),
        (405, "MethodNotAllowed", "denied"),
        (408, "", "throttled"),
        (409, "OperationAborted", "throttled"),
        (425, "", "throttled"),
        (429, "TooManyRequests", "throttled"),
        (451, "UnavailableForLegalReasons", "denied"),
        (500, "InternalError", "unreachable"),
        (503, "SlowDown", "throttled"),
        (503, "ServiceUnavailable", "throttled"),
        (504, "", "unreachable"),
    ],
)
@pytest.mark.parametrize("key", ["k", "/k"])
def test_what_an_error_of_a_server_means(cloud, key, status, code, kind):
    """The same by obstore's requests and by our own, which read a key that begins with a slash."""
    cloud.server.fail(status, code, times=float("inf"))
    with pytest.raises(BucketError) as caught:
        asyncio.run(cloud.bucket().aread(key, max_bytes=9))
    assert caught.value.kind == kind


def test_without_credentials_what_is_not_public_is_denied_and_no_fault_of_the_credentials(gcs):
    gcs.server.fail(401, "AuthenticationRequired", times=float("inf"))
    error = failure(ACTS["read"], gcs.bucket(credential_provider=None, anonymous=True))
    assert error.kind == "denied"


# -- secrets -----------------------------------------------------------------------------------------------------------

TOKEN = "FwoGZXIvYXdzEXAMPLEsessiontoken"


def texts(error):
    return "".join((str(error), repr(error), *traceback.format_exception(error)))


def texts_of(act, bucket):
    """Return all texts of the error that it raises, if any."""
    try:
        act(bucket)
    except BucketError as error:
        return texts(error)
    return ""


def test_no_error_contains_a_secret_from_an_answer(bucket, cloud, act):
    """S3 quotes the signed request with the session token; some servers quote a signed URL in a message."""
    secret = [TOKEN, *cloud.secrets()]
    body = (
        f"<Error><Code>SignatureDoesNotMatch</Code><Message>GET http://h/k?X-Amz-Signature={TOKEN} Bearer {secret[-1]}"
        f"</Message><CanonicalRequest>x-amz-security-token:{TOKEN} {secret[-1]}</CanonicalRequest></Error>"
    )
    for status in (400, 401, 403, 404, 409, 412, 416, 500, 503):
        cloud.server.reset()
        cloud.server.instead(Answer(status, body.encode()), times=99)
        shown = texts_of(act, bucket)
        assert not [one for one in secret if one in shown]
    assert "SignatureDoesNotMatch" in shown or "503" in shown


def test_a_wrong_secret(s3):
    wrong = {**s3._credentials(), "secret_access_key": "wrong-secret", "token": TOKEN}
    error = failure(ACTS["read"], s3.bucket(credential_provider=lambda: wrong))
    assert error.kind == "bad_credentials" and "SignatureDoesNotMatch" in str(error)
    assert TOKEN not in texts(error) and "wrong-secret" not in texts(error)


def test_an_unknown_key(s3):
    wrong = {**s3._credentials(), "access_key_id": "AKIAUNKNOWN"}
    error = failure(ACTS["entries"], s3.bucket(credential_provider=lambda: wrong))
    assert error.kind == "bad_credentials" and "InvalidAccessKeyId" in str(error)


def test_a_wrong_token(gcs):
    wrong = {**gcs._credentials(), "token": TOKEN}
    error = failure(ACTS["read"], gcs.bucket(credential_provider=lambda: wrong))
    assert error.kind == "bad_credentials" and "401" in str(error)
    assert TOKEN not in texts(error)


@pytest.mark.parametrize(("raised", "kind"), [(PermissionError, "bad_credentials"), (TimeoutError, "unreachable")])
def test_a_credential_provider_that_fails(cloud, act, raised, kind):
    def provide():
        raise raised(f"the vault says no to {TOKEN}")

    error = failure(act, cloud.bucket(credential_provider=provide))
    assert error.kind == kind and raised.__name__ in str(error)
    assert TOKEN not in texts(error)


def test_the_repr_of_a_bucket_shows_only_its_address(bucket, cloud):
    assert repr(bucket) == f"Bucket('{cloud.uri}/')"

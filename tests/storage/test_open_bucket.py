"""Opening buckets with the settings of the environment or of a connection; impossible settings fail at once."""

from __future__ import annotations

import os
import sys

import pytest

from airflow_provider_describer.errors import BadInput, BucketError
from airflow_provider_describer.storage.open_bucket import bucket_from_environment, gcs_bucket, s3_bucket

CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "STORAGE_EMULATOR_HOST", "CLOUDSDK_")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Remove all credentials; a test sets its own."""
    for name in [name for name in os.environ if name.startswith(CLOUD_VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return monkeypatch


@pytest.fixture(params=["its own library", "obstore alone"])
def finder(request, environment):
    """Who finds the credentials: the cloud's own library, or obstore where that is not installed."""
    if request.param == "obstore alone":
        environment.setattr("airflow_provider_describer.storage.open_bucket.find_spec", lambda name: None)
    else:
        pytest.importorskip("boto3")
        pytest.importorskip("google.auth")


@pytest.mark.usefixtures("finder")
def test_the_environments_credentials(cloud, environment):
    for name, value in cloud.environment.items():
        environment.setenv(name, value)
    bucket = bucket_from_environment(cloud.scheme, cloud.name)
    bucket.create("a", b"x")
    content = bucket.read("a")
    assert content and content.data == b"x"
    assert [entry.key for page in bucket.entries() for entry in page] == ["a"]


def test_a_profile_of_aws(s3, environment, tmp_path):
    pytest.importorskip("boto3")
    (tmp_path / "config").write_text(
        "[profile shop]\n"
        f"aws_access_key_id = {s3.environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {s3.environment['AWS_SECRET_ACCESS_KEY']}\n"
        f"region = {s3.environment['AWS_REGION']}\n"
    )
    environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    environment.setenv("AWS_PROFILE", "shop")
    environment.setenv("AWS_ENDPOINT_URL", s3.server.url)
    bucket_from_environment("s3", s3.name).put("a", b"x")
    environment.setenv("AWS_PROFILE", "none of that name")
    with pytest.raises(BadInput, match="AWS_PROFILE"):
        bucket_from_environment("s3", s3.name)


@pytest.mark.parametrize(("scheme", "words"), [("s3", "AWS_ACCESS_KEY_ID"), ("gs", "GOOGLE_APPLICATION_CREDENTIALS")])
def test_no_credentials(environment, scheme, words):
    pytest.importorskip("boto3" if scheme == "s3" else "google.auth")
    with pytest.raises(BadInput, match=words):
        bucket_from_environment(scheme, "b")


def test_arguments_come_before_the_environment(cloud, environment):
    environment.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    environment.setenv("AWS_SESSION_TOKEN", "wrong")
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    environment.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    cloud.bucket().put("a", b"x")
    [asked] = cloud.server.requests
    assert "AKIAWRONG" not in asked.headers["Authorization"]


def test_anonymously(cloud):
    with pytest.raises(BucketError) as caught:
        cloud.bucket(anonymous=True).read("a")
    assert caught.value.kind == "denied"
    assert "Authorization" not in cloud.server.requests[0].headers


@pytest.mark.parametrize("open_bucket", [s3_bucket, gcs_bucket])
@pytest.mark.parametrize("endpoint", ["storage.example.com", "ftp://h", "https://", "https://h/a b", "https://u:p@h"])
def test_an_invalid_endpoint(open_bucket, endpoint):
    with pytest.raises(BadInput, match="endpoint is ") as caught:
        open_bucket("b", endpoint=endpoint)
    assert "u:p" not in str(caught.value)


def test_the_bucket_as_part_of_the_host(s3):
    """As some endpoints require. No name below .invalid is ever found."""
    with pytest.raises(BucketError) as caught:
        s3.bucket(endpoint=s3.server.url.replace("127.0.0.1", "invalid"), virtual_hosted=True).read("a")
    assert f"{s3.name}.invalid" in str(caught.value)


def test_clear_text_only_where_the_endpoint_says_so(cloud):
    with pytest.raises(BucketError) as caught:
        cloud.bucket(endpoint=cloud.server.url.replace("http:", "https:")).read("a")
    assert caught.value.kind == "unreachable"
    assert cloud.server.requests == []


def test_settings_that_obstore_does_not_know(cloud):
    with pytest.raises(BadInput, match=f"{cloud.uri} cannot be opened"):
        cloud.bucket(client_options={"no_such_option": "secret"})


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "amazon"), ("gs", "google")])
def test_without_obstore(monkeypatch, scheme, extra):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(BadInput, match=rf"pip install 'airflow-provider-describer\[{extra}\]'"):
        bucket_from_environment(scheme, "b")

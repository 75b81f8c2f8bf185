"""References, and the bytes of local images: bounded, whole, and each way of not getting them told apart."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import BadInput, DescriberError, RejectedImage, UnreadableImage
from airflow_provider_describer.http.client import AsyncClient
from airflow_provider_describer.images.reading import Reader
from airflow_provider_describer.images.trust import is_private_host
from airflow_provider_describer.storage.address import WebUrl, check_reference, is_web, local_path, masked, parse_uri
from airflow_provider_describer.storage.bucket import Content

if TYPE_CHECKING:
    from tests.conftest import Loopback

MB = 1_000_000


def read(uri: str, max_bytes: int = MB) -> bytes:
    async def scene() -> Content:
        async with AsyncClient(timeout=5) as client:
            return await Reader(client).read(parse_uri(uri), max_bytes)

    content = asyncio.run(scene())
    assert (content.size, content.version) == (len(content.data), None)
    return content.data


def failure(uri: str, max_bytes: int = MB) -> DescriberError:
    with pytest.raises(DescriberError) as caught:
        read(uri, max_bytes)
    assert uri in str(caught.value)
    assert caught.value.billed == "no"
    return caught.value


NAMES = [
    "a b.jpg",
    "100%.jpg",
    "50%20off.jpg",
    "what?.jpg",
    "photo #1.jpg",
    "überraschung 图片.jpg",
    "a&b=c;d.jpg",
    "-x.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(name.encode())
    assert read(str(tmp_path / name)) == name.encode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_file_address_is_unquoted_once(tmp_path: Path, name: str, host: str) -> None:
    (tmp_path / name).write_bytes(name.encode())
    quoted = (tmp_path / name).as_uri().replace("file://", f"file://{host}")
    assert read(quoted) == name.encode()


@pytest.mark.parametrize("name", ["what?.jpg", "photo #1.jpg", "a b.jpg"])
def test_a_file_address_that_was_not_quoted_is_understood(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"picture")
    assert read(f"FILE://{tmp_path}/{name}") == b"picture"


def test_a_relative_path_is_relative_to_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    monkeypatch.chdir(tmp_path)
    assert read("a.jpg") == b"picture"


def test_an_empty_file_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert read(str(tmp_path / "a.jpg")) == b""


@pytest.mark.parametrize(("size", "fits"), [(MB, True), (MB + 1, False)])
def test_the_limit_is_exact(tmp_path: Path, size: int, fits: bool) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(size))
    if fits:
        assert len(read(str(path))) == size
    else:
        assert failure(str(path)).kind == "too_large"


def test_of_a_60_mb_file_no_more_is_read_than_shows_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(60 * MB)
    tracemalloc.start()
    try:
        error = failure(str(path), 10 * MB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.kind == "too_large"
    assert "60.0 MB is more than the 10.0 MB" in str(error) and "Scale it down" in str(error)
    assert peak < 25 * MB


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    for name in ("no.jpg", "no folder/no.jpg"):
        error = failure(str(tmp_path / name))
        assert (type(error), error.kind) == (RejectedImage, "missing")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert failure(str(tmp_path / "link.jpg")).kind == "missing"


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    error = failure(str(tmp_path))
    assert (type(error), error.kind) == (RejectedImage, "not_an_image")
    assert "List its files first" in str(error)


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    error = failure(str(tmp_path / "a.jpg"))
    assert (type(error), error.kind) == (RejectedImage, "not_an_image")


def test_a_path_that_leads_to_no_file_is_rejected_and_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    for uri in (f"{tmp_path}/file/a.jpg", str(loop), f"{tmp_path}/{'x' * 300}.jpg"):
        assert (type(error := failure(uri)), error.kind) == (RejectedImage, "bad_path")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading fails")
def test_an_error_while_reading_is_told_as_such() -> None:
    error = failure("/proc/self/mem")
    assert type(error) is UnreadableImage
    assert "OSError" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_we_may_not_read_is_denied(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch(mode=0o000)
    assert (type(error := failure(str(tmp_path / "a.jpg"))), error.kind) == (RejectedImage, "denied")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ftp://me:hush@host/a.jpg?x=hush", "not ftp://"),
        ("hdfs://me:hush@host/a.jpg", "read from local paths, file://, s3://, gs:// and https://, not hdfs://"),
        ("file://server/share/a.jpg", "three slashes"),
        ("http:///a.jpg?x=hush", "not a valid address"),
        ("https://[oops/a.jpg?x=hush", "not a valid address"),
        ("https://host:99999/a.jpg?x=hush", "not a valid address"),
        ("https://host:0/a.jpg", "not a valid address"),
        ("https://host/a\nb.jpg?x=hush", "not a valid address"),
    ],
)
def test_an_address_that_can_never_be_read_is_bad_input(uri: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_reference(uri)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3://shop", "'s3://shop' names a bucket and no image in it; list it first"),
        ("gs://shop/", "names a bucket and no image"),
        ("s3:///a.jpg", "names no bucket"),
        ("gcs://shop/a.jpg", "write gs://shop/a.jpg instead"),
        ("s3://AKIA:hush@shop/a.jpg", "storage_conn_id"),
    ],
)
def test_an_address_in_a_bucket_that_can_never_be_read_is_bad_input(uri: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_reference(uri)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["a.jpg", "file:///a.jpg", "https://host/a.jpg", "s3://shop/a b%20#?+é.jpg", "GS://shop/a/b.jpg"]
)
def test_what_can_be_read_passes(uri: str) -> None:
    check_reference(uri)


@pytest.mark.parametrize("uri", ["s3://shop/a.jpg", "gs://shop/a.jpg"])
def test_an_object_is_read_only_by_who_can_open_buckets(uri: str) -> None:
    assert type(error := failure(uri)) is BadInput and "give a storage_conn_id" in str(error)


def test_web_addresses_are_known_in_any_case() -> None:
    assert is_web("HTTPS://shop.example/a.jpg") and local_path("HTTPS://shop.example/a.jpg") is None
    assert not is_web("https.jpg") and not is_web("ftp://shop.example/a.jpg")


def test_only_a_web_address_is_shown_without_its_query() -> None:
    assert masked("https://me:hush@shop.example/a.jpg?sig=hush#x") == "https://shop.example/a.jpg?…"
    keys = ("s3://shop/what?.jpg", "gs://shop/photo #1.jpg", "S3://shop/a?b.jpg")
    for name in ("/data/what?.jpg", "photo #1.jpg", "file:///data/photo #1.jpg", "FILE:///data/a?b.jpg", *keys):
        assert masked(name) == name


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1:8901/a.jpg", True),
        ("http://[::1]/a.jpg", True),
        ("http://10.1.2.3/a.jpg", True),
        ("http://192.168.0.9/a.jpg", True),
        ("http://169.254.169.254/latest", True),
        ("http://minio:9000/a.jpg", True),
        ("http://localhost/a.jpg", True),
        ("http://files.corp.internal/a.jpg", True),
        ("https://8.8.8.8/a.jpg", False),
        ("https://shop.example.com/a.jpg", False),
    ],
)
def test_hosts_that_only_this_network_reaches(url: str, private: bool) -> None:
    assert is_private_host(url) == private


@pytest.mark.parametrize("do", ["read", "read_head"])
def test_a_name_that_leads_to_a_forbidden_address_is_not_connected_to(loopback: type[Loopback], do: str) -> None:
    """Which is found out only when it is resolved: as a name, it could lead anywhere."""

    async def scene() -> None:
        async with loopback(lambda visit: asyncio.sleep(0)) as server, AsyncClient(timeout=5, guard=never) as client:
            image = WebUrl(f"http://localhost:{server.port}/a.jpg?sig=hush")
            with pytest.raises(RejectedImage) as caught:
                await getattr(Reader(client), do)(image, MB)
        assert (caught.value.kind, caught.value.billed) == ("forbidden_address", "no")
        assert str(caught.value).startswith(f"http://localhost:{server.port}/a.jpg?…: ")
        assert "private address" in str(caught.value) and "hush" not in str(caught.value)
        assert server.connections == 0

    asyncio.run(scene())


def never(ip: str) -> bool:
    return False

"""Whole DAG runs on S3 and GCS, at servers that check every request: list, describe, store. Bills are the ledger's."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.storage.address import bucket_address

if TYPE_CHECKING:
    from clouds import Cloud

pytest.importorskip("airflow.providers.amazon.aws.hooks.s3")
pytest.importorskip("airflow.providers.google.cloud.hooks.gcs")

MANY = 500
ODD_NAMES = ["a b.jpg", "50% off+.jpg", "what?.jpg", "#1 überraschung 图片.jpg", f"{'long/' * 180}{'x' * 100}.jpg"]


def jpeg(number: int) -> bytes:
    """A small picture that no other number gives."""
    target = io.BytesIO()
    Image.new("RGB", (32, 24), (90, 120, 60)).save(target, "JPEG", comment=f"{number:012d}")
    return target.getvalue()


def fill(cloud: Cloud, count: int, names: list[str] | None = None) -> dict[str, str]:
    """Put pictures into the bucket; return the sha256 of each by its address."""
    bucket, sums = cloud.bucket(), {}
    for number, name in enumerate(names or [f"{number:05d}.jpg" for number in range(count)]):
        content = jpeg(number)
        bucket.put(f"photos/{name}", content)
        sums[f"{cloud.uri}/photos/{name}"] = hashlib.sha256(content).hexdigest()
    return sums


def put_folder_marker(cloud: Cloud, key: str) -> None:
    """Put what a web console makes of "new folder", which our own buckets refuse to write."""
    if cloud.scheme == "gs":
        cloud.server.objects.put(cloud.name, key, b"")  # type: ignore[attr-defined]  # which the fake GCS has
        return
    import boto3

    given = cloud.environment
    client = boto3.client(
        "s3",
        endpoint_url=cloud.server.url,
        region_name=given["AWS_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
    )
    client.put_object(Bucket=cloud.name, Key=key, Body=b"")


@pytest.fixture
def connected(accounts: EmulatorProcess, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The cloud's default connection leads to its server."""

    def to(cloud: Cloud) -> None:
        given = cloud.environment
        if cloud.scheme == "s3":
            connect(
                "aws_default",
                conn_type="aws",
                login=given["AWS_ACCESS_KEY_ID"],
                password=given["AWS_SECRET_ACCESS_KEY"],
                extra={"endpoint_url": cloud.server.url, "region_name": given["AWS_REGION"]},
            )
        else:
            key = json.dumps(cloud.server.access.key_file)  # type: ignore[attr-defined]  # which the fake GCS has
            connect(
                "google_cloud_default",
                conn_type="google_cloud_platform",
                extra={"keyfile_dict": key, "project": "shop"},
            )
            # Where Google's own library looks, which the list operator uses.
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.server.url)

    return to


def rows_of(cloud: Cloud, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    address = bucket_address(manifest["results"])
    assert address is not None
    content = cloud.bucket().read(address.key)
    assert content is not None
    return [json.loads(line) for line in content.data.splitlines()]


def test_what_the_clouds_own_operator_lists_is_described_once(
    accounts: EmulatorProcess, cloud: Cloud, connected: Any, run_dag: Callable[..., Any]
) -> None:
    connected(cloud)
    sums = fill(cloud, MANY)
    put_folder_marker(cloud, "photos/")
    conf = {"bucket": cloud.name, "store": f"{cloud.uri}/descriptions/"}
    dag = "from_s3" if cloud.scheme == "s3" else "from_gcs"

    ran = run_dag(dag, {}, file="clouds.py", **conf)
    assert ran.states == {"list": "success", "describe": "success"}
    manifest = ran.xcom("describe")
    assert manifest["counts"]["described"] == manifest["counts"]["requested"] == manifest["calls"] == MANY
    assert accounts.ledger()["by_image"] == dict.fromkeys(sums.values(), 1), "each picture whole, and once"
    rows = rows_of(cloud, manifest)
    assert {row["uri"]: row["sha256"] for row in rows} == sums
    assert all(row["version"] and row["sha256"][:12] in row["text"] for row in rows)

    # The next night: one is new, one has changed, one has another name.
    bucket = cloud.bucket()
    bucket.put("photos/new.jpg", jpeg(MANY))
    bucket.put("photos/00001.jpg", jpeg(MANY + 1))
    bucket.put("photos/renamed.jpg", jpeg(2))
    bucket.delete("photos/00002.jpg")
    again = run_dag(dag, {}, file="clouds.py", **conf).xcom("describe")
    assert (again["counts"]["described"], again["counts"]["reused"], again["calls"]) == (2, MANY - 1, 2)
    assert accounts.ledger(entries=False)["billed"] == MANY + 2


def test_every_name_that_an_object_may_have(
    accounts: EmulatorProcess, cloud: Cloud, connected: Any, run_dag: Callable[..., Any]
) -> None:
    connected(cloud)
    sums = fill(cloud, 0, ODD_NAMES)
    dag = "from_s3" if cloud.scheme == "s3" else "from_gcs"
    ran = run_dag(dag, {}, file="clouds.py", bucket=cloud.name, store=f"{cloud.uri}/descriptions/")
    assert {row["uri"]: row["sha256"] for row in rows_of(cloud, ran.xcom("describe"))} == sums
    assert accounts.ledger(entries=False)["billed"] == len(ODD_NAMES)


ODD_KEYS = [
    "a.jpg",
    "/a.jpg",
    "photos//a.jpg",
    "photos/./b.jpg",
    "photos/../b.jpg",
    "photos/a.jpg/",
    "tab\t.jpg",
    "\x1b[31m.jpg",
    "/50% off+ #1?.jpg",
]


@pytest.mark.parametrize("vendor", ["segmind", "image_describer"])
def test_keys_that_no_path_would_have_are_listed_and_described_once(
    accounts: EmulatorProcess, s3: Cloud, connected: Any, run_dag: Callable[..., Any], vendor: str
) -> None:
    connected(s3)
    sums = {}
    for number, key in enumerate([*ODD_KEYS, "new\nline.jpg"]):
        s3.put_any(key, jpeg(number))
        sums[f"{s3.uri}/{key}"] = hashlib.sha256(jpeg(number)).hexdigest()
    packed = gzip.compress(jpeg(99))
    s3.put_any("/packed.jpg", packed, "gzip")
    sums[f"{s3.uri}//packed.jpg"] = hashlib.sha256(jpeg(99)).hexdigest()
    for marker in ("photos/", "/", "photos//"):
        s3.put_any(marker, b"")
    conf = {
        "images": f"{s3.uri}/**",
        "store": f"{s3.uri}/descriptions/",
        "describer_conn_id": f"{vendor}_default",
        "chunk_size": 100,
    }
    ran = run_dag("s3_catalog", {}, file="s3_catalog.py", **conf)
    assert set(ran.states.values()) == {"success"}
    ledger = accounts.ledger()
    assert ledger["by_image"] == dict.fromkeys(sums.values(), 1)
    if vendor == "segmind":
        # Where programs would fetch something else at the signed address, the bytes are sent.
        signed = {asked.path for asked in s3.server.requests if "X-Amz-Signature" in asked.query}
        fetched = [key for key in ODD_KEYS if key not in ("photos/./b.jpg", "photos/../b.jpg")]
        assert signed == {f"/{s3.name}/{key}" for key in [*fetched, "new\nline.jpg"]}
    again = run_dag("s3_catalog", {}, file="s3_catalog.py", **conf)
    assert again.states["list_new"] == "skipped" and accounts.ledger(entries=False)["billed"] == len(sums)


def test_odd_names_of_gcs_are_listed_and_described_once(
    accounts: EmulatorProcess, gcs: Cloud, connected: Any, run_dag: Callable[..., Any]
) -> None:
    connected(gcs)
    for number, key in enumerate(ODD_KEYS):
        gcs.put_any(key, jpeg(number))
    gcs.put_any("/packed.jpg", gzip.compress(jpeg(99)), "gzip")
    ran = run_dag("listed", {}, file="listing.py", path=gcs.uri, store=f"{gcs.uri}/descriptions/")
    rows = {row["uri"]: row["sha256"] for row in rows_of(gcs, ran.xcom("describe"))}
    sums = {f"{gcs.uri}/{key}": hashlib.sha256(jpeg(number)).hexdigest() for number, key in enumerate(ODD_KEYS)}
    assert rows == {**sums, f"{gcs.uri}//packed.jpg": hashlib.sha256(jpeg(99)).hexdigest()}
    assert accounts.ledger(entries=False)["billed"] == len(ODD_KEYS) + 1


def test_segmind_fetches_private_objects_by_signed_addresses(
    accounts: EmulatorProcess, cloud: Cloud, connected: Any, run_dag: Callable[..., Any]
) -> None:
    connected(cloud)
    sums = fill(cloud, 5)
    conf = {"bucket": cloud.name, "store": f"{cloud.uri}/descriptions/", "describer_conn_id": "segmind_default"}
    ran = run_dag("from_s3" if cloud.scheme == "s3" else "from_gcs", {}, file="clouds.py", **conf)
    manifest = ran.xcom("describe")
    ledger = accounts.ledger()
    assert manifest["counts"]["described"] == 5
    assert ledger["by_image"] == dict.fromkeys(sums.values(), 1), "the vendor has fetched the very bytes"
    assert {entry["image_via"] for entry in ledger["entries"]} == {"url"}
    stored = b"".join(
        cloud.bucket().read(entry.key).data  # type: ignore[union-attr]  # listed, so there
        for page in cloud.bucket().entries("descriptions/")
        for entry in page
    )
    assert b"ignature" not in stored and b"redential" not in stored


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("{uri}/photos/none.jpg", "no such object"),
        ("{uri}/photos/empty.jpg", "empty"),
        ("{uri}/photos/page.jpg", "text/html"),
        ("{uri}-not-there/a.jpg", "no such bucket"),
        ("{uri}", "names a bucket and no image"),
    ],
)
def test_an_object_that_cannot_be_described_costs_nothing_and_says_why(
    accounts: EmulatorProcess, cloud: Cloud, connected: Any, run_dag: Callable[..., Any], image: str, words: str
) -> None:
    connected(cloud)
    cloud.bucket().put("photos/empty.jpg", b"")
    cloud.bucket().put("photos/page.jpg", b"<!doctype html><title>404</title>")
    ran = run_dag("one_object", {}, file="clouds.py", image=image.format(uri=cloud.uri))
    assert ran.states["describe"] == "failed"
    assert words in str(ran.errors["describe"])
    assert accounts.ledger(entries=False)["requests"] == 0


@pytest.mark.parametrize("vendor", ["segmind", "image_describer"])
def test_the_example_of_s3(
    accounts: EmulatorProcess, s3: Cloud, connected: Any, run_dag: Callable[..., Any], vendor: str
) -> None:
    connected(s3)
    fill(s3, 7)
    conf = {
        "images": f"{s3.uri}/photos/**",
        "store": f"{s3.uri}/descriptions/",
        "describer_conn_id": f"{vendor}_default",
        "chunk_size": 3,
    }
    ran = run_dag("s3_catalog", {}, file="s3_catalog.py", **conf)
    assert set(ran.states.values()) == {"success"} and "describe[2]" in ran.states
    assert ran.xcom("publish")["calls"] == accounts.ledger(entries=False)["billed"] == 7
    again = run_dag("s3_catalog", {}, file="s3_catalog.py", **conf)
    assert again.states["list_new"] == "skipped" and accounts.ledger(entries=False)["billed"] == 7


def test_the_example_of_gcs(accounts: EmulatorProcess, gcs: Cloud, connected: Any, run_dag: Callable[..., Any]) -> None:
    connected(gcs)
    fill(gcs, 7)
    conf = {"bucket": gcs.name, "prefix": "photos/", "store": f"{gcs.uri}/descriptions/", "chunk_size": 3}
    for night in range(2):
        ran = run_dag("gcs_catalog", {}, file="gcs_catalog.py", **conf)
        assert set(ran.states.values()) == {"success"} and "describe[2]" in ran.states
        assert ran.xcom("publish")["calls"] == (0 if night else 7)
        assert accounts.ledger(entries=False)["billed"] == 7

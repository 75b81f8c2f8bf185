"""What a task's log says, in a real `dag.test()`: one sentence where one says it all, and no noise of Airflow's."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadInput, DescriberError
from airflow_provider_describer.hooks.describer import DescriberHook
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.http.retry import RetryPolicy

TOO_SHORT = "Skipping masking for a secret"
FRAMES = 10
"""Six of Airflow's own, two of this test's operator, two of the one that it extends."""
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def masker_that_has_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow warns once in a process."""
    for name, module in list(sys.modules.items()):
        if name.endswith("secrets_masker.secrets_masker"):
            monkeypatch.setattr(module.SecretsMasker, "_has_warned_short_secret", False, raising=False)


@pytest.fixture
def log_of(
    accounts: EmulatorProcess, run_dag: Run, capfd: pytest.CaptureFixture[str], pictures: list[str], tmp_path: Path
) -> Callable[..., str]:
    """Run the DAG `logged` and return what it has written, from the start of its describing task."""

    def log(connection: dict[str, Any] | None = None, **conf: Any) -> str:
        good = {"conn_type": "segmind", "password": accounts.keys["segmind"], "host": accounts.url}
        connections = {} if connection is None else {"shop": {**good, **connection}}
        conf = {"images": pictures, "store": str(tmp_path / "store"), "conn_id": "shop", **conf}
        run_dag("logged", connections, file="logged.py", **conf)
        out, err = capfd.readouterr()
        return (out + err).rpartition("starting task_id=describe")[2]

    return log


def frames(log: str) -> int:
    return len(re.findall(r'^ *File "', log, re.MULTILINE))


@pytest.mark.parametrize("extra", ["{}", '{"api_version": "v2"}', '{"image_transport": "auto", "api_version": "v1"}'])
def test_no_setting_is_called_a_secret_that_is_too_short(log_of: Callable[..., str], extra: str) -> None:
    """Airflow takes every text in a connection's extra for a secret, and `v2` for one that is too short."""
    log = log_of({"extra": extra})
    assert "6/6 images" in log and TOO_SHORT not in log


@pytest.mark.parametrize("extra", [{"region_name": "eu"}, {}])
def test_nor_is_one_of_a_storage_connection(
    connect: Callable[..., None], caplog: pytest.LogCaptureFixture, extra: dict[str, str]
) -> None:
    pytest.importorskip("airflow.providers.amazon.aws.hooks.s3")
    connect("minio", conn_type="aws", login="key-id", password="secret-key", extra=extra)
    buckets_of("minio")("s3", "catalog")
    assert TOO_SHORT not in caplog.text


def test_other_secrets_are_warned_of_as_before(connect: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    connect("shop", conn_type="segmind", password="long-enough", extra={"api_version": "v2"})
    _ = DescriberHook("shop").account
    assert TOO_SHORT not in caplog.text
    masker = logging.getLogger("airflow.sdk._shared.secrets_masker.secrets_masker")
    masker.warning("Skipping masking for a secret as it's too short (<%d chars)", 5)
    assert TOO_SHORT in caplog.text, "the filter is gone with the call"


def test_a_run_that_its_budget_stopped_warns(log_of: Callable[..., str], accounts: EmulatorProcess) -> None:
    log = log_of({}, max_calls=2)
    assert accounts.ledger(entries=False)["billed"] == 2
    (warning,) = [line for line in log.splitlines() if "max_calls (2) allows no further call" in line]
    assert "[warning" in warning and "4 of 6 images are left pending" in warning
    assert "6 images: 6 new, 0 reused; at most 2 calls, $0.03 (max_calls (2) allows no more)" in log
    assert "2/6 images" in log


def test_a_wrong_key_is_one_sentence(log_of: Callable[..., str], accounts: EmulatorProcess) -> None:
    """It was 23 frames of traceback around that sentence."""
    log = log_of({"password": "SG_wrong"})
    assert log.count("Put a valid API key into the password field of connection 'shop'.") == 1
    assert frames(log) <= FRAMES and "direct cause" not in log and "During handling" not in log
    assert "SG_wrong" not in log and accounts.ledger(entries=False)["billed"] == 0


def test_a_missing_connection_is_one_sentence_with_the_command(log_of: Callable[..., str]) -> None:
    log = log_of(conn_id="segmind_shop")
    assert log.count("describer_conn_id is 'segmind_shop', but there is no such connection") == 1
    assert "airflow connections add segmind_shop --conn-type segmind --conn-password YOUR_API_KEY" in log
    assert frames(log) <= FRAMES + 1 and "isn't defined" not in log and "During handling" not in log


@pytest.mark.parametrize("host", ["", "http://127.0.0.1:9"])
def test_an_error_of_the_hook_has_a_short_traceback(
    accounts: EmulatorProcess, connect: Callable[..., None], pictures: list[str], host: str
) -> None:
    connect("shop", conn_type="segmind", password="SG_wrong_0123", host=host or accounts.url)
    hook = DescriberHook("shop", policy=RetryPolicy(attempts=1))
    with pytest.raises(DescriberError) as caught:
        hook.describe(pictures[0])
    shown = "".join(traceback.format_exception(caught.value))
    assert frames(shown) <= 3 and "During handling" not in shown and "direct cause" not in shown


@pytest.mark.parametrize(
    ("conn_id", "conn_type"),
    [("nobody", "image_describer"), ("image_describer_default", "image_describer"), ("my_segmind", "segmind")],
)
def test_the_hook_says_how_to_create_the_connection(conn_id: str, conn_type: str) -> None:
    with pytest.raises(BadInput) as caught:
        DescriberHook(conn_id).describe("/nowhere/a.jpg")
    assert str(caught.value) == (
        f"describer_conn_id is {conn_id!r}, but there is no such connection. Create it under Admin > Connections, or "
        f"with: airflow connections add {conn_id} --conn-type {conn_type} --conn-password YOUR_API_KEY"
    )
    assert caught.value.__suppress_context__


def test_in_an_event_loop_too() -> None:
    with pytest.raises(BadInput, match="airflow connections add nobody --conn-type image_describer"):
        asyncio.run(DescriberHook("nobody").acredits())


@pytest.mark.parametrize(
    ("scheme", "given", "words"),
    [
        ("s3", None, "aws_default --conn-type aws --conn-login YOUR_ACCESS_KEY_ID --conn-password"),
        ("s3", "nowhere", "nowhere --conn-type aws --conn-login"),
        ("gs", None, "google_cloud_default --conn-type google_cloud_platform --conn-extra"),
        ("gs", "nowhere", "nowhere --conn-type google_cloud_platform"),
    ],
)
def test_a_missing_storage_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: Any, given: str | None, words: str
) -> None:
    pytest.importorskip("airflow.providers.amazon.aws.hooks.s3")
    pytest.importorskip("airflow.providers.google.cloud.hooks.gcs")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(BadInput, match=r"storage_conn_id.+, but there is no such connection") as caught:
        buckets_of(given)(scheme, "catalog")
    assert f"airflow connections add {words}" in str(caught.value)


def test_too_many_rejected_images_are_one_sentence(
    log_of: Callable[..., str], pictures: list[str], tmp_path: Path, accounts: EmulatorProcess
) -> None:
    bad = tmp_path / "page.jpg"
    bad.write_bytes(b"<!doctype html>")
    log = log_of({}, images=[*pictures, str(bad)])
    assert "7 images: 6 new, 0 reused, 1 that cannot be used; at most 0 calls, $0.00 (the run stops before" in log
    assert accounts.ledger(entries=False)["billed"] == 0, "one of seven is more than a tenth"
    assert "1 of 7 images was rejected, more than max_failure_ratio=0.1 allows; the last one: " in log
    assert f"{bad}: not an image" in log
    assert frames(log) <= FRAMES

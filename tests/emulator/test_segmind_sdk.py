"""The vendor's own SDK works with the emulator as it does with the vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator import EmulatorProcess

segmind = pytest.importorskip("segmind")

MODEL = "ideogram-describe"


@pytest.fixture
def sdk(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = segmind.SegmindClient(api_key=emulator.keys["segmind"], base_url=f"{emulator.url}/v1")
    # The SDK has no option for the address of its storage.
    monkeypatch.setattr(type(client.files), "STORAGE_BASE_URL", emulator.url)
    yield client
    client._client.close()


def test_run_sync(sdk: Any, emulator: EmulatorProcess, image: Callable[..., bytes], uri: Callable[..., str]) -> None:
    response = sdk.run_sync(MODEL, image_file=uri(image()))
    assert "64 x 48" in response.json()["descriptions"][0]["text"]
    assert emulator.ledger()["billed"] == 1


def test_run_submits_and_polls(
    sdk: Any, emulator: EmulatorProcess, image: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    emulator.faults({"segmind": {"v2_delay_s": 0}})
    result = sdk.run(MODEL, image_file=uri(image()))
    assert result["status"] == "COMPLETED"
    assert "64 x 48" in result["output"]["descriptions"][0]["text"]
    assert emulator.ledger()["billed"] == 1


def test_submit_async_and_wait(
    sdk: Any, emulator: EmulatorProcess, image: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    job = sdk.submit_async(MODEL, image_file=uri(image()))
    assert job.status()["status"] in ("QUEUED", "PROCESSING", "COMPLETED")
    result = job.wait(timeout=60, interval=0.05)
    assert result["metrics"]["cost"] == 0.015
    assert emulator.ledger()["entries"][0]["request_id"] == job.request_id


def test_an_uploaded_file_can_be_described(sdk: Any, tmp_path: Path, image: Callable[..., bytes]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(image("PNG", (17, 31)))
    (url,) = sdk.files.upload(path)["file_urls"]
    assert "17 x 31" in sdk.run_sync(MODEL, image_file=url).text


def test_a_failed_request_is_the_sdks_inference_failed(
    sdk: Any, emulator: EmulatorProcess, image: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    emulator.faults({"segmind": {"v2_delay_s": 0, "errors": [{"kind": "harmful", "share": 1}]}})
    with pytest.raises(segmind.InferenceFailed) as caught:
        sdk.run(MODEL, image_file=uri(image()))
    assert caught.value.detail == "Image failed the safety check"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("bad_request", 400),
        ("forbidden", 403),
        ("insufficient_credits", 406),
        ("rate_limited", 429),
        ("bad_gateway", 502),
    ],
)
def test_errors_are_the_sdks_errors(
    sdk: Any,
    emulator: EmulatorProcess,
    image: Callable[..., bytes],
    uri: Callable[..., str],
    kind: str,
    status: int,
) -> None:
    emulator.faults({"segmind": {"errors": [{"kind": kind, "share": 1}]}})
    for run in (sdk.run_sync, sdk.run):
        with pytest.raises(segmind.SegmindError) as caught:
            run(MODEL, image_file=uri(image()))
        assert caught.value.status == status


def test_an_expired_request_is_the_sdks_404(
    sdk: Any, emulator: EmulatorProcess, image: Callable[..., bytes], uri: Callable[..., str]
) -> None:
    emulator.faults({"segmind": {"v2_expire_s": 0}})
    job = sdk.submit_async(MODEL, image_file=uri(image()))
    with pytest.raises(segmind.SegmindError) as caught:
        job.wait(interval=0.01)
    assert caught.value.status == 404


def test_a_wrong_key_is_the_sdks_401(
    emulator: EmulatorProcess,
    monkeypatch: pytest.MonkeyPatch,
    image: Callable[..., bytes],
    uri: Callable[..., str],
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = segmind.SegmindClient(api_key="wrong", base_url=f"{emulator.url}/v1")
    with client._client, pytest.raises(segmind.SegmindError) as caught:
        client.run_sync(MODEL, image_file=uri(image()))
    assert caught.value.status == 401

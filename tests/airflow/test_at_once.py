"""DAG runs beside another run on the same store, which pays for some of the images."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine import claimed, slices
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store.claim_files import Claims, open_claims
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.triggers.describe import VendorTrigger
from airflow_provider_describer.vendors import get_vendor

Run = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, emulator: EmulatorProcess, connect: Callable[..., None]) -> str:
    connect("shop", conn_type="image_describer", password=emulator.keys["image_describer"], host=emulator.url)
    return str(tmp_path / "store")


@pytest.fixture
def listing(pictures: list[str], tmp_path: Path) -> str:
    file = tmp_path / "images.jsonl"
    file.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in pictures), encoding="utf-8")
    return str(file)


@pytest.fixture
def owner(store: str, pictures: list[str]) -> Claims:
    """A live run that is about to pay for the first two pictures."""
    claims = open_claims(store, LocalFolder(Path(store)), None, TaskInstanceKey("shop", "night", "describe"))
    claims.look()
    keys: list[str] = []
    for request in parse_images(pictures[:2], get_vendor("image_describer")):
        content = Path(request.image.uri).read_bytes()
        keys += identity_keys(request.spec, request.image.uri, sha256(content).hexdigest(), None)
    claims.arrive(keys)
    return claims


@pytest.mark.slow
def test_a_deferrable_task_waits_for_the_other_run_outside_its_worker(
    emulator: EmulatorProcess, run: Run, listing: str, store: str, owner: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deferral takes 15 s at least."""
    monkeypatch.setattr(claimed, "RESUME_AFTER_S", 1.0)
    monkeypatch.setattr(DescribeImagesOperator, "_max_wait", lambda self: 0.2)
    waited: list[float | None] = []
    wait = VendorTrigger.run

    def seen(self: VendorTrigger) -> Any:
        assert emulator.ledger()["billed"] == 4
        waited.append(self.until)
        owner.depart()
        return wait(self)

    monkeypatch.setattr(VendorTrigger, "run", seen)
    manifest = run("waiting", file="waiting.py", listing=listing, store=store).xcom("describe")
    assert len(waited) == 1 and waited[0] is not None
    assert manifest["counts"]["described"] == manifest["calls"] == 6
    assert set(emulator.ledger()["by_image"].values()) == {1}


def test_with_skip_tasks_succeed_and_leave_the_images_pending(
    emulator: EmulatorProcess, run: Run, listing: str, store: str, owner: Claims, pictures: list[str]
) -> None:
    ran = run("skipping", file="waiting.py", listing=listing, store=store, image=pictures[0])
    assert ran.states == {"describe": "success", "one": "success"}
    counts = ran.xcom("describe")["counts"]
    assert (counts["described"], counts["pending"]) == (4, 2)
    row = ran.xcom("one")
    assert (row["status"], row["error"]["kind"], row["billed"]) == ("pending", "claimed", "no")
    assert "shop/night/describe" in row["error"]["message"]
    assert emulator.ledger()["billed"] == 4


def test_a_sensor_pokes_again_until_the_other_run_has_gone(
    emulator: EmulatorProcess, run: Run, listing: str, store: str, owner: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_describer.engine.slices.MAX_WAIT_S", 0.01)
    monkeypatch.setattr(claimed, "FIRST_POLL_S", 0.05)
    pokes = []
    save_totals = slices.save_totals

    def save(*about: Any) -> None:
        pokes.append(emulator.ledger()["billed"])
        if len(pokes) == 3:
            owner.depart()
        save_totals(*about)

    monkeypatch.setattr(slices, "save_totals", save)
    manifest = run("sensing", file="waiting.py", listing=listing, store=store).xcom("describe")
    assert pokes[:3] == [4, 4, 4] and len(pokes) == 4
    assert manifest["counts"]["described"] == 6 and set(emulator.ledger()["by_image"].values()) == {1}

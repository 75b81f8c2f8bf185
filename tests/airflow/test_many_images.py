"""DescribeImagesOperator in DAG runs: what goes in, what comes out, what is paid for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess

Run = Callable[..., Any]


def billed(emulator: EmulatorProcess) -> int:
    return int(emulator.ledger(entries=False)["billed"])


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def counts(**these: int) -> dict[str, int]:
    return {**dict.fromkeys(("requested", "described", "reused", "rejected", "unknown", "pending"), 0), **these}


def beginning(path: str) -> str:
    """The image as the emulator's faults name it."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def test_a_list_from_upstream_is_described_into_a_store(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("stored", images=pictures, store=str(tmp_path))
    assert ran.states == {"listing": "success", "describe": "success"}
    manifest = ran.xcom("describe")
    assert manifest["counts"] == counts(requested=6, described=6)
    assert (manifest["vendor"], manifest["calls"], manifest["store"]) == ("image_describer", 6, str(tmp_path))
    assert "descriptions" not in manifest
    described = rows(manifest["results"])
    assert sorted(row["uri"] for row in described) == sorted(pictures)
    assert all(
        (row["dag_id"], row["run_id"], row["task_id"]) == (ran.dag_id, ran.run_id, "describe") for row in described
    )
    assert rows(manifest["failures"]) == []
    assert billed(accounts) == 6


def test_without_a_store_the_rows_are_in_xcom(accounts: EmulatorProcess, run: Run, pictures: list[str]) -> None:
    ran = run("inline", images=pictures[:2], conn_id="segmind_default")
    manifest = ran.xcom("describe")
    assert [row["uri"] for row in manifest["descriptions"]] == pictures[:2]
    assert (manifest["store"], manifest["results"], manifest["cost_usd"]) == (None, None, 0.03)
    assert ran.xcom("texts") == [row["text"] for row in manifest["descriptions"]]


def test_prompt_and_store_are_templates_and_fields_are_filled_per_image(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    images = [{"uri": Path(path).name, "fields": {"title": Path(path).stem + " {x}"}} for path in pictures[:2]]
    ran = run("templated", images=images, base=Path(pictures[0]).parent.as_uri(), store=str(tmp_path))
    manifest = ran.xcom("describe")
    assert manifest["counts"] == counts(requested=4, described=4)
    assert manifest["store"] == f"{tmp_path}/{len(ran.run_id)}"
    day = ran.run_id.partition("__")[2][:10]
    asked = {(entry["prompt"], entry["lang"]) for entry in accounts.ledger()["entries"]}
    assert asked == {
        (f"Describe this {title} {{x}} for the shop of {day}.", lang)
        for title in ("red", "green")
        for lang in ("en", "de")
    }


def test_lists_from_mapped_tasks_are_one_list_or_a_list_each(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("in_chunks", images=pictures[:3], store=str(tmp_path))
    assert set(ran.states.values()) == {"success"}
    together = ran.xcom("together")
    assert [row["uri"] for row in together["descriptions"]] == pictures[:3]
    apart = [ran.xcom(f"apart[{index}]") for index in range(3)]
    assert [rows(manifest["results"])[0]["uri"] for manifest in apart] == pictures[:3]
    assert [Path(manifest["results"]).name for manifest in apart] == [f"apart-{index}.jsonl" for index in range(3)]


def test_one_image_fits_expand(accounts: EmulatorProcess, run: Run, pictures: list[str]) -> None:
    images = [pictures[0], {"uri": pictures[1], "lang": "fr", "fields": {}}, Path(pictures[2]).as_uri()]
    ran = run("one_by_one", images=images)
    texts = [ran.xcom(f"describe[{index}]")["text"] for index in range(3)]
    assert len(set(texts)) == 3
    assert billed(accounts) == 3


# --- the account is at fault ---


@pytest.mark.parametrize("vendor", ["image_describer", "segmind"])
def test_a_wrong_key_fails_the_task_once(
    emulator: EmulatorProcess,
    connect: Callable[..., None],
    run: Run,
    pictures: list[str],
    tmp_path: Path,
    vendor: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = "sk-Wrong.Key_0123456789"
    connect("shop", conn_type=vendor, password=key, host=emulator.url)
    ran = run("stored", images=pictures, conn_id="shop", store=str(tmp_path))
    message = ran.failed_for_good("describe")
    assert "'shop'" in message and "password" in message
    assert billed(emulator) == 0
    assert ran.xcom("describe", "manifest")["counts"] == counts(requested=6, pending=6)
    assert key not in message + "".join(capsys.readouterr())
    assert key not in "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("kind", "leaf"),
    [("forbidden", "Forbidden"), ("model_retired", "ModelRetired"), ("spend_limit", "InsufficientCredits")],
)
def test_other_account_errors_fail_once_too(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path, kind: str, leaf: str
) -> None:
    accounts.faults({"segmind": {"errors": [{"kind": kind, "share": 1.0}]}})
    ran = run("stored", images=pictures, conn_id="segmind_default", store=str(tmp_path))
    assert ran.failed_for_good("describe").startswith(leaf)
    assert accounts.ledger(entries=False)["requests"] == 1
    assert billed(accounts) == 0


def test_no_credits_left_keeps_what_is_done_and_goes_on_when_topped_up(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    accounts.faults({"segmind": {"credits": 0.03}})
    ran = run("stored", images=pictures, conn_id="segmind_default", store=str(tmp_path))
    assert "Top up the account of connection 'segmind_default'" in ran.failed_for_good("describe")
    manifest = ran.xcom("describe", "manifest")
    assert manifest["counts"] == counts(requested=6, described=2, pending=4)
    assert manifest["cost_usd"] == 0.03
    kept = [row for row in rows(manifest["results"]) if row["status"] == "described"]
    assert len(kept) == billed(accounts) == 2

    accounts.reset()
    again = run("stored", images=pictures, conn_id="segmind_default", store=str(tmp_path))
    assert again.states["describe"] == "success"
    done = again.xcom("describe")["counts"]
    assert done == counts(requested=6, described=4, reused=2)
    assert billed(accounts) == 4
    assert rows(manifest["results"])[:2] == kept


# --- images are at fault ---


def test_rejected_images_within_the_ratio_do_not_fail_the_task(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    harmful = [beginning(path) for path in pictures[1:3]]
    accounts.faults({"image_describer": {"errors": [{"kind": "harmful", "images": harmful}]}})
    ran = run("stored", images=[*pictures, "/nowhere/a.jpg"], store=str(tmp_path))
    assert ran.states["describe"] == "success"
    manifest = ran.xcom("describe")
    assert manifest["counts"] == counts(requested=7, described=4, rejected=3)
    failed = {row["uri"]: row["error"]["kind"] for row in rows(manifest["failures"])}
    assert failed == {pictures[1]: "harmful_content", pictures[2]: "harmful_content", "/nowhere/a.jpg": "missing"}
    assert len(rows(manifest["results"])) == 7
    assert billed(accounts) == 4


def test_more_rejected_than_the_ratio_allows_fail_the_task_for_good_and_early(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    images = [*(f"/nowhere/{number}.jpg" for number in range(4)), *pictures[:3]]
    ran = run("stored", images=images, store=str(tmp_path))
    message = ran.failed_for_good("describe")
    assert "4 of 7 images were rejected" in message and "/nowhere/3.jpg" in message
    manifest = ran.xcom("describe", "manifest")
    assert manifest["counts"] == counts(requested=7, rejected=4, pending=3)
    assert len(rows(manifest["results"])) == 7
    assert billed(accounts) == 0


# --- the vendor is at fault ---


def test_unreadable_answers_end_the_run_before_they_cost_more(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    accounts.faults({"segmind": {"errors": [{"kind": "html", "share": 1.0}]}})
    ran = run("stored", images=pictures, conn_id="segmind_default", store=str(tmp_path))
    assert ran.failed_for_good("describe").startswith("UnexpectedAnswer")
    manifest = ran.xcom("describe", "manifest")
    assert billed(accounts) == manifest["calls"] == 3
    assert manifest["counts"] == counts(requested=6, unknown=3, pending=3)


def test_an_answer_that_cannot_be_read_is_asked_for_again_in_airflows_next_try(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    garbled = beginning(pictures[0])
    accounts.faults({"image_describer": {"errors": [{"kind": "html", "images": [garbled], "attempts": 1}]}})
    ran = run("stored", images=pictures, store=str(tmp_path))
    assert (ran.states["describe"], ran.tries["describe"]) == ("success", 2)
    assert str(ran.errors["describe"]).startswith("Unfinished: 1 of 6 images")
    manifest = ran.xcom("describe")
    assert manifest["counts"] == counts(requested=6, described=1, reused=5)
    assert len(rows(manifest["results"])) == 6
    by_image = accounts.ledger(entries=False)["by_image"]
    assert sorted(by_image.values()) == [1, 1, 1, 1, 1, 2]
    assert by_image[hashlib.sha256(Path(pictures[0]).read_bytes()).hexdigest()] == 2


def test_an_image_whose_answers_are_lost_is_paid_for_twice_in_all_runs_and_then_held(
    accounts: EmulatorProcess, run: Run, pictures: list[str], tmp_path: Path
) -> None:
    lost = beginning(pictures[0])
    accounts.faults({"image_describer": {"errors": [{"kind": "drop_after_bill", "images": [lost]}]}})
    for described, reused in ((5, 0), (0, 5), (0, 5)):
        ran = run("stored", images=pictures, store=str(tmp_path))
        assert ran.states["describe"] == "success"
        manifest = ran.xcom("describe")
        assert manifest["counts"] == counts(requested=6, described=described, reused=reused, unknown=1)
        by_image = accounts.ledger(entries=False)["by_image"]
        assert sorted(by_image.values()) == [1, 1, 1, 1, 1, 2]

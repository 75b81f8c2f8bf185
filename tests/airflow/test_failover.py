"""`fallback_conn_ids`: what the operators make of it, in a real Airflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.decorators.describe_images import describe_images_task
from airflow_provider_describer.engine.occasions import occasions_of
from airflow_provider_describer.engine.task_arguments import read_arguments
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator

FIRST, SECOND = "image_describer_default", "segmind_default"
OUT = {"errors": [{"kind": "insufficient_credits", "share": 1}]}


def rows(ran: Any) -> list[dict[str, Any]]:
    text = Path(ran.xcom("describe")["results"]).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_task_goes_on_with_the_next_connection(run: Any, accounts: Any, pictures: list[str], tmp_path: Path) -> None:
    accounts.faults({"image_describer": OUT})
    ran = run("chained", images=pictures[:3], store=str(tmp_path), others=[SECOND])
    assert ran.states["describe"] == "success"
    manifest = ran.xcom("describe")
    assert manifest["vendor"] == "image_describer" and manifest["counts"]["described"] == 3
    assert manifest["fallbacks"] == {"segmind": {"described": 3, "reused": 0, "why": ["insufficient_credits"]}}
    for row in rows(ran):
        assert (row["vendor"], row["fallback"]["instead_of"]) == ("segmind", "image_describer")
        assert row["fallback"]["kind"] == "insufficient_credits" and accounts.keys["image_describer"] not in str(row)
    accounts.faults({})
    again = run("chained", images=pictures[:3], store=str(tmp_path), others=SECOND)
    assert again.xcom("describe")["counts"]["reused"] == 3 and accounts.ledger()["billed"] == 3


def test_one_image_goes_on_too(run: Any, accounts: Any, pictures: list[str]) -> None:
    accounts.faults({"image_describer": {"errors": [{"kind": "model_retired", "share": 1}]}})
    ran = run("one_chained", images=pictures[:1], others=SECOND)
    row = ran.xcom("describe[0]")
    assert (row["status"], row["vendor"], row["fallback"]["kind"]) == ("described", "segmind", "model_retired")


def test_when_all_are_out_the_task_fails_for_good_and_names_both(run: Any, accounts: Any, pictures: list[str]) -> None:
    accounts.faults({"image_describer": OUT, "segmind": {"errors": [{"kind": "model_retired", "share": 1}]}})
    ran = run("one_chained", images=pictures[:1], others=SECOND)
    message = ran.failed_for_good("describe[0]")
    assert message.startswith("InsufficientCredits: ") and FIRST in message and SECOND in message


def test_a_missing_connection_is_named_before_any_call(
    run: Any, accounts: Any, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("chained", images=pictures[:2], store=str(tmp_path), others=["nobody"])
    assert ran.states["describe"] == "failed"
    message = str(ran.errors["describe"])
    assert "fallback_conn_ids is 'nobody', but there is no such connection" in message
    assert accounts.ledger()["requests"] == 0


def test_a_language_that_the_next_does_not_write_is_refused_before_any_call(accounts: Any) -> None:
    operator = DescribeImagesOperator(
        task_id="describe", images=["/a.jpg"], lang="de", fallback_conn_ids=SECOND, describer_conn_id=FIRST
    )
    with pytest.raises(BadInput, match=r"fallback_conn_ids: connection 'segmind_default' cannot be asked: lang='de'"):
        operator.plan_job(_key(), operator.limits)
    assert accounts.ledger()["requests"] == 0


def _key() -> Any:
    from airflow_provider_describer.store.rows import TaskInstanceKey

    return TaskInstanceKey("shop", "night", "describe")


@pytest.mark.parametrize("kind", [DescribeImageOperator, DescribeImagesOperator])
def test_the_first_connection_is_no_fallback_of_itself(kind: Any) -> None:
    images = {"image": "/a.jpg"} if kind is DescribeImageOperator else {"images": ["/a.jpg"]}
    with pytest.raises(BadInput, match="fallback_conn_ids names 'mine', which is describer_conn_id"):
        kind(task_id="describe", describer_conn_id="mine", fallback_conn_ids=["other", "mine"], **images)
    with pytest.raises(BadInput, match="fallback_conn_ids is a, a, expected each connection once"):
        kind(task_id="describe", fallback_conn_ids=["a", "a"], **images)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, ()),
        ("", ()),
        ("None", ()),
        ([], ()),
        ("a", ("a",)),
        (" a ", ("a",)),
        (["a", "b"], ("a", "b")),
        ("['a', 'b']", ("a", "b")),
    ],
)
def test_what_it_may_be(given: Any, read: tuple[str, ...]) -> None:
    assert read_arguments({"fallback_conn_ids": given}, 0.0).fallback_conn_ids == read


@pytest.mark.parametrize("given", [7, [7], [""], {"a": 1}])
def test_what_it_may_not_be(given: Any) -> None:
    with pytest.raises(BadInput, match="fallback_conn_ids is "):
        read_arguments({"fallback_conn_ids": given}, 0.0)


def test_the_decorator_takes_it() -> None:
    with pytest.raises(BadInput, match="fallback_conn_ids names 'mine'"):
        describe_images_task(describer_conn_id="mine", fallback_conn_ids="mine")(list)


def test_a_notifier_learns_that_an_account_is_out_of_credits() -> None:
    counts = {"requested": 3, "described": 3, "rejected": 0, "unknown": 0, "pending": 0}
    fallbacks = {"segmind": {"described": 2, "reused": 0, "why": ["insufficient_credits"]}}
    found = occasions_of({"counts": counts, "fallbacks": fallbacks}, None, None, 0.1)
    assert found == {"out_of_credits": "2 images were described by segmind instead."}
    fallbacks["segmind"]["why"] = ["unavailable"]
    assert occasions_of({"counts": counts, "fallbacks": fallbacks}, None, None, 0.1) == {}

"""Caption rules as tasks of Airflow have them: written, templated and serialized, and one second try in a DAG run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.rules import BannedWords, MinWords, NoMarkdown

RULES = [MinWords(8), NoMarkdown(), BannedWords(["cheap"])]


def rows(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(manifest["results"]).read_text(encoding="utf-8").splitlines()]


def test_a_dag_run_with_rules_and_a_second_try(
    accounts: EmulatorProcess, run: Any, pictures: list[str], tmp_path: Path
) -> None:
    images = pictures[:3]
    ran = run("judged", images=images, store=str(tmp_path / "store"))
    assert ran.states == dict.fromkeys(("listing", "describe", "in_slices", "one"), "success")

    manifest = ran.xcom("describe")
    # The emulator always writes Markdown.
    assert manifest["failed_rules"] == {"NoMarkdown()": 3, "Matches('Asked: Be brief')": 0, "MinWords(3)": 0}
    assert manifest["calls"] == accounts.ledger()["billed"] == 6
    assert [(row["prompt"], row["failed_rules"]) for row in rows(manifest)] == [("Be brief.", ["NoMarkdown()"])] * 3
    assert ran.xcom("in_slices")["failed_rules"] == {"MinWords(3)": 0}
    assert ran.xcom("one")["failed_rules"] == ["MaxChars(5)"]


def test_slices_go_on_until_the_second_tries_are_made(
    accounts: EmulatorProcess, run: Any, pictures: list[str], tmp_path: Path
) -> None:
    ran = run("judged_in_slices", images=pictures[:3], store=str(tmp_path / "store"))
    assert ran.states["in_slices"] == "success"
    manifest = ran.xcom("in_slices")
    assert manifest["calls"] == accounts.ledger()["billed"] == 6
    assert manifest["counts"]["described"] == 3
    assert {row["prompt"] for row in rows(manifest)} == {"Be brief."}


def test_rules_are_readable_where_airflow_shows_them() -> None:
    from airflow.serialization import serialized_objects

    with DAG("shop", schedule=None) as dag:
        DescribeImagesOperator(task_id="describe", images=["/a.jpg"], rules=RULES)
        DescribeImagesOperator.partial(task_id="mapped", rules=RULES).expand(images=[["/a.jpg"]])
    names = ("DagSerialization", "SerializedDAG")
    serializer: Any = next(getattr(serialized_objects, name) for name in names if hasattr(serialized_objects, name))
    stored = json.dumps(serializer.to_dict(dag))
    shown = serializer.from_dict(json.loads(stored)).get_task("describe").rules
    # A list of texts, or the text of a list; either can be given again.
    assert shown in ([str(rule) for rule in RULES], str(RULES))
    assert "object at 0x" not in stored and stored.count("MinWords(8)") == 2
    assert DescribeImagesOperator(task_id="again", images=["/a.jpg"], rules=shown).given.rules == tuple(RULES)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("MinWords(0)", r"^rules: MinWords: count is 0"),
        (["MinWrds(8)"], r"^rules: rule 1 names the unknown rule 'MinWrds'"),
        (["Matches('(')"], r"^rules: rule 1: Matches: pattern is '\('"),
        ([MinWords(8), MinWords(8)], r"^rules names MinWords\(8\) twice"),
    ],
)
@pytest.mark.parametrize("kind", [DescribeImageOperator, DescribeImagesOperator])
def test_a_rule_that_cannot_work_fails_where_the_dag_is_parsed(kind: Any, rules: Any, message: str) -> None:
    given = {"image": "/a.jpg"} if kind is DescribeImageOperator else {"images": ["/a.jpg"]}
    with pytest.raises(BadInput, match=message):
        kind(task_id="describe", **given, rules=rules)


@pytest.mark.parametrize("kind", [DescribeImageOperator, DescribeImagesOperator])
def test_a_stricter_prompt_without_rules_fails_there_too(kind: Any) -> None:
    given = {"image": "/a.jpg"} if kind is DescribeImageOperator else {"images": ["/a.jpg"]}
    with pytest.raises(BadInput, match="stricter_prompt is given without rules"):
        kind(task_id="describe", **given, stricter_prompt="Be brief.")

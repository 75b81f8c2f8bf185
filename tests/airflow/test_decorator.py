"""``@task.describe_images``: what its function may return, and what its task makes of that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG, task

from airflow_provider_describer.decorators.describe_images import DescribeImagesDecoratedOperator, describe_images_task
from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine.deferral import CarriedTotals, ResumeCondition
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.kept_images import read_kept_images
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.triggers.describe import VendorTrigger

Run = Callable[..., Any]


def default_connections(emulator: EmulatorProcess) -> dict[str, Any]:
    key = emulator.keys["image_describer"]
    return {"image_describer_default": {"conn_type": "image_describer", "password": key, "host": emulator.url}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop") / "store"


@pytest.fixture(scope="module")
def ran(emulator_process: EmulatorProcess, run_dag: Run, pictures: list[str], store: Path) -> Any:
    """All of `decorated` and of `decorated_specially`, with the ledger of both."""
    emulator_process.reset()
    asked = {"images": pictures[:2], "folder": str(Path(pictures[0]).parent), "store": str(store)}
    first, ran = (
        run_dag(name, default_connections(emulator_process), file="decorated.py", **asked)
        for name in ("decorated", "decorated_specially")
    )
    return SimpleNamespace(
        states=first.states | ran.states,
        tries=first.tries | ran.tries,
        xcom=lambda name, **more: (first if name in first.states else ran).xcom(name, **more),
        ledger=emulator_process.ledger(),
    )


def rows(manifest: Any) -> list[dict[str, Any]]:
    lines = Path(manifest["results"]).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# --- what the function may return ---


def test_every_task_ends_well(ran: Any) -> None:
    assert {name: state for name, state in ran.states.items() if state != "success"} == {"none": "skipped"}
    assert set(ran.tries.values()) <= {0, 1}, ran.tries


def test_the_bill_is_what_the_manifests_say(ran: Any) -> None:
    manifests = [found for name in ran.states if (found := ran.xcom(name))]
    assert ran.ledger["requests"] == ran.ledger["billed"] == sum(manifest["calls"] for manifest in manifests)
    assert ran.ledger["billed"] == 24


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("bare", 1),
        ("plain", 2),
        ("dicts", 4),
        ("overridden", 4),
        ("names", 1),
        ("paths", 6),
        ("listing_file", 2),
        ("later", 1),
        ("annotated", 1),
    ],
)
def test_it_describes_what_the_function_returns(ran: Any, name: str, described: int) -> None:
    counts = ran.xcom(name)["counts"]
    assert (counts["requested"], counts["described"]) == (described, described)


def test_each_image_has_its_own_question(ran: Any) -> None:
    asked = sorted((row["id"], row["lang"], row["prompt"]) for row in rows(ran.xcom("dicts")))
    assert asked == [
        ("b", "de", "Which colour?"),
        ("b", "en", "Which colour?"),
        ("r", "de", "Name this toy of shop."),
        ("r", "en", "Name this toy of shop."),
    ]


def test_a_dry_run_calls_nothing(ran: Any) -> None:
    manifest = ran.xcom("planned")
    assert (manifest["calls"], manifest["counts"]["requested"]) == (0, 2)


def test_what_the_function_returns_is_not_rendered(ran: Any) -> None:
    by_status = {row["status"]: row["uri"] for row in rows(ran.xcom("braces"))}
    assert by_status["described"].endswith("/red.png")
    assert by_status["rejected"].endswith("/{{ params.title }}.png")


def test_the_manifest_is_one_value_unless_asked_otherwise(ran: Any) -> None:
    assert ran.xcom("annotated", key="counts") is None
    assert ran.xcom("spread", key="counts") == ran.xcom("spread")["counts"]


def test_mapped_tasks(emulator: EmulatorProcess, run_dag: Run, pictures: list[str], tmp_path: Path) -> None:
    ran = run_dag(
        "decorated_and_mapped",
        default_connections(emulator),
        file="decorated.py",
        folder=str(Path(pictures[0]).parent),
        store=str(tmp_path / "store"),
    )
    assert set(ran.states.values()) == {"success"}
    assert ran.xcom("total") == 2
    manifests = [ran.xcom(name) for name in ("describe[0]", "describe[1]", "of_upstream[0]")]
    assert len({manifest["results"] for manifest in manifests}) == 3
    assert [row["prompt"] for manifest in manifests for row in rows(manifest)] == ["What is in shop?"] * 3
    assert (emulator.ledger()["requests"], emulator.ledger()["billed"]) == (3, 3)


# --- what goes wrong ---


def test_a_retry_lists_anew_and_pays_once(
    emulator: EmulatorProcess, run_dag: Run, pictures: list[str], tmp_path: Path
) -> None:
    asked = {"images": pictures[:4], "store": str(tmp_path / "store")}
    ran = run_dag("decorated_and_retried", default_connections(emulator), file="decorated.py", **asked)
    assert (ran.states["describe"], ran.tries["describe"]) == ("success", 2)
    counts = ran.xcom("describe")["counts"]
    assert (counts["reused"], counts["described"]) == (3, 1)
    # The function's own error is the task's.
    assert (ran.states["broken"], ran.tries["broken"]) == ("success", 2)
    assert ran.xcom("broken")["counts"]["reused"] == 4
    ledger = emulator.ledger()
    assert ledger["requests"] == ledger["billed"] == len(ledger["by_image"]) == 4


WORDS = {
    "nothing": ["images() returned None", "without a return", "[]"],
    "a_number": ["images() returned 7", "expected a list"],
    "a_text": ["images() returned '/data/a.jpg'", "brackets"],
    "a_secret_text": ["images() returned 'https://shop.example/a.jpg?…'"],
    "one_dict": ["images() returned a dict", "brackets"],
    "bytes": ["images() returned a bytes"],
    "a_generator": ["a_generator() returned a generator", "list(…)"],
    "entries": ["images[0] is 7"],
    "an_argument": ["concurrency is '0'"],
}


@pytest.fixture(scope="module")
def went_wrong(emulator_process: EmulatorProcess, run_dag: Run, pictures: list[str], tmp_path_factory: Any) -> Any:
    emulator_process.reset()
    asked = {"images": pictures, "store": str(tmp_path_factory.mktemp("wrong"))}
    ran = run_dag("decorated_wrongly", default_connections(emulator_process), file="decorated.py", **asked)
    ran.ledger = emulator_process.ledger()
    return ran


@pytest.mark.parametrize("name", WORDS)
def test_what_is_no_list_of_images_fails_the_task_for_good(went_wrong: Any, name: str) -> None:
    message = went_wrong.failed_for_good(name)
    assert message.startswith("BadInput: ")
    assert [words for words in WORDS[name] if words not in message] == []
    assert "s3cret" not in message


def test_the_functions_own_error_is_the_tasks(went_wrong: Any) -> None:
    assert (went_wrong.states["an_error"], went_wrong.tries["an_error"]) == ("failed", 1)
    assert repr(went_wrong.errors["an_error"]) == "LookupError('no such shelf')"


def test_nothing_was_sent_for_them(went_wrong: Any) -> None:
    assert set(went_wrong.states) == {*WORDS, "an_error"}
    assert went_wrong.ledger["requests"] == 0


# --- waiting outside the worker ---


@pytest.mark.slow
def test_after_a_deferral_it_goes_on_with_the_same_images(
    emulator: EmulatorProcess, run_dag: Run, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function would return one image alone if it were asked again: two paid rows would be in no result."""
    deferrals: list[VendorTrigger] = []
    wait = VendorTrigger.run

    def remembered(self: VendorTrigger) -> Any:
        deferrals.append(self)
        return wait(self)

    monkeypatch.setattr(VendorTrigger, "run", remembered)
    # Two calls at once, and the third a minute later: 2.9 in a minute are 2.
    fields = {"conn_type": "image_describer", "password": emulator.keys["image_describer"], "host": emulator.url}
    shop = {**fields, "extra": json.dumps({"requests_per_minute": 2.9})}
    calls, store = tmp_path / "calls", tmp_path / "store"
    asked = {"images": pictures, "store": str(store), "calls": str(calls)}
    ran = run_dag("decorated_and_deferred", {"shop": shop}, file="decorated.py", **asked)
    manifest = ran.xcom("describe")
    assert (len(deferrals), calls.read_text()) == (1, "called\n")
    counts = manifest["counts"]
    assert (counts["requested"], counts["described"], counts["reused"]) == (3, 3, 0)
    assert sorted((row["uri"], row["prompt"]) for row in rows(manifest)) == sorted(
        (uri, f"Name this {number}.") for number, uri in enumerate(pictures[:3])
    )
    ledger = emulator.ledger()
    assert (ledger["requests"], ledger["billed"], len(ledger["by_image"])) == (3, 3, 3)
    assert [path.parts[-4:] for path in store.glob("deferred/**/*.jsonl")] == [
        ("deferred", "decorated_and_deferred", ran.run_id, "describe.jsonl")
    ]


def made(returned: Any, store: Path) -> Any:
    """The operator after its function has returned, as far as a wait is concerned."""
    operator = DescribeImagesDecoratedOperator(
        task_id="describe", python_callable=lambda: returned, store=str(store), deferrable=True
    )
    operator.images = returned
    return operator


@pytest.mark.parametrize("image", ["https://shop.example/a.jpg?X-Amz-Signature=s3cret", "https://me:s3cret@shop/a.jpg"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_an_address_that_may_be_a_secret_is_not_written_so_its_task_waits_in_the_worker(
    image: str, as_dict: bool, tmp_path: Path
) -> None:
    assert made(["/data/a.jpg", "s3://shop/a?b.jpg"], tmp_path)._max_wait() == 30.0
    assert made(["/data/a.jpg", [{"uri": image} if as_dict else image]], tmp_path)._max_wait() is None


def test_a_mapped_task_keeps_its_own_images(tmp_path: Path) -> None:
    for number in (0, 1):
        operator = made([f"/data/{number}.jpg"], tmp_path)
        instance = TaskInstanceKey("shop", "run", "describe", number)
        operator._job = SimpleNamespace(task_instance=instance)
        with pytest.raises(TaskDeferred) as deferred:
            operator._defer(ResumeCondition(1e9), CarriedTotals(), 0.0)
        # Airflow's database gets no image.
        assert "/data" not in repr(deferred.value.trigger.serialize())
    for number in (0, 1):
        instance = TaskInstanceKey("shop", "run", "describe", number)
        assert read_kept_images(open_folder(str(tmp_path)), instance) == [f"/data/{number}.jpg"]


# --- what is known when the DAG is parsed ---


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lang": "englsh"}, "lang is 'englsh'"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"store": "descriptions"}, "store is 'descriptions'"),
        ({"defer_after": 1}, "defer_after is 1"),
        ({"images": ["/a.jpg"]}, "images is given to @task.describe_images"),
    ],
)
def test_an_argument_that_cannot_work_fails_where_the_dag_is_parsed(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):

        @task.describe_images(**given)
        def describe() -> list[str]:
            return []


def test_an_argument_that_cannot_work_is_found_in_an_override_and_in_defaults() -> None:
    @task.describe_images
    def describe() -> list[str]:
        return []

    with DAG("shop", schedule=None), pytest.raises(BadInput, match="lang is 'englsh'"):
        describe.override(lang="englsh")()
    with DAG("shop", schedule=None, default_args={"lang": "englsh"}), pytest.raises(BadInput, match="lang is 'englsh'"):
        describe()


def test_an_unknown_argument_fails_where_the_dag_is_parsed() -> None:
    @task.describe_images(no_such=1)
    def describe(folder: str = "") -> list[str]:
        return []

    with DAG("shop", schedule=None), pytest.raises(TypeError, match="no_such"):
        describe()


def test_the_functions_arguments_are_checked_too() -> None:
    def listed(folder: str) -> list[str]:
        return [folder]

    describe: Any = task.describe_images(listed)
    with DAG("shop", schedule=None), pytest.raises(TypeError, match="folder"):
        describe()
    with DAG("shop", schedule=None), pytest.raises(TypeError, match="no_such"):
        describe("/data", no_such=1)


def test_it_takes_the_operators_arguments_and_templates() -> None:
    fields = DescribeImagesDecoratedOperator.template_fields
    assert set(fields) == {"op_args", "op_kwargs", *DescribeImagesOperator.template_fields} - {"images"}
    assert len(fields) == len(set(fields))
    decorated: Any = describe_images_task(list, task_id="describe", lang=["en", "de"], max_cost="0.5")
    with DAG("shop", schedule=None):
        made = decorated().operator
    assert (made.lang, made.max_cost, made.operator_name) == (["en", "de"], "0.5", "@task.describe_images")
    assert made.ui_color == DescribeImagesOperator.ui_color


def test_the_functions_docstring_is_the_tasks_documentation() -> None:
    @task.describe_images
    def describe() -> list[str]:
        """Describe the shop."""
        return []

    with DAG("shop", schedule=None) as dag:
        describe()
    assert dag.get_task("describe").doc_md == "Describe the shop."


def test_the_example(emulator: EmulatorProcess, run_dag: Run, pictures: list[str], tmp_path: Path) -> None:
    products = tmp_path / "products.csv"
    products.write_text("sku,title,image\n" + "".join(f"1,ball,{uri}\n" for uri in pictures[:2]), encoding="utf-8")
    asked = {"products": str(products), "store": str(tmp_path / "store")}
    ran = run_dag("describe_task", default_connections(emulator), file="describe_task.py", **asked)
    assert set(ran.states.values()) == {"success"}
    assert {row["prompt"][:19] for row in rows(ran.xcom("describe"))} == {"Describe this ball "}
    assert emulator.ledger()["billed"] == 2

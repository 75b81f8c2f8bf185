"""The arguments of every operator and sensor: their names, defaults, documentation and templates."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk import DAG, ObjectStoragePath, literal

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine.task_arguments import read_arguments
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.operators.describe import DescribeImageOperator, DescribeImagesOperator
from airflow_provider_describer.operators.list_images import ListImagesOperator
from airflow_provider_describer.operators.review import ReviewDescriptionsOperator
from airflow_provider_describer.rules import MinWords
from airflow_provider_describer.sensors.credits import CreditsSensor
from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor

numpy: Any = pytest.importorskip("numpy")
pandas: Any = pytest.importorskip("pandas")
AIRFLOW = tuple(int(part) for part in version("apache-airflow-core").split(".")[:2])
REQUIRED = inspect.Parameter.empty
DEFERRABLE = {"deferrable": False}
DESCRIBER = {
    "describer_conn_id": "image_describer_default",
    "prompt": None,
    "lang": "en",
    "store": None,
    "storage_conn_id": None,
    "max_pixels": None,
}
MANY = {
    **DESCRIBER,
    "images": REQUIRED,
    "images_base": None,
    "concurrency": 32,
    "max_calls": None,
    "max_cost": None,
    "max_failure_ratio": 0.1,
    "on_unknown": "retry",
    "max_lost_calls": 2,
    "on_claimed": "wait",
    "retry_rejected": False,
    "results_format": "jsonl",
    "skip_if_empty": False,
    "rules": None,
    "stricter_prompt": None,
}
LISTING = {**DESCRIBER, "path": REQUIRED, "types": None, "chunk_size": None, "inline_limit": 1000}
ARGUMENTS: dict[type[Any], dict[str, Any]] = {
    DescribeImageOperator: {
        **DESCRIBER,
        "image": REQUIRED,
        "on_unknown": "fail",
        "max_lost_calls": 2,
        "on_claimed": "wait",
        "fallback_conn_ids": None,
        "rules": None,
        "stricter_prompt": None,
    },
    DescribeImagesOperator: {**MANY, **DEFERRABLE, "dry_run": False, "defer_after": 30.0, "fallback_conn_ids": None},
    ListImagesOperator: {
        **LISTING,
        "min_size": None,
        "max_size": None,
        "modified_after": None,
        "modified_before": None,
        "limit": None,
        "only_new": False,
        "skip_if_empty": False,
    },
    ReviewDescriptionsOperator: {
        "store": REQUIRED,
        "storage_conn_id": None,
        "results": None,
        "share": 1.0,
        "failed_rules": False,
        "max_images": 10,
        "prompt": None,
        "skip_if_empty": False,
        "subject": "Review descriptions",
    },
    NewImagesSensor: {**LISTING, **DEFERRABLE, "min_images": 1, "settle_seconds": 0.0},
    DescribeImagesSensor: {**MANY, "store": REQUIRED, "slice_size": 100},
    CreditsSensor: {**DEFERRABLE, "describer_conn_id": "segmind_default", "min_credits": REQUIRED},
}
# What each of them may be, other than its default.
MINE: dict[str, Any] = {
    "chunk_size": 10,
    "concurrency": 3,
    "defer_after": 60.0,
    "deferrable": True,
    "describer_conn_id": "mine",
    "dry_run": True,
    "failed_rules": True,
    "fallback_conn_ids": ["others"],
    "image": "/mine/a.jpg",
    "images": ["/mine/a.jpg"],
    "images_base": "/mine",
    "inline_limit": 7,
    "lang": "de",
    "limit": 8,
    "max_calls": 9,
    "max_cost": 0.5,
    "max_failure_ratio": 0.2,
    "max_images": 5,
    "max_lost_calls": 1,
    "max_pixels": 2_000_000,
    "max_size": 4000,
    "min_credits": 2.5,
    "min_images": 2,
    "min_size": 30,
    "modified_after": "2026-01-01",
    "modified_before": timedelta(0),
    "on_claimed": "skip",
    "on_unknown": "hold",
    "only_new": True,
    "path": "/mine",
    "prompt": "What is on it?",
    "results": "/mine/store/results/a.jsonl",
    "results_format": "parquet",
    "retry_rejected": True,
    "rules": [MinWords(8)],
    "settle_seconds": 5.0,
    "share": 0.5,
    "skip_if_empty": True,
    "slice_size": 11,
    "storage_conn_id": "my_storage",
    "store": "/mine/store",
    "stricter_prompt": "Be brief.",
    "subject": "Mine",
    "types": ["jpg"],
}


def ours(kind: type[Any]) -> list[type[Any]]:
    """The class and those of its bases that are this package's."""
    return [one for one in kind.__mro__ if one.__module__.startswith("airflow_provider_describer.")]


def arguments(kind: type[Any]) -> dict[str, Any]:
    """Every argument with its default, as the first class that names it has it."""
    found: dict[str, Any] = {}
    for one in reversed([one for one in ours(kind) if "__init__" in vars(one)]):
        parameters = inspect.signature(vars(one)["__init__"]).parameters
        found |= {name: about.default for name, about in parameters.items() if name not in ("self", "kwargs")}
    return found


def documented(kind: type[Any]) -> list[tuple[str, str]]:
    """Every documented argument and what is said about it."""
    parts = [part for one in ours(kind) for part in (one.__doc__ or "").split(":param ")[1:]]
    return [(part.partition(":")[0].strip(), part) for part in parts]


def make(kind: type[Any], **more: Any) -> Any:
    given = {name: "{{ ds }}" for name, default in ARGUMENTS[kind].items() if default is REQUIRED}
    return kind(task_id="task", **{**given, **more})


@pytest.fixture(params=ARGUMENTS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_names_and_defaults(kind: Any) -> None:
    assert arguments(kind) == ARGUMENTS[kind]


def test_every_argument_is_documented_once(kind: Any) -> None:
    names = [name for name, _ in documented(kind)]
    assert sorted(names) == sorted(ARGUMENTS[kind])
    # Who reads a class finds the others.
    assert [one.__name__ for one in ours(kind)[1:] if f".{one.__name__}`" not in kind.__doc__] == []


def test_all_of_them_are_templated(kind: Any) -> None:
    assert tuple(name for name, text in documented(kind) if "(templated)" in text) == tuple(kind.template_fields)
    assert sorted(kind.template_fields) == sorted(ARGUMENTS[kind])


def test_every_argument_is_kept_under_its_name(kind: Any) -> None:
    task = make(kind)
    for name, default in ARGUMENTS[kind].items():
        assert getattr(task, name) == ("{{ ds }}" if default is REQUIRED else default)


def test_a_dag_gives_defaults_for_all_of_them(kind: Any) -> None:
    """Airflow takes them from `default_args` class by class."""
    mine = {name: MINE[name] for name in ARGUMENTS[kind]}
    with DAG("shop", schedule=None, default_args={**mine, "retries": 7}):
        task = kind(task_id="task")
    assert {name: getattr(task, name) for name in mine} == mine
    assert task.retries == 7


def test_a_mapped_task_takes_them_all_and_no_others(kind: Any) -> None:
    mapped, given = next(iter(kind.template_fields)), {name: MINE[name] for name in ARGUMENTS[kind]}
    del given[mapped]
    with DAG("shop", schedule=None):
        task: Any = kind.partial(task_id="task", **given).expand(**{mapped: ["a", "b"]})
    assert {name: task.partial_kwargs[name] for name in given} == given
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        kind.partial(task_id="task", no_such=1)


@pytest.mark.parametrize("missing", ["images", "path", "image", "store", "min_credits"])
def test_what_is_required_is_asked_for(kind: Any, missing: str) -> None:
    if ARGUMENTS[kind].get(missing) is not REQUIRED:
        return
    given = {name: MINE[name] for name, default in ARGUMENTS[kind].items() if default is REQUIRED and name != missing}
    with pytest.raises(TypeError, match=f"missing keyword argument '{missing}'"):
        kind(task_id="task", **given)


def test_all_of_them_are_operators(kind: Any) -> None:
    assert issubclass(kind, BaseOperator)
    assert kind.ui_color == "#e8f1ff"


# --- what is known when the DAG is parsed ---

WRONG: dict[str, Any] = {
    "results": "/data/a.jpg",
    "share": 0,
    "failed_rules": [],
    "fallback_conn_ids": 7,
    "max_images": 0,
    "subject": " ",
    "chunk_size": 0,
    "concurrency": 0,
    "defer_after": 1,
    "deferrable": "perhaps",
    "describer_conn_id": None,
    "dry_run": "maybe",
    "image": ["/a.jpg", "/b.jpg"],
    "images": "/a.jpg",
    "images_base": "data",
    "inline_limit": -1,
    "lang": "englsh",
    "limit": 0,
    "max_calls": -1,
    "max_cost": "$5",
    "max_failure_ratio": 2,
    "max_lost_calls": 0,
    "max_pixels": 10,
    "max_size": "large",
    "min_credits": float("nan"),
    "min_images": 0,
    "min_size": -1,
    "modified_after": "yesterday",
    "modified_before": 1.5j,
    "on_claimed": "never",
    "on_unknown": "retyr",
    "only_new": None,
    "path": "catalog/**",
    "prompt": " ",
    "results_format": "csv",
    "retry_rejected": "",
    "rules": 7,
    "settle_seconds": -5,
    "skip_if_empty": 2,
    "slice_size": 0,
    "storage_conn_id": 7,
    "store": "descriptions",
    "stricter_prompt": " ",
    "types": "jpg",
}
EACH = [(kind, name) for kind in ARGUMENTS for name in ARGUMENTS[kind]]


@pytest.mark.parametrize(("kind", "name"), EACH, ids=lambda value: getattr(value, "__name__", value))
def test_a_literal_that_cannot_work_fails_where_the_dag_is_parsed(kind: Any, name: str) -> None:
    with pytest.raises(BadInput, match=f"^{name} is "):
        make(kind, **{name: WRONG[name]})
    with DAG("shop", schedule=None, default_args={name: WRONG[name]}), pytest.raises(BadInput, match=f"^{name} is "):
        kind(**{"task_id": "task", **required(kind, name)})


@pytest.mark.parametrize(("kind", "name"), EACH, ids=lambda value: getattr(value, "__name__", value))
def test_a_literal_of_a_mapped_task_does_too(kind: Any, name: str) -> None:
    with pytest.raises(BadInput, match=f"^{name} is "):
        kind.partial(task_id="task", **{name: WRONG[name]})


@pytest.mark.parametrize(("kind", "name"), EACH, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_rendered_later_is_not(kind: Any, name: str) -> None:
    with DAG("shop", schedule=None, params={"x": 1}) as dag:
        upstream = BaseOperator(task_id="upstream")
        for number, value in enumerate(("{{ params.x }}", upstream.output, dag.param("x"), literal("{{ x }}"))):
            given = {**required(kind), "task_id": f"task_{number}", name: value}
            assert getattr(kind(**given), name) is value
        partial = {**required(kind, name), "task_id": "mapped"}
        kind.partial(**partial).expand(**{name: upstream.output})


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (DescribeImagesSensor, {"store": None}, "store is None, expected a folder"),
        (DescribeImagesSensor, {"store": "None"}, "store is None, expected a folder"),
        (ListImagesOperator, {"only_new": True}, "only_new needs a store"),
        (ListImagesOperator, {"only_new": "yes", "store": "None"}, "only_new needs a store"),
        (ListImagesOperator, {"min_size": 9, "max_size": "8"}, "min_size is 9 and max_size 8"),
        (ListImagesOperator, {"modified_after": "2026-01-02", "modified_before": "2026-01-01"}, "no image was changed"),
        (DescribeImageOperator, {"lang": ["en", "de"]}, "expected one language"),
    ],
)
def test_arguments_that_do_not_go_together_fail_there_as_well(kind: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make(kind, **more)


def required(kind: type[Any], but: str = "") -> dict[str, Any]:
    return {name: MINE[name] for name, default in ARGUMENTS[kind].items() if default is REQUIRED and name != but}


@pytest.mark.parametrize("path", [Path("/data/store"), ObjectStoragePath("s3://aws_default@shop/store")], ids=str)
def test_a_store_may_be_a_path_object(kind: Any, path: Any) -> None:
    if "store" in ARGUMENTS[kind]:
        task = kind(**{**required(kind), "task_id": "task", "store": path})
        assert task.given.store in ("/data/store", "s3://shop/store")


@pytest.mark.parametrize("fields", [("own", *DescribeImagesOperator.template_fields), ("images",), ()])
def test_a_subclass_may_have_other_template_fields(fields: tuple[str, ...]) -> None:
    class Ours(DescribeImagesOperator):
        template_fields = fields

        def __init__(self, *, own: str = "", limit: str = "ours", **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.own = own
            self.limit = limit

    task = Ours(task_id="task", images=["/a.jpg"], own="{{ ds }}", max_cost="0.5")
    assert (task.given.max_cost, task.given.images) == (0.5, ["/a.jpg"])
    with pytest.raises(BadInput, match=r"^concurrency is 0"):
        Ours(task_id="other", images=["/a.jpg"], concurrency=0)
    with pytest.raises(BadInput, match=r"^concurrency is 0"):
        Ours.partial(task_id="third", concurrency=0, own="x")


# --- what is known when the task runs ---


@pytest.fixture
def run_all(run_dag: Callable[..., Any], accounts: EmulatorProcess, pictures: list[str], tmp_path: Path) -> Any:
    """Run a DAG of `dags/arguments.py` on two pictures and a store of the test's own."""

    def run(name: str, **conf: Any) -> Any:
        paths = {"image": pictures[0], "images": pictures[:2], "path": str(Path(pictures[0]).parent)}
        return run_dag(name, {}, file="arguments.py", **{**paths, "store": str(tmp_path / "store"), **conf})

    return run


@pytest.mark.parametrize("rendered", ["text", "native"])
def test_every_argument_can_be_rendered(
    accounts: EmulatorProcess, run_all: Any, rendered: str, tmp_path: Path, pictures: list[str]
) -> None:
    ran = run_all(f"all_{rendered}")
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert len(ran.xcom("list")) == 6
    many = ran.xcom("many")
    assert (many["counts"]["requested"], many["store"]) == (2, str(tmp_path / "store"))
    assert ran.xcom("slices")["counts"]["requested"] == 2
    ledger = accounts.ledger()
    assert ledger["billed"] == 2, "two images, three tasks, one store"
    assert set(ledger["by_image"].values()) == {1}


@pytest.mark.parametrize("rendered", ["text", "native"])
@pytest.mark.parametrize("dry_run", [True, "True", "yes"])
def test_a_dry_run_that_is_rendered_is_one(
    accounts: EmulatorProcess, run_all: Any, rendered: str, dry_run: Any
) -> None:
    ran = run_all(f"all_{rendered}", dry_run=dry_run, max_calls=0, on_unknown="hold", image="{'uri': '/nowhere.jpg'}")
    assert ran.xcom("many")["counts"]["pending"] == 2
    assert accounts.ledger(entries=False)["requests"] == 0


@pytest.mark.parametrize("rendered", ["text", "native"])
def test_limits_that_are_rendered_hold(accounts: EmulatorProcess, run_all: Any, rendered: str) -> None:
    ran = run_all(f"all_{rendered}", max_cost=0.015, image={"uri": "/nowhere.jpg"}, limit="3", modified_before=None)
    assert ran.states["many"] == ran.states["slices"] == "success", ran.errors
    assert len(ran.xcom("list")) == 3
    # A cent and a half each, and nothing more; the image that the first of them has paid for is reused.
    assert accounts.ledger(entries=False)["billed"] == 2
    assert accounts.ledger(entries=False)["cost_usd"] <= 0.03


@pytest.mark.parametrize("rendered", ["text", "native"])
def test_each_wrong_value_is_named_and_nothing_is_sent(
    accounts: EmulatorProcess, run_all: Any, rendered: str, tmp_path: Path
) -> None:
    wrong = {
        "dry_run": "maybe",
        "slice_size": "1e3",
        "min_credits": "$5",
        "settle_seconds": "soon",
        "limit": "ten",
        "max_pixels": True,
        "image": None,
    }
    ran = run_all(f"all_{rendered}", **wrong)
    names = {"one": "image", "many": "dry_run", "list": "limit", "new": "settle_seconds", "slices": "slice_size"}
    for task, name in {**names, "credits": "min_credits"}.items():
        assert ran.failed_for_good(task).startswith(f"BadInput: {name} is "), task
    assert accounts.ledger(entries=False)["requests"] == 0
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("rendered", ["text", "native"])
@pytest.mark.parametrize("store", [None, "None", "relative/store", "~/store", "{{ ds }}", "/{{ ds }}"])
def test_a_store_is_the_same_folder_for_every_process_or_none(
    accounts: EmulatorProcess,
    run_all: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rendered: str,
    store: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_all(f"all_{rendered}", store=store)
    assert "store is " in ran.failed_for_good("slices")
    for task in ("one", "many", "list"):
        if store in (None, "None"):
            assert ran.states[task] == "success", ran.errors
        else:
            assert ran.failed_for_good(task).startswith("BadInput: store is ")
    assert list(tmp_path.iterdir()) == []
    assert accounts.ledger(entries=False)["billed"] == (3 if store in (None, "None") else 0)


def test_what_is_mapped_is_checked_when_its_task_runs(
    accounts: EmulatorProcess, run_all: Any, pictures: list[str]
) -> None:
    ran = run_all("mapped_wrongly")
    assert ran.states["many[0]"] == "success", ran.errors
    for index in range(1, 5):
        assert ran.failed_for_good(f"many[{index}]").startswith("BadInput: max_cost is ")
    assert ran.failed_for_good("literal[0]").startswith("BadInput: concurrency is 0")
    assert ran.states["literal[1]"] == "success"
    assert accounts.ledger(entries=False)["billed"] == 4


@pytest.mark.parametrize("rendered", ["text", "native"])
@pytest.mark.parametrize("skip", [False, True])
def test_no_images_are_a_normal_night_or_skipped(
    accounts: EmulatorProcess, run_all: Any, tmp_path: Path, rendered: str, skip: bool
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = run_all(f"all_{rendered}", images=[], path=str(tmp_path / "e*"), types=["tif"], skip_if_empty=skip)
    for task in ("many", "slices", "list"):
        assert ran.states[task] == ("skipped" if skip else "success"), ran.errors
    if not skip:
        assert ran.xcom("list") == []
        for task in ("many", "slices"):
            manifest = ran.xcom(task)
            assert set(manifest["counts"].values()) == {0} and manifest["calls"] == 0
            assert Path(manifest["results"]).read_text() == ""
    assert accounts.ledger(entries=False)["billed"] == 1, "the one image of the task for one"


@pytest.mark.parametrize("rendered", ["text", "native"])
def test_a_name_that_is_not_defined_is_not_taken_for_a_value(
    accounts: EmulatorProcess, run_all: Any, rendered: str
) -> None:
    """By default Airflow refuses it; a DAG may allow it."""
    ran = run_all(f"undefined_{rendered}")
    # As text it is blank, which means None where that is the default.
    blank = {"max_cost", "max_calls"} if rendered == "text" else set()
    for task in ran.states:
        if task in blank:
            assert ran.states[task] == "success", ran.errors
        elif rendered == "native" and AIRFLOW < (3, 2):
            # Airflow itself meets it when it stores the rendered values.
            assert ran.states[task] != "success"
        else:
            assert ran.failed_for_good(task).startswith(f"BadInput: {task} is ")
    assert accounts.ledger(entries=False)["billed"] == 2 * len(blank)


@pytest.mark.parametrize("kind", [jinja2.Undefined, jinja2.StrictUndefined, jinja2.ChainableUndefined])
@pytest.mark.parametrize("name", MINE)
def test_what_jinja_knows_no_value_of_is_refused(name: str, kind: type[jinja2.Undefined]) -> None:
    for value in (kind(name="nope"), [kind(name="nope")]):
        try:
            found = read_arguments({name: value}, 0.0)
        except BadInput as error:
            said = str(error)
        else:
            # Each image is looked at by itself.
            assert name == "images" and found.images is value
            continue
        assert said.startswith(f"{name} is ")


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("max_calls", numpy.int64(7), 7),
        ("max_calls", numpy.uint8(7), 7),
        ("max_cost", numpy.float32(0.5), 0.5),
        ("max_cost", numpy.int16(2), 2.0),
        ("dry_run", numpy.bool_(False), False),
        ("dry_run", numpy.int64(1), True),
        ("settle_seconds", numpy.float64(1.5), 1.5),
        ("lang", numpy.array(["de", "en"]), ["de", "en"]),
        ("prompt", numpy.str_("x"), "x"),
        ("modified_after", pandas.Timestamp("2026-01-01", tz="UTC"), 1767225600.0),
        ("modified_after", pandas.Timedelta(hours=-1), 3600.0),
    ],
)
def test_numbers_of_numpy_are_numbers(name: str, value: Any, found: Any) -> None:
    assert getattr(read_arguments({name: value}, 0.0), name) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_calls", numpy.bool_(True)),
        ("max_calls", numpy.float64(7.5)),
        ("max_cost", numpy.float64("nan")),
        ("max_cost", numpy.array([1.0])),
        ("max_cost", pandas.NA),
        ("dry_run", numpy.int64(2)),
        ("dry_run", numpy.array([True, False])),
        ("modified_after", pandas.NaT),
        ("prompt", pandas.NA),
    ],
)
def test_what_is_none_of_them_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"^{name} is "):
        read_arguments({name: value}, 0.0)

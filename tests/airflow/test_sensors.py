"""Sensors in DAG runs, in each way of waiting: what they find, what they cost, and what they say of a mistake."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.bases import sensor as airflow_sensor
from connections import storage

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.sensors.credits import CreditsSensor
from airflow_provider_describer.sensors.images import DescribeImagesSensor, NewImagesSensor
from airflow_provider_describer.triggers import credits as credits_module
from airflow_provider_describer.triggers import images as images_module

if TYPE_CHECKING:
    from clouds import Cloud

Run = Callable[..., Any]
HOWS = ["poke", "reschedule", "deferrable"]


class Pauses:
    """Stands in for a module's `time` and `asyncio`: a pause ends at once, and something happens in it."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def end(self, seconds: float) -> None:
        self.taken.append(seconds)
        assert len(self.taken) < 50, "waits for ever"
        self.meanwhile()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    found = Pauses()

    class Shim:
        """The module, but for its pauses."""

        def __init__(self, module: Any, sleep: Callable[..., Any]) -> None:
            self._module, self.sleep = module, sleep

        def __getattr__(self, name: str) -> Any:
            return getattr(self._module, name)

    async def sleep(seconds: float) -> None:
        found.end(seconds)

    monkeypatch.setattr(airflow_sensor, "time", Shim(time, found.end))
    for module in (images_module, credits_module):
        monkeypatch.setattr(module, "asyncio", Shim(asyncio, sleep))
    return found


@pytest.fixture
def sense(run_dag: Run) -> Run:
    """Run a DAG of `dags/sensing.py`, with the connections that the environment has."""
    return lambda name, **conf: run_dag(name, {}, file="sensing.py", **conf)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def put(inbox: Path, *pictures: str) -> None:
    for path in pictures:
        shutil.copy(path, inbox)


def names(images: list[Any]) -> list[str]:
    return [Path(image["uri"]).name for image in images]


def ledger(emulator: EmulatorProcess) -> dict[str, Any]:
    return emulator.ledger(entries=False)


# --- NewImagesSensor ---


@pytest.mark.parametrize("how", HOWS)
def test_without_a_store_what_came_since_the_last_run_is_new(
    sense: Run, pauses: Pauses, inbox: Path, pictures: list[str], how: str
) -> None:
    put(inbox, *pictures[:3])
    name = f"arriving_{how}"
    assert names(sense(name, path=str(inbox)).xcom("wait")) == ["blue.png", "green.png", "red.png"]
    put(inbox, pictures[3])
    ran = sense(name, path=str(inbox))
    assert names(ran.xcom("wait")) == ["yellow.png"]
    assert pauses.taken == [] and ran.tries == {"wait": 1}
    (inbox / "red.png").write_bytes(Path(pictures[4]).read_bytes())
    assert names(sense(name, path=str(inbox)).xcom("wait")) == ["red.png"]


@pytest.mark.parametrize("how", ["poke", "deferrable"])
def test_images_are_waited_for(sense: Run, pauses: Pauses, inbox: Path, pictures: list[str], how: str) -> None:
    def meanwhile() -> None:
        if len(pauses.taken) == 3:
            put(inbox, pictures[0])

    pauses.meanwhile = meanwhile
    ran = sense(f"arriving_{how}", path=str(inbox))
    assert ran.states == {"wait": "success"}, ran.errors
    assert names(ran.xcom("wait")) == ["red.png"]
    assert len(pauses.taken) == 3
    if how == "deferrable":
        assert min(pauses.taken) >= 15


def test_images_are_waited_for_without_a_worker(sense: Run, inbox: Path, pictures: list[str]) -> None:
    ran = sense("moving_in", path=str(inbox), images=pictures[:2])
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert set(names(ran.xcom("wait"))) <= {"0.png", "1.png"} and ran.tries["wait"] == 1


@pytest.mark.parametrize("how", HOWS)
def test_with_a_store_what_it_has_not_is_new(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, inbox: Path, pictures: list[str], tmp_path: Path, how: str
) -> None:
    put(inbox, *pictures[:3])
    conf = {"path": str(inbox), "store": str(tmp_path / "store")}
    first = sense(f"pending_{how}", **conf)
    assert first.states == {"wait": "success", "describe": "success"}, first.errors
    # Three do not fit XCom: two is the limit of this DAG.
    assert first.xcom("wait").startswith(conf["store"])
    assert first.xcom("describe")["counts"]["described"] == 3
    put(inbox, *pictures[3:5])
    # The same picture as another one is known.
    shutil.copy(pictures[0], inbox / "copy.png")
    second = sense(f"pending_{how}", **conf)
    assert names(second.xcom("wait")) == ["black.png", "yellow.png"]
    assert second.xcom("describe")["counts"]["described"] == 2
    assert ledger(accounts)["billed"] == 5 and pauses.taken == []


def test_a_deferred_sensor_looks_again_until_they_are_enough(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, inbox: Path, pictures: list[str], tmp_path: Path
) -> None:
    """Two are waited for: the first wakes it up in vain."""
    pauses.meanwhile = lambda: put(inbox, pictures[len(pauses.taken) - 1])
    ran = sense("pending_deferrable", path=str(inbox), store=str(tmp_path / "store"))
    assert ran.states == {"wait": "success", "describe": "success"}, ran.errors
    assert len(pauses.taken) == 2 and min(pauses.taken) >= 15
    assert ran.xcom("describe")["counts"]["described"] == 2


def test_what_could_not_be_described_comes_again(
    accounts: EmulatorProcess, sense: Run, inbox: Path, pictures: list[str], tmp_path: Path
) -> None:
    put(inbox, *pictures[:2])
    conf = {"path": str(inbox), "store": str(tmp_path / "store")}
    accounts.faults({"all": {"credits": 0.0}})
    first = sense("pending_poke", **conf)
    assert first.states == {"wait": "success", "describe": "failed"}
    accounts.faults({})
    second = sense("pending_poke", **conf)
    assert second.xcom("wait") == first.xcom("wait")
    assert second.xcom("describe")["counts"]["described"] == ledger(accounts)["billed"] == 2


def test_many_images_are_handed_on_in_files(
    accounts: EmulatorProcess, sense: Run, inbox: Path, pictures: list[str], tmp_path: Path
) -> None:
    put(inbox, *pictures)
    ran = sense("arriving_in_files", path=str(inbox), store=str(tmp_path / "store"))
    assert [len(list(read_listing(path))) for path in ran.xcom("wait")] == [4, 2]
    assert ran.xcom("describe[1]")["counts"]["described"] == 2
    assert "Give a store" in ran.failed_for_good("many")
    # What could not be handed on has not been seen.
    assert ran.xcom("many", key="seen") is None


def test_a_bucket_is_watched_with_a_connections_credentials(
    run_dag: Run, pauses: Pauses, cloud: Cloud, pictures: list[str]
) -> None:
    bucket = cloud.bucket()
    bucket.put("inbox/old.txt", b"x")
    pauses.meanwhile = lambda: bucket.put("inbox/50%20off #1.png", Path(pictures[0]).read_bytes())
    ran = run_dag("arriving_in_a_bucket", {"storage": storage(cloud)}, file="sensing.py", path=f"{cloud.uri}/inbox")
    assert ran.states == {"wait": "success"}, ran.errors
    assert [image["uri"] for image in ran.xcom("wait")] == [f"{cloud.uri}/inbox/50%20off #1.png"]
    assert pauses.taken


@pytest.mark.slow
def test_storage_that_does_not_answer_is_asked_again(
    sense: Run, pauses: Pauses, connect: Callable[..., None], nobody_there: str
) -> None:
    keys = {"login": "a", "password": "b", "extra": {"endpoint_url": nobody_there, "region_name": "eu-west-1"}}
    connect("storage", conn_type="aws", **keys)

    def give_up() -> None:
        raise KeyboardInterrupt

    pauses.meanwhile = give_up
    with pytest.raises(KeyboardInterrupt):
        sense("arriving_in_a_bucket", path="s3://shop/inbox")
    assert min(pauses.taken) >= 15, "it is waited for in the triggerer"


# --- in vain ---


@pytest.fixture(scope="module")
def vain(run_dag: Run, emulator_process: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One DAG run in each way of waiting, in which nothing is there."""
    emulator_process.reset()
    connections = {
        f"{vendor}_default": {"conn_type": vendor, "password": key, "host": emulator_process.url}
        for vendor, key in emulator_process.keys.items()
    }
    path = str(tmp_path_factory.mktemp("empty"))
    return {how: run_dag(f"in_vain_{how}", connections, file="sensing.py", path=path) for how in HOWS}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("what", ["images", "credits"])
def test_time_runs_out(vain: dict[str, Any], how: str, what: str) -> None:
    ran = vain[how]
    assert (ran.states[f"{what}_False"], ran.tries[f"{what}_False"]) == ("failed", 1)
    assert type(ran.errors[f"{what}_False"]).__name__ == "AirflowSensorTimeout"
    assert ran.states[f"{what}_True"] == "skipped"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("what", "words"), [("nowhere", "'/nowhere/at/all'"), ("none", "Image Describer has no way")])
def test_what_can_never_come_is_said_at_once(vain: dict[str, Any], how: str, what: str, words: str) -> None:
    assert words in vain[how].failed_for_good(f"{what}_False")
    assert vain[how].states[f"{what}_True"] == "skipped"


def test_waiting_in_vain_costs_nothing(vain: dict[str, Any], emulator_process: EmulatorProcess) -> None:
    assert emulator_process.ledger(entries=False)["requests"] == 0


# --- CreditsSensor ---


@pytest.mark.parametrize("how", HOWS)
def test_an_account_that_has_enough(accounts: EmulatorProcess, sense: Run, pauses: Pauses, how: str) -> None:
    accounts.faults({"segmind": {"credits": 2.5}})
    ran = sense(f"credits_{how}")
    assert ran.states == {"wait": "success"}, ran.errors
    assert ran.xcom("wait") == 2.5 and pauses.taken == []


@pytest.mark.parametrize("how", ["poke", "deferrable"])
def test_an_account_is_topped_up(accounts: EmulatorProcess, sense: Run, pauses: Pauses, how: str) -> None:
    accounts.faults({"segmind": {"credits": 1.0}})
    balances = iter([1.0, 2.0, 30.0])
    pauses.meanwhile = lambda: accounts.faults({"segmind": {"credits": next(balances)}})
    ran = sense(f"credits_{how}")
    assert ran.states == {"wait": "success"}, ran.errors
    assert ran.xcom("wait") == 30.0 and len(pauses.taken) == 3
    assert ledger(accounts)["requests"] == 0
    if how == "deferrable":
        assert min(pauses.taken) >= 15


@pytest.mark.parametrize("how", ["poke", "deferrable"])
def test_a_vendor_that_does_not_answer_is_asked_again(
    accounts: EmulatorProcess,
    sense: Run,
    pauses: Pauses,
    connect: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    nobody_there: str,
    how: str,
) -> None:
    # The usual number of attempts, without the usual patience.
    quick = RetryPolicy(base=0.01, cap=0.02)
    monkeypatch.setattr("airflow_provider_describer.hooks.describer.RetryPolicy", lambda: quick)

    def define(host: str) -> None:
        connect("segmind_default", conn_type="segmind", password=accounts.keys["segmind"], host=host)

    define(nobody_there)
    pauses.meanwhile = lambda: define(nobody_there if len(pauses.taken) < 3 else accounts.url)
    ran = sense(f"credits_{how}")
    assert ran.states == {"wait": "success"}, ran.errors
    assert ran.xcom("wait") > 2.5 and len(pauses.taken) == 3


@pytest.mark.parametrize("how", ["poke", "deferrable"])
def test_a_key_that_is_withdrawn_meanwhile_ends_the_wait(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, connect: Callable[..., None], how: str
) -> None:
    accounts.faults({"segmind": {"credits": 0.0}})
    pauses.meanwhile = lambda: connect("segmind_default", conn_type="segmind", password="withdrawn", host=accounts.url)
    ran = sense(f"credits_{how}")
    assert ran.failed_for_good("wait").startswith("InvalidKey")
    assert len(pauses.taken) == 1


# --- DescribeImagesSensor ---


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_images_are_described_in_slices(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, pictures: list[str], tmp_path: Path, mode: str
) -> None:
    ran = sense(f"slices_{mode}", images=pictures[:5], store=str(tmp_path))
    assert ran.states["describe"] == "success", ran.errors
    manifest = ran.xcom("describe")
    assert manifest["counts"] == {
        "requested": 5,
        "described": 5,
        "reused": 0,
        "rejected": 0,
        "unknown": 0,
        "pending": 0,
    }
    assert manifest["calls"] == ledger(accounts)["billed"] == 5
    assert manifest["cost_usd"] == pytest.approx(0.075)
    rows = [json.loads(line) for line in Path(manifest["results"]).read_text().splitlines()]
    assert sorted(row["uri"] for row in rows) == sorted(pictures[:5])
    assert {row["status"] for row in rows} == {"described"}
    assert not list(tmp_path.rglob("slices/**/*.json")), "nothing is left of the slices"
    if mode == "poke":
        assert len(pauses.taken) == 2

    again = sense(f"slices_{mode}", images=pictures[:5], store=str(tmp_path)).xcom("describe")
    assert (again["counts"]["reused"], again["calls"], ledger(accounts)["billed"]) == (5, 0, 5)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_requests_that_run_at_the_vendor_are_fetched_by_a_later_slice(
    accounts: EmulatorProcess,
    connect: Callable[..., None],
    sense: Run,
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
    pictures: list[str],
    tmp_path: Path,
    mode: str,
) -> None:
    key = accounts.keys["segmind"]
    connect("version_2", conn_type="segmind", password=key, host=accounts.url, extra={"api_version": "v2"})
    accounts.faults({"segmind": {"v2_delay_s": 2.5}})
    monkeypatch.setattr("airflow_provider_describer.engine.slices.MAX_WAIT_S", 0.3)
    ran = sense(f"slices_{mode}", images=pictures[:2], store=str(tmp_path), conn_id="version_2")
    assert ran.states["describe"] == "success", ran.errors
    assert ran.xcom("describe")["counts"]["described"] == ran.xcom("describe")["calls"] == 2
    assert ledger(accounts)["requests"] == ledger(accounts)["billed"] == 2


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_an_account_without_a_balance_ends_it(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, pictures: list[str], tmp_path: Path, mode: str
) -> None:
    accounts.faults({"segmind": {"credits": 0.045}})
    ran = sense(f"slices_{mode}", images=pictures, store=str(tmp_path))
    said = ran.failed_for_good("describe")
    assert said.startswith("InsufficientCredits") and "'segmind_default'" in said
    assert ran.xcom("describe", key="manifest")["counts"]["described"] == ledger(accounts)["billed"] == 3


def test_a_vendor_that_is_down_for_a_slice_is_waited_for(
    accounts: EmulatorProcess,
    sense: Run,
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
    pictures: list[str],
    tmp_path: Path,
) -> None:
    # Else the attempts of one call take half a minute.
    monkeypatch.setattr("airflow_provider_describer.engine.slices.MAX_WAIT_S", 0.01)
    accounts.faults({"segmind": {"errors": [{"kind": "server_error", "share": 1}]}})
    pauses.meanwhile = lambda: accounts.faults({})
    ran = sense("slices_poke", images=pictures[:2], store=str(tmp_path))
    assert ran.states["describe"] == "success", ran.errors
    assert ran.xcom("describe")["counts"]["described"] == ledger(accounts)["billed"] == 2


def test_a_harmful_image_counts_once_over_the_slices(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, pictures: list[str], tmp_path: Path
) -> None:
    accounts.faults({"segmind": {"errors": [{"kind": "harmful", "first": 1}]}})
    manifest = sense("slices_reschedule", images=pictures[:5], store=str(tmp_path)).xcom("describe")
    assert (manifest["counts"]["described"], manifest["counts"]["rejected"]) == (4, 1)
    assert ledger(accounts)["billed"] == 4


def test_a_damaged_store_ends_it_unpaid(
    accounts: EmulatorProcess, sense: Run, pauses: Pauses, pictures: list[str], tmp_path: Path
) -> None:
    sense("slices_poke", images=pictures[:1], store=str(tmp_path))
    (shard,) = (tmp_path / "journal").glob("*.jsonl")
    shard.write_bytes(shard.read_bytes()[:-1])
    for name in ("slices_poke", "slices_reschedule"):
        said = sense(name, images=pictures, store=str(tmp_path)).failed_for_good("describe")
        assert said.startswith("CorruptShard") and shard.name in said
    said = sense("pending_poke", path=str(Path(pictures[0]).parent), store=str(tmp_path)).failed_for_good("wait")
    assert said.startswith("CorruptShard") and shard.name in said
    assert ledger(accounts)["requests"] == 1


def test_slices_run_out_of_time_and_keep_what_they_have(
    accounts: EmulatorProcess, sense: Run, pictures: list[str], tmp_path: Path
) -> None:
    ran = sense("slices_in_vain", images=pictures, store=str(tmp_path))
    assert (ran.states["describe"], ran.tries["describe"]) == ("failed", 1)
    assert type(ran.errors["describe"]).__name__ == "AirflowSensorTimeout"
    assert ran.xcom("describe", key="manifest")["counts"]["described"] == 2
    assert ran.states["softly"] == "skipped"
    assert ran.xcom("softly", key="manifest")["counts"]["reused"] == 2
    assert ledger(accounts)["billed"] == 4


# --- mistakes ---

WORDS = {
    "web_address": ["https://x.example/catalog", "a web address has no listing"],
    "path_of_another_kind": ["path is '7'", "has to be absolute"],
    "no_images": ["min_images is '0'"],
    "no_time": ["settle_seconds is '-1'"],
    "blank_store": ["store is blank"],
    "no_such_connection": ["storage_conn_id is 'nowhere'", "no such connection"],
    "other_type": ["'web'", "'http'"],
    "no_slice": ["slice_size is '0'"],
    "no_list": ["images is '/a.png'"],
    "slices_without_a_store": ["store is blank"],
    "too_late": ["7200 s", "poke_interval", "'version_2'"],
}


@pytest.fixture(scope="module")
def wrong(run_dag: Run, pictures: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All the mistakes in one DAG run."""
    key = {"conn_type": "segmind", "password": "sk-x", "host": "http://127.0.0.1:9"}
    connections = {
        "web": {"conn_type": "http", "host": "http://127.0.0.1"},
        "image_describer_default": {**key, "conn_type": "image_describer"},
        "version_2": {**key, "extra": {"api_version": "v2"}},
    }
    conf = {"path": str(Path(pictures[0]).parent), "store": str(tmp_path_factory.mktemp("store"))}
    return run_dag("sensed_wrongly", connections, file="sensing.py", **conf)


def test_every_mistake_has_its_words(wrong: Any) -> None:
    assert set(wrong.states) == set(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_a_mistake_is_named_and_not_tried_again(wrong: Any, name: str) -> None:
    message = wrong.failed_for_good(name)
    for words in WORDS[name]:
        assert words in message


# --- as Airflow handles them before they run ---


def test_a_dag_survives_serialisation() -> None:
    from airflow.sdk import DAG
    from airflow.serialization import serialized_objects

    with DAG("shop", schedule=None) as dag:
        NewImagesSensor(task_id="new", path="s3://shop/{{ ds }}/**", mode="reschedule", settle_seconds=60)
        DescribeImagesSensor(task_id="slices", images=["/a.png"], store="s3://shop/store", slice_size=7)
        CreditsSensor(task_id="credits", min_credits=5, deferrable=True)
        DescribeImagesSensor.partial(task_id="mapped", store="s3://shop/store").expand(images=[["/a.png"]])
    # The name of 3.3, and of 3.1.
    found = ("DagSerialization", "SerializedDAG")
    serializer: Any = next(getattr(serialized_objects, name) for name in found if hasattr(serialized_objects, name))
    stored = serializer.from_dict(json.loads(json.dumps(serializer.to_dict(dag))))
    new = stored.get_task("new")
    assert (new.task_type, new.path, new.reschedule) == ("NewImagesSensor", "s3://shop/{{ ds }}/**", True)
    assert stored.get_task("slices").store == "s3://shop/store"
    assert stored.get_task("credits").describer_conn_id == "segmind_default"

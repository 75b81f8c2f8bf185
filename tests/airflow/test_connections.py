"""Connections that cannot work: the error names the connection, the field and the fix, and shows no secret."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow import __version__

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadConnection, BadInput
from airflow_provider_describer.hooks.describer import DescriberHook

AIRFLOW = tuple(map(int, __version__.split(".")[:2]))
KEY = "sk-Very.Secret_0123456789"
PASTED = "hunter2-pasted-into-the-wrong-field"
GOOD = {"conn_type": "segmind", "password": KEY, "host": "http://127.0.0.1:9"}
# Name of the connection: its fields, and what the complaint must say.
BROKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no_password": ({"password": None}, ["password is empty", "API key"]),
    "blank_password": ({"password": "  "}, ["password is empty", "API key"]),
    "bearer": ({"password": f"Bearer {KEY}"}, ["password holds a space", "Paste the API key alone"]),
    "quoted": ({"password": f'"{KEY}"'}, ["password holds", "quotes"]),
    "other_type": ({"conn_type": "http"}, ["its type is 'http'", "expected one of image_describer, "]),
    "timeout_text": ({"extra": json.dumps({"timeout": PASTED})}, ["timeout", "a number above 0"]),
    "timeout_zero": ({"extra": json.dumps({"timeout": 0})}, ["timeout is 0", "a number above 0"]),
    "rate_negative": ({"extra": json.dumps({"requests_per_minute": -5})}, ["requests_per_minute is -5"]),
    "price_true": ({"extra": json.dumps({"price_per_call": True})}, ["price_per_call", "a number above 0"]),
    "version": ({"extra": json.dumps({"api_version": "v3"})}, ["api_version", "one of v1, v2"]),
    "transport": ({"extra": json.dumps({"image_transport": PASTED})}, ["image_transport", "one of auto, url"]),
    "host_scheme": ({"host": "ftp://shop.example"}, ["host", "https://api.example.com"]),
    "host_with_key": ({"host": f"https://me:{PASTED}@shop.example"}, ["host holds", "password"]),
    "storage": ({"extra": json.dumps({"storage_host": "file:///x"})}, ["storage_host", "https://api.example.com"]),
}
# Airflow keeps these out of its database; where they come from elsewhere, 3.1 says that there are none.
MALFORMED = {"malformed_extra": f"{{{PASTED}", "extra_list": json.dumps([PASTED])}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_from_the_environment(connect: Callable[..., None], name: str) -> None:
    fields, words = BROKEN[name]
    connect(name, **{**GOOD, **fields})
    with pytest.raises(BadConnection) as caught:
        DescriberHook(name).describe("/nowhere/a.jpg")
    check(name, f"{caught.value}", words)


@pytest.mark.parametrize("name", MALFORMED)
def test_an_extra_that_is_no_json_object(connect: Callable[..., None], name: str) -> None:
    connect(name, **GOOD, extra=MALFORMED[name])
    with pytest.raises(BadInput) as caught:
        DescriberHook(name).describe("/nowhere/a.jpg")
    said = str(caught.value)
    if "no such connection" not in said:
        check(name, said, ["extra is not a JSON object", "requests_per_minute"])
    else:
        assert AIRFLOW < (3, 3) and name in said and PASTED not in said


@pytest.mark.parametrize("uri", [f"segmind://{KEY}@127.0.0.1", "segmind://", "segmind://:@127.0.0.1"])
def test_a_uri_without_a_password(connect: Callable[..., None], uri: str) -> None:
    connect("by_uri", uri)
    with pytest.raises(BadConnection) as caught:
        DescriberHook("by_uri").describe("/nowhere/a.jpg")
    check("by_uri", str(caught.value), ["password is empty"])


def check(name: str, said: str, words: list[str]) -> None:
    assert f"Connection '{name}'" in said
    for word in words:
        assert word in said
    assert any(fix in said for fix in ("Admin > Connections", "Paste the API key", "belongs in the password field"))
    assert KEY not in said and PASTED not in said


@pytest.fixture(scope="module")
def in_the_database(
    airflow_in_process: None, airflow_command: str, emulator_process: EmulatorProcess
) -> Iterator[None]:
    """The broken connections, and a good one that Airflow's own command line has added."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    added = subprocess.run(
        [
            *(airflow_command, "connections", "add", "added", "--conn-type", "image_describer"),
            *("--conn-password", emulator_process.keys["image_describer"], "--conn-host", emulator_process.url),
            *("--conn-extra", '{"timeout": "30", "price_per_call": 0.01}'),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert added.returncode == 0, added.stdout + added.stderr
    with create_session() as session:
        for name, (fields, _) in BROKEN.items():
            row = Connection(conn_id=name, **{**GOOD, **fields})
            session.add(row)
    yield
    with create_session() as session:
        session.query(Connection).delete()


@pytest.fixture(scope="module")
def ran(
    in_the_database: None, emulator_process: EmulatorProcess, run_dag: Callable[..., Any], pictures: list[str]
) -> Any:
    emulator_process.reset()
    return run_dag("hooked", {}, file="hooked.py", image=pictures[0], conn_id="added", broken=list(BROKEN))


def test_a_connection_from_the_database_describes(ran: Any, emulator_process: EmulatorProcess) -> None:
    assert set(ran.states.values()) == {"success"}, ran.errors
    assert ran.xcom("blocking")
    assert ran.xcom("blocking")
    assert emulator_process.ledger(entries=False)["billed"] == 1


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_from_the_database(ran: Any, name: str) -> None:
    complaint = ran.xcom("complaints")[list(BROKEN).index(name)]
    assert complaint.startswith("BadConnection: ")
    check(name, complaint, BROKEN[name][1])


def test_the_api_server_tests_a_connection_from_the_database(
    in_the_database: None, monkeypatch: pytest.MonkeyPatch, emulator: EmulatorProcess
) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    assert DescriberHook("added").test_connection()[0]
    good, said = DescriberHook("blank_password").test_connection()
    assert not good and "This connection: password is empty" in said
    assert emulator.ledger(entries=False)["billed"] == 0


def test_connections_from_the_database_are_read_concurrently(
    in_the_database: None, monkeypatch: pytest.MonkeyPatch, emulator: EmulatorProcess, pictures: list[str]
) -> None:
    # Not by dag.test(): that of 3.3.2 gives asynchronous code no connection of the database at all.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    async def describe(conn_id: str) -> str:
        try:
            return (await DescriberHook(conn_id).adescribe(pictures[0])).text
        except BadConnection as error:
            return str(error)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(describe, [*["added"] * 20, "blank_password", "version"]))

    *texts, blank, version = asyncio.run(all_of_them())
    assert len(set(texts)) == 1
    check("blank_password", blank, BROKEN["blank_password"][1])
    check("version", version, BROKEN["version"][1])
    assert emulator.ledger(entries=False)["billed"] == 20

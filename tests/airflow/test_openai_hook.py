"""The hook at an OpenAI-compatible server: structured answers, the connection test, servers without keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import BadConnection, ModelRetired
from airflow_provider_describer.hooks.describer import DescriberHook, OpenAICompatibleHook

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "description": {"type": "string"}},
    "required": ["title", "description"],
    "additionalProperties": False,
}


@pytest.fixture
def server(emulator: EmulatorProcess, connect: Callable[..., None]) -> Callable[..., None]:
    """Define the connection ``shop``; what is not given is as it should be."""

    def define(password: str | None = emulator.keys["openai_compatible"], host: str = "/v1", **extra: Any) -> None:
        about = {"model": "emulated-vision", **extra}
        connect("shop", conn_type="openai_compatible", password=password, host=emulator.url + host, extra=about)

    return define


def test_its_own_connection_is_its_default(accounts: EmulatorProcess, pictures: list[str]) -> None:
    described = OpenAICompatibleHook().describe(pictures[0], prompt="Which colour?", lang="de")
    assert (described.vendor, described.model, described.lang) == ("openai_compatible", "emulated-vision", "de")
    (entry,) = accounts.ledger()["entries"]
    assert entry["prompt"] == "Which colour?\n\nAnswer in German (de)."


@pytest.mark.parametrize("as_text", [False, True])
def test_a_structured_answer_has_fields(server: Callable[..., None], pictures: list[str], as_text: bool) -> None:
    server(response_schema=json.dumps(SCHEMA) if as_text else SCHEMA)
    described = DescriberHook("shop").describe(pictures[0])
    assert described.fields and list(described.fields) == ["title", "description"]
    assert described.text == described.fields["description"]


def test_the_connection_test_names_the_model(server: Callable[..., None], emulator: EmulatorProcess) -> None:
    server()
    good, said = DescriberHook("shop").test_connection()
    assert good and "accepts the API key and serves the model 'emulated-vision'" in said
    server(model="emulated-vison")
    good, said = DescriberHook("shop").test_connection()
    assert good and "does not list the model 'emulated-vison'" in said
    assert emulator.ledger(entries=False)["billed"] == 0


def test_the_connection_test_of_a_bad_account(server: Callable[..., None], emulator: EmulatorProcess) -> None:
    server(password="sk-wrong-0123456789")
    good, said = DescriberHook("shop").test_connection()
    assert not good and "API key" in said and "sk-wrong" not in said
    server(host="")
    good, said = DescriberHook("shop").test_connection()
    assert "usually ends in /v1" in said
    server(model="")
    good, said = DescriberHook("shop").test_connection()
    assert not good and "model is empty" in said


def test_a_server_of_ones_own_needs_no_key(
    server: Callable[..., None], emulator: EmulatorProcess, pictures: list[str]
) -> None:
    emulator.faults({"openai_compatible": {"key": "optional"}})
    server(password=None)
    hook = DescriberHook("shop")
    assert "answers without an API key" in hook.test_connection()[1]
    assert hook.describe(pictures[0]).text
    assert hook.vendor.dashboard_url is None


def test_a_wrong_setting_names_the_connection(server: Callable[..., None], pictures: list[str]) -> None:
    server(model="emulated-reasoning")
    with pytest.raises(BadConnection, match=r"'shop'.*max_length_field"):
        DescriberHook("shop").describe(pictures[0])
    server(model="emulated-vison")
    with pytest.raises(ModelRetired, match="now 'emulated-vison', or the host of connection 'shop'"):
        DescriberHook("shop").describe(pictures[0])

"""The connection form: declared by each vendor, shown by every Airflow in its own way."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from airflow import __version__

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.hooks.describer import (
    DescriberHook,
    ImageDescriberHook,
    OpenAICompatibleHook,
    SegmindHook,
)
from airflow_provider_describer.hooks.form import conn_fields
from airflow_provider_describer.provider_info import get_provider_info
from airflow_provider_describer.vendors import get_vendor, vendors

AIRFLOW = tuple(map(int, __version__.split(".")[:2]))
HOOKS: dict[str, Any] = {
    "image_describer": ImageDescriberHook,
    "openai_compatible": OpenAICompatibleHook,
    "segmind": SegmindHook,
}
LIMITS = ["requests_per_minute", "max_cost_per_day", "limits_path", "timeout", "allow_private_hosts"]
FIELDS = {
    "image_describer": ["image_transport", "price_per_call", *LIMITS],
    "openai_compatible": [
        *("model", "max_length", "max_length_field", "response_schema", "image_detail", "extra_body"),
        *("input_price", "output_price", "tpm"),
        *("input_estimate", "image_transport", "price_per_call", *LIMITS),
    ],
    "segmind": ["api_version", "storage_host", "image_transport", "price_per_call", *LIMITS],
}
MOCKED = ("wtforms", "flask_babel", "flask_appbuilder")


def account_of(conn_type: str, extra: dict[str, Any] | None = None) -> Account:
    """The account of a connection that was saved with this extra, and with what it cannot do without."""
    vendor = get_vendor(conn_type)
    given = {name: value for name, value in (extra or {}).items() if value is not None}
    needed = {field.name: "some" for field in vendor.fields if field.required}
    return account_from_connection(vendor.defaults(), conn_id="shop", password="k", host="", extra={**needed, **given})


@pytest.fixture(params=sorted(FIELDS))
def conn_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def hook_meta(airflow_db: None) -> dict[str, dict[str, Any]]:
    """What the API server tells the browser about our connection types."""
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.services.login import SimpleAuthManagerLogin
    from fastapi.testclient import TestClient

    before = set(sys.modules)
    browser = TestClient(create_app(apps="core"))
    key = {"authorization": f"Bearer {SimpleAuthManagerLogin.create_token_all_admins()}"}
    answer = browser.get("/ui/connections/hook_meta", headers=key)
    for name in [name for name in set(sys.modules) - before if name.partition(".")[0] in MOCKED]:
        # Airflow 3.1 leaves the mocks there that it builds forms of.
        del sys.modules[name]
    assert answer.status_code == 200, answer.text
    return {meta["connection_type"]: meta for meta in answer.json() if meta["connection_type"] in FIELDS}


def test_the_browser_is_shown_all_types(hook_meta: dict[str, Any]) -> None:
    assert {name: meta["hook_name"] for name, meta in hook_meta.items()} == {
        "image_describer": "Image Describer",
        "openai_compatible": "OpenAI-compatible server",
        "segmind": "Segmind",
    }


def test_the_browser_is_shown_every_field(hook_meta: dict[str, Any], conn_type: str) -> None:
    assert sorted(hook_meta[conn_type]["extra_fields"]) == sorted(FIELDS[conn_type])


def test_a_field_has_its_label_help_choices_and_default(hook_meta: dict[str, Any], conn_type: str) -> None:
    for field in get_vendor(conn_type).form():
        shown = hook_meta[conn_type]["extra_fields"][field.name]
        assert (shown["schema"]["title"], shown["description"]) == (field.label, field.help)
        assert shown["schema"].get("enum") == (list(field.choices) or None)
        text = AIRFLOW < (3, 2)
        assert shown["schema"]["type"] == ["string" if text else field.kind, "null"]
        default = str(field.default).lower() if text and field.default is not None else field.default
        assert shown["value"] == default


def test_standard_fields_are_renamed_hidden_and_explained(hook_meta: dict[str, Any], conn_type: str) -> None:
    shown, vendor = hook_meta[conn_type]["standard_fields"], get_vendor(conn_type)
    assert shown["password"] == {"hidden": False, "title": "API key", "placeholder": f"your {vendor.title} API key"}
    address = {"hidden": False, "title": "Base URL", "placeholder": vendor.base_url}
    assert shown["host"] == address
    assert [name for name, field in shown.items() if field and field["hidden"]] == ["url_schema", "port", "login"]


# --- the table and what is made of it ---


def test_every_vendor_has_a_form_a_hook_and_a_type() -> None:
    types = [row["connection-type"] for row in get_provider_info()["connection-types"]]
    assert sorted(types) == sorted(vendors()) and set(HOOKS) <= set(types)
    for name, hook in HOOKS.items():
        assert (hook.conn_type, hook.hook_name, hook.default_conn_name) == (
            name,
            get_vendor(name).title,
            f"{name}_default",
        )


def test_both_forms_come_from_one_table(conn_type: str) -> None:
    info = next(row for row in get_provider_info()["connection-types"] if row["connection-type"] == conn_type)
    assert info["conn-fields"] == conn_fields(conn_type)
    assert list(info["conn-fields"]) == [field.name for field in get_vendor(conn_type).form()] == FIELDS[conn_type]
    behaviour = {name.replace("-", "_"): value for name, value in info["ui-field-behaviour"].items()}
    assert HOOKS[conn_type].get_ui_field_behaviour() == behaviour


def test_every_hook_has_a_form_of_its_own() -> None:
    """Airflow 3.1 looks into the class itself, and leaves out what it inherits."""
    for hook in HOOKS.values():
        assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(vars(hook))
    assert "get_connection_form_widgets" not in vars(DescriberHook)


def test_every_field_is_one_that_the_connection_reads(conn_type: str) -> None:
    vendor = get_vendor(conn_type)
    names = {field.name for field in vendor.form()}
    read = set(Account.__dataclass_fields__) - {"vendor", "conn_id", "api_key", "base_url", "storage_url", "options"}
    own = {field.name for field in vendor.fields}
    assert names == read | own
    account = account_of(conn_type)
    assert set(account.options) == own - {"storage_host"}


@pytest.mark.parametrize("as_text", [False, True])
def test_a_form_saved_as_it_is_shown_is_a_working_connection(conn_type: str, as_text: bool) -> None:
    extra = {
        name: str(default).lower() if as_text and default is not None else default
        for name, row in conn_fields(conn_type).items()
        for default in [row["schema"].get("default")]
    }
    saved = account_of(conn_type, extra)
    assert saved == account_of(conn_type)


@pytest.mark.parametrize("choices", ["api_version", "image_transport"])
def test_every_choice_works(conn_type: str, choices: str) -> None:
    vendor = get_vendor(conn_type)
    field = next((field for field in get_vendor(conn_type).form() if field.name == choices), None)
    offered = field.choices if field else ()
    for choice in offered:
        account_of(conn_type, {choices: choice})
    if choices == "image_transport":
        assert offered == ("auto", "url", *vendor.transports)
    else:
        assert bool(offered) == (conn_type == "segmind")


@pytest.mark.parametrize(("switched", "means"), [(True, True), ("true", True), (False, False), ("false", False)])
def test_a_switch_works_as_every_form_saves_it(conn_type: str, switched: object, means: bool) -> None:
    field = next(field for field in get_vendor(conn_type).form() if field.kind == "boolean")
    assert conn_fields(conn_type)[field.name]["schema"] == {"type": ["boolean", "null"], "default": False}
    saved = account_of(conn_type, {field.name: switched})
    assert getattr(saved, field.name) is means


def test_the_help_of_private_hosts_says_when_to_leave_it_off(conn_type: str) -> None:
    field = next(field for field in get_vendor(conn_type).form() if field.name == "allow_private_hosts")
    assert "off where others write the list" in field.help


def test_the_test_button_works_for_a_connection_with_port_0(
    airflow_in_process: None, accounts: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, conn_type: str
) -> None:
    """The page posts port 0 where none is stored. 3.3.2 takes that for another server, unless 0 is stored.

    The last test here: Airflow 3.1 shows no form any more in a process that has tested a connection before.
    """
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.services.login import SimpleAuthManagerLogin
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from fastapi.testclient import TestClient

    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    is_chat = conn_type == "openai_compatible"
    host, extra = (f"{accounts.url}/v1", '{"model": "emulated-vision"}') if is_chat else (accounts.url, "{}")
    with create_session() as session:
        stored = Connection("button", conn_type, host=host, port=0, password=accounts.keys[conn_type], extra=extra)
        session.add(stored)
    try:
        browser = TestClient(create_app(apps="core"))
        key = {"authorization": f"Bearer {SimpleAuthManagerLogin.create_token_all_admins()}"}
        body = {"connection_id": "button", "conn_type": conn_type, "host": host, "port": 0, "password": "***"}
        # As the page posts fields that are empty or hidden.
        body |= {"description": "", "extra": extra, "login": "", "schema": ""}
        answer = browser.post("/api/v2/connections/test", json=body, headers=key)
        assert answer.status_code == 200 and answer.json()["status"] is True, answer.text
    finally:
        is_chat = conn_type == "openai_compatible"
    host, extra = (f"{accounts.url}/v1", '{"model": "emulated-vision"}') if is_chat else (accounts.url, "{}")
    with create_session() as session:
        session.query(Connection).filter_by(conn_id="button").delete()
    assert accounts.ledger(entries=False)["billed"] == 0

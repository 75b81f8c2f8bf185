"""A connection's fields become an account, or an error that names the connection, the field and the fix."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.account import Account, Defaults, account_from_connection
from airflow_provider_describer.errors import BadConnection
from airflow_provider_describer.vendors import get_vendor

OWN = Defaults(
    "toy", "https://api.toy.example", "https://storage.toy.example", 0.02, fields=get_vendor("segmind").fields
)
KEY = "sk-Very.Secret_0123456789"
SECRET = "hunter2-pasted-into-the-wrong-field"
NUMBERS = ["timeout", "requests_per_minute", "max_cost_per_day", "price_per_call"]
CHOICES = ["api_version", "image_transport"]
TEXTS = ["limits_path", "storage_host", *CHOICES]
FLAGS = ["allow_private_hosts"]


def account(defaults: Defaults = OWN, **fields: Any) -> Account:
    return account_from_connection(defaults, **{"conn_id": "shop", "password": KEY, **fields})


def refused(field: str, **fields: Any) -> str:
    """Return the complaint, which must name the connection, the field and the fix and show no secret."""
    with pytest.raises(BadConnection) as caught:
        account(**fields)
    said = str(caught.value)
    assert "Connection 'shop'" in said
    assert f" {field} " in said
    assert any(words in said for words in ("Admin > Connections", "Paste the API key", "belongs in the password"))
    shown = f"{said}{caught.value!r}{caught.value.args}"
    assert KEY not in shown and SECRET not in shown
    assert (caught.value.kind, caught.value.billed) == ("bad_connection", "no")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a context may quote the field"
    return said


def test_an_empty_connection_means_the_vendors_own() -> None:
    assert account() == Account(
        "toy", "shop", KEY, OWN.base_url, OWN.storage_url, price_per_call=0.02, options={"api_version": "v1"}
    )


@pytest.mark.parametrize("blank", [None, "", " ", "\n"])
def test_blank_fields_mean_the_default(blank: str | None) -> None:
    extra = dict.fromkeys([*NUMBERS, *TEXTS, *FLAGS], blank)
    assert account(host=blank, schema=blank, extra=extra) == account()
    assert account(extra=blank) == account()
    assert account(extra=json.dumps(extra)) == account()


def test_a_full_connection_is_read_whole() -> None:
    extra = {
        "timeout": "30",
        "requests_per_minute": 50,
        "max_cost_per_day": 12.5,
        "limits_path": " s3://bucket/limits ",
        "price_per_call": "0.01",
        "api_version": "v2",
        "image_transport": "upload",
        "storage_host": "https://storage.example.com/",
        "allow_private_hosts": True,
    }
    found = account(host="https://api.example.com/", extra=json.dumps(extra))
    assert found == Account(
        vendor="toy",
        conn_id="shop",
        api_key=KEY,
        base_url="https://api.example.com",
        storage_url="https://storage.example.com",
        timeout=30.0,
        requests_per_minute=50.0,
        max_cost_per_day=12.5,
        limits_path="s3://bucket/limits",
        price_per_call=0.01,
        image_transport="upload",
        allow_private_hosts=True,
        options={"api_version": "v2"},
    )
    assert found == account(host="https://api.example.com/", extra=extra)


@pytest.mark.parametrize("blank", [None, "", " ", "\n\t"])
def test_a_connection_without_a_key_is_refused(blank: str | None) -> None:
    assert "API key" in refused("password", password=blank)


@pytest.mark.parametrize("spoiled", ["Bearer {}", '"{}"', "'{}'", "{}\nX: y", "{}\x00", "{}é", "{}\u200b", "a {}"])
def test_what_is_no_key_alone_is_refused_and_not_shown(spoiled: str) -> None:
    assert "without 'Bearer' or quotes" in refused("password", password=spoiled.format(KEY))


def test_a_key_is_stripped_and_in_no_repr() -> None:
    found = account(password=f" {KEY}\n")
    assert found.api_key == KEY
    assert KEY not in repr(found)


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize(
    "bad", [0, -1, "0", "-0.5", "nan", "inf", "1e999", "50 a minute", "1,5", "$1", True, False, [], {}, [1], 10**400]
)
def test_what_is_no_number_above_0_is_refused(field: str, bad: object) -> None:
    assert "expected a number above 0" in refused(field, extra={field: bad})


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_out_of_json_is_refused_too(field: str) -> None:
    for number in ("NaN", "Infinity", "-1", "1" + "0" * 400):
        refused(field, extra=f'{{"{field}": {number}}}')


@pytest.mark.parametrize(("found", "named"), [("fast", "a text"), ([3], "a list"), ({}, "a dict")])
def test_of_what_is_no_number_only_its_type_is_shown(found: object, named: str) -> None:
    said = refused("requests_per_minute", extra={"requests_per_minute": found})
    assert f"requests_per_minute is {named}, expected a number above 0" in said


def test_a_number_is_shown_as_it_was_found() -> None:
    assert "timeout is -5, expected" in refused("timeout", extra={"timeout": -5})


@pytest.mark.parametrize("field", CHOICES)
@pytest.mark.parametrize("bad", ["v3", "V1", "Auto", "1", SECRET])
def test_a_choice_that_is_none_is_answered_with_those_there_are(field: str, bad: str) -> None:
    said = refused(field, extra={field: bad})
    assert {"api_version": "one of v1, v2.", "image_transport": "one of auto, url, inline, upload, file."}[
        field
    ] in said


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("bad", [1, 0, True, [], {}, [SECRET], {"a": SECRET}])
def test_what_is_no_text_is_refused(field: str, bad: object) -> None:
    refused(field, extra={field: bad})


@pytest.mark.parametrize("field", FLAGS)
@pytest.mark.parametrize(
    ("value", "means"),
    [
        (True, True),
        ("true", True),
        (" True\n", True),
        ("TRUE", True),
        (False, False),
        ("false", False),
        ("False", False),
    ],
)
def test_a_switch_is_on_or_off_in_a_browsers_words_too(field: str, value: object, means: bool) -> None:
    assert getattr(account(extra={field: value}), field) is means
    assert getattr(account(extra=json.dumps({field: value})), field) is means


@pytest.mark.parametrize("field", FLAGS)
@pytest.mark.parametrize("bad", [0, 1, 1.0, "1", "0", "yes", "on", "null", [], [True], {}, {"a": SECRET}, SECRET])
def test_what_is_neither_on_nor_off_is_refused(field: str, bad: object) -> None:
    assert "expected true or false" in refused(field, extra={field: bad})


@pytest.mark.parametrize("host", ["http://127.0.0.1:8901", "http://10.0.0.1", None])
def test_a_private_vendor_allows_no_private_images(host: str | None) -> None:
    assert account(host=host).allow_private_hosts is False


@pytest.mark.parametrize("field", [*NUMBERS, *TEXTS, *FLAGS])
def test_a_secret_in_the_wrong_field_is_not_shown(field: str) -> None:
    if field == "limits_path":
        assert account(extra={field: SECRET}).limits_path == SECRET
    else:
        refused(field, extra={field: f"ftp://{SECRET}"})
        refused(field, extra={field: f"https://user:{SECRET}@[broken"})


@pytest.mark.parametrize(
    "bad", ["{", "[]", "[1]", '"text"', "0", "7", "true", f"token={SECRET}", f'{{"token": "{SECRET}"', f'["{SECRET}"]']
)
def test_an_extra_that_is_no_json_object_is_refused(bad: str) -> None:
    assert "not a JSON object" in refused("extra", extra=bad)


@pytest.mark.parametrize(
    "typo", ["max_cost_per_days", "Timeout", "request_per_minute", "price_percall", "allow_private_host"]
)
def test_a_misspelt_limit_is_never_no_limit(typo: str) -> None:
    assert "did you mean" in refused(typo, extra={typo: 1})


def test_extras_that_are_not_ours_are_left_alone() -> None:
    assert account(extra={"team": "catalog", "headers": [1]}) == account()
    assert account(extra="null") == account()


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "https://api.example.com"}, "https://api.example.com"),
        ({"host": "https://api.example.com/"}, "https://api.example.com"),
        ({"host": " https://api.example.com/base// "}, "https://api.example.com/base"),
        ({"host": "HTTPS://api.example.com"}, "https://api.example.com"),
        ({"host": "api.example.com"}, "https://api.example.com"),
        ({"host": "api.example.com/base"}, "https://api.example.com/base"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8901}, "http://127.0.0.1:8901"),
        ({"host": "127.0.0.1", "schema": "HTTP ", "port": 8901}, "http://127.0.0.1:8901"),
        # Nobody but this machine can listen there: it is what Airflow's http connections mean by it.
        ({"host": "127.0.0.1", "port": 8901}, "http://127.0.0.1:8901"),
        ({"host": "127.0.0.1:8901"}, "http://127.0.0.1:8901"),
        ({"host": "localhost:8901"}, "http://localhost:8901"),
        ({"host": "localhost", "port": 8901}, "http://localhost:8901"),
        ({"host": "localhost/base", "port": 8901}, "http://localhost:8901/base"),
        ({"host": "localhost:8443", "schema": "https"}, "https://localhost:8443"),
        ({"host": "[::1]:8901"}, "http://[::1]:8901"),
        ({"host": "//localhost:8901"}, "http://localhost:8901"),
        ({"host": "//api.example.com/base"}, "https://api.example.com/base"),
        ({"host": "api.example.com:8443"}, "https://api.example.com:8443"),
        ({"host": "api.example.com", "port": 0}, "https://api.example.com"),
        ({"host": "api.example.com", "port": 443}, "https://api.example.com:443"),
        ({"host": "api.example.com:80", "schema": "http"}, "http://api.example.com:80"),
        ({"host": "emulator:8901", "schema": "http"}, "http://emulator:8901"),
        ({"host": "http://emulator:8901"}, "http://emulator:8901"),
        ({"host": "8.8.8.8"}, "https://8.8.8.8"),
        ({"host": "http://127.0.0.1", "port": 8901}, "http://127.0.0.1:8901"),
        ({"host": "http://127.0.0.1:8901", "port": 80}, "http://127.0.0.1:8901"),
        ({"host": "http://127.0.0.1/base/", "port": 8901}, "http://127.0.0.1:8901/base"),
        ({"host": "http://[::1]", "port": 8901}, "http://[::1]:8901"),
        ({"host": "http://127.0.0.1:8901", "schema": "public"}, "http://127.0.0.1:8901"),
    ],
)
def test_an_address_is_read_from_every_form_of_a_connection(fields: dict[str, Any], base_url: str) -> None:
    found = account(**fields)
    assert found.base_url == base_url
    assert found.storage_url == base_url, "with a host everything goes there"


@pytest.mark.parametrize(
    "bad",
    [
        "https://",
        "http:///path",
        "://api.example.com",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "s3://bucket",
        "https://api.example.com:port",
        "https://api.example.com:99999",
        "https://[::1",
        "https://api example.com",
        "https://api.example.com/a b",
        "https://api.exa\nmple.com",
        "https://api.exa\x00mple.com",
        f"https://api.example.com?token={SECRET}",
        f"https://api.example.com/#{SECRET}",
        f"https://user:{SECRET}@api.example.com",
        f"https://{SECRET}@api.example.com",
        f"https://user:{SECRET}@api.example.com:99999",
        "https://@api.example.com",
        "/",
        "//",
    ],
)
def test_what_is_no_address_is_refused(bad: str) -> None:
    refused("host", host=bad)
    refused("storage_host", extra={"storage_host": bad})


@pytest.mark.parametrize(
    "host",
    ["emulator:8901", "intranet", "10.0.0.5:8901", "192.168.1.2", "[fd00::1]:80", "api.example.com:80", "http:/h"],
)
def test_a_host_of_which_nobody_knows_the_scheme_is_refused(host: str) -> None:
    """It was read as https, and each call ended in an SSL error."""
    assert "write http:// or https:// before it" in refused("host", host=host)
    assert "write http:// or https:// before it" in refused("storage_host", extra={"storage_host": host})


@pytest.mark.parametrize("bad", [-1, 65536, 10**9])
def test_a_port_that_is_none_is_refused(bad: int) -> None:
    assert "1 to 65535" in refused("port", host="127.0.0.1", port=bad)


@pytest.mark.parametrize("bad", ["public", "ftp", "https://", "segmind"])
def test_a_schema_that_is_no_protocol_is_refused(bad: str) -> None:
    assert "http, https or empty" in refused("schema", host="127.0.0.1", schema=bad)


def test_a_storage_host_is_apart_from_the_host() -> None:
    extra = {"storage_host": "storage.example.com:8443/"}
    alone = account(extra=extra)
    assert (alone.base_url, alone.storage_url) == (OWN.base_url, "https://storage.example.com:8443")
    both = account(host="http://127.0.0.1", port=8901, extra=extra)
    assert (both.base_url, both.storage_url) == ("http://127.0.0.1:8901", "https://storage.example.com:8443")


@pytest.mark.parametrize(("vendor", "price"), [("segmind", 0.015), ("image_describer", None)])
def test_the_price_of_a_call_is_the_vendors_unless_the_connection_names_one(vendor: str, price: float | None) -> None:
    defaults = get_vendor(vendor).defaults()
    assert account(defaults).price_per_call == price
    assert account(defaults, extra={"price_per_call": "0.5"}).price_per_call == 0.5


@given(host=st.text(max_size=40), schema=st.sampled_from([None, "http", "x"]), port=st.none() | st.integers(-1, 70000))
def test_any_host_is_an_address_or_a_bad_connection(host: str, schema: str | None, port: int | None) -> None:
    try:
        found = account(host=host, schema=schema, port=port)
    except BadConnection as error:
        said = str(error)
    else:
        said = found.base_url
        assert found.base_url.startswith(("https://", "http://"))
        assert not found.base_url.endswith("/") and found.base_url.isprintable()
    assert said


@given(
    extra=st.dictionaries(
        st.sampled_from([*NUMBERS, *TEXTS, *FLAGS]), st.none() | st.booleans() | st.text() | st.floats() | st.integers()
    )
)
def test_any_extra_is_an_account_or_a_bad_connection(extra: dict[str, object]) -> None:
    said = ""
    try:
        found = account(extra=extra)
    except BadConnection as error:
        said = str(error)
    if said:
        assert any(f" {name} " in said for name in extra)
    else:
        assert found.timeout > 0 and (found.price_per_call or 0) > 0
        assert found.options["api_version"] in ("v1", "v2")
        assert found.allow_private_hosts in (True, False)


@pytest.mark.parametrize(
    ("vendor", "host", "expected"),
    [
        (
            "image_describer",
            "https://imagedescriber.online/api/openapi-v2/describe-image",
            "https://imagedescriber.online",
        ),
        ("image_describer", "imagedescriber.online/api/openapi-v2/describe-image/", "https://imagedescriber.online"),
        ("image_describer", "https://imagedescriber.online/api", "https://imagedescriber.online"),
        ("image_describer", "http://127.0.0.1:8901/API/openapi-v2/describe-image", "http://127.0.0.1:8901"),
        ("segmind", "https://api.segmind.com/v1/ideogram-describe", "https://api.segmind.com"),
        ("segmind", "https://api.segmind.com/v2/ideogram-describe", "https://api.segmind.com"),
        ("segmind", "https://api.segmind.com/v1", "https://api.segmind.com"),
        ("segmind", "https://workflows-api.segmind.com/upload-asset", "https://workflows-api.segmind.com"),
        ("segmind", "https://proxy.example.com/x/v1/ideogram-describe", "https://proxy.example.com/x"),
    ],
)
def test_a_host_that_is_the_whole_endpoint_is_refused(vendor: str, host: str, expected: str) -> None:
    defaults = get_vendor(vendor).defaults()
    for name, fields in (("host", {"host": host}), ("storage_host", {"extra": {"storage_host": host}})):
        said = refused(name, defaults=defaults, **fields)
        assert f"expected {expected} alone" in said


@pytest.mark.parametrize("path", ["", "/", "/segmind", "/v1", "/gateway/v2/", "/v1/ideogram-describe-beta"])
def test_a_proxy_may_stand_at_any_other_path(path: str) -> None:
    defaults = get_vendor("segmind").defaults()
    assert account(defaults, host=f"https://proxy.example.com{path}").base_url.endswith(path.rstrip("/"))

"""DescriberHook with connections from the environment: descriptions, credits and the connection test."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import (
    BadInput,
    DescriberError,
    InsufficientCredits,
    InvalidKey,
    RejectedImage,
    UnexpectedAnswer,
    VendorUnavailable,
)
from airflow_provider_describer.hooks.describer import DescriberHook, ImageDescriberHook, SegmindHook
from airflow_provider_describer.http.retry import RetryPolicy

Connect = Callable[..., None]
VENDORS = ["image_describer", "segmind"]
KEY = "sk-Very.Secret_0123456789"
ONCE = RetryPolicy(attempts=1)


def billed(emulator: EmulatorProcess) -> int:
    return int(emulator.ledger(entries=False)["billed"])


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- descriptions ---


def test_describe_and_adescribe_are_one_call_each(accounts: EmulatorProcess, vendor: str, pictures: list[str]) -> None:
    hook = DescriberHook(f"{vendor}_default")
    blocking = hook.describe(pictures[0])
    awaited = asyncio.run(hook.adescribe(pictures[0]))
    assert blocking.text == awaited.text
    assert (blocking.vendor, blocking.uri, blocking.billed) == (vendor, pictures[0], "yes")
    assert blocking.sha256 == awaited.sha256 and len(str(blocking.sha256)) == 64
    assert billed(accounts) == 2


def test_a_presigned_address_is_told_by_no_description_and_no_error(
    emulator: EmulatorProcess, connect: Connect, vendor: str, pictures: list[str]
) -> None:
    hidden = "9f86d081884c7d659a2feaa0c55ad015"
    data = f"data:image/png;base64,{base64.b64encode(Path(pictures[0]).read_bytes()).decode()}"
    uploaded = httpx.post(
        f"{emulator.url}/upload-asset",
        json={"data_urls": [data]},
        headers={"x-api-key": emulator.keys["segmind"]},
        trust_env=False,
    )
    (address,) = uploaded.json()["file_urls"]
    extra = {"allow_private_hosts": True}
    connect("shop", conn_type=vendor, password=emulator.keys[vendor], host=emulator.url, extra=extra)
    described = DescriberHook("shop").describe(f"{address}?X-Amz-Signature={hidden}")
    assert described.uri == f"{address}?…"
    assert hidden[:12] not in repr(described)
    emulator.faults({"all": {"errors": [{"kind": "quoted_image", "share": 1}]}})
    with pytest.raises(RejectedImage, match="Could not use the image") as caught:
        DescriberHook("shop").describe(f"{address}?X-Amz-Signature={hidden}")
    assert hidden[:12] not in f"{caught.value!r}{vars(caught.value)}"


def test_the_subclasses_default_to_their_own_connection(accounts: EmulatorProcess, pictures: list[str]) -> None:
    assert ImageDescriberHook().describe(pictures[0], prompt="Which colour?", lang="de").lang == "de"
    assert SegmindHook().describe(pictures[0]).cost_usd == 0.015


def test_the_type_of_the_connection_chooses_the_vendor(accounts: EmulatorProcess, pictures: list[str]) -> None:
    assert ImageDescriberHook("segmind_default").describe(pictures[0]).vendor == "segmind"


def test_segmind_v2_is_one_call_too(emulator: EmulatorProcess, connect: Connect, pictures: list[str]) -> None:
    emulator.faults({"segmind": {"v2_delay_s": 0.0}})
    key = emulator.keys["segmind"]
    connect("slow", conn_type="segmind", password=key, host=emulator.url, extra={"api_version": "v2"})
    assert DescriberHook("slow").describe(pictures[0]).request_id
    assert billed(emulator) == 1


@pytest.mark.parametrize(
    "form", ["image-describer://:{key}@{host}:{port}/http", "image-describer://http://:{key}@{host}:{port}/"]
)
def test_a_connection_in_uri_form(emulator: EmulatorProcess, connect: Connect, pictures: list[str], form: str) -> None:
    host, port = emulator.url.removeprefix("http://").split(":")
    uri = form.format(key=emulator.keys["image_describer"], host=host, port=port)
    connect("shop", uri + "?timeout=7.5&image_transport=inline")
    hook = DescriberHook("shop")
    assert hook.describe(pictures[0]).text
    assert (hook.account.timeout, hook.account.image_transport) == (7.5, "inline")
    assert emulator.ledger()["entries"][0]["image_via"] == "inline"


@pytest.mark.parametrize("method", ["describe", "credits"])
def test_a_blocking_call_inside_a_running_loop_says_what_to_do(accounts: EmulatorProcess, method: str) -> None:
    async def inside() -> None:
        hook = SegmindHook()
        hook.describe("/nowhere.jpg") if method == "describe" else hook.credits()

    with pytest.raises(BadInput, match=r"inside a running event loop; await .* adescribe\(\)"):
        asyncio.run(inside())


@pytest.mark.parametrize(
    ("image", "about", "error"),
    [
        ("/nowhere/a.jpg", {}, RejectedImage),
        ("", {}, BadInput),
        ([], {}, BadInput),
        (["/a.jpg"], {}, BadInput),
        ({"uri": "/a.jpg", "file": "/b.jpg"}, {}, BadInput),
        ("gopher://a/b.jpg", {}, BadInput),
        ("/a.jpg", {"prompt": ""}, BadInput),
        ("/a.jpg", {"prompt": "This {title}"}, BadInput),
        ("/a.jpg", {"lang": "xx"}, BadInput),
    ],
)
def test_what_cannot_be_described_is_said_before_any_call(
    accounts: EmulatorProcess, image: Any, about: dict[str, str], error: type[DescriberError]
) -> None:
    with pytest.raises(error):
        ImageDescriberHook().describe(image, **about)
    assert accounts.ledger(entries=False)["requests"] == 0


def test_a_prompt_that_segmind_ignores_is_mentioned(
    accounts: EmulatorProcess, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    SegmindHook().describe(pictures[0], prompt="Which colour?")
    assert "takes no prompt: it is ignored" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("kind", "error"),
    [("insufficient_credits", InsufficientCredits), ("harmful", RejectedImage), ("blank", UnexpectedAnswer)],
)
def test_a_vendors_refusal_is_a_leaf_of_ours(
    accounts: EmulatorProcess, vendor: str, pictures: list[str], kind: str, error: type[DescriberError]
) -> None:
    accounts.faults({"all": {"errors": [{"kind": kind, "first": 1}]}})
    with pytest.raises(error):
        DescriberHook(f"{vendor}_default").describe(pictures[0])


def test_a_transport_of_the_tests_own(connect: Connect, pictures: list[str]) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"code": 200, "succeed": True, "data": {"content": "a red field"}})

    connect("shop", conn_type="image_describer", password=KEY)
    hook = DescriberHook("shop", transport=httpx.MockTransport(answer))
    assert hook.describe(pictures[0]).text == "a red field"
    assert [str(request.url) for request in asked] == ["https://imagedescriber.online/api/openapi-v2/describe-image"]


# --- free of charge ---


def test_credits(accounts: EmulatorProcess, vendor: str) -> None:
    hook = DescriberHook(f"{vendor}_default")
    if vendor == "segmind":
        assert hook.credits() == asyncio.run(SegmindHook().acredits()) == 1000.0
    else:
        with pytest.raises(BadInput, match="no way to ask for the credit balance; see its dashboard"):
            hook.credits()
    assert billed(accounts) == 0


@pytest.mark.parametrize(
    ("fault", "error"), [("key", InvalidKey), ("refused", VendorUnavailable), ("page", DescriberError)]
)
def test_credits_of_a_bad_account(
    emulator: EmulatorProcess,
    connect: Connect,
    nobody_there: str,
    web_site: str,
    fault: str,
    error: type[DescriberError],
) -> None:
    host = {"key": emulator.url, "refused": nobody_there, "page": web_site}[fault]
    connect("shop", conn_type="segmind", password=KEY, host=host)
    with pytest.raises(error) as caught:
        DescriberHook("shop", policy=ONCE).credits()
    assert KEY not in f"{caught.value!r} {caught.value}"


def test_the_connection_test_of_a_good_account(accounts: EmulatorProcess, vendor: str) -> None:
    good, said = DescriberHook(f"{vendor}_default").test_connection()
    assert good, said
    assert {"image_describer": "accepts the API key", "segmind": "1000"}[vendor] in said
    assert billed(accounts) == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("key", "this connection"),
        ("no key", "This connection: password is empty"),
        ("refused", "127.0.0.1"),
        ("page", "Is http://127.0.0.1:"),
        ("bad extra", "timeout"),
        ("other type", "its type is 'http'"),
        ("no such host", "no-such-host.invalid"),
        ("undefined", "shop"),
    ],
)
def test_the_connection_test_of_a_bad_account_never_raises(
    emulator: EmulatorProcess, connect: Connect, vendor: str, nobody_there: str, web_site: str, fault: str, words: str
) -> None:
    fields: dict[str, Any] = {"conn_type": vendor, "password": KEY, "host": emulator.url}
    broken: dict[str, dict[str, Any]] = {
        "no key": {"password": " "},
        "refused": {"host": nobody_there},
        "page": {"host": web_site},
        "bad extra": {"extra": {"timeout": "soon"}},
        "other type": {"conn_type": "http"},
        "no such host": {"host": "http://no-such-host.invalid"},
    }
    if fault != "undefined":
        connect("shop", **fields | broken.get(fault, {}))
    good, said = DescriberHook("shop").test_connection()
    assert not good
    assert words in said and KEY not in said
    assert billed(emulator) == 0


def test_the_connection_test_inside_a_running_loop_does_not_raise_either(accounts: EmulatorProcess) -> None:
    async def inside() -> tuple[bool, str]:
        return SegmindHook().test_connection()

    good, said = asyncio.run(inside())
    assert not good and "running event loop" in said


# --- the key stays secret ---


def test_the_key_is_shown_nowhere(
    connect: Connect,
    emulator: EmulatorProcess,
    vendor: str,
    pictures: list[str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    connect("shop", conn_type=vendor, password=KEY, host=emulator.url)
    hook = DescriberHook("shop")
    with pytest.raises(InvalidKey) as caught:
        hook.describe(pictures[0])
    shown = [repr(hook), repr(hook.account), repr(hook.vendor_calls()), repr(caught.value), str(caught.value)]
    shown += [caplog.text, *capsys.readouterr(), json.dumps(hook.test_connection())]
    assert KEY not in "".join(shown)
    assert redact(f"the key is {KEY}") == "the key is ***"


# --- arguments as templates write them ---


@pytest.mark.parametrize("none", [None, "None", " None "])
def test_none_as_templates_write_it_is_none(accounts: EmulatorProcess, pictures: list[str], none: str | None) -> None:
    image = str({"uri": pictures[0], "prompt": none, "version": None})
    DescriberHook("image_describer_default").describe(image, prompt=none, lang=none, storage_conn_id=none)
    (entry,) = accounts.ledger()["entries"]
    assert (entry["prompt"], entry["lang"]) == ("Describe this image in detail.", "en")


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": None},
        {"image": "None"},
        {"image": " "},
        {"image": "['/a.jpg']"},
        {"prompt": " "},
        {"prompt": 7},
        {"lang": "englsh"},
        {"lang": ["en", "de"]},
        {"storage_conn_id": 7},
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_sent(
    accounts: EmulatorProcess, vendor: str, pictures: list[str], wrong: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(wrong))} is "):
        DescriberHook(f"{vendor}_default").describe(**{"image": pictures[0], **wrong})
    assert accounts.ledger(entries=False)["requests"] == 0

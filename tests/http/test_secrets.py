"""The key and the queries of presigned addresses: in no error, no log, no value that leaves the transport."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from airflow_provider_describer.errors import BadInput, DescriberError, VendorUnavailable
from airflow_provider_describer.http.library import httpx
from airflow_provider_describer.vendors.wire import Request, Response

if TYPE_CHECKING:
    from tests.http.conftest import Tools


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".example", "[::1%25nowhere]"])
def test_a_host_that_is_none_is_one_of_our_errors(tools: Tools, host: str) -> None:
    error = asyncio.run(tools.send(tools.call(f"http://{host}/?sig=hush")))
    assert isinstance(error, VendorUnavailable | BadInput), error
    assert "hush" not in str(error)


@pytest.mark.parametrize(
    "url", ["ftp://h/x?sig=hush", "http://127.0.0.1:99999/?sig=hush", "https:///x?sig=hush", "x?sig=hush"]
)
def test_an_address_that_cannot_be_asked_is_bad_input(tools: Tools, url: str) -> None:
    error = asyncio.run(tools.send(tools.call(url)))
    assert isinstance(error, BadInput), error
    assert "hush" not in str(error)


@pytest.mark.parametrize("form", [str, lambda key: key.replace("/", "\\/"), lambda key: quote(key, safe="")])
def test_a_key_quoted_back_is_masked(tools: Tools, form: Any) -> None:
    def quote_back(request: httpx.Request) -> httpx.Response:
        said = "Bearer " + form(request.headers["authorization"].removeprefix("Bearer "))
        return httpx.Response(400, headers={"x-request-id": said}, text=f'{{"error": "bad key {said}"}}')

    response = asyncio.run(tools.send(tools.call("http://v.example"), transport=httpx.MockTransport(quote_back)))
    assert isinstance(response, Response)
    assert "Bearer ***" in response.json()["error"]
    assert tools.key not in f"{response.json()}{response.headers}{response!r}"


@pytest.mark.parametrize("fails", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ProxyError])
def test_no_error_tells_a_secret(tools: Tools, fails: Any) -> None:
    url = "http://v.example/a.jpg?X-Amz-Signature=hush"

    def fail(request: httpx.Request) -> httpx.Response:
        raise fails(f"{url} with {request.headers['authorization']}")

    error = asyncio.run(tools.send(tools.call(url), transport=httpx.MockTransport(fail)))
    assert isinstance(error, DescriberError)
    assert tools.key not in str(error) and "hush" not in str(error)
    assert error.__cause__ is None and error.__suppress_context__


def test_no_log_tells_a_secret(tools: Tools, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            await tools.send(tools.call(f"{server.url}/a.jpg?X-Amz-Signature=hush"))

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scene())
    assert "hush" not in caplog.text and tools.key not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


def test_a_name_and_password_in_an_address_are_sent_as_such(tools: Tools) -> None:
    async def scene() -> None:
        async with tools.serve(tools.polite) as server:
            await tools.send(Request("GET", server.url.replace("//", "//me:hush@")))
        (got,) = server.requests
        assert got.headers["authorization"] == "Basic bWU6aHVzaA=="
        assert "@" not in got.headers["host"]

    asyncio.run(scene())

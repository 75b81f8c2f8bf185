"""The vendor that docs/own-vendor.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer import errors
from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.models import Description, Picture
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Response

PAGE = Path(__file__).parents[2] / "docs" / "own-vendor.md"


@pytest.fixture(scope="module")
def acme() -> Vendor:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "acme_describer"}
    exec(compile(code, str(PAGE), "exec"), names)
    vendor = names["Acme"]()
    assert isinstance(vendor, Vendor)
    return vendor


def test_it_describes(acme: Vendor) -> None:
    account = account_from_connection(acme.defaults(), conn_id="acme", password="key-1", extra={"tone": "warm"})
    spec = acme.spec(lang="de")
    request = acme.build_request(account, spec, Picture("image/png", content=b"bytes"))
    assert (request.billable, request.body, request.secrets) == (True, (b"bytes",), ("key-1",))
    assert request.headers["x-fields"] == '{"prompt": "Describe this image.", "lang": "de", "tone": "warm"}'
    read = acme.parse_response(account, spec, Response(200, content=b'{"text": "Eine Katze", "id": "7"}'))
    assert isinstance(read, Description)
    assert (read.text, read.cost_usd, read.request_id, read.vendor) == ("Eine Katze", 0.01, "7", "acme")


@pytest.mark.parametrize(
    ("status", "error", "billed"),
    [
        (401, errors.InvalidKey, "no"),
        (402, errors.InsufficientCredits, "no"),
        (429, errors.RateLimited, "no"),
        (500, errors.AmbiguousCall, "unknown"),
        (200, errors.UnexpectedAnswer, "unknown"),
    ],
)
def test_its_errors_say_what_was_billed(acme: Vendor, status: int, error: type[Exception], billed: str) -> None:
    account = account_from_connection(acme.defaults(), conn_id="acme", password="key-1")
    with pytest.raises(error) as caught:
        acme.parse_response(account, acme.spec(), Response(status, content=b"{}"))
    assert getattr(caught.value, "billed", None) == billed

"""The recorded responses in tests/samples/<vendor>/, and what every vendor's tests share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.models import Description, Running, Spec
from airflow_provider_describer.vendors import get_vendor, vendors
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Response

SAMPLES = Path(__file__).parents[1] / "samples"
KEY = "sk-Very.Secret_0123456789"
NOW = 1763708820.0  # 2025-11-21T07:07:00Z
RUNNING = Running("8f2d", NOW - 10, "PROCESSING")
Parsed = Description | Running | str | float


def account_of(vendor: Vendor, **extra: Any) -> Account:
    """An account with a value in each field that the vendor's connection cannot do without."""
    needed = {field.name: f"some-{field.name}" for field in vendor.fields if field.required}
    return account_from_connection(vendor.defaults(), conn_id="shop", password=KEY, extra={**needed, **extra})


def spec_of(vendor: Vendor) -> Spec:
    return vendor.spec("What is this?", "de" if vendor.takes_lang else None)


def reader_of(vendor: Vendor, **extra: Any) -> Reader:
    account = account_of(vendor, **extra)
    return Reader(vendor.configured(account), account)


@dataclass(frozen=True)
class Sample:
    """One recorded response: the operation, what came back, and how it must be read.

    ``connection`` are fields of the connection's extra that matter to it.
    """

    vendor: str
    case: str
    operation: str
    api_version: str
    running: Running
    response: Response
    expected: dict[str, Any]
    connection: dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """Reads a vendor's responses: one entry for all five operations."""

    vendor: Vendor
    account: Account

    def read(self, operation: str, response: Response, running: Running = RUNNING) -> Parsed:
        spec = spec_of(self.vendor)
        if operation == "describe":
            return self.vendor.parse_response(self.account, spec, response)
        if operation == "poll":
            return self.vendor.parse_poll(self.account, spec, running, response)
        parse: Callable[[Account, Response], Parsed] = getattr(self.vendor, f"parse_{operation}")
        return parse(self.account, response)

    @property
    def api_version(self) -> str:
        """The version of the API that the connection names; v1 where there is one alone."""
        return str(self.account.options.get("api_version", "v1"))

    @property
    def samples(self) -> list[Sample]:
        """This vendor's recorded responses, of this API version."""
        about = (self.vendor.name, self.api_version)
        return [sample for sample in load_all() if (sample.vendor, sample.api_version) == about]

    @property
    def operations(self) -> list[str]:
        """The operations that this vendor has at all."""
        optional = [f"parse_{name}" for name in ("poll", "upload", "credits")]
        own = [name[6:] for name in optional if getattr(type(self.vendor), name) is not getattr(Vendor, name)]
        return ["describe", "check", *own]


def load(path: Path) -> Sample:
    """Load ``<case>.json`` and the response beside it, ``<case>.http``, as ``curl -i`` writes one."""
    case = json.loads(path.read_text())
    head, body = re.split(rb"\r?\n\r?\n", path.with_suffix(".http").read_bytes(), maxsplit=1)
    status, *headers = head.decode().splitlines()
    response = Response(int(status.split()[1]), dict(line.split(": ", 1) for line in headers), body, NOW, 3.5)
    running = Running(**case["running"]) if "running" in case else RUNNING
    version = case.get("api_version", "v1")
    about, connection = (path.parent.name, path.stem, case["operation"], version), case.get("connection", {})
    return Sample(*about, running, response, case["expected"], connection)


@cache
def load_all() -> tuple[Sample, ...]:
    return tuple(load(path) for path in sorted(SAMPLES.glob("*/*.json")))


def readers() -> Iterator[Reader]:
    """Every vendor, under every API version that its connection can name."""
    for vendor in vendors().values():
        versions = {sample.api_version for sample in load_all() if sample.vendor == vendor.name} or {"v1"}
        yield from (reader_of(vendor, api_version=version) for version in sorted(versions))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sample" in metafunc.fixturenames:
        found = load_all()
        metafunc.parametrize("sample", found, ids=[f"{sample.vendor}/{sample.case}" for sample in found])
    if "vendor" in metafunc.fixturenames:
        metafunc.parametrize("vendor", list(vendors().values()), ids=lambda vendor: vendor.name)
    if "reader" in metafunc.fixturenames:
        found_readers = list(readers())
        ids = [f"{reader.vendor.name}-{reader.api_version}" for reader in found_readers]
        metafunc.parametrize("reader", found_readers, ids=ids)


@pytest.fixture
def read() -> Callable[[Sample], Parsed]:
    """Read a sample as the provider would."""

    def read_sample(sample: Sample) -> Parsed:
        reader = reader_of(get_vendor(sample.vendor), api_version=sample.api_version, **sample.connection)
        return reader.read(sample.operation, sample.response, sample.running)

    return read_sample


@pytest.fixture
def account() -> Callable[..., Account]:
    return account_of


@pytest.fixture
def spec() -> Callable[[Vendor], Spec]:
    return spec_of


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
def all_samples() -> tuple[Sample, ...]:
    return load_all()

"""What tests of several rooms share: the emulator, pictures of distinct content, and jobs that describe them."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from clouds import Cloud, gcs_cloud, s3_cloud
from PIL import Image

from airflow_provider_describer.account import Account, account_from_connection
from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.progress import Outcome
from airflow_provider_describer.errors import DescriberError
from airflow_provider_describer.http.flow import VendorCalls
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.vendors import get_vendor

QUICK = RetryPolicy(base=0.01, cap=0.02)
"""The usual number of attempts, without the usual waits."""


@pytest.fixture(scope="session")
def describer_emulator() -> Iterator[EmulatorProcess]:
    with EmulatorProcess() as emulator:
        yield emulator


@pytest.fixture
def emulator(describer_emulator: EmulatorProcess) -> EmulatorProcess:
    describer_emulator.reset()
    return describer_emulator


def draw(number: int = 0, form: str = "JPEG", size: tuple[int, int] = (32, 24)) -> bytes:
    """A picture; another number is another picture."""
    picture = Image.new("RGB", size, (number * 37 % 256, number * 11 % 256, 90))
    picture.putpixel((number % size[0], number // size[0] % size[1]), (255, 255, 255))
    target = io.BytesIO()
    picture.save(target, form, **({"comment": str(number)} if form == "JPEG" else {}))
    return target.getvalue()


@pytest.fixture(name="draw")
def draw_fixture() -> Callable[..., bytes]:
    return draw


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., list[Path]]:
    """Make files of that many distinct pictures."""

    def make(count: int, form: str = "JPEG") -> list[Path]:
        paths = [tmp_path / f"picture {number}.{form.lower()}" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(draw(number, form))
        return paths

    return make


@pytest.fixture(scope="session")
def new_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Cloud]]:
    with s3_cloud(tmp_path_factory.mktemp("s3")) as new:
        yield new


@pytest.fixture(scope="session")
def new_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Cloud]]:
    with gcs_cloud(tmp_path_factory.mktemp("gcs")) as new:
        yield new


@pytest.fixture
def s3(new_s3: Callable[[], Cloud]) -> Cloud:
    """A bucket of this test's own, in an S3 that behaves until a test says otherwise."""
    return new_s3()


@pytest.fixture
def gcs(new_gcs: Callable[[], Cloud]) -> Cloud:
    """A bucket of this test's own, in a GCS that behaves until a test says otherwise."""
    return new_gcs()


@pytest.fixture(params=["s3", "gcs"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each of the two."""
    found: Cloud = request.getfixturevalue(request.param)
    return found


@dataclass
class Result:
    """What a job left behind."""

    manifest: dict[str, Any]
    error: DescriberError | None
    rows: list[dict[str, Any]]
    lines: list[str]
    ledger: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.manifest["counts"]
        return counts

    def of(self, status: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] == status]

    def check_sums(self) -> None:
        """What holds after every run, whatever went wrong in it."""
        parts = dict(self.counts)
        assert parts.pop("requested") == sum(parts.values()) == len(self.rows)
        assert parts == {name: len(self.of(name)) for name in parts}


@dataclass
class Shop:
    """Has an account at a vendor, which is the emulator, and pictures to be described."""

    emulator: EmulatorProcess
    store: Path
    vendor: str = "image_describer"
    fields: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    policy: RetryPolicy = QUICK
    books: str = "none"
    """What Segmind's own history tells, as the emulator's setting ``history``."""

    def account(self, **fields: Any) -> Account:
        # Images that tests serve lie on loopback.
        extra = {"price_per_call": 0.015, "allow_private_hosts": True, **self.fields, **fields}
        key = self.emulator.keys[self.vendor] if self.key is None else self.key
        host = extra.pop("host", self.emulator.url)
        defaults = get_vendor(self.vendor).defaults()
        return account_from_connection(defaults, conn_id="shop", password=key, host=host, extra=extra)

    def vendor_calls(self, policy: RetryPolicy | None = None, **fields: Any) -> VendorCalls:
        account = self.account(**fields)
        vendor = get_vendor(self.vendor).configured(account)
        return VendorCalls(vendor, account, policy or self.policy, jitter=lambda: 0.0)

    def faults(self, **settings: Any) -> None:
        """Let the vendor behave so, and well in all other respects; it works off v2 requests quickly."""
        quick = {"v2_delay_s": 0.03, "history": self.books} if self.vendor == "segmind" else {}
        self.emulator.faults({self.vendor: {**quick, **settings}})

    def breaks(self, kind: str, **when: Any) -> None:
        """Let calls fail so; all of them unless ``when`` says which."""
        self.faults(errors=[{"kind": kind, **(when or {"share": 1})}])

    def job(self, images: object, **options: Any) -> Job:
        """A job over the images. It keeps a store unless ``store`` is None; what is no option of a job is a limit."""
        vendor_calls = self.vendor_calls(options.pop("policy", None), **options.pop("fields", {}))
        prompts = {name: options.pop(name, None) for name in ("prompt", "stricter_prompt")}
        requests = parse_images(images, vendor_calls.vendor, **prompts)
        names = [name for name in options if name in Job.__dataclass_fields__]
        about = {"store": self.store, "report": lambda line: None, **{name: options.pop(name) for name in names}}
        return Job(vendor_calls, requests, TaskLimits(**{"max_failure_ratio": 1.0, **options}), **about)

    def describe(self, images: object, **options: Any) -> Result:
        """Run a job to its end and check what must hold after any."""
        lines: list[str] = []
        return self.result(asyncio.run(self.job(images, report=lines.append, **options).arun()), lines)

    def result(self, outcome: Outcome, lines: list[str]) -> Result:
        """What a job left behind, once it is checked."""
        manifest = outcome.manifest
        if manifest["results"]:
            text = Path(manifest["results"]).read_text(encoding="utf-8")
            rows = [json.loads(line) for line in text.splitlines()]
        else:
            rows = manifest["descriptions"]
        result = Result(manifest, outcome.error, rows, lines, self.emulator.ledger())
        result.check_sums()
        return result


@pytest.fixture
def shop(emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    # A request that runs at the vendor is looked at once a second; the emulator's are done sooner.
    monkeypatch.setattr("airflow_provider_describer.http.flow.poll_pause", lambda polls: 0.02)
    # The emulator's books show a call at once, unless a test lets them lag.
    monkeypatch.setattr("airflow_provider_describer.engine.vendor_history.SETTLING_S", 0.0)
    return Shop(emulator, tmp_path / "store")


@pytest.fixture(params=["image_describer-v1", "segmind-v1", "segmind-v2"])
def any_shop(shop: Shop, request: pytest.FixtureRequest) -> Shop:
    """A shop at each vendor, by each version of its API."""
    shop.vendor, _, version = request.param.partition("-")
    shop.fields["api_version"] = version
    shop.faults()
    return shop


@dataclass
class Received:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Visit:
    """One connection, as the server sees it."""

    server: Loopback
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> Received | None:
        """Read a request up to its body; None where the client has gone instead."""
        try:
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        received = Received(lines[0], headers, b"")
        self.server.requests.append(received)
        return received

    async def request(self) -> Received | None:
        """Read a whole request."""
        received = await self.head()
        if received:
            received.body = await self.reader.readexactly(int(received.headers.get("content-length", "0")))
        return received

    def answer(self, content: bytes = b"{}", status: str = "200 OK", *headers: str, length: int | None = None) -> None:
        size = len(content) if length is None else length
        lines = [f"HTTP/1.1 {status}", f"content-length: {size}", *headers]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    def cut(self) -> None:
        """Reset the connection, without a goodbye."""
        self.writer.transport.abort()


@dataclass
class Loopback:
    """A server on a free port; ``talk`` does as it likes with each connection."""

    talk: Callable[[Visit], Awaitable[None]]
    tls: ssl.SSLContext | None = None
    connections: int = 0
    requests: list[Received] = field(default_factory=list)
    port: int = 0
    _visits: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._come_in, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    def _come_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._visits.add(asyncio.create_task(self._serve(Visit(self, reader, writer))))

    async def _serve(self, visit: Visit) -> None:
        try:
            await self.talk(visit)
        finally:
            visit.writer.close()


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> type[Loopback]:
    """Servers of our own, which misbehave exactly as a test tells them to; no proxy of this machine stands between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Loopback

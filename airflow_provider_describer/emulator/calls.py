"""A billable call from its arrival to its answer: what the vendors have in common."""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airflow_provider_describer.emulator.bad_responses import (
    CONNECTION,
    ClientConnection,
    DrippingResponse,
    DroppedConnection,
    HangingResponse,
    damaged,
    html_page,
    quoted,
)
from airflow_provider_describer.emulator.fault_settings import (
    LOST_ANSWERS,
    VENDORS,
    FaultPlan,
    VendorSettings,
    read_plan,
)
from airflow_provider_describer.emulator.faults import Call, CallFaults, FaultInjector
from airflow_provider_describer.emulator.image_info import ImageInfo
from airflow_provider_describer.emulator.image_input import ImageReader, ReceivedImage
from airflow_provider_describer.emulator.ledger import Entry, Ledger, to_micro_usd

MAX_BODY_BYTES = 128 * 1024 * 1024


@dataclass(eq=False)
class RefusedError(Exception):
    """The vendor answers with an error, and nothing is billed. `kind` is the error's name."""

    kind: str
    detail: str | None = None
    resets_at: float | None = None


class EmulatorState:
    """The vendors' keys and accounts, and the faults in force."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.ledger = Ledger(VENDORS)
        self.images = ImageReader()
        self.use(read_plan({}))

    def use(self, plan: FaultPlan) -> None:
        """Put faults in force with all counts at 0, and set each balance to the plan's `credits`."""
        self.faults = FaultInjector(plan)
        for vendor, account in self.ledger.accounts.items():
            balance = plan.vendors[vendor].credits
            account.balance = None if balance is None else to_micro_usd(balance)


class Vendor(ABC):
    """The ASGI application behind a vendor's billable endpoint. A subclass adds the vendor's wire format."""

    name: ClassVar[str]
    path: ClassVar[str]
    # Well-formed JSON that is not an answer of this vendor.
    wrong_types: ClassVar[tuple[object, ...]]
    # The error for an image that cannot be used.
    refusal: ClassVar[str]
    # Faults of the result, where the answer to the call holds none.
    result_kinds: ClassVar[tuple[str, ...]] = ()
    # Whether a call is accepted first and worked off later.
    is_queued: ClassVar[bool] = False

    def __init__(self, state: EmulatorState) -> None:
        self.state = state
        self.ledger = state.ledger

    @property
    def settings(self) -> VendorSettings:
        return self.state.faults.plan.vendors[self.name]

    @property
    def price(self) -> int:
        """The price of a call, in micro-dollars."""
        return to_micro_usd(self.settings.price)

    @abstractmethod
    def check_key(self, request: Request) -> None:
        """Raise RefusedError if the request has no valid key."""

    @abstractmethod
    async def read(self, request: Request, body: bytes, entry: Entry) -> Call:
        """Return the call in a request and record it in the entry; raise RefusedError if it is malformed."""

    @abstractmethod
    def describe(self, call: Call) -> str:
        """Return the description of a call's image."""

    @abstractmethod
    def answer(self, call: Call, text: str) -> Response:
        """Return the answer that holds a description."""

    @abstractmethod
    def false_answer(self, call: Call, text: str, variant: int) -> Response:
        """Return an answer with a text in it that says that it is an error."""

    @abstractmethod
    def error_answer(self, refused: RefusedError, entry: Entry) -> Response:
        """Return the answer for an error, and record the error's name in the entry."""

    async def measure(self, received: ReceivedImage, entry: Entry) -> ImageInfo:
        """Record an image in the entry, then measure it; raise ImageRefusedError if it cannot be used."""
        sha256 = hashlib.sha256(received.data).hexdigest()
        entry.image_sha256, entry.image_bytes, entry.image_via = sha256, len(received.data), received.via
        return await self.state.images.measure(received, sha256)

    def cost(self, call: Call) -> int:
        """Return what a call costs, in micro-dollars."""
        return self.price

    def reserve(self, call: Call) -> int:
        """Reserve the cost of a call and return it; raise RefusedError if the balance is too low."""
        price = self.cost(call)
        if not self.ledger.reserve(self.name, price):
            raise RefusedError("insufficient_credits")
        return price

    async def work(self, request: Request, call: Call, faults: CallFaults, entry: Entry) -> Response:
        """Describe the image, bill the call, and return the answer."""
        if faults.error:
            await asyncio.sleep(faults.latency_s)
            raise RefusedError(faults.error)
        price = self.reserve(call)
        await asyncio.sleep(faults.latency_s)
        self.ledger.bill(entry, price)
        entry.outcome = "described"
        if faults.kind == "error_in_200":
            return self.false_answer(call, self.describe(call), faults.variant)
        return self.answer(call, "" if faults.kind == "blank" else self.describe(call))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: ClientConnection = scope[CONNECTION]
        entry = Entry(self.name, self.path)
        self.ledger.begin(entry, connection.number)
        try:
            answer = await self.handle(Request(scope, receive), entry)
            entry.status = answer.status_code
            # Recorded before the answer is sent, so that a client that has its answer finds it in the ledger.
            entry.answered = entry.status is not None and not connection.transport.is_closing()
            await answer(scope, receive, send)
        except ClientDisconnect:
            entry.outcome = "client_gone"
        finally:
            self.ledger.end()

    async def handle(self, request: Request, entry: Entry) -> Response | HangingResponse:
        try:
            body = await read_body(request)
            self.check_key(request)
            resets_at = self.state.faults.count_request(self.name)
            if resets_at is not None:
                raise RefusedError("rate_limited", resets_at=resets_at)
            if body is None:
                raise RefusedError("too_large")
            call = await self.read(request, body, entry)
            return await self.handle_call(request, call, self.state.faults.next_call(call), entry)
        except RefusedError as refused:
            return self.error_answer(refused, entry)

    async def handle_call(
        self, request: Request, call: Call, faults: CallFaults, entry: Entry
    ) -> Response | HangingResponse:
        if faults.kind == "drop_before_bill" or (faults.kind == "drop_after_failure" and not self.is_queued):
            await asyncio.sleep(faults.latency_s)
            entry.outcome, entry.ended_at = faults.kind, time.time()
            return DroppedConnection()
        if faults.error == "quoted_image":
            raise RefusedError(self.refusal, f"Could not use the image {quoted(call.image_uri, faults.variant)}")
        if faults.kind == "stuck" and "stuck" not in self.result_kinds:
            entry.outcome = faults.kind
            return HangingResponse()
        answer = await self.work(request, call, faults, entry)
        # `work` raises an error at once; only a v2 job is accepted first and fails with it later.
        if faults.kind is None or faults.error:
            return answer
        entry.outcome = faults.kind
        if faults.kind == "proxy_error":
            return html_page(self.settings.proxy_status)
        if faults.kind in self.result_kinds:
            return answer
        if faults.kind in LOST_ANSWERS:
            lost = {"hang_after_bill": HangingResponse, "drip_after_bill": DrippingResponse}
            return lost.get(faults.kind, DroppedConnection)()
        return damaged(faults.kind, answer, self.wrong_types[faults.variant % len(self.wrong_types)], faults.variant)


async def read_body(request: Request) -> bytes | None:
    """Return the whole body, or None if it is larger than a server would accept."""
    body = bytearray()
    async for chunk in request.stream():
        # A body that is too large is still read to its end: otherwise the client would see a reset, not the answer.
        if len(body) <= MAX_BODY_BYTES:
            body += chunk
    return bytes(body) if len(body) <= MAX_BODY_BYTES else None

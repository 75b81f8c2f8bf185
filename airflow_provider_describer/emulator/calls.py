"""A billable call from its arrival to its answer: the part that both vendors have in common."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airflow_provider_describer.emulator.bad_responses import garbled
from airflow_provider_describer.emulator.fault_rolls import Call, Fate
from airflow_provider_describer.emulator.faults import DROPPED, GARBLED
from airflow_provider_describer.emulator.image_info import Sight
from airflow_provider_describer.emulator.image_input import Received
from airflow_provider_describer.emulator.ledger import Entry
from airflow_provider_describer.emulator.line import Cut, Hang, line_of
from airflow_provider_describer.emulator.state import World

MOST_BODY_BYTES = 128 * 1024 * 1024


class RefusedError(Exception):
    """The vendor refuses a call; `kind` is one of its error names, and nothing is billed."""

    def __init__(self, kind: str, detail: str | None = None, resets_at: float | None = None) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.resets_at = resets_at


@dataclass(frozen=True, slots=True)
class Asked:
    """A well-formed call: which image, and what about it."""

    sight: Sight
    prompt: str | None = None
    lang: str | None = None


class Vendor(Protocol):
    """What differs from vendor to vendor."""

    name: str
    world: World

    def check_key(self, request: Request) -> None:
        """Raise RefusedError where the request carries no valid key."""

    async def read(self, request: Request, body: bytes, entry: Entry) -> Asked:
        """Return what is asked, noting it in the entry; raise RefusedError where it is malformed."""

    def refusal(self, refused: RefusedError, entry: Entry) -> Response:
        """Return the answer for an error, and note its name in the entry."""

    def wrong_types(self, variant: int) -> object:
        """Return well-formed JSON that is not an answer of this vendor."""

    async def work(self, request: Request, asked: Asked, fate: Fate, entry: Entry) -> Response:
        """Do what was asked, bill it as the vendor bills, and return the answer."""

    def blank(self, request: Request, entry: Entry) -> Response:
        """Return a well-formed answer in which the description is empty."""


class BillableEndpoint:
    """The ASGI application behind a URL that costs money."""

    def __init__(self, vendor: Vendor, path: str) -> None:
        self.vendor = vendor
        self.path = path
        self.world = vendor.world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = line_of(scope)
        entry = Entry(self.vendor.name, self.path)
        self.world.ledger.arrive(entry, line.number)
        try:
            answer = await self.answer(Request(scope, receive), entry)
            entry.status = answer.status_code
            # Asked before the answer is sent: a client must find its answer in the ledger as answered.
            entry.answered = entry.status is not None and line.is_open
            await answer(scope, receive, send)
        except ClientDisconnect:
            entry.outcome = "client_gone"
        finally:
            self.world.ledger.leave()

    async def answer(self, request: Request, entry: Entry) -> Response | Cut | Hang:
        try:
            body = await read_body(request)
            self.vendor.check_key(request)
            resets_at = self.world.dice.over_limit(self.vendor.name)
            if resets_at is not None:
                raise RefusedError("rate_limited", resets_at=resets_at)
            if body is None:
                raise RefusedError("too_large")
            asked = await self.vendor.read(request, body, entry)
            fate = self.world.dice.fate(
                Call(self.vendor.name, asked.sight.sha256, asked.prompt, asked.lang),
            )
            return await self.meet(fate, request, asked, entry)
        except RefusedError as refused:
            return self.vendor.refusal(refused, entry)

    async def meet(self, fate: Fate, request: Request, asked: Asked, entry: Entry) -> Response | Cut | Hang:
        """Let a call meet its fate."""
        kind = fate.kind
        if kind == "drop_before_bill":
            await asyncio.sleep(fate.latency_s)
            entry.outcome = kind
            return Cut()
        proper = await self.vendor.work(request, asked, fate, entry)
        if kind in DROPPED:
            entry.outcome = kind
            return Cut() if kind == "drop_after_bill" else Hang()
        if kind in GARBLED:
            entry.outcome = kind
            if kind == "blank":
                return self.vendor.blank(request, entry)
            return garbled(kind, proper, self.vendor.wrong_types(fate.variant))
        return proper


def is_refusal(kind: str | None) -> bool:
    """Tell whether a kind of fault is an error answer, as against an answer that is lost or garbled."""
    return kind is not None and kind not in DROPPED and kind not in GARBLED


def note_image(entry: Entry, received: Received, sha256: str) -> None:
    entry.image_sha256 = sha256
    entry.image_bytes = len(received.data)
    entry.image_via = received.via


async def read_body(request: Request) -> bytes | None:
    """Return the whole body, or None where it is larger than any server would take."""
    body = bytearray()
    size = 0
    async for piece in request.stream():
        size += len(piece)
        # Read to its end all the same: a client still sending would see a reset instead of the answer.
        if size <= MOST_BODY_BYTES:
            body += piece
    return bytes(body) if size <= MOST_BODY_BYTES else None

"""The billing ledger: what was requested, what was billed, and what is left of each account.

Amounts are whole micro-dollars, so that sums are exact.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

ENTRIES_KEPT = 200_000
MICRO = 1_000_000


def to_micro_usd(usd: float) -> int:
    return round(usd * MICRO)


def to_usd(micro_usd: int) -> float:
    return micro_usd / MICRO


def format_usd(micro_usd: int) -> str:
    """Return an amount in USD for a header or a message: exact, and never in the form 1e-05."""
    return f"{micro_usd / MICRO:.6f}".rstrip("0").rstrip(".")


@dataclass(slots=True)
class Entry:
    """One request to a billable endpoint."""

    vendor: str
    endpoint: str
    at: float = field(default_factory=time.time)
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    image_sha256: str | None = None
    image_bytes: int | None = None
    image_via: str | None = None
    prompt: str | None = None
    lang: str | None = None
    status: int | None = None
    outcome: str = "pending"
    billed: bool = False
    answered: bool = False
    ended_at: float | None = None


@dataclass(slots=True)
class Account:
    """A vendor's sums since the ledger was last cleared, and its balance (None: no balance record)."""

    balance: int | None
    requests: int = 0
    billed: int = 0
    cost: int = 0

    def as_json(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "billed": self.billed,
            "cost_usd": to_usd(self.cost),
            "credits_left": None if self.balance is None else to_usd(self.balance),
        }


class Ledger:
    """All requests to billable endpoints, and the accounts that pay for them.

    Only the thread of the event loop may use it. A call that was under way when the ledger was cleared is still
    paid from the balance, but appears in no sum.
    """

    def __init__(self, vendors: Iterable[str]) -> None:
        self.accounts = {vendor: Account(balance=0) for vendor in vendors}
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Forget all requests and sums; balances and requests in flight stay."""
        self.entries: deque[Entry] = deque(maxlen=ENTRIES_KEPT)
        self.request_ids: set[str] = set()
        self.connections: set[int] = set()
        self.by_image: Counter[str] = Counter()
        self.free_requests = 0
        self.max_in_flight = self.in_flight
        for vendor, account in self.accounts.items():
            self.accounts[vendor] = Account(account.balance)

    def begin(self, entry: Entry, connection_number: int) -> None:
        """Record a request when its head has arrived."""
        self.entries.append(entry)
        self.request_ids.add(entry.request_id)
        self.connections.add(connection_number)
        self.accounts[entry.vendor].requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def end(self) -> None:
        """Record that a request was answered or abandoned."""
        self.in_flight -= 1

    def reserve(self, vendor: str, price: int) -> bool:
        """Take the price of a call from the balance; return False if the balance is too low."""
        account = self.accounts[vendor]
        if account.balance is None or account.balance < price:
            return False
        account.balance -= price
        return True

    def release(self, vendor: str, price: int) -> None:
        """Return a reserved price to the balance, because the call is not billed."""
        account = self.accounts[vendor]
        if account.balance is not None:
            account.balance += price

    def bill(self, entry: Entry, price: int) -> None:
        """Bill a call whose price is reserved."""
        entry.billed, entry.ended_at = True, time.time()
        if entry.request_id not in self.request_ids:
            return
        account = self.accounts[entry.vendor]
        account.billed += 1
        account.cost += price
        if entry.image_sha256:
            self.by_image[entry.image_sha256] += 1

    def as_json(self, *, with_entries: bool) -> dict[str, object]:
        """Return the body of `GET /_emulator/ledger`."""
        accounts = self.accounts.values()
        requests = sum(account.requests for account in accounts)
        body: dict[str, object] = {
            "requests": requests,
            "billed": sum(account.billed for account in accounts),
            "cost_usd": to_usd(sum(account.cost for account in accounts)),
            "free_requests": self.free_requests,
            "by_vendor": {vendor: account.as_json() for vendor, account in self.accounts.items()},
            "by_image": dict(self.by_image),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "connections": len(self.connections),
            "entries_forgotten": requests - len(self.entries),
        }
        if with_entries:
            body["entries"] = [asdict(entry) for entry in self.entries]
        return body

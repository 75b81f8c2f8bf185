"""What was asked, what was billed, and what is left of each account: the truth a test compares with."""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

ENTRIES_KEPT = 200_000
MICRO = 1_000_000


def micro_usd(usd: float) -> int:
    return round(usd * MICRO)


def usd(micro: int) -> float:
    return micro / MICRO


def plain(micro: int) -> str:
    """Return an amount in USD as a header or a message shows it: exact, and never as 1e-05."""
    return f"{micro / MICRO:.6f}".rstrip("0").rstrip(".")


@dataclass(slots=True)
class Entry:
    """One request to a billable endpoint, from its arrival on."""

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
            "cost_usd": usd(self.cost),
            "credits_left": None if self.balance is None else usd(self.balance),
        }


class Ledger:
    """Every billable request, and every micro-dollar.

    Only the event loop's thread may use it. A call still running when the ledger is cleared draws on the
    balance as always, but counts in neither the old nor the new sums.
    """

    def __init__(self, vendors: Iterable[str]) -> None:
        self.accounts = {vendor: Account(0) for vendor in vendors}
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Forget all requests and sums; balances and requests in flight stay."""
        self.entries: deque[Entry] = deque(maxlen=ENTRIES_KEPT)
        self.current: set[str] = set()
        self.lines: set[int] = set()
        self.by_image: Counter[str] = Counter()
        self.free_requests = 0
        self.max_in_flight = self.in_flight
        for vendor, account in self.accounts.items():
            self.accounts[vendor] = Account(account.balance)

    def arrive(self, entry: Entry, line_number: int) -> None:
        """Record a request the moment it reaches a billable endpoint."""
        self.entries.append(entry)
        self.current.add(entry.request_id)
        self.lines.add(line_number)
        self.accounts[entry.vendor].requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def leave(self) -> None:
        """Record that a request in flight was answered or given up."""
        self.in_flight -= 1

    def hold(self, vendor: str, price: int) -> bool:
        """Set `price` aside for a call; False where the balance does not cover it."""
        account = self.accounts[vendor]
        if account.balance is None or account.balance < price:
            return False
        account.balance -= price
        return True

    def release(self, vendor: str, price: int) -> None:
        """Give back what was held for a call that is not billed after all."""
        account = self.accounts[vendor]
        if account.balance is not None:
            account.balance += price

    def bill(self, entry: Entry, price: int) -> None:
        """Charge a call what was held for it."""
        entry.billed = True
        if entry.request_id not in self.current:
            return
        account = self.accounts[entry.vendor]
        account.billed += 1
        account.cost += price
        if entry.image_sha256:
            self.by_image[entry.image_sha256] += 1

    def as_json(self, *, with_entries: bool) -> dict[str, object]:
        """Return the ledger as `GET /_emulator/ledger` shows it."""
        accounts = self.accounts.values()
        requests = sum(account.requests for account in accounts)
        shown: dict[str, object] = {
            "requests": requests,
            "billed": sum(account.billed for account in accounts),
            "cost_usd": usd(sum(account.cost for account in accounts)),
            "free_requests": self.free_requests,
            "by_vendor": {vendor: account.as_json() for vendor, account in self.accounts.items()},
            "by_image": dict(self.by_image),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "connections": len(self.lines),
            "entries_forgotten": requests - len(self.entries),
        }
        if with_entries:
            shown["entries"] = [asdict(entry) for entry in self.entries]
        return shown

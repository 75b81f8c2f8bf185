"""What is to go wrong: read from the JSON of `POST /_emulator/faults`, strictly.

A misspelled fault would silently mean "no fault" and make a test pass for the wrong reason, so every unknown
name and every value of a wrong type is refused with a message that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_describer.emulator.checks import (
    FaultError,
    balance,
    choice,
    limit,
    mapping,
    price,
    retry_after,
    seconds,
    share,
    whole,
)

IMAGE_DESCRIBER = "image_describer"
SEGMIND = "segmind"
VENDORS = (IMAGE_DESCRIBER, SEGMIND)
CREDITS = 1000.0
PRICES = {IMAGE_DESCRIBER: 0.01, SEGMIND: 0.015}

DROPPED = ("drop_before_bill", "drop_after_bill", "hang_after_bill")
GARBLED = ("html", "empty", "truncated", "wrong_types", "blank")
REFUSED = (
    "server_error",
    "bad_gateway",
    "gateway_timeout",
    "unavailable",
    "html_error",
    "rate_limited",
    "harmful",
    "insufficient_credits",
    "spend_limit",
    "forbidden",
    "model_retired",
    "invalid_key",
)
# The vendors' own names, beside the ones that both have.
OWN_KINDS = {
    IMAGE_DESCRIBER: (
        "SERVER_ERROR",
        "INSUFFICIENT_CREDITS",
        "INVALID_PARAM",
        "HARMFUL_CONTENT",
        "INVALID_API_KEY",
        "INVALID_SIGNATURE",
    ),
    SEGMIND: (
        "bad_request",
        "missing_key",
        "unauthorized",
        "not_found",
        "method_not_allowed",
        "invalid_content_type",
    ),
}
KINDS = {vendor: (*REFUSED, *GARBLED, *DROPPED, *OWN_KINDS[vendor]) for vendor in VENDORS}
SHARED_KINDS = (*REFUSED, *GARBLED, *DROPPED)


@dataclass(frozen=True, slots=True)
class Rule:
    """When one kind of fault strikes: all conditions given must hold.

    `share` of all calls, `images` by the beginning of their sha256, the `first` n calls of the vendor, every
    call `after` the nth, the first n `attempts` at each image (with the same prompt and language). Only calls
    that would otherwise be answered are counted: a wrong key or an unreadable image comes before any fault.
    """

    kind: str
    share: float | None = None
    images: tuple[str, ...] | None = None
    first: int | None = None
    after: int | None = None
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class VendorFaults:
    """How one vendor behaves; the defaults are a vendor on a good day."""

    errors: tuple[Rule, ...] = ()
    latency_s: float = 0.0
    latency_jitter_s: float = 0.0
    credits: float | None = CREDITS
    price: float = 0.0
    requests_per_minute: int | None = None
    rate_window_s: float = 60.0
    retry_after: str | None = None
    fetch_timeout_s: float = 10.0
    error_style: str = "200"
    reset_format: str = "iso"
    answer_style: str = "descriptions"
    upload_answer: str = "file_urls"
    v2_delay_s: float = 0.2
    v2_fail_share: float = 0.0
    v2_expire_s: float = 3600.0
    v2_poll_errors: float = 0.0


READERS: dict[str, Callable[[object, str], Any]] = {
    "latency_s": seconds,
    "latency_jitter_s": seconds,
    "credits": balance,
    "price": price,
    "requests_per_minute": limit,
    "rate_window_s": seconds,
    "retry_after": retry_after,
    "fetch_timeout_s": seconds,
    "error_style": choice("200", "200_no_data", "http", "http_no_data"),
    "reset_format": choice("iso", "http", "epoch"),
    "answer_style": choice(
        "descriptions", "list", "objects", "output", "text", "description", "prompt", "string", "plain"
    ),
    "upload_answer": choice("file_urls", "urls"),
    "v2_delay_s": seconds,
    "v2_fail_share": share,
    "v2_expire_s": seconds,
    "v2_poll_errors": share,
}
ONE_VENDORS_OWN = {
    "error_style": IMAGE_DESCRIBER,
    "reset_format": SEGMIND,
    "answer_style": SEGMIND,
    "upload_answer": SEGMIND,
    "v2_delay_s": SEGMIND,
    "v2_fail_share": SEGMIND,
    "v2_expire_s": SEGMIND,
    "v2_poll_errors": SEGMIND,
}


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Every vendor's faults, the seed of all dice, and the JSON they were read from."""

    seed: int
    vendors: Mapping[str, VendorFaults]
    source: Mapping[str, object]


def read_plan(source: object) -> FaultPlan:
    """Return the plan in the JSON of a request; raise FaultError where any part of it is not understood."""
    given = mapping(source, "the body")
    for name in given:
        if name not in ("seed", "all", *VENDORS):
            raise FaultError(f"unknown section {name!r}: expected seed, all, {', '.join(VENDORS)}")
    seed = whole(given.get("seed", 0), "seed")
    shared = mapping(given.get("all", {}), "all")
    common = read_section(shared, "all", None)
    vendors = {}
    for vendor in VENDORS:
        section = read_section(mapping(given.get(vendor, {}), vendor), vendor, vendor)
        rules = (*section.pop("errors", ()), *common.get("errors", ()))
        check_shares(rules, vendor)
        vendors[vendor] = VendorFaults(**{"price": PRICES[vendor], **common, **section, "errors": rules})
    return FaultPlan(seed, vendors, given)


def read_section(given: Mapping[str, object], section: str, vendor: str | None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in given.items():
        where = f"{section}.{name}"
        if name == "errors":
            settings[name] = read_rules(value, where, KINDS[vendor] if vendor else SHARED_KINDS)
        elif name not in READERS:
            raise FaultError(f"unknown setting {where}: expected errors, {', '.join(READERS)}")
        elif ONE_VENDORS_OWN.get(name, vendor) != vendor:
            raise FaultError(f"{where} belongs in the section {ONE_VENDORS_OWN[name]!r}")
        else:
            settings[name] = READERS[name](value, where)
    return settings


def read_rules(value: object, where: str, kinds: tuple[str, ...]) -> tuple[Rule, ...]:
    if not isinstance(value, list):
        raise FaultError(f"{where} must be a list of objects")
    return tuple(read_rule(mapping(rule, f"{where}[{n}]"), f"{where}[{n}]", kinds) for n, rule in enumerate(value))


def read_rule(given: Mapping[str, object], where: str, kinds: tuple[str, ...]) -> Rule:
    readers = {"share": share, "images": image_prefixes, "first": whole, "after": whole, "attempts": whole}
    kind = given.get("kind")
    if kind not in kinds:
        raise FaultError(f"{where}.kind {kind!r} is unknown: expected one of {', '.join(kinds)}")
    conditions: dict[str, Any] = {}
    for name, value in given.items():
        if name in readers:
            conditions[name] = readers[name](value, f"{where}.{name}")
        elif name != "kind":
            raise FaultError(f"unknown condition {where}.{name}: expected {', '.join(readers)}")
    if not conditions:
        raise FaultError(f"{where} says not when: give one of {', '.join(readers)}")
    return Rule(str(kind), **conditions)


def image_prefixes(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise FaultError(f"{where} must be a list of beginnings of sha256 sums")
    for prefix in value:
        if not isinstance(prefix, str) or not prefix or prefix.strip("0123456789abcdef") or len(prefix) > 64:
            raise FaultError(f"{where}: {prefix!r} is not the beginning of a sha256 sum in lower-case hex")
    return tuple(value)


def check_shares(rules: tuple[Rule, ...], vendor: str) -> None:
    total = sum(rule.share or 0.0 for rule in rules)
    if total > 1.0 + 1e-9:
        raise FaultError(f"{vendor}: the shares of all errors add up to {total:g}, which is more than 1")

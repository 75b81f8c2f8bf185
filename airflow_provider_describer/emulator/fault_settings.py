"""Read the JSON of `POST /_emulator/faults`, strictly.

A misspelled fault would mean "no fault", and a test would pass for the wrong reason. So an unknown name or a value of
the wrong type is refused with a message that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

IMAGE_DESCRIBER = "image_describer"
SEGMIND = "segmind"
OPENAI_COMPATIBLE = "openai_compatible"
VENDORS = (IMAGE_DESCRIBER, OPENAI_COMPATIBLE, SEGMIND)
PRICES = {IMAGE_DESCRIBER: 0.01, OPENAI_COMPATIBLE: 0.0, SEGMIND: 0.015}

# The kinds of fault. The client gets an error, a damaged answer or no answer.
TEMPORARY_ERRORS = ("server_error", "bad_gateway", "gateway_timeout", "unavailable", "html_error", "rate_limited")
LASTING_ERRORS = (
    "quoted_image",
    "harmful",
    "insufficient_credits",
    "spend_limit",
    "forbidden",
    "model_retired",
    "invalid_key",
)
BAD_ANSWERS = ("html", "empty", "truncated", "wrong_types", "blank")
# The vendor has worked and bills; the client gets an error, or an answer that only some clients can read.
ERRORS_AS_ANSWERS = ("error_in_200", "plain_error", "proxy_error")
STRANGE_FORMS = ("gzip_cut", "zstd", "raw_newline", "broken_utf8", "byte_order_mark", "utf16")
LOST_ANSWERS = ("drop_before_bill", "drop_after_failure", "drop_after_bill", "hang_after_bill", "drip_after_bill")
BILLED_KINDS = (*BAD_ANSWERS, *ERRORS_AS_ANSWERS, *STRANGE_FORMS, *LOST_ANSWERS)
COMMON_KINDS = (*TEMPORARY_ERRORS, *LASTING_ERRORS, *BILLED_KINDS)
# The answer is one of the protocol, and billed; it holds no whole description.
ANSWERS_WITHOUT_TEXT = ("refusal", "content_filter", "cut_off", "reasoning_only")
VENDOR_KINDS = {
    IMAGE_DESCRIBER: (
        *("SERVER_ERROR", "INSUFFICIENT_CREDITS", "INVALID_PARAM"),
        *("HARMFUL_CONTENT", "INVALID_API_KEY", "INVALID_SIGNATURE"),
    ),
    SEGMIND: (
        *("bad_request", "missing_key", "unauthorized", "not_found", "method_not_allowed", "invalid_content_type"),
        "stuck",
    ),
    OPENAI_COMPATIBLE: (
        *("bad_request", "invalid_image", "context_length", "overloaded", "error_as_200"),
        *ANSWERS_WITHOUT_TEXT,
    ),
}
ANSWER_STYLES = ("descriptions", "list", "objects", "output", "text", "description", "prompt", "string", "plain")
ERROR_FORMS = ("openai", "vllm", "gemini", "text", "detail")
HISTORY_FORMS = ("data", "results", "nested", "list", "body_as_text")

Reader = Callable[[object, str], Any]


class FaultError(ValueError):
    """A fault setting that is not understood; the message names the field."""


def as_object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise FaultError(f"{where} must be an object, not {value!r}")
    return value


def number(value: object, where: str) -> float:
    # JSON's true is an int in Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FaultError(f"{where} must be a number, not {value!r}")
    if value < 0:
        raise FaultError(f"{where} must not be negative, but is {value!r}")
    return float(value)


def proxy_status(value: object, where: str) -> int:
    if count(value, where) not in range(400, 600):
        raise FaultError(f"{where} must be an HTTP status from 400 to 599, not {value!r}")
    return count(value, where)


def share(value: object, where: str) -> float:
    if number(value, where) > 1:
        raise FaultError(f"{where} must be a share from 0 to 1, not {value!r}")
    return number(value, where)


def usd(value: object, where: str) -> float:
    """Return an amount in USD that is a whole number of micro-dollars."""
    amount = number(value, where)
    if abs(round(amount * 1e6) - amount * 1e6) > 1e-3:
        raise FaultError(f"{where} must have at most six decimals, but is {value!r}")
    return amount


def count(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FaultError(f"{where} must be a whole number of at least 0, not {value!r}")
    return value


def positive(value: object, where: str) -> int:
    if count(value, where) == 0:
        raise FaultError(f"{where} must be at least 1; null means no limit")
    return count(value, where)


def header(value: object, where: str) -> str:
    """Return the value of a Retry-After header: seconds, or text such as an HTTP date."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and value:
        return value
    return f"{number(value, where):g}"


def or_null(read: Reader) -> Reader:
    return lambda value, where: None if value is None else read(value, where)


def one_of(*allowed: str) -> Reader:
    """Return a reader that accepts only these words."""

    def read(value: object, where: str) -> str:
        if value not in allowed or not isinstance(value, str):
            raise FaultError(f"{where} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    return read


def sha256_prefixes(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise FaultError(f"{where} must be a list of SHA-256 prefixes with at least one item, not {value!r}")
    for prefix in value:
        if not isinstance(prefix, str) or not prefix or prefix.strip("0123456789abcdef") or len(prefix) > 64:
            raise FaultError(f"{where}: {prefix!r} is not the beginning of a SHA-256 in lower-case hex")
    return tuple(value)


def setting(default: object, read: Reader, only_for: str | None = None) -> Any:
    """Declare a setting by its default, the function that reads it, and the only vendor that has it."""
    return field(default=default, metadata={"read": read, "only_for": only_for})


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A kind of fault and when it strikes: if all given conditions hold. docs/emulator.md explains each condition."""

    kind: str
    share: float | None = setting(None, share)
    images: tuple[str, ...] | None = setting(None, sha256_prefixes)
    first: int | None = setting(None, count)
    after: int | None = setting(None, count)
    attempts: int | None = setting(None, count)


@dataclass(frozen=True, slots=True)
class VendorSettings:
    """How one vendor behaves. docs/emulator.md explains each setting."""

    errors: tuple[FaultRule, ...] = ()
    latency_s: float = setting(0.0, number)
    latency_jitter_s: float = setting(0.0, number)
    credits: float | None = setting(1000.0, or_null(usd))
    price: float = setting(0.0, usd)
    requests_per_minute: int | None = setting(None, or_null(positive))
    rate_window_s: float = setting(60.0, number)
    retry_after: str | None = setting(None, or_null(header))
    fetch_timeout_s: float = setting(10.0, number)
    proxy_status: int = setting(524, proxy_status)
    error_style: str = setting("200", one_of("200", "200_no_data", "http", "http_no_data"), IMAGE_DESCRIBER)
    reset_format: str = setting("iso", one_of("iso", "http", "epoch"), SEGMIND)
    answer_style: str = setting("descriptions", one_of(*ANSWER_STYLES), SEGMIND)
    upload_answer: str = setting("file_urls", one_of("file_urls", "urls"), SEGMIND)
    v2_delay_s: float = setting(0.2, number, SEGMIND)
    v2_fail_share: float = setting(0.0, share, SEGMIND)
    v2_expire_s: float = setting(3600.0, number, SEGMIND)
    v2_poll_errors: float = setting(0.0, share, SEGMIND)
    history: str = setting("text", one_of("text", "no_text", "none"), SEGMIND)
    history_form: str = setting("data", one_of(*HISTORY_FORMS), SEGMIND)
    history_lag_s: float = setting(0.0, number, SEGMIND)
    history_gaps: float = setting(0.0, share, SEGMIND)
    history_rows: int = setting(1, positive, SEGMIND)
    history_errors: float = setting(0.0, share, SEGMIND)
    input_price: float = setting(1.0, number, OPENAI_COMPATIBLE)
    output_price: float = setting(4.0, number, OPENAI_COMPATIBLE)
    error_form: str = setting("openai", one_of(*ERROR_FORMS), OPENAI_COMPATIBLE)
    content: str = setting("text", one_of("text", "parts", "fenced"), OPENAI_COMPATIBLE)
    usage: str = setting("tokens", one_of("tokens", "none"), OPENAI_COMPATIBLE)
    models: str = setting("list", one_of("list", "none"), OPENAI_COMPATIBLE)
    key: str = setting("required", one_of("required", "optional"), OPENAI_COMPATIBLE)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The settings of all vendors, the seed of all random decisions, and the JSON they were read from."""

    seed: int
    vendors: Mapping[str, VendorSettings]
    source: Mapping[str, object]


CONDITIONS = {condition.name: condition.metadata for condition in fields(FaultRule) if condition.metadata}
SETTINGS = {setting.name: setting.metadata for setting in fields(VendorSettings) if setting.metadata}


def read_plan(source: object) -> FaultPlan:
    """Return the plan in the body of a request; raise FaultError if any part of it is not understood."""
    body = as_object(source, "the body")
    for name in body:
        if name not in ("seed", "all", *VENDORS):
            raise FaultError(f"unknown section {name!r}: expected seed, all, {', '.join(VENDORS)}")
    common = read_section(body, "all")
    vendors = {}
    for vendor in VENDORS:
        section = read_section(body, vendor)
        rules = (*section.pop("errors", ()), *common.get("errors", ()))
        total = sum(rule.share or 0.0 for rule in rules)
        if total > 1.0 + 1e-9:
            raise FaultError(f"{vendor}: the shares of all errors add up to {total:g}, which is more than 1")
        vendors[vendor] = VendorSettings(**{"price": PRICES[vendor], **common, **section, "errors": rules})
    return FaultPlan(count(body.get("seed", 0), "seed"), vendors, body)


def read_section(body: Mapping[str, object], section: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in as_object(body.get(section, {}), section).items():
        where = f"{section}.{name}"
        if name == "errors":
            if not isinstance(value, list):
                raise FaultError(f"{where} must be a list of objects, not {value!r}")
            kinds = (*COMMON_KINDS, *VENDOR_KINDS.get(section, ()))
            settings[name] = tuple(read_rule(rule, f"{where}[{n}]", kinds) for n, rule in enumerate(value))
        elif name not in SETTINGS:
            raise FaultError(f"unknown setting {where}: expected errors, {', '.join(SETTINGS)}")
        elif SETTINGS[name]["only_for"] not in (None, section):
            raise FaultError(f"{where} belongs in the section {SETTINGS[name]['only_for']!r}")
        else:
            settings[name] = SETTINGS[name]["read"](value, where)
    return settings


def read_rule(value: object, where: str, kinds: tuple[str, ...]) -> FaultRule:
    rule: dict[str, Any] = dict(as_object(value, where))
    kind = rule.pop("kind", None)
    if kind not in kinds:
        raise FaultError(f"{where}.kind {kind!r} is unknown: expected one of {', '.join(kinds)}")
    if not rule:
        raise FaultError(f"{where} has no condition: give at least one of {', '.join(CONDITIONS)}")
    for name, given in rule.items():
        if name not in CONDITIONS:
            raise FaultError(f"unknown condition {where}.{name}: expected {', '.join(CONDITIONS)}")
        rule[name] = CONDITIONS[name]["read"](given, f"{where}.{name}")
    return FaultRule(str(kind), **rule)

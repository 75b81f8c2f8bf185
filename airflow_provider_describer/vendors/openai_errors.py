"""Errors of the OpenAI-compatible protocol, in the forms of OpenAI, vLLM, Gemini, Ollama and FastAPI.

OpenAI names a code; other servers name less, so that their words count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.vendors import wire
from airflow_provider_describer.vendors.answers import blames_request
from airflow_provider_describer.vendors.wire import Response, one_line

Fault = Literal["setting", "context", "harmful", "too_large", "image"]

_CREDITS = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits"}
    | {"budget_exceeded", "credits_exhausted", "insufficient_balance"}
)
_KEY = frozenset({"invalid_api_key", "authentication_error", "api_key_invalid", "no_db_connection", "auth_error"})
_HARMFUL = frozenset(
    {"content_policy_violation", "image_content_policy_violation", "content_filter", "moderation_blocked"}
)
_KEY_WORDS = re.compile(
    r"\bapi[ _-]?key\b.*\b(not valid|invalid|incorrect|missing)|\binvalid api[ _-]?key", re.IGNORECASE
)
_MODEL_WORDS = re.compile(
    r"invalid model name|not a multimodal|at most 0 image|mmproj|vision is not"
    r"|\bmodels?\b[\s:/]*\S{0,100}\s+(does not exist|(is |was )?not (found|available)|has been deprecated)"
    r"|supports? image|image input is not supported|image_url is (only|not) supported",
    re.IGNORECASE,
)
_CONTEXT_WORDS = re.compile(r"context (length|window|size)|contextwindow|maximum number of tokens", re.IGNORECASE)
_HARMFUL_WORDS = re.compile(r"safety system|content (management )?policy|content filter|\bmoderation\b", re.IGNORECASE)
_IMAGE_WORDS = re.compile(r"\bimages?\b|\bpictures?\b|\bphotos?\b|\bpixels?\b|base64|\bdata ur[il]", re.IGNORECASE)
_LARGE_WORDS = re.compile(
    r"too (large|big|many pixels)|exceed|\blarger than|maximum.{0,20}size|\bsize limit", re.IGNORECASE
)
_TIME_WORDS = re.compile(
    r"time[d\s-]*out|timeout|disconnect|connection\s?(error|reset|aborted|closed)|upstream|apiconnectionerror",
    re.IGNORECASE,
)
_SETTINGS = frozenset(
    {"max_tokens", "max_completion_tokens", "response_format", "temperature", "reasoning_effort", "seed", "top_p"}
)
_SETTING_CODES = frozenset(
    {"unsupported_parameter", "unsupported_value", "unknown_parameter", "invalid_json_schema", "invalid_type"}
)
_SETTING_WORDS = re.compile(
    r"max_tokens|max_completion_tokens|response_format|json_schema|invalid schema|extra_forbidden|extra inputs"
    r"|unrecognized request argument|unknown (name|parameter|field)|unsupported (parameter|value)",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_LONGEST_S = 7 * 86400.0
"""A longer wait is no duration that a server means."""


@dataclass(frozen=True, slots=True)
class ServerError:
    """What the body of an error says.

    ``reason`` is its message in one line; ``codes`` are its code and type, in lower case; ``field`` is the field of
    the request that it names. ``is_own`` says that the body has a form of the protocol: a proxy's has not. With
    ``has_form`` it is an object, and no mere text.
    """

    reason: str = ""
    codes: tuple[str, ...] = ()
    field: str = ""
    is_own: bool = False
    has_form: bool = False
    status: float | None = None

    @property
    def names_credits(self) -> bool:
        return self.is_own and not _CREDITS.isdisjoint(self.codes)

    @property
    def names_key(self) -> bool:
        return self.is_own and (not _KEY.isdisjoint(self.codes) or bool(_KEY_WORDS.search(self.reason)))

    @property
    def names_model(self) -> bool:
        return self.is_own and ("model_not_found" in self.codes or bool(_MODEL_WORDS.search(self.reason)))

    @property
    def names_time(self) -> bool:
        """Whether the server has waited for something behind it that may have gone on."""
        return bool(_TIME_WORDS.search(" ".join((self.reason, *self.codes))))

    @property
    def fault(self) -> Fault | None:
        """What a refused request is the fault of, or None where the words do not tell."""
        codes, reason = self.codes, self.reason
        if "context_length_exceeded" in codes or _CONTEXT_WORDS.search(reason):
            return "context"
        if not _HARMFUL.isdisjoint(codes) or _HARMFUL_WORDS.search(reason):
            return "harmful"
        names_image = any(code.startswith(("invalid_image", "image_", "invalid_base64")) for code in codes)
        if not names_image and (
            self.field.split(".")[0] in _SETTINGS
            or not _SETTING_CODES.isdisjoint(codes)
            or _SETTING_WORDS.search(reason)
            or blames_request(reason)
        ):
            return "setting"
        if names_image or _IMAGE_WORDS.search(reason):
            return "too_large" if "image_too_large" in codes or _LARGE_WORDS.search(reason) else "image"
        return None


def error_in(response: Response) -> ServerError:
    """Return what the body of an error says, whichever form it has; nothing from HTML."""
    value = response.json()
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return ServerError()
    error: Any = value.get("error")
    if isinstance(error, str) and error.strip():
        return ServerError(one_line(error), is_own=True)
    is_own = isinstance(error, dict) and bool(error)
    if not is_own and value.get("object") == "error":
        error, is_own = value, True
    if not is_own:
        return ServerError(one_line(value.get("detail") or value.get("message")))
    codes = tuple(one_line(error.get(name)).lower() for name in ("code", "type", "status"))
    return ServerError(
        one_line(error.get("message") or error.get("detail")),
        tuple(code for code in codes if code),
        one_line(error.get("param"))[:80],
        is_own=True,
        has_form=True,
        status=as_float(error.get("code")),
    )


def error_within(response: Response) -> Response | None:
    """Return an answer with HTTP 200 that is an error which was not billed, with the status that it names.

    Errors of the server itself are left out: there the model may have been at work.
    """
    status = error_in(response).status
    if status is None or not 400 <= status < 500 or status == 408:
        return None
    return replace(response, status=int(status))


def retry_at(response: Response) -> float | None:
    """Return the epoch second from which the server takes calls again, or None if it does not say.

    Reads ``retry-after-ms``, ``retry-after``, OpenAI's ``x-ratelimit-reset-*`` (those with nothing left, else the
    longest) and Gemini's ``retryDelay``.
    """
    named = as_float(response.headers.get("retry-after-ms"))
    if named is not None and 0 <= named / 1000 <= _LONGEST_S:
        return response.received_at + named / 1000
    if (at := wire.retry_at(response)) is not None:
        return at
    resets = {what: seconds_in(response.headers.get(f"x-ratelimit-reset-{what}")) for what in ("requests", "tokens")}
    spent = [resets[what] for what in resets if response.headers.get(f"x-ratelimit-remaining-{what}") == "0"]
    times = [time for time in (spent or [*resets.values(), _retry_delay(response)]) if time is not None]
    return response.received_at + max(times) if times else None


def seconds_in(value: object) -> float | None:
    """Return the seconds of a duration such as ``6m0s``, ``1.5s``, ``250ms`` or ``20``; None for anything else."""
    if not isinstance(value, str) or not (value := value.strip()):
        return None
    seconds = as_float(value)
    if seconds is None:
        parts = _DURATION.fullmatch(value)
        if parts is None:
            return None
        seconds = sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1, 0.001), strict=True))
    return seconds if 0 <= seconds <= _LONGEST_S else None


def _retry_delay(response: Response) -> float | None:
    value = response.json()
    value = value[0] if isinstance(value, list) and value else value
    error = value.get("error") if isinstance(value, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and "retryDelay" in detail:
            return seconds_in(detail["retryDelay"])
    return None

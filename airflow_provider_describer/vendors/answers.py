"""Whether an answer with HTTP 200 says that it is an error, whatever text it holds besides.

Gateways, queues and frameworks name errors in many ways. A text that stands beside one is an echo or a leftover.
"""

from __future__ import annotations

import re

from airflow_provider_describer.arguments import as_float

_ERROR_NAMES = frozenset(
    {"err", "exception", "fault", "failure", "failurereason", "traceback"}
    | {"failed", "aborted", "cancelled", "canceled", "rejected", "timedout"}
)
_SUCCESS_NAMES = frozenset({"success", "succeed", "succeeded", "successful", "issuccess", "ok"})
_STATE_NAMES = frozenset({"status", "state", "taskstatus", "jobstatus", "type"})
_CODE_NAMES = frozenset({"code", "status", "statuscode", "httpstatus", "httpcode", "httpstatuscode"})
_MESSAGE_NAMES = frozenset({"message", "msg", "detail", "title", "reason"})
_NOTHING = frozenset({"", "null", "none", "nil", "undefined", "false", "no", "0", "n/a", "ok", "success"})
_FALSE = frozenset({"", "false", "no", "0", "null", "none", "failed", "failure", "error", "n"})
_BAD_STATE = re.compile(
    r"error|fail|fault|invalid|reject|refus|den[iy]|cancel|abort|time[\s_-]?d?[\s_-]?out|unavailable|overload|exception"
    r"|expired|unauthori|forbidden|not[\s_-]?found|exceeded|blocked|terminated|crash|queued|pending|processing|running"
    r"|starting|progress|submitted|waiting|bad[\s_-]|too[\s_-]many|unprocessable|^(nok|ko|ng|down)$",
    re.IGNORECASE,
)
_GATEWAY_WORDS = re.compile(
    r"""(http(/[\d.]+)?\s*|error\s*:?\s*|status\s*:?\s*)*(code\s*:?\s*)?
    (
        ([1-9]\d{2,3}\s*[-:]?\s*)?
        (
            (internal\s)?(server|service)\serror | bad\s(gateway|request) | gateway\s?time-?out | time-?out
            | request\stime-?out | (the\s)?(operation|request|upstream)\s(was\s)?(timed\sout|aborted)
            | service\s(temporarily\s)?unavailable | (temporarily\s)?unavailable | not\sfound | page\snot\sfound
            | forbidden | access\sdenied | unauthorized | too\smany\srequests | rate\slimit(ed)?(\sexceeded)?
            | method\snot\sallowed | payload\stoo\slarge | request\sentity\stoo\slarge | not\simplemented
            | (model\s(is\s)?)?overloaded | (internal\s)?error | failed | failure | null | none | undefined
            | (an?\s)?(internal|unknown|unexpected|server)(\sserver)?\serror(\soccurr?ed)?([\s,.:].*)?
            | something\swent\swrong([\s,.:].*)?
            | (default\sbackend|fault\sfilter|no\shealthy\supstream|no\shealthy\shost)([\s,.:-].*)?
            | upstream\s(request\stime-?out|connect\serror|timed\sout|error|unavailable)([\s,.:/].*)?
            | (backend|stream|connection)\s(fetch\sfailed|error|time-?out|timed\sout|refused|reset(\sby\speer)?)
            | no\sserver\sis\savailable([\s,.:].*)?
            | (web\sserver|origin)\s(is\s(down|returning\san\sunknown\serror|unreachable))
            | (?-i:[A-Z]\w*(Error|Exception))\s*(:.*)? | traceback\s\(most\srecent.*
        )
        | [1-5]\d{2}
    )[\s.!]*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_CODE_IN_WORDS = re.compile(r"error\s*(code)?\s*[:#]?\s*\d{3,5}\W*", re.IGNORECASE)
_WORDS_OF_ERRORS = re.compile(
    r"^\W*(error|exception|fatal)\b|\b(overloaded|(rate|spend) limit|insufficient credits|invalid api key|safety check"
    r"|(please|then) try again|temporarily unavailable|timed out|internal (server )?error|bad gateway|upstream)\b",
    re.IGNORECASE,
)
_FORM_OF_REQUEST = re.compile(
    r"\b(lang|language|prompt|model|api[_ ]version)\b"
    r"|\b(missing|required|unknown|unrecogni[sz]ed|unexpected|unsupported|extra|undefined)\b"
    r".{0,40}\b(field|parameter|param|property|key|argument|header)s?\b"
    r"|\b(field|parameter|param|property|key|argument|header|image_file)s?\b"
    r".{0,40}\b(missing|required|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed)\b",
    re.IGNORECASE,
)
_IMAGE_AT_FAULT = re.compile(r"\b(images?|pictures?|photos?|files?|urls?|pixels?)\b", re.IGNORECASE)
_SHORT = 80
"""Characters: a description is longer, or has none of the words of errors."""
_NO_TEXT = re.compile(
    r"\s*((https?://|data:)\S+\s*$|<(!doctype|html|\?xml|head|body)\b"
    r"|\W*((?-i:[A-Z]\w*(Error|Exception))|error|exception|fatal|traceback)\b\s*[:(\[-])",
    re.IGNORECASE,
)
"""An address, a page, or what begins as an error does."""


def says_error(value: object, depth: int = 0) -> bool:
    """Whether a JSON value, or an object within it, names an error, no success, a bad state or a bad code."""
    if depth > 8:
        return False
    if isinstance(value, list):
        return any(says_error(item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return False
    return any(_is_error(name, item) or says_error(item, depth + 1) for name, item in value.items())


def is_gateway_error(text: str) -> bool:
    """Whether a whole text is what a gateway or a framework says instead of an answer (``Bad Gateway``)."""
    line = " ".join(text.split())
    return len(line) <= 300 and bool(_GATEWAY_WORDS.fullmatch(line) or _CODE_IN_WORDS.fullmatch(line))


def describes(text: str) -> bool:
    """Whether a text can be a description: neither blank, nor an address, nor a page, nor the words of an error."""
    if not text.strip() or _NO_TEXT.match(text) or is_gateway_error(text):
        return False
    return len(text) > _SHORT or not _WORDS_OF_ERRORS.search(text)


def blames_request(reason: str) -> bool:
    """Whether a refusal names the form of the request, its prompt or its language: then no image is at fault."""
    return bool(_FORM_OF_REQUEST.search(reason) and not _IMAGE_AT_FAULT.search(reason))


def is_false(value: object) -> bool:
    """Whether the value of a field such as ``success`` denies it; null does."""
    return not value or (isinstance(value, str) and value.strip().lower() in _FALSE)


def is_nothing(value: object) -> bool:
    """Whether the value of a field such as ``error`` or ``message`` names no problem."""
    if isinstance(value, dict):
        return all(map(is_nothing, value.values()))
    if isinstance(value, list):
        return all(map(is_nothing, value))
    return not value or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def _is_error(name: str, value: object) -> bool:
    name = re.sub(r"[^a-z]", "", name.lower())
    if name.startswith("error") or name.endswith("error") or name in _ERROR_NAMES:
        return not is_nothing(value)
    if name in _SUCCESS_NAMES:
        return is_false(value)
    if name in _CODE_NAMES and (number := as_float(value)) is not None:
        return number >= 300 or number < 0
    if name in _CODE_NAMES | _STATE_NAMES and isinstance(value, str):
        return len(value) <= 60 and _BAD_STATE.search(value) is not None
    if name == "status":
        return value is False
    return name in _MESSAGE_NAMES and isinstance(value, str) and is_gateway_error(value)

"""Whether an answer with HTTP 200 says that it is an error, whatever text it holds besides.

Gateways, queues and frameworks name errors in many ways. A text that stands beside one is an echo or a leftover.
"""

from __future__ import annotations

import re

from airflow_provider_describer.arguments import as_float

_ERROR_NAMES = frozenset(
    {"err", "errno", "errmsg", "errcode", "errs", "exception", "fault", "failure", "failurereason", "failedreason"}
    | {"failreason", "traceback", "stacktrace", "haserrors", "fehler", "erreur"}
    | {"failed", "aborted", "cancelled", "canceled", "rejected", "timedout"}
)
_SUCCESS_NAMES = frozenset({"success", "succeed", "succeeded", "successful", "issuccess", "ok"})
_STATE_NAMES = frozenset({"status", "state", "taskstatus", "jobstatus", "phase", "outcome", "result"})
_CODE_NAMES = frozenset(
    {"code", "status", "statuscode", "httpstatus", "httpcode", "httpstatuscode", "resultcode", "retcode", "ret"}
)
_MESSAGE_NAMES = frozenset({"message", "msg", "detail", "title", "reason"})
_NOTHING = frozenset(
    {"", "null", "none", "nil", "undefined", "false", "no", "0", "n/a", "ok", "success"}
    | {"no error", "no errors", "noerror", "no_error"}
)
_FALSE = frozenset({"", "false", "no", "0", "null", "none", "failed", "failure", "error", "n"})
_BAD_STATE = re.compile(
    r"error|fail|fault|invalid|reject|refus|den[iy]|cancel|abort|time[\s_-]?d?[\s_-]?out|unavailable|overload|exception"
    r"|expired|unauthori|forbidden|not[\s_-]?found|exceeded|blocked|terminated|crash|queued|pending|processing|running"
    r"|starting|progress|submitted|waiting|bad[\s_-]|too[\s_-]many|unprocessable|^(nok|ko|ng|down|err)$"
    r"|失败|失敗|错误|錯誤|エラー|fehlgeschlagen|échou|ошибк",
    re.IGNORECASE,
)
_GOOD_STATE = re.compile(
    r"\s*(success\w*|succe+ded|complete[d]?|finished|done|ok)\b(?!.*\bwith\s+(?!0|no\b))", re.IGNORECASE
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
            | ((an?\s)?(internal|unknown|unexpected|server)(\sserver)?\serror(\s(has\s)?occurr?ed)?
              |something\swent\swrong)
              ([\s,.:;-]+(please|try|while|when|on|with|and|we|our|sorry|contact|during|in|at|for|processing|check|the
              |reload|refresh|error|code|see|id)\b.*|\s*[.:,]\s*\W*)?
            | (default\sbackend|fault\sfilter|no\shealthy\supstream|no\shealthy\shost)([\s,.:-].*)?
            | upstream\s(request\stime-?out|connect\serror|timed\sout|error|unavailable)([\s,.:/].*)?
            | (backend|stream|connection)\s(fetch\sfailed|error|time-?out|timed\sout|refused|reset(\sby\speer)?)
            | no\sserver\sis\savailable([\s,.:].*)?
            | (web\sserver|origin)\s(is\s(down|returning\san\sunknown\serror|unreachable))
            | (?-i:[A-Z]\w*(Error|Exception))
        )
        | [1-5]\d{2}
    )[\s.!]*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_CODE_IN_WORDS = re.compile(r"error\s*(code)?\s*[:#]?\s*\d{3,5}\W*", re.IGNORECASE)
_WORDS_OF_ERRORS = re.compile(
    r"""^\W*(
        (fatal\s)?error\b | (fatal|exception)(\W*$|\s*:|\s(in|at|while|when|during|from|occurred|raised|thrown)\b)
        | ((failed|unable)\sto|unauthorized|redirecting\sto|moved\spermanently|checking\syour\sbrowser)\b
        | access\sdenied[.:,] | (could|can)(\snot|not|n't)\s | interner\sserverfehler | erreur\sinterne
        | invalid\s(image|url|request|input|file|param|argument|token|key|format|json|response|payload)
        | no\s(description|caption|output|result|response|data|text|content)s?(\s(was|were|is))?
          (\s(available|found|generated))?\W*$
        | (the\s)?model\b.*\b(is|still)\s(currently\s)?(loading|cold|starting|warming|not\s(ready|available|loaded))\b
        | ((the\s)?(system|site|service|server|we)\s(is|are)\s)?(currently\s)?(under|down\sfor)\smaintenance
        | (http\S*\s)?(\d{3}\W*)?bad\sgateway | timed\sout\b | out\sof\smemory
    )
    | \boverloaded\W*($|[.,;:!]|\b(please|try|right\snow|at\sthe\smoment|with\s(other\s)?requests)\b)
    | \b(rate|spend|usage)\slimit\W*($|(was\s|is\s)?(exceeded|reached|hit))
    | \bexceed\w*\b.*\b((rate|spend|usage)\slimit|quota) | \bquota\W*(was\s|is\s)?(exceeded|reached)
    | \b(insufficient|not\senough)\s(credits?|balance|funds)\b | \bpayment\srequired\b
    | \b(invalid|missing|expired|incorrect)\s(x-)?api[\s-]key | \bapi\skey\W*(is\s)?(invalid|missing|expired)
    | \b(temporarily\sunavailable|internal\s(server\s)?error)\b | \bbad\sgateway\W*$ | \b(please|then)\stry\sagain\b
    | \b(could|can)(\snot|not|n't)\sbe\s(loaded|downloaded|processed|fetched|read|opened|found|decoded)
    | \b(inference|prediction|generation|task|job|request|processing|execution|worker|pipeline|download|fetch|operation)
      \s((has|was|is)\s)?(been\s)?(failed|cancell?ed|aborted|rejected|blocked|crashed)\b
    | \btime-?out\sof\s\d | \b(cuda|gpu)\sout\sof\smemory | \bsocket\shang\sup | \bfetch\sfailed
    | \b(?-i:E(CONN|NOTFOUND|TIMEDOUT|PIPE|RR_)[A-Z_]*)
    | \b(failed|fails|pass|blocked|rejected)\b.*\bsafety\scheck | \bsafety\scheck\W*(failed|error)
    | \b(request|operation|connection|call|task|job|server|gateway|model|inference|generation|ha(s|ve)|was|it)
      \stimed\sout\b
    | \bupstream\s(server|request|service|connect|error|time|response|prematurely|unavailable|model|provider|is)""",
    re.IGNORECASE | re.VERBOSE,
)
_DEPICTS = re.compile(
    r"""\b(screenshots?|posters?|stickers?|memes?|logos?|mugs?|t-?shirts?|neon|dialog(ue)?s?|movies?|films?|games?|cartoons?
    |illustrations?|drawings?|paintings?|sculptures?|vector\s(art|graphics?)|monitors?|laptops?|phones?|billboards?
    |(photo|photograph|picture|close-?up|view)s?\sof\s(an?|the|two|three|people)
    |that\s(says|reads)|(signs?|text|words?|letters|labels?)\s(reading|saying)|showing|(printed|painted|written)\son)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""What a description of a picture has and an error has not: pictures of error messages are pictures too."""
_BAD_TYPE = re.compile(r"error|exception|^fail", re.IGNORECASE)
_FORM_OF_REQUEST = re.compile(
    r"\b(lang|language|prompt|model|api[_ ]version)\b"
    r"|\b(missing|required|unknown|unrecogni[sz]ed|unexpected|unsupported|extra|undefined)\b"
    r".{0,40}\b(field|parameter|param|property|key|argument|header)s?\b"
    r"|\b(field|parameter|param|property|key|argument|header|image_file)s?\b"
    r".{0,40}\b(missing|required|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed)\b",
    re.IGNORECASE,
)
_IMAGE_AT_FAULT = re.compile(r"\b(images?|pictures?|photos?|files?|urls?|pixels?)\b", re.IGNORECASE)
_STATES = frozenset(
    {"ok", "okay", "true", "false", "nan", "success", "succeeded", "done", "completed", "finished", "accepted", "pong"}
    | {"healthy", "alive", "ready", "loading", "starting", "queued", "pending", "processing", "running", "blocked"}
    | {"rejected", "aborted", "cancelled", "canceled", "maintenance", "invalid", "timeout", "nil", "n/a"}
)
_SHORT = 80
"""Characters: a description is longer, or has none of the words of errors."""
_NO_TEXT = re.compile(
    r"\s*((https?://|data:[\w/.+-]*[;,])\S+\s*$|<(!doctype|\?xml)\b|<(html|head|body)\b([^<]*<|[^<>]*>?\s*$))",
    re.IGNORECASE,
)
"""An address or a page."""
_BEGINS_AS_ERROR = re.compile(
    r"\W*((?-i:[A-Z]\w*(Error|Exception))|error|exception|fatal|traceback|fehler|erreur|erro|errore|fout|virhe|hata"
    r"|ошибка|错误|錯誤|エラー|오류)\b\s*[:\uff1a(\[-]"
    r"|\W*(failed\s+to|unable\s+to|(could|can)(\s?not|n't))\s+"
    r"(fetch|load|download|process|read|open|decode|generate|connect|reach|get|retrieve|access|parse|find|be)\b"
    r"|\W*(系统繁忙|服务器?(内部)?错误|内部(服务器)?错误|请求(失败|超时)|.{0,20}请稍后[再重]?试)",
    re.IGNORECASE,
)


_MARKUP_OR_JSON = re.compile(
    r"""<[!?/a-z]([^<]*<|[^<>]*>?\s*$) | \{\s*(\\?["'}]|$) | \[\s*(\\?["'{\[\]]|(-?\d[\d.]*|true|false|null)\s*(,|$)|$)
    | "(?:[^"\\]|\\.)*\\?$""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""The beginning of a page, or of JSON: an object, a list, or a text without its end."""
_ONE_WORD = re.compile(r"[A-Za-z]{3,30}[.!]?|[^\x00-\u2fff\ue000-\uf8ff\ufffd]\S{0,400}")
"""A word of letters, or a text in a script that sets no spaces; no id, no number, no code."""


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
    bare = text.strip(" \t\r\n.!").lower()
    if not bare or bare in _STATES or _NO_TEXT.match(text) or is_gateway_error(text):
        return False
    return not _reads_as_error(text) or _DEPICTS.search(re.sub(r"\S+://\S+", "", text)) is not None


def describes_plainly(text: str) -> bool:
    """Whether a text that stands in no JSON can be a description: no markup, no broken JSON, no id, mostly readable."""
    if _MARKUP_OR_JSON.match(text) or not (len(text.split()) > 1 or _ONE_WORD.fullmatch(text)):
        return False
    # Some broken bytes do not make a paid text worthless; many show that it is none.
    strange = sum(c == "\ufffd" or (not c.isprintable() and not c.isspace()) for c in text)
    return strange * 20 <= len(text) and describes(text)


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
    if name.startswith("error") or name in _ERROR_NAMES:
        return not is_nothing(value)
    if name.endswith("error"):
        # A number is a measure, as in mean_squared_error.
        return not is_nothing(value) and (isinstance(value, bool) or not isinstance(value, int | float))
    if name in _SUCCESS_NAMES:
        return is_false(value)
    if name in _CODE_NAMES and (number := as_float(value)) is not None:
        return number >= 300 or number < 0
    if name in _CODE_NAMES | _STATE_NAMES and isinstance(value, str):
        return len(value) <= 60 and _BAD_STATE.search(value) is not None and not _GOOD_STATE.match(value)
    if name == "status":
        return value is False
    if name == "type":
        return isinstance(value, str) and _BAD_TYPE.search(value) is not None
    return name in _MESSAGE_NAMES and isinstance(value, str) and _reads_as_error(value)


def _reads_as_error(text: str) -> bool:
    if is_gateway_error(text) or _BEGINS_AS_ERROR.match(text):
        return True
    return len(text) <= _SHORT and _WORDS_OF_ERRORS.search(text) is not None

"""Segmind's ``ideogram-describe``: v1 (one call, one response), v2 (submit, poll, fetch), uploads and credits.

Only HTTP 200 of v1 and COMPLETED of v2 are billed; no documented error is. An undocumented 5xx comes from a proxy,
behind which the vendor may go on and bill. Sources: the vendor's model and API pages and its Python SDK.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from airflow_provider_describer import errors
from airflow_provider_describer.account import Account, Field
from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.models import Description, HistoryPage, Picture, Running, Spec
from airflow_provider_describer.vendors import segmind_history
from airflow_provider_describer.vendors.answers import blames_request, says_error
from airflow_provider_describer.vendors.secrets import secrets_in
from airflow_provider_describer.vendors.segmind_text import text_in, text_of
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response, one_line


class Segmind(Vendor):
    """Segmind ideogram-describe: takes an image alone and writes a prompt-like description in English."""

    name = "segmind"
    title = "Segmind"
    hook_class = "SegmindHook"
    website = "https://www.segmind.com/models/ideogram-describe"
    model = "ideogram-describe"
    base_url = "https://api.segmind.com"
    storage_url = "https://workflows-api.segmind.com"
    dashboard_url = "https://cloud.segmind.com/console/usage"
    endpoints = (
        "/v1/ideogram-describe",
        "/v2/ideogram-describe",
        "/v1/get-user-credits",
        "/upload-asset",
        segmind_history.PATH,
    )
    fields = (
        Field(
            "api_version",
            "API version",
            "v1 waits for each answer; v2 submits and polls, which suits slow or cold models.",
            choices=("v1", "v2"),
            default="v1",
        ),
        Field(
            "storage_host", "Upload host", "Host for uploads. Empty: the base URL if set, otherwise the vendor's own."
        ),
    )
    price_per_call = 0.015
    price_help = "Used where an answer does not say what it cost."
    # Ideogram's own describe endpoint takes these three, up to 10-25 MB depending on its version.
    media_types = frozenset({"image/jpeg", "image/png", "image/webp"})
    max_bytes = 10 * 1024 * 1024
    languages = ("en",)
    takes_lang = False
    # An upload is documented; a data URI in image_file is not, though it is a URI.
    transports = ("upload", "inline")
    signs_objects = True
    keeps_history = True

    def runs_in_background(self, account: Account) -> bool:
        """Whether the connection says ``v2``."""
        return bool(account.options["api_version"] == "v2")

    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the POST to v1 or v2, as the connection's ``api_version`` says."""
        if picture.url is not None:
            body: tuple[bytes, ...] = (json.dumps({"image_file": picture.url}).encode(),)
        else:
            body = _body_with_image('{"image_file": "', picture, '"}')
        url = f"{account.base_url}/{account.options['api_version']}/{self.model}"
        return _request(account, url, *body, billable=True, secrets=secrets_in(picture.url))

    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return the description from v1, or the request that v2 accepted."""
        if response.status >= 300:
            raise self._error(account, response, billable=True)
        answer = response.json_object()
        if self.runs_in_background(account) and (request_id := _request_id(answer)):
            running = Running(request_id, response.received_at)
            # The id is kept even if the status is unknown: polling will tell, and a second call would cost money.
            finished = _status(answer) in ("COMPLETED", "FAILED")
            return self._progress(account, spec, running, response) if finished else running
        text = None if self.runs_in_background(account) else text_of(response)
        request_id = response.headers.get("x-request-id")
        if text is None:
            raise self._unreadable(account, response, request_id)
        cost, balance = response.headers.get("x-cost"), response.headers.get("x-remaining-credits")
        return self.description(
            account, spec, text, request_id=request_id, elapsed_s=response.elapsed_s, cost=cost, balance=balance
        )

    def _unreadable(self, account: Account, response: Response, request_id: str | None) -> errors.DescriberError:
        """Return the error for a 2xx that holds no description: an error, a page of a proxy, or no known form."""
        failed = says_error(response.json())
        waited = not self.runs_in_background(account)
        own = waited and response.status == 200 and response.json() is not None and not failed
        named_cost = as_float(response.headers.get("x-cost")) or 0.0
        return errors.UnexpectedAnswer(
            f"{self.status_line(response)} "
            + ("and says besides that it has no result" if failed else "in no form that describes an image"),
            answer=response.text,
            billed="yes" if own or named_cost > 0 else "unknown",
            request_id=request_id,
        )

    def build_poll(self, account: Account, running: Running) -> Request:
        """Return the GET of the request's record, at our own address: the key is sent to no address in a response."""
        # The id is one segment of the path: "." and ".." would be resolved away.
        segment = quote(running.request_id, safe="").replace(".", "%2E")
        end = "" if running.status == "COMPLETED" else "/status"
        return _request(account, f"{account.base_url}/v2/requests/{segment}{end}")

    def parse_poll(self, account: Account, spec: Spec, running: Running, response: Response) -> Description | Running:
        """Read a status or a result. FAILED comes with HTTP 422 and was not billed."""
        status = _status(response.json_object())
        if response.status == 404:
            raise errors.RequestExpired(
                f"Segmind no longer knows request {running.request_id}: records are kept about an hour"
                " after submission. Its description is lost and may have been billed.",
                request_id=running.request_id,
            )
        if response.status >= 300 and status != "FAILED":
            error = self._error(account, response, billable=False)
            if isinstance(error, errors.RejectedImage | errors.UnexpectedAnswer):
                # A refused poll says nothing about the picture.
                error = self.unavailable(response, _reason(response))
            raise _still_running(error, running)
        return self._progress(account, spec, running, response)

    def _progress(self, account: Account, spec: Spec, running: Running, response: Response) -> Description | Running:
        answer = response.json_object()
        status, request_id = _status(answer), running.request_id
        if status == "FAILED":
            reason = _reason(response) or "no reason given"
            kind = "harmful_content" if "safety" in reason.lower() else "failed"
            message = f"Segmind could not finish request {request_id}: {reason}"
            raise errors.RejectedImage(message, kind=kind, request_id=request_id)
        text = text_in(answer.get("output")) if status == "COMPLETED" and not says_error(answer) else None
        if text is not None:
            metrics = answer.get("metrics")
            metrics = metrics if isinstance(metrics, dict) else {}
            elapsed_s = as_float(metrics.get("total_time")) or response.received_at - running.submitted_at
            cost, balance = metrics.get("cost"), metrics.get("remaining_credits")
            return self.description(
                account, spec, text, request_id=request_id, elapsed_s=elapsed_s, cost=cost, balance=balance
            )
        if status == "COMPLETED" and running.status == "COMPLETED":
            # This was the result itself. The status response that comes before it has no output.
            raise errors.UnexpectedAnswer(
                f"Segmind completed request {request_id} (billed) in no form that describes an image",
                answer=response.text,
                billed="yes",
                request_id=request_id,
            )
        if status not in ("QUEUED", "PROCESSING", "COMPLETED"):
            words = f"{self.status_line(response)}: request {request_id} has status {one_line(status)!r}"
            raise _still_running(errors.VendorUnavailable(words), running)
        return Running(request_id, running.submitted_at, status)

    def build_upload(self, account: Account, picture: Picture) -> Request:
        """Return the POST of the bytes as a data URI; free of charge."""
        body = _body_with_image('{"data_urls": ["', picture, '"]}')
        return _request(account, f"{account.storage_url}/upload-asset", *body)

    def parse_upload(self, account: Account, response: Response) -> str:
        """Return the asset's address; the SDK reads ``file_urls``, the documentation shows ``urls``."""
        if response.status >= 300:
            raise self._error(replace(account, base_url=account.storage_url), response, billable=False)
        answer = response.json_object()
        urls = answer.get("file_urls") or answer.get("urls")
        url = urls[0] if isinstance(urls, list) and urls else None
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            return url
        raise errors.UnexpectedAnswer("Segmind's upload gave no address", answer=response.text, billed="no")

    def build_credits(self, account: Account) -> Request:
        return _request(account, f"{account.base_url}/v1/get-user-credits")

    def parse_credits(self, account: Account, response: Response) -> float:
        """Return paid and free credits together, in USD; 0.0 if the vendor has no balance for this user."""
        if response.status == 404 and "no credits" in _reason(response).lower():
            return 0.0
        if response.status >= 300:
            raise self._error(account, response, billable=False)
        answer = response.json_object()
        amounts = [as_float(answer.get(name)) for name in ("credits", "free-credits")]
        if all(amount is None for amount in amounts):
            raise errors.UnexpectedAnswer("Segmind's balance is in no known form", answer=response.text, billed="no")
        return sum(amount or 0.0 for amount in amounts)

    def shown(self, picture: Picture) -> str:
        """Return the digest of ``image_file`` as `build_request` sends it."""
        if picture.url is not None:
            return segmind_history.digest(picture.url.encode())
        return segmind_history.digest(*_data_uri(picture))

    def build_history(self, account: Account, since: float, page: int) -> Request:
        """Return the GET of one page of the account's request history; free of charge."""
        url = f"{self._history_url(account)}{segmind_history.PATH}?{segmind_history.query(self.model, since, page)}"
        return replace(_request(account, url), max_answer=segmind_history.MAX_PAGE)

    def parse_history(self, account: Account, response: Response, page: int) -> HistoryPage:
        """Read a page. Its envelope is undocumented: one in no known form is an error, never an empty page."""
        if response.status >= 300:
            error = self._error(replace(account, base_url=self._history_url(account)), response, billable=False)
            if isinstance(error, errors.RejectedImage):
                error = errors.UnexpectedAnswer(str(error), billed="no")
            raise error
        if found := segmind_history.read_page(self.model, response.json(), page):
            return found
        words = f"{self.status_line(response)} with a request history in no known form"
        raise errors.UnexpectedAnswer(words, answer=response.text, billed="no")

    def _history_url(self, account: Account) -> str:
        # The vendor keeps its books at another address than its uploads.
        return segmind_history.HISTORY_URL if account.storage_url == self.storage_url else account.storage_url

    build_check = build_credits

    def parse_check(self, account: Account, response: Response) -> str:
        return f"Segmind accepts the API key; the balance is ${self.parse_credits(account, response):.3f}."

    def _error(self, account: Account, response: Response, *, billable: bool) -> errors.DescriberError:
        status, reason = response.status, _reason(response)
        words = self.status_line(response, reason)
        is_own = bool(one_line(response.json_object().get("error")))
        if status in (500, 502, 504) or (status == 503 and is_own):
            return self.unavailable(response, reason)
        if error := self.common_error(account, response, reason, billable=billable):
            return error
        if status == 406:
            return _refused(words, reason, f"connection {account.conn_id!r}")
        # Only the vendor's own words say that it is the image: a proxy refuses requests for reasons of its own.
        if status in (400, 415, 422) and is_own and not blames_request(reason):
            safety = status == 422 and "safety" in reason.lower()
            return errors.RejectedImage(words, kind="harmful_content" if safety else "invalid_param")
        return errors.UnexpectedAnswer(self.status_line(response), answer=response.text, billed="no")


def _request(
    account: Account, url: str, *body: bytes, billable: bool = False, secrets: tuple[str, ...] = ()
) -> Request:
    """Return a GET, or with a body of JSON a POST."""
    headers = {"x-api-key": account.api_key, "accept": "application/json"}
    if body:
        headers["content-type"] = "application/json"
    return Request("POST" if body else "GET", url, headers, body, billable, secrets=(account.api_key, *secrets))


def _body_with_image(before: str, picture: Picture, after: str) -> tuple[bytes, ...]:
    """Return a body in three parts; the middle one is the picture, as the data of a data URI."""
    prefix, data = _data_uri(picture)
    return before.encode() + prefix, data, after.encode()


def _data_uri(picture: Picture) -> tuple[bytes, bytes]:
    return f"data:{picture.media_type};base64,".encode(), base64.b64encode(picture.content or b"")


def _request_id(answer: dict[str, Any]) -> str | None:
    found = answer.get("request_id")
    # A longer text is no id, and would not fit into an address.
    return found if isinstance(found, str) and 0 < len(found.strip()) <= len(found) <= 200 else None


def _status(answer: dict[str, Any]) -> str:
    status = answer.get("status")
    return status.strip().upper() if isinstance(status, str) else ""


def _still_running(error: errors.DescriberError, running: Running) -> errors.DescriberError:
    """Return the error of a poll with what is true of its request: it may go on, and be billed."""
    error.request_id, error.billed = running.request_id, "unknown"
    return error


def _refused(words: str, reason: str, where: str) -> errors.DescriberError:
    """Tell apart the three causes of a 406; only its text differs."""
    if "content type" in reason.lower() or "content-type" in reason.lower():
        return errors.WrongEndpoint(f"{words}. Something between here and Segmind changes the requests of {where}.")
    if "limit" in reason.lower():
        return errors.InsufficientCredits(
            f"{words}. A spend limit of the team of {where} is reached: raise it, then clear this task.",
            kind="spend_limit",
        )
    return errors.InsufficientCredits(
        f"{words}. Top up the account of {where}, then clear this task: it continues from here."
    )


def _reason(response: Response) -> str:
    """Return what an error response says, in one line; nothing from HTML."""
    answer = response.json_object()
    return one_line(*(answer.get(name) for name in ("error", "error_description", "message", "detail")))

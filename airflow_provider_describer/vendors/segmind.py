"""Segmind's ``ideogram-describe``: v1 (one call, one answer) and v2 (submit, poll, fetch), uploads and credits.

Only HTTP 200 of v1 and COMPLETED of v2 are billed; every documented error is not. Sources: the vendor's model and
API pages and its Python SDK.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import (
    DescriberError,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    ModelRetired,
    RateLimited,
    RejectedImage,
    RequestExpired,
    UnexpectedAnswer,
    WrongEndpoint,
)
from airflow_provider_describer.models import Description, Picture, Running, Spec
from airflow_provider_describer.vendors.vendor import Vendor, describe_status, unavailable
from airflow_provider_describer.vendors.wire import Request, Response, as_float, json_request, one_line, retry_at


class Segmind(Vendor):
    """Segmind ideogram-describe: takes an image alone and writes a prompt-like description in English."""

    name = "segmind"
    title = "Segmind"
    model = "ideogram-describe"
    base_url = "https://api.segmind.com"
    storage_url = "https://workflows-api.segmind.com"
    price_per_call = 0.015
    # Ideogram's own describe endpoint takes these three, at most 10-25 MB depending on its version.
    media_types = frozenset({"image/jpeg", "image/png", "image/webp"})
    max_bytes = 10 * 1024 * 1024
    languages = ("en",)
    takes_lang = False
    # An upload is documented; a data URI in image_file is not, though it is a URI.
    transports = ("upload", "inline")

    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the POST to v1 or v2, as the connection's ``api_version`` says."""
        if picture.url is not None:
            body: tuple[bytes, ...] = (json.dumps({"image_file": picture.url}).encode(),)
        else:
            data = base64.b64encode(picture.content or b"")
            body = (f'{{"image_file": "data:{picture.media_type};base64,'.encode(), data, b'"}')
        url = f"{account.base_url}/{account.api_version}/{self.model}"
        return json_request("POST", url, _auth(account), *body, billable=True, secrets=(account.api_key,))

    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return what v1 answered, or the request that v2 accepted."""
        if response.status >= 300:
            raise self._error(account, response)
        answer = response.json_object()
        if account.api_version == "v2" and (request_id := _request_id(answer)):
            running = Running(request_id, response.received_at)
            # A status in no known form is no reason to lose the id: polling will tell, sending again would cost.
            known = _status(answer) in ("COMPLETED", "FAILED")
            return self._progress(account, spec, running, response) if known else running
        text = _text_of(response)
        if text is None or account.api_version == "v2":
            raise UnexpectedAnswer(
                f"{describe_status(self, response)} (billed) in no form that describes an image",
                answer=response.text,
                billed="yes" if account.api_version == "v1" else "unknown",
                request_id=response.headers.get("x-request-id"),
            )
        cost = as_float(response.headers.get("x-cost"))
        return self._description(
            account,
            spec,
            text,
            cost=cost,
            balance=as_float(response.headers.get("x-remaining-credits")),
            request_id=response.headers.get("x-request-id"),
            elapsed_s=response.elapsed_s,
        )

    def build_poll(self, account: Account, running: Running) -> Request:
        """GET of the request's record. The address is ours, never the answer's: the key goes nowhere else."""
        url = f"{account.base_url}/v2/requests/{_quoted(running.request_id)}"
        if running.status != "COMPLETED":
            url += "/status"
        return Request("GET", url, _auth(account), secrets=(account.api_key,))

    def parse_poll(self, account: Account, spec: Spec, running: Running, response: Response) -> Description | Running:
        """Read a status or a result; FAILED is served as HTTP 422 and was not billed."""
        status = _status(response.json_object())
        if response.status == 404:
            raise RequestExpired(
                f"Segmind no longer knows request {running.request_id}: records are kept about an hour"
                " after submission. Its description is lost and may have been billed.",
                request_id=running.request_id,
            )
        if response.status >= 300 and status != "FAILED":
            error = self._error(account, response)
            if isinstance(error, RejectedImage | UnexpectedAnswer):
                # A poll that is refused says nothing about the picture.
                error = unavailable(self, response, _said(response), retry_at(response))
            raise _still_running(error, running)
        return self._progress(account, spec, running, response)

    def _progress(self, account: Account, spec: Spec, running: Running, response: Response) -> Description | Running:
        answer = response.json_object()
        status = _status(answer)
        if status == "FAILED":
            raise _failed(running, _said(response) or "no reason given")
        text = _text_in(answer.get("output")) if status == "COMPLETED" else None
        if text is not None:
            metrics = answer.get("metrics")
            metrics = metrics if isinstance(metrics, dict) else {}
            return self._description(
                account,
                spec,
                text,
                cost=as_float(metrics.get("cost")),
                balance=as_float(metrics.get("remaining_credits")),
                request_id=running.request_id,
                elapsed_s=as_float(metrics.get("total_time")) or response.received_at - running.submitted_at,
            )
        if status == "COMPLETED" and running.status == "COMPLETED":
            # The result itself, and in no form we know. The light status answer has no output and comes before.
            raise UnexpectedAnswer(
                f"Segmind completed request {running.request_id} (billed) in no form that describes an image",
                answer=response.text,
                billed="yes",
                request_id=running.request_id,
            )
        if status not in ("QUEUED", "PROCESSING", "COMPLETED"):
            said = f"request {running.request_id} has status {one_line(status)!r}"
            raise _still_running(unavailable(self, response, said, None), running)
        return Running(running.request_id, running.submitted_at, status)

    def _description(
        self,
        account: Account,
        spec: Spec,
        text: str,
        *,
        cost: float | None,
        balance: float | None,
        request_id: str | None,
        elapsed_s: float,
    ) -> Description:
        return Description(
            text=text,
            vendor=self.name,
            model=self.model,
            cost_usd=account.price_per_call if cost is None or cost < 0 else cost,
            request_id=request_id,
            elapsed_s=elapsed_s,
            remaining_credits=balance,
        )

    def build_upload(self, account: Account, picture: Picture) -> Request:
        """POST of the bytes as a data URI; free of charge."""
        data = base64.b64encode(picture.content or b"")
        body = (f'{{"data_urls": ["data:{picture.media_type};base64,'.encode(), data, b'"]}')
        url = f"{account.storage_url}/upload-asset"
        return json_request("POST", url, _auth(account), *body, secrets=(account.api_key,))

    def parse_upload(self, account: Account, response: Response) -> str:
        """Return the asset's address; the SDK reads ``file_urls``, the documentation shows ``urls``."""
        answer = response.json_object()
        urls = answer.get("file_urls") or answer.get("urls")
        if response.status < 300:
            url = urls[0] if isinstance(urls, list) and urls else None
            if isinstance(url, str) and url.startswith(("https://", "http://")):
                return url
            raise UnexpectedAnswer("Segmind's upload gave no address", answer=response.text, billed="no")
        raise self._error(account, response)

    def build_credits(self, account: Account) -> Request:
        """GET of the balance; free of charge."""
        url = f"{account.base_url}/v1/get-user-credits"
        return Request("GET", url, _auth(account), secrets=(account.api_key,))

    def parse_credits(self, account: Account, response: Response) -> float:
        """Return paid and free credits together, in USD; 0.0 where the vendor knows no balance of this user."""
        answer = response.json_object()
        if response.status == 404 and "no credits" in _said(response).lower():
            return 0.0
        if response.status >= 300:
            raise self._error(account, response)
        amounts = [as_float(answer.get(name)) for name in ("credits", "free-credits")]
        if all(amount is None for amount in amounts):
            raise UnexpectedAnswer("Segmind's balance is in no known form", answer=response.text, billed="no")
        return sum(amount or 0.0 for amount in amounts)

    build_check = build_credits

    def parse_check(self, account: Account, response: Response) -> str:
        """Return a sentence with the balance."""
        return f"Segmind accepts the API key; the balance is ${self.parse_credits(account, response):.3f}."

    def _error(self, account: Account, response: Response) -> DescriberError:
        status, said, where = response.status, _said(response), f"connection {account.conn_id!r}"
        words = f"{describe_status(self, response)} ({said})" if said else describe_status(self, response)
        if status == 429:
            return RateLimited(words, retry_at=retry_at(response))
        if status >= 500:
            return unavailable(self, response, said, retry_at(response))
        if status == 401:
            return InvalidKey(f"{words}. Put a valid API key into the password field of {where}.")
        if status in (402, 406):
            return _refused(words, said, where)
        if status == 403:
            return Forbidden(f"{words}. The account of {where} may not call {self.model}.")
        if status == 410:
            return ModelRetired(f"{words}. {self.model} is no longer served; choose another vendor.")
        if status in (300, 301, 302, 303, 307, 308, 404, 405):
            return WrongEndpoint(f"{words} at {account.base_url}. Correct the host of {where}.")
        if status == 413:
            return RejectedImage(f"{words}: the image is too large", kind="too_large")
        if status == 422 and "safety" in said.lower():
            return RejectedImage(words, kind="harmful_content")
        if status in (400, 415, 422):
            return RejectedImage(words, kind="invalid_param")
        if status in (408, 425):
            return unavailable(self, response, said, retry_at(response))
        return UnexpectedAnswer(describe_status(self, response), answer=response.text, billed="no")


def _auth(account: Account) -> dict[str, str]:
    return {"x-api-key": account.api_key, "accept": "application/json"}


def _quoted(request_id: str) -> str:
    """The id as one segment of a path: "." and ".." would be resolved away."""
    return quote(request_id, safe="").replace(".", "%2E")


def _request_id(answer: dict[str, Any]) -> str | None:
    found = answer.get("request_id")
    # A longer one is no id, and no address would hold it.
    return found if isinstance(found, str) and 0 < len(found.strip()) <= len(found) <= 200 else None


def _status(answer: dict[str, Any]) -> str:
    status = answer.get("status")
    return status.strip().upper() if isinstance(status, str) else ""


def _still_running(error: DescriberError, running: Running) -> DescriberError:
    """What went wrong is the asking; the request may go on, and be billed."""
    error.request_id, error.billed = running.request_id, "unknown"
    return error


def _refused(words: str, said: str, where: str) -> DescriberError:
    """Tell the three causes of a 406 apart, which only its text does."""
    if "content type" in said.lower() or "content-type" in said.lower():
        return WrongEndpoint(f"{words}. Something between here and Segmind changes requests of {where}.")
    if "limit" in said.lower():
        return InsufficientCredits(
            f"{words}. A spend limit of the team of {where} is reached: raise it, then clear this task.",
            kind="spend_limit",
        )
    return InsufficientCredits(f"{words}. Top up the account of {where}, then clear this task: it goes on from here.")


def _failed(running: Running, reason: str) -> DescriberError:
    kind = "harmful_content" if "safety" in reason.lower() else "failed"
    return RejectedImage(
        f"Segmind could not finish request {running.request_id}: {reason}", kind=kind, request_id=running.request_id
    )


def _said(response: Response) -> str:
    """What an error answer says, in one line; nothing from HTML."""
    answer = response.json_object()
    return one_line(*(answer.get(name) for name in ("error", "error_description", "message", "detail")))


def _text_of(response: Response) -> str | None:
    """The description in a v1 answer, whose form is undocumented: JSON in any known shape, or plain text."""
    value = response.json()
    if value is not None:
        return _text_in(value)
    text = response.text.strip()
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Broken JSON and HTML are not descriptions, whatever their content type says.
    if kind in ("", "text/plain") and text and not text.startswith(("<", "{", "[", '"')) and "\ufffd" not in text:
        return text
    return None


def _text_in(value: object, depth: int = 0) -> str | None:
    """The texts in any of the known shapes, or None. Never an empty text."""
    if isinstance(value, str):
        return value if value.strip() else None
    if depth > 8:
        return None
    if isinstance(value, list):
        texts = [text for item in value if (text := _text_in(item, depth + 1)) is not None]
        return "\n\n".join(texts) or None
    if isinstance(value, dict):
        names = ("descriptions", "output", "text", "description", "prompt", "data")
        texts = [text for name in names if (text := _text_in(value.get(name), depth + 1)) is not None]
        return texts[0] if texts else None
    return None

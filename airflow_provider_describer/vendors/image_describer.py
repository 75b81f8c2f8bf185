"""Image Describer API V2: https://imagedescriber.online, documentation of 2025-08-18.

One multipart POST, one JSON response. The documentation names error codes but not their HTTP statuses, so the code in
the response decides, and the status only if there is no code.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from airflow_provider_describer import errors
from airflow_provider_describer.account import Account
from airflow_provider_describer.arguments import as_float
from airflow_provider_describer.models import Description, Picture, Running, Spec
from airflow_provider_describer.vendors.answers import blames_request, is_false, says_error
from airflow_provider_describer.vendors.secrets import secrets_in
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response, one_line

CODES = {
    "SERVER_ERROR": 500,
    "INSUFFICIENT_CREDITS": 10003,
    "INVALID_PARAM": 10004,
    "HARMFUL_CONTENT": 10005,
    "INVALID_API_KEY": 30001,
    "INVALID_SIGNATURE": 30002,
}
"""The documented error codes, by the name that ``msg`` may hold if ``code`` is missing or says 200."""


class ImageDescriber(Vendor):
    """Image Describer V2: takes a prompt and a language, writes Markdown."""

    name = "image_describer"
    title = "Image Describer"
    hook_class = "ImageDescriberHook"
    website = "https://imagedescriber.online"
    model = "describe-image-v2"
    base_url = website
    storage_url = base_url
    # Its documentation links a dashboard without naming the address; one signs in at the front page.
    dashboard_url = base_url
    endpoints = ("/api/openapi-v2/describe-image",)
    price_help = "What your plan charges for a description; needed for cost reports and limits in USD."
    # Undocumented: the formats that vision models usually take. Everything else is rejected before it is paid for.
    media_types = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
    max_bytes = 20 * 1024 * 1024
    languages = ("en", "zh", "de", "es", "fr", "ja", "ko", "fi", "nl", "pt", "tr", "ru")
    default_prompt = "Describe this image in detail."
    transports = ("file", "inline")

    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the multipart POST, with the image as a file part or, as an address or data URI, as a text field."""
        fields = {"prompt": spec.prompt or "", "lang": spec.lang or "en"}
        if picture.url is not None:
            fields["image"] = picture.url
        elif picture.inline:
            data = base64.b64encode(picture.content or b"").decode()
            fields["image"] = f"data:{picture.media_type};base64,{data}"
        return self._post(account, fields, None if "image" in fields else picture, billable=True)

    def _post(
        self, account: Account, fields: dict[str, str], picture: Picture | None = None, *, billable: bool
    ) -> Request:
        content = (picture.content or b"") if picture else b""
        # Derived from what is sent, so that the same call is the same bytes. An image may have been made to contain
        # the boundary of a known prompt; the next boundary is taken then.
        boundary = hashlib.sha256(repr(list(fields.items())).encode() + content[:1024]).hexdigest()[:32]
        while boundary.encode() in content:
            boundary = hashlib.sha256(boundary.encode()).hexdigest()[:32]
        part = f"--{boundary}\r\nContent-Disposition: form-data; name="
        end = f"--{boundary}--\r\n".encode()
        head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
        body: tuple[bytes, ...] = (head.encode() + end,)
        if picture:
            filename = re.sub(r"[^A-Za-z0-9._-]", "_", picture.filename) or "image"
            head += f'{part}"image"; filename="{filename}"\r\nContent-Type: {picture.media_type}\r\n\r\n'
            body = (head.encode(), content, b"\r\n" + end)
        return Request(
            "POST",
            account.base_url + self.endpoints[0],
            {
                "authorization": f"Bearer {account.api_key}",
                "content-type": f"multipart/form-data; boundary={boundary}",
                "accept": "application/json",
            },
            body,
            billable=billable,
            secrets=(account.api_key, *secrets_in(fields.get("image"))),
        )

    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return the description; a text counts only in a response that says it succeeded."""
        answer = response.json_object()
        data = answer.get("data")
        text = data.get("content") if isinstance(data, dict) else None
        if response.status >= 300 or _code(answer) != 200 or is_false(answer.get("succeed", True)):
            raise self._error(account, response, answer, billable=True)
        contradicts = response.status not in (200, 201, 203) or says_error(answer) or _named_code(answer)
        if contradicts or not isinstance(text, str) or not text.strip():
            raise errors.UnexpectedAnswer(
                "Image Describer answered success " + ("and an error" if contradicts else "without a description"),
                answer=response.text,
                billed="unknown",
            )
        request_id = response.headers.get("x-request-id")
        return self.description(account, spec, text, request_id=request_id, elapsed_s=response.elapsed_s)

    def build_check(self, account: Account) -> Request:
        """Return a request without an image: INVALID_PARAM shows a valid key, INVALID_API_KEY an invalid one."""
        return self._post(account, {"prompt": "connection test", "lang": "en"}, billable=False)

    def parse_check(self, account: Account, response: Response) -> str:
        answer = response.json_object()
        if (_named_code(answer) or _code(answer)) == CODES["INVALID_PARAM"]:
            return "Image Describer accepts the API key (a request without an image was refused, as expected)."
        error = self._error(account, response, answer, billable=False)
        error.billed = "no"
        raise error

    def _error(
        self, account: Account, response: Response, answer: dict[str, Any], *, billable: bool
    ) -> errors.DescriberError:
        reason = one_line(answer.get("msg") or answer.get("message") or answer.get("error"))
        code = _code(answer)
        if code == 200 or code not in CODES.values():
            code = _named_code(answer) or code
        return (
            self._code_error(account, response, code, reason)
            or self.common_error(account, response, reason, billable=billable)
            or errors.UnexpectedAnswer(
                self.status_line(response),
                answer=response.text,
                billed="unknown" if response.status < 300 and billable else "no",
            )
        )

    def _code_error(
        self, account: Account, response: Response, code: int | None, reason: str
    ) -> errors.DescriberError | None:
        where = f"connection {account.conn_id!r}"
        match code:
            case 30001 | 30002:
                return errors.InvalidKey(
                    f"Image Describer does not accept the API key of {where} ({reason or code}). Put a valid key into "
                    "its password field."
                )
            case 10003:
                return errors.InsufficientCredits(
                    f"The Image Describer account of {where} has no credits left ({reason or code}). Buy credits, then "
                    "clear this task: it continues where it stopped."
                )
            case 10005:
                return errors.RejectedImage(
                    f"Image Describer refuses the image as harmful: {reason}", kind="harmful_content"
                )
            case 10004 if blames_request(reason):
                return errors.UnexpectedAnswer(
                    f"Image Describer refuses the prompt or the language, not the image ({reason}). Correct prompt and "
                    "lang",
                    billed="no",
                )
            case 10004:
                return errors.RejectedImage(f"Image Describer cannot take the image: {reason}", kind="invalid_param")
            # A gateway's {"code": 500} is not the vendor's SERVER_ERROR.
            case 500 if {"msg", "succeed"} & set(response.json_object()):
                return self.unavailable(response, reason)
        return None


def _named_code(answer: dict[str, Any]) -> int | None:
    """Return the documented code whose name ``msg`` holds.

    Only ``msg`` is read: a proxy's {"message": "Internal server error"} is not the vendor's SERVER_ERROR.
    """
    words = re.sub(r"[^A-Z]+", "_", one_line(answer.get("msg")).upper())
    return next((number for name, number in CODES.items() if name in words), None)


def _code(answer: dict[str, Any]) -> int | None:
    code = as_float(answer.get("code"))
    return int(code) if code is not None and code.is_integer() else None

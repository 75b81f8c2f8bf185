"""Image Describer API V2: https://imagedescriber.online, documentation of 2025-08-18.

One multipart POST, one JSON answer. The page documents error codes but not the HTTP status they come with, so a code
is read from every answer first and the status only where there is none.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from airflow_provider_describer.account import Account
from airflow_provider_describer.errors import (
    AmbiguousCall,
    DescriberError,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    RateLimited,
    RejectedImage,
    UnexpectedAnswer,
    VendorUnavailable,
    WrongEndpoint,
)
from airflow_provider_describer.models import Description, Picture, Running, Spec
from airflow_provider_describer.vendors.vendor import Vendor, describe_status, is_gateway_answer, unavailable
from airflow_provider_describer.vendors.wire import Request, Response, as_float, one_line, retry_at

CODES = {
    "SERVER_ERROR": 500,
    "INSUFFICIENT_CREDITS": 10003,
    "INVALID_PARAM": 10004,
    "HARMFUL_CONTENT": 10005,
    "INVALID_API_KEY": 30001,
    "INVALID_SIGNATURE": 30002,
}
"""The documented error codes, by the name that ``msg`` may hold where ``code`` is missing or says 200."""


class ImageDescriber(Vendor):
    """Image Describer V2: prompt and language are the caller's, answers are markdown."""

    name = "image_describer"
    title = "Image Describer"
    model = "describe-image-v2"
    base_url = "https://imagedescriber.online"
    storage_url = base_url
    # Undocumented. These are the formats that vision models of this kind take; everything else is rejected unpaid.
    media_types = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
    max_bytes = 20 * 1024 * 1024
    languages = ("en", "zh", "de", "es", "fr", "ja", "ko", "fi", "nl", "pt", "tr", "ru")
    default_prompt = "Describe this image in detail."
    transports = ("file", "inline")

    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the multipart POST. Text fields are text fields; only image bytes become a file part."""
        fields = [("prompt", spec.prompt or ""), ("lang", spec.lang or "en")]
        if picture.url is not None:
            return self._post(account, [*fields, ("image", picture.url)], billable=True)
        content = picture.content or b""
        if picture.inline:
            data = base64.b64encode(content).decode()
            return self._post(account, [*fields, ("image", f"data:{picture.media_type};base64,{data}")], billable=True)
        return self._post(account, fields, picture, billable=True)

    def _post(
        self, account: Account, fields: list[tuple[str, str]], picture: Picture | None = None, *, billable: bool
    ) -> Request:
        content = (picture.content or b"") if picture else b""
        seed = repr(fields).encode() + content[:1024]
        # A function of what is sent, so that the same call is the same bytes. Whoever knows the prompt can put its
        # boundary into an image: then the next.
        boundary = hashlib.sha256(seed).hexdigest()[:32]
        while boundary.encode() in content:
            boundary = hashlib.sha256(boundary.encode()).hexdigest()[:32]
        texts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields
        )
        body: tuple[bytes, ...] = (texts.encode(),)
        if picture:
            filename = re.sub(r"[^A-Za-z0-9._-]", "_", picture.filename) or "image"
            head = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{filename}"\r\n'
                f"Content-Type: {picture.media_type}\r\n\r\n"
            )
            body = (texts.encode() + head.encode(), content, b"\r\n")
        return Request(
            "POST",
            f"{account.base_url}/api/openapi-v2/describe-image",
            {
                "authorization": f"Bearer {account.api_key}",
                "content-type": f"multipart/form-data; boundary={boundary}",
                "accept": "application/json",
            },
            (*body[:-1], body[-1] + f"--{boundary}--\r\n".encode()),
            billable=billable,
            secrets=(account.api_key,),
        )

    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return the description; a text is taken only from an answer that says it succeeded."""
        answer = response.json_object()
        data = answer.get("data")
        text = data.get("content") if isinstance(data, dict) else None
        if response.status < 300 and _code(answer) == 200 and answer.get("succeed") is not False:
            if not isinstance(text, str) or not text.strip():
                raise UnexpectedAnswer(
                    "Image Describer answered success without a description", answer=response.text, billed="unknown"
                )
            return Description(
                text=text,
                vendor=self.name,
                model=self.model,
                prompt=spec.prompt,
                lang=spec.lang,
                cost_usd=account.price_per_call,
                request_id=response.headers.get("x-request-id"),
                elapsed_s=response.elapsed_s,
            )
        raise self._error(account, response, answer)

    def build_check(self, account: Account) -> Request:
        """A request without an image: a good key answers INVALID_PARAM, a bad one INVALID_API_KEY; never billed."""
        return self._post(account, [("prompt", "connection test"), ("lang", "en")], billable=False)

    def parse_check(self, account: Account, response: Response) -> str:
        """Return a sentence where the answer shows a good key."""
        answer = response.json_object()
        error = self._error(account, response, answer)
        if isinstance(error, RejectedImage) and error.kind == "invalid_param" and answer:
            return "Image Describer accepts the API key (a request without an image was refused as it should be)."
        if isinstance(error, AmbiguousCall):
            error = unavailable(self, response, "no answer of the vendor's own", retry_at(response))
        error.billed = "no"
        raise error

    def _error(self, account: Account, response: Response, answer: dict[str, Any]) -> DescriberError:
        said = one_line(answer.get("msg") or answer.get("message") or answer.get("error"))
        code = _code(answer)
        if code == 200 or code not in CODES.values():
            # Only in the vendor's own field: a proxy's {"message": "Internal server error"} is not its SERVER_ERROR.
            code = _code_named_in(one_line(answer.get("msg"))) or code
        by_code = self._documented(account, code, said, response)
        return by_code or self._undocumented(account, response, said)

    def _documented(self, account: Account, code: int | None, said: str, response: Response) -> DescriberError | None:
        where = f"connection {account.conn_id!r}"
        if code in (30001, 30002):
            return InvalidKey(
                f"Image Describer does not accept the API key of {where} ({said or code}). Put a valid key into its "
                "password field."
            )
        if code == 10003:
            return InsufficientCredits(
                f"The Image Describer account of {where} has no credits left ({said or code}). Buy credits, then "
                "clear this task: it goes on where it stopped."
            )
        if code == 10005:
            return RejectedImage(f"Image Describer refuses the image as harmful: {said}", kind="harmful_content")
        if code == 10004:
            return RejectedImage(f"Image Describer cannot take the image: {said}", kind="invalid_param")
        if code == 500 and not is_gateway_answer(response):
            return unavailable(self, response, said, retry_at(response))
        return None

    def _undocumented(self, account: Account, response: Response, said: str) -> DescriberError:
        status, words = response.status, describe_status(self, response)
        if status == 429:
            return RateLimited(f"{words}: too many requests", retry_at=retry_at(response))
        if status == 503:
            return unavailable(self, response, said, retry_at(response))
        if status >= 500:
            # A proxy's own answer (502, 504…): what became of the call behind it is not known.
            return AmbiguousCall(f"{words} without the vendor's own error: the call may have been billed")
        if status == 401:
            return InvalidKey(f"{words}: put a valid key into the password field of connection {account.conn_id!r}")
        if status == 402:
            return InsufficientCredits(f"{words}: the account of connection {account.conn_id!r} cannot pay")
        if status == 403:
            return Forbidden(f"{words}: the account of connection {account.conn_id!r} may not call it. {said}")
        if status == 413:
            return RejectedImage(f"{words}: the image is too large", kind="too_large")
        if status in (408, 425):
            return VendorUnavailable(f"{words}: {said}", retry_at=retry_at(response))
        if 300 <= status < 500 and not response.json_object():
            return WrongEndpoint(
                f"{words} at {account.base_url}, which is not the vendor's API. Correct the host of connection "
                f"{account.conn_id!r}."
            )
        billed = "unknown" if status < 300 else "no"
        return UnexpectedAnswer(words, answer=response.text, billed=billed)


def _code(answer: dict[str, Any]) -> int | None:
    code = as_float(answer.get("code"))
    return int(code) if code is not None and code.is_integer() else None


def _code_named_in(said: str) -> int | None:
    words = re.sub(r"[^A-Z]+", "_", said.upper())
    return next((code for name, code in CODES.items() if name in words), None)

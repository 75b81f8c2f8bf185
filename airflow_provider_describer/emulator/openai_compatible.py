"""An OpenAI-compatible server: `POST /v1/chat/completions` and `GET /v1/models`, read strictly, billed by tokens."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_describer.emulator.bad_responses import GATEWAY_ERRORS, gateway_error, html_page
from airflow_provider_describer.emulator.calls import RefusedError, Vendor
from airflow_provider_describer.emulator.fault_settings import ANSWERS_WITHOUT_TEXT, OPENAI_COMPATIBLE
from airflow_provider_describer.emulator.faults import Call, CallFaults
from airflow_provider_describer.emulator.image_info import ImageRefusedError, describe_in_a_sentence
from airflow_provider_describer.emulator.ledger import Entry
from airflow_provider_describer.emulator.openai_answers import (
    completion,
    cut_to,
    error_body,
    false_completions,
    structured_text,
    tokens_of,
    without_text,
)
from airflow_provider_describer.emulator.openai_request import MODELS, ChatCall, read_chat

# An error's HTTP status, type, code, field and text.
ERRORS: dict[str, tuple[int, str, str | int | None, str | None, str]] = {
    "bad_request": (400, "invalid_request_error", None, None, "The request is malformed."),
    "unsupported_parameter": (400, "invalid_request_error", "unsupported_parameter", "max_tokens", "Unsupported."),
    "invalid_schema": (400, "invalid_request_error", None, "response_format", "Invalid schema."),
    "invalid_image": (
        *(400, "invalid_request_error", "invalid_image_format", None),
        "You uploaded an unsupported image. Please make sure your image is valid.",
    ),
    "harmful": (
        *(400, "invalid_request_error", "content_policy_violation", None),
        "Your input image may contain content that is not allowed by our safety system.",
    ),
    "context_length": (
        *(400, "invalid_request_error", "context_length_exceeded", "messages"),
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    ),
    "missing_key": (401, "invalid_request_error", None, None, "You didn't provide an API key."),
    "invalid_key": (401, "invalid_request_error", "invalid_api_key", None, "Incorrect API key provided."),
    "forbidden": (403, "invalid_request_error", "model_not_found", None, "Project does not have access to the model."),
    "not_found": (404, "invalid_request_error", "model_not_found", None, "The model does not exist."),
    "model_retired": (404, "invalid_request_error", "model_not_found", None, "The model has been deprecated."),
    "insufficient_credits": (
        *(429, "insufficient_quota", "insufficient_quota", None),
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "spend_limit": (
        *(400, "invalid_request_error", "billing_hard_limit_reached", None),
        "Billing hard limit has been reached.",
    ),
    "rate_limited": (429, "requests", "rate_limit_exceeded", None, "Rate limit reached. Please try again later."),
    "server_error": (500, "server_error", None, None, "The server had an error while processing your request."),
    "overloaded": (503, "server_error", None, None, "That model is currently overloaded with other requests."),
    "error_as_200": (200, "upstream_error", 429, None, "Provider returned error"),
}
# The wait that a 429 names if a fault rule, not the rate limit, caused it.
RATE_LIMITED_S = 1.0


class OpenAICompatible(Vendor):
    name = OPENAI_COMPATIBLE
    path = "/v1/chat/completions"
    refusal = "invalid_image"
    wrong_types: ClassVar[tuple[object, ...]] = (
        {"object": "chat.completion", "choices": []},
        {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": 42}}]},
        {"object": "chat.completion", "choices": [{"message": None}]},
        {"object": "chat.completion", "choices": "a description"},
        ["a description"],
        None,
    )

    def models_route(self) -> Route:
        return Route("/v1/models", self.models)

    async def models(self, request: Request) -> Response:
        """Answer `GET /v1/models`, which costs nothing."""
        self.ledger.free_requests += 1
        if self.settings.models == "none":
            return html_page(404)
        try:
            self.check_key(request)
        except RefusedError as refused:
            return self.error(refused)
        listed = [
            {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "emulator"} for model in MODELS
        ]
        return JSONResponse({"object": "list", "data": listed})

    def check_key(self, request: Request) -> None:
        given = request.headers.get("authorization")
        if not given:
            if self.settings.key == "optional":
                return
            raise RefusedError("missing_key")
        if not secrets.compare_digest(given.encode(), f"Bearer {self.state.keys[self.name]}".encode()):
            raise RefusedError("invalid_key")

    async def read(self, request: Request, body: bytes, entry: Entry) -> Call:
        asked = read_chat(request.headers.get("content-type", ""), body)
        entry.prompt = asked.prompt
        try:
            image = await self.state.images.load(asked.image_uri, self.settings.fetch_timeout_s)
            return asked.call(self.name, await self.measure(image, entry))
        except ImageRefusedError as error:
            raise RefusedError("invalid_image", str(error)) from error

    def describe(self, call: Call) -> str:
        """Return the description; one that follows the schema, where the call has one."""
        assert isinstance(call, ChatCall)
        text = describe_in_a_sentence(call.image)
        return structured_text(call.schema, text, call.image) if call.schema else text

    def cost(self, call: Call) -> int:
        assert isinstance(call, ChatCall)
        written, _ = cut_to(call, self.describe(call))
        # USD per million tokens are micro-dollars per token.
        by_tokens = call.prompt_tokens * self.settings.input_price + tokens_of(written) * self.settings.output_price
        return self.price + round(by_tokens)

    def answer(self, call: Call, text: str) -> Response:
        assert isinstance(call, ChatCall)
        return JSONResponse(completion(call, text, self.settings))

    def false_answer(self, call: Call, text: str, variant: int) -> Response:
        assert isinstance(call, ChatCall)
        answers = false_completions(completion(call, text, self.settings))
        return JSONResponse(answers[variant % len(answers)])

    async def work(self, request: Request, call: Call, faults: CallFaults, entry: Entry) -> Response:
        if faults.kind is not None and faults.kind in ANSWERS_WITHOUT_TEXT:
            answer = await super().work(request, call, replace(faults, kind=None), entry)
            assert isinstance(call, ChatCall)
            entry.outcome = faults.kind
            answer = JSONResponse(without_text(faults.kind, completion(call, self.describe(call), self.settings)))
        else:
            answer = await super().work(request, call, faults, entry)
        answer.headers["x-request-id"] = entry.request_id
        return answer

    def error_answer(self, refused: RefusedError, entry: Entry) -> Response:
        entry.outcome = refused.kind
        response = self.error(refused)
        response.headers["x-request-id"] = entry.request_id
        return response

    def error(self, refused: RefusedError) -> Response:
        """Return the answer for an error, in the form that `error_form` says."""
        if refused.kind in GATEWAY_ERRORS:
            return gateway_error(GATEWAY_ERRORS[refused.kind])
        status, kind, code, field, text = ERRORS[refused.kind]
        body = error_body(self.settings.error_form, status, kind, code, field, refused.detail or text)
        response = JSONResponse(body, status)
        if refused.kind == "rate_limited":
            left = max(0.0, (refused.resets_at or time.time() + RATE_LIMITED_S) - time.time())
            response.headers["x-ratelimit-remaining-requests"] = "0"
            response.headers["x-ratelimit-reset-requests"] = duration(left)
            if self.settings.retry_after is not None:
                response.headers["retry-after"] = self.settings.retry_after
        return response


def duration(seconds: float) -> str:
    """Return seconds as the protocol's headers give them: `850ms`, `1.5s`, `6m0s`."""
    milliseconds = -int(-seconds * 1000 // 1)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"

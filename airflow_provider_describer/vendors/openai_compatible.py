"""The OpenAI-compatible protocol, as vLLM, Ollama, LiteLLM, OpenAI and Gemini speak it.

What a model has written is billed, also where it refuses. An error in the protocol's own form was not billed, unless it
speaks of a lost connection or a time-out: the model behind the server may have gone on then.
Sources: OpenAI's API reference and client, the documentation of vLLM, Ollama, LiteLLM and Gemini.
"""

from __future__ import annotations

import base64
import copy
import json

from airflow_provider_describer import errors
from airflow_provider_describer.account import Account
from airflow_provider_describer.models import Description, Picture, Running, Spec
from airflow_provider_describer.vendors.openai_answers import (
    Choice,
    cost_of,
    first_choice,
    models_in,
    names_error,
    request_id_of,
    structured,
)
from airflow_provider_describer.vendors.openai_errors import ServerError, error_in, error_within, retry_at
from airflow_provider_describer.vendors.openai_settings import FIELDS, asked_of, check, with_limits
from airflow_provider_describer.vendors.secrets import secrets_in
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response

LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
"""Names that a model understands better than a code; any other language is asked for by its code."""
_UNBILLED_5XX = frozenset({500, 502, 503, 529})


class OpenAICompatible(Vendor):
    """A model of the user's choice behind the OpenAI-compatible protocol: takes a prompt and any language."""

    name = "openai_compatible"
    title = "OpenAI-compatible server"
    # Each connection names its own.
    model = "any"
    hook_class = "OpenAICompatibleHook"
    website = "https://platform.openai.com/docs/api-reference/chat"
    base_url = "https://api.openai.com/v1"
    storage_url = base_url
    dashboard_url: str | None = "https://platform.openai.com/usage"
    endpoints = ("/chat/completions", "/models")
    # What OpenAI documents; other servers take them too.
    media_types = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
    max_bytes = 20 * 1024 * 1024
    languages = ()
    default_prompt = "Describe this image in detail."
    transports = ("inline",)
    # It may stand in a network of its own, and Ollama fetches none.
    fetches_addresses = False
    needs_key = False
    price_help = (
        "Used where neither the prices of tokens nor the answer say what a call cost. Limits in USD reckon with it "
        "before a call; empty: the prices times input estimate and longest answer."
    )
    fields = FIELDS

    def configured(self, account: Account) -> OpenAICompatible:
        """Return the vendor with the connection's model, and with what its requests hold beside model and messages."""
        own = copy.copy(self)
        own.model, own.parameters = account.options["model"], asked_of(account.options)
        own.dashboard_url = self.dashboard_url if account.base_url == self.base_url else None
        return own

    def complete(self, account: Account) -> Account:
        """Return the account with the price and the rate of calls that its prices and its rate of tokens come to.

        :raises BadConnection: a field is missing, or does not go with the others.
        """
        check(account)
        return with_limits(account)

    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the POST of one message: the prompt and the image, by its address or as a data URI."""
        asked = json.loads(spec.parameters or "{}")
        detail = asked.pop("image_detail", None)
        head, text = json.dumps({"model": spec.model, **asked})[:-1], json.dumps(_words(spec))
        before = (
            f'{head}, "messages": [{{"role": "user", "content": [{{"type": "text", "text": {text}}}, '
            '{"type": "image_url", "image_url": {' + (f'"detail": "{detail}", ' if detail else "") + '"url": '
        )
        after = "}}]}]}"
        if picture.url is not None:
            body: tuple[bytes, ...] = ((before + json.dumps(picture.url) + after).encode(),)
        else:
            data = base64.b64encode(picture.content or b"")
            body = (f'{before}"data:{picture.media_type};base64,'.encode(), data, f'"{after}'.encode())
        return self._request(account, "/chat/completions", *body, secrets=secrets_in(picture.url))

    def _request(self, account: Account, path: str, *body: bytes, secrets: tuple[str, ...] = ()) -> Request:
        """Return a GET, or with a body the billable POST of it."""
        headers = {"accept": "application/json"}
        if account.api_key:
            headers["authorization"] = f"Bearer {account.api_key}"
            secrets = (account.api_key, *secrets)
        if body:
            headers["content-type"] = "application/json"
        url = account.base_url + path
        return Request("POST" if body else "GET", url, headers, body, billable=bool(body), secrets=secrets)

    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return the description; a text that was cut off too, as it was paid for."""
        if response.status >= 300:
            raise self._error(account, response, billable=True)
        answer = response.json_object()
        choice = first_choice(answer)
        if choice is None and (within := error_within(response)):
            raise self._error(account, within, billable=True)
        if choice is None or response.status not in (200, 201, 203) or names_error(answer):
            raise errors.UnexpectedAnswer(
                f"{self.status_line(response)} " + ("and an error" if choice else "in no form of its protocol"),
                answer=response.text,
            )
        request_id = request_id_of(answer, response)
        if choice.refusal:
            words = f"{self.title} refuses the image: {choice.refusal}"
            raise errors.RejectedImage(words, kind="harmful_content", billed="yes", request_id=request_id)
        text, fields = choice.text, None
        if text is not None and "response_format" in json.loads(spec.parameters or "{}"):
            text, fields = structured(text)
        if text is None:
            raise self._without_text(account, response, choice, request_id)
        return self.description(
            account,
            spec,
            text,
            request_id=request_id,
            elapsed_s=response.elapsed_s,
            cost=cost_of(account.options, answer, response),
            fields=fields,
        )

    def _without_text(
        self, account: Account, response: Response, choice: Choice, request_id: str | None
    ) -> errors.DescriberError:
        """Return the error for an answer that was billed and holds no description."""
        lacks = "without a text" if choice.text is None else "with no JSON object, which response_schema asks for"
        advice = ""
        if choice.ended == "length" or (choice.text is None and choice.has_reasoning):
            advice = f": it ended after its last token. Raise max_length on connection {account.conn_id!r}"
        return errors.UnexpectedAnswer(
            f"{self.title} answered {lacks}{advice}", answer=response.text, billed="yes", request_id=request_id
        )

    def build_check(self, account: Account) -> Request:
        """Return the GET of the server's models, which is never billed."""
        return self._request(account, "/models")

    def parse_check(self, account: Account, response: Response) -> str:
        """Return whether the model is served; where the server lists no models, that nothing could be checked."""
        model, where = self.model, f"{self.title} at {account.base_url}"
        if response.status in (404, 405):
            return (
                f"{where} answers, but lists no models (HTTP {response.status}): neither key nor model could be "
                f"checked. {_BASE_URL}"
            )
        listed = models_in(response) if response.status == 200 else None
        if listed is None:
            error = self._error(account, response, billable=False)
            error.billed = "no"
            raise error
        key = "accepts the API key" if account.api_key else "answers without an API key"
        serves = "serves" if model in listed else "does not list"
        return f"{where} {key} and {serves} the model {model!r}."

    def _error(self, account: Account, response: Response, *, billable: bool) -> errors.DescriberError:
        said = error_in(response)
        return (
            self._said_error(account, response, said, billable=billable)
            or self.common_error(account, response, said.reason, billable=billable)
            or errors.UnexpectedAnswer(
                self.status_line(response),
                answer=response.text,
                billed="unknown" if response.status < 300 and billable else "no",
            )
        )

    def _said_error(
        self, account: Account, response: Response, said: ServerError, *, billable: bool
    ) -> errors.DescriberError | None:
        """Return the error that the server's own words name, or None where its status alone counts."""
        status, words, where = response.status, self.status_line(response, said.reason), f"{account.conn_id!r}"
        if said.names_credits:
            return errors.InsufficientCredits(
                f"{words}. Top up the account of connection {where} or raise its limit, then clear this task."
            )
        if said.names_key:
            return errors.InvalidKey(f"{words}. Put a valid API key into the password field of connection {where}.")
        if status == 429:
            return errors.RateLimited(f"{words}: too many requests", retry_at=retry_at(response))
        if status in (400, 404, 422) and said.names_model:
            return errors.ModelRetired(
                f"{words}. Correct the field model, now {self.model!r}, or the host of connection {where}."
            )
        if said.has_form and status in _UNBILLED_5XX and not said.names_time:
            return self.unavailable(response, said.reason)
        if status == 408 and said.is_own and billable:
            return errors.AmbiguousCall(f"{words}: the model behind the server may have answered, and billed")
        if status in (400, 413, 415, 422) and said.is_own:
            return self._refusal(account, words, said)
        return None

    def _refusal(self, account: Account, words: str, said: ServerError) -> errors.DescriberError | None:
        """Return what a refused request is the fault of: a setting, the image, or neither by these words."""
        match said.fault:
            case "setting":
                field = _FIELD_OF.get(said.field.split(".")[0], "its fields, extra_body or max_length_field")
                return errors.BadConnection(
                    f"Connection {account.conn_id!r}: {words}. Correct {field} under Admin > Connections."
                )
            case "context":
                return errors.RejectedImage(
                    f"{words}: prompt, image and max_length are too much for the model together. Lower max_length, or "
                    "scale images down with max_pixels",
                    kind="too_large",
                )
            case "harmful" | "too_large" | "image":
                kind = {"harmful": "harmful_content", "image": "invalid_param"}.get(said.fault, said.fault)
                return errors.RejectedImage(words, kind=kind)
        return None

    def _wrong_endpoint(self, account: Account, words: str) -> errors.DescriberError:
        return errors.WrongEndpoint(
            f"{words} at {account.base_url}, where no such server is. {_BASE_URL} Correct the host of connection "
            f"{account.conn_id!r}."
        )


_FIELD_OF = {
    "response_format": "response_schema",
    "max_tokens": "max_length or max_length_field",
    "max_completion_tokens": "max_length or max_length_field",
}
"""Which field of the connection sets a field of the request."""
_BASE_URL = "The base URL usually ends in /v1, such as http://localhost:11434/v1."


def _words(spec: Spec) -> str:
    """Return the prompt, and in which language to answer if one is asked for."""
    if not spec.lang:
        return spec.prompt or ""
    language = LANGUAGES.get(spec.lang)
    return f"{spec.prompt}\n\nAnswer in " + (f"{language} ({spec.lang})." if language else f"the language {spec.lang}.")

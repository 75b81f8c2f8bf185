"""A vendor as another package would bring it. Tests install it as the module ``toy``."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

from airflow_provider_describer.account import Account, Field
from airflow_provider_describer.errors import UnexpectedAnswer
from airflow_provider_describer.models import Description, Picture, Running, Spec
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Request, Response

PRICE = 0.001


class Toy(Vendor):
    """Describes an image in so many words, each of which costs the same."""

    name = "toy"
    title = "Toy"
    hook_class = "ToyHook"
    website = "https://toy.example.com"
    base_url = "https://toy.example.com/v1"
    storage_url = base_url
    dashboard_url = website
    endpoints = ("/describe",)
    fields = (
        Field("model", "Model", "The name of a model.", required=True),
        Field("max_words", "Longest description (words)", "How long a description may be.", "integer", default=30),
        Field("style", "Style", "Words about the style.", "object"),
    )
    needs_key = False
    price_help = "What a description costs."
    media_types = frozenset({"image/jpeg", "image/png", "image/webp"})
    max_bytes = 5_000_000
    languages = ()
    default_prompt = "Describe this image."
    transports = ("inline",)

    def complete(self, account: Account) -> Account:
        """Return the account with the price of the longest description."""
        return replace(account, price_per_call=account.price_per_call or account.options["max_words"] * PRICE)

    def configured(self, account: Account) -> Toy:
        """Return the vendor with the connection's model and length."""
        own = copy.copy(self)
        own.model = account.options["model"]
        own.parameters = json.dumps({"max_words": account.options["max_words"]}, sort_keys=True)
        return own

    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the POST."""
        body = {"model": spec.model, "prompt": spec.prompt, "lang": spec.lang, **json.loads(spec.parameters)}
        return Request("POST", f"{account.base_url}/describe", {}, (json.dumps(body).encode(),), billable=True)

    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return the description, and its tags as a field."""
        answer = response.json_object()
        if response.status != 200 or "text" not in answer:
            raise UnexpectedAnswer(self.status_line(response), answer=response.text, billed="no")
        fields = {"tags": answer.get("tags")}
        return self.description(account, spec, answer["text"], request_id=None, elapsed_s=0.0, fields=fields)

    def build_check(self, account: Account) -> Request:
        """Return a GET."""
        return Request("GET", f"{account.base_url}/models")

    def parse_check(self, account: Account, response: Response) -> str:
        """Return a sentence."""
        return "Toy answers."


class SecondSegmind(Toy):
    """Takes the name of another vendor."""

    name = "segmind"

"""What a vendor file provides: one `Vendor` subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow_provider_describer import errors
from airflow_provider_describer.account import Account, Defaults, Field
from airflow_provider_describer.account.fields import LIMITS, PRIVATE_HOSTS, price_field, transport_field
from airflow_provider_describer.arguments import LANGUAGE, as_float
from airflow_provider_describer.models import Description, HistoryPage, Picture, Running, Spec
from airflow_provider_describer.vendors.wire import Request, Response, retry_at


class Vendor(ABC):
    """One vendor's wire format and what its model takes. Pure: no client, no clock, no environment.

    From it follow the connection type, its form, its hook and how a connection is read.
    """

    name: ClassVar[str]
    """The vendor's name in specs and rows, and the type of its connections."""
    title: ClassVar[str]
    """The name that people read, also of the connection type."""
    hook_class: ClassVar[str]
    """The name of its hook in ``hooks/describer.py``."""
    website: ClassVar[str]
    model: str
    """The model that is asked; an attribute of the object where a connection chooses it, see `configured`."""
    parameters: str = ""
    """What else is asked of the model, as JSON text with sorted keys; a part of the spec."""
    base_url: ClassVar[str]
    storage_url: ClassVar[str]
    dashboard_url: str | None
    """Where people see their usage and top up their account; None where there is no such page."""
    endpoints: ClassVar[Sequence[str]]
    """The paths of the vendor's API behind those two addresses, in lower case."""
    fields: ClassVar[tuple[Field, ...]] = ()
    """What a connection's extra has besides the common fields; an account has their values as ``options``."""
    needs_key: ClassVar[bool] = True
    price_per_call: ClassVar[float | None] = None
    price_help: ClassVar[str]
    """What the form says about the price of a call."""
    media_types: ClassVar[frozenset[str]]
    """Media types of images that the model takes."""
    max_bytes: ClassVar[int]
    """The largest image that the model takes, in bytes."""
    languages: ClassVar[Sequence[str]]
    """The languages that the model writes, the default first; empty for a model that tries any."""
    default_prompt: ClassVar[str | None] = None
    """The prompt if the user gives none; None for a model that takes no prompt."""
    takes_lang: ClassVar[bool] = True
    transports: ClassVar[Sequence[str]]
    """How image bytes can be sent, the preferred way first: ``file``, ``inline``, ``upload``."""
    fetches_addresses: ClassVar[bool] = True
    """Whether the vendor can be trusted to fetch public web addresses; else ``auto`` sends the bytes of all images."""
    signs_objects: ClassVar[bool] = False
    """Whether objects of a bucket are by preference sent as presigned addresses."""
    keeps_history: ClassVar[bool] = False
    """Whether an account can ask the vendor what has become of its calls; with it come `shown` and `build_history`."""

    def defaults(self) -> Defaults:
        """Return what a connection of this vendor means if its fields are empty."""
        return Defaults(
            self.name,
            self.base_url,
            self.storage_url,
            self.price_per_call,
            tuple(self.endpoints),
            self.fields,
            self.needs_key,
            self.complete,
        )

    def form(self) -> tuple[Field, ...]:
        """Return the fields of a connection's extra, in the order of the form."""
        signed = ", objects by presigned URLs" if self.signs_objects else ""
        addresses = (
            f"public web addresses as they are (url){signed}, others " if self.fetches_addresses else "all images "
        )
        transport = transport_field(tuple(self.transports), addresses)
        price = price_field(self.price_per_call, self.price_help)
        return (*self.fields, transport, price, *LIMITS, PRIVATE_HOSTS)

    def complete(self, account: Account) -> Account:
        """Return the account with what follows from the vendor's own fields, such as a price from a price of tokens."""
        return account

    def configured(self, account: Account) -> Vendor:
        """Return the vendor as this account's connection has set it up: its model, its parameters."""
        return self

    def runs_in_background(self, account: Account) -> bool:
        """Whether a call starts a request that runs at the vendor and is polled."""
        return False

    def spec(self, prompt: str | None = None, lang: str | None = None) -> Spec:
        """Return what will be asked, reduced to what the model takes.

        :raises BadInput: for a blank prompt, or a language that the model does not write.
        """
        lang = lang or self.default_lang
        if lang not in self.languages if self.languages else not LANGUAGE.fullmatch(lang):
            expected = f"one of {', '.join(self.languages)}" if self.languages else "one such as en or pt-BR"
            raise errors.BadInput(f"lang={lang!r} is not a language that {self.title} writes; expected {expected}.")
        if prompt is not None and not prompt.strip():
            raise errors.BadInput(
                "prompt is blank. Say what you want to know about the image, or leave prompt out"
                + (f" for {self.default_prompt!r}." if self.default_prompt else f": {self.title} takes none.")
            )
        if prompt is not None and not prompt.isascii() and any("\ud800" <= c <= "\udfff" for c in prompt):
            # A lone surrogate, as in file names that are not UTF-8: neither a request nor a store can hold it.
            raise errors.BadInput(f"prompt holds a broken character: {prompt[:200]!r}. Give it as valid Unicode.")
        return Spec(
            vendor=self.name,
            model=self.model,
            prompt=(prompt or self.default_prompt) if self.default_prompt else None,
            lang=lang if self.takes_lang else None,
            parameters=self.parameters,
        )

    @property
    def default_lang(self) -> str:
        """The language of a description if the user names none."""
        return self.languages[0] if self.languages else "en"

    @abstractmethod
    def build_request(self, account: Account, spec: Spec, picture: Picture) -> Request:
        """Return the billable request for a description of the picture."""

    @abstractmethod
    def parse_response(self, account: Account, spec: Spec, response: Response) -> Description | Running:
        """Return the description, or the request that now runs at the vendor.

        :raises DescriberError: the leaf that says what to do; its ``billed`` says whether this call was paid for.
        """

    @abstractmethod
    def build_check(self, account: Account) -> Request:
        """Return a request that shows whether the key is valid and is never billed."""

    @abstractmethod
    def parse_check(self, account: Account, response: Response) -> str:
        """Return a sentence about the working account, or raise what is wrong with it."""

    def build_poll(self, account: Account, running: Running) -> Request:
        """Return the free request for the state of a running request."""
        raise NotImplementedError(f"{self.title} runs no requests in the background.")

    def parse_poll(self, account: Account, spec: Spec, running: Running, response: Response) -> Description | Running:
        """Read the response to `build_poll`; as `parse_response`."""
        raise NotImplementedError(f"{self.title} runs no requests in the background.")

    def build_upload(self, account: Account, picture: Picture) -> Request:
        """Return the free request that uploads the picture to the vendor's storage."""
        raise NotImplementedError(f"{self.title} has no upload.")

    def parse_upload(self, account: Account, response: Response) -> str:
        """Return the address of the uploaded picture."""
        raise NotImplementedError(f"{self.title} has no upload.")

    def build_credits(self, account: Account) -> Request:
        """Return the free request for the account's balance.

        :raises BadInput: if the vendor does not publish it.
        """
        raise errors.BadInput(
            f"Connection {account.conn_id!r}: {self.title} has no way to ask for the credit balance; see its dashboard."
        )

    def parse_credits(self, account: Account, response: Response) -> float:
        """Return the balance in USD."""
        raise NotImplementedError(f"{self.title} has no credit balance.")

    def shown(self, picture: Picture) -> str:
        """Return the SHA-256 (hex) of the image as `build_request` sends it, by which its call is recognised later."""
        raise NotImplementedError(f"{self.title} publishes no history of its calls.")

    def build_history(self, account: Account, since: float, page: int) -> Request:
        """Return the free request for one page of the account's calls, the latest first.

        :param since: epoch seconds; earlier calls may be left out.
        :param page: from 1.
        """
        raise NotImplementedError(f"{self.title} publishes no history of its calls.")

    def parse_history(self, account: Account, response: Response, page: int) -> HistoryPage:
        """Read the response to `build_history`.

        :raises UnexpectedAnswer: for any form that is not known; it is never taken for an empty page.
        """
        raise NotImplementedError(f"{self.title} publishes no history of its calls.")

    def description(
        self,
        account: Account,
        spec: Spec,
        text: str,
        *,
        request_id: str | None,
        elapsed_s: float,
        cost: object = None,
        balance: object = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Description:
        """Return the description; without a valid ``cost`` the call cost the connection's ``price_per_call``.

        :param fields: the parts of a structured answer.
        """
        cost_usd = as_float(cost)
        return Description(
            text=text,
            vendor=self.name,
            model=spec.model,
            prompt=spec.prompt,
            lang=spec.lang,
            cost_usd=account.price_per_call if cost_usd is None or cost_usd < 0 else cost_usd,
            request_id=request_id,
            elapsed_s=elapsed_s,
            remaining_credits=as_float(balance),
            fields=fields,
        )

    def status_line(self, response: Response, reason: str = "") -> str:
        """Return how an error message starts."""
        return f"{self.title} answered HTTP {response.status}" + (f" ({reason})" if reason else "")

    def common_error(
        self, account: Account, response: Response, reason: str, *, billable: bool
    ) -> errors.DescriberError | None:
        """Return the error for a status that means the same with every vendor, or None for any other status.

        :param billable: whether the request may have been billed. Where it is not, any 5xx may be tried again.
        """
        where = f"connection {account.conn_id!r}"
        words, status = self.status_line(response, reason), response.status
        match status:
            case 401:
                return errors.InvalidKey(f"{words}. Put a valid API key into the password field of {where}.")
            case 402:
                return errors.InsufficientCredits(f"{words}: the account of {where} cannot pay")
            case 403 | 451:
                return errors.Forbidden(f"{words}. The account of {where} may not call {self.model}.")
            case 408 | 425:
                return self.unavailable(response, reason)
            case 410:
                return errors.ModelRetired(f"{words}. {self.model} is no longer served; choose another vendor.")
            case 413:
                return errors.RejectedImage(f"{words}: the image is too large", kind="too_large")
            case 429:
                return errors.RateLimited(f"{words}: too many requests", retry_at=retry_at(response))
            case 404 | 405 | 407 | 414 | 421 | 431:
                return self._wrong_endpoint(account, words)
        if 300 <= status < 400:
            return self._wrong_endpoint(account, words)
        if status < 500:
            return None
        # Who asks for the same request later has not taken it. Without that, a 503 too may come from a proxy that has
        # passed the request on ("upstream connect error or disconnect/reset before headers").
        if not billable or (status == 503 and retry_at(response) is not None):
            return self.unavailable(response, reason)
        return errors.AmbiguousCall(
            f"{words}, which the vendor does not document: the call may have been billed behind a proxy"
        )

    def _wrong_endpoint(self, account: Account, words: str) -> errors.DescriberError:
        return errors.WrongEndpoint(
            f"{words} at {account.base_url}, where {self.title}'s API is not. Correct host and storage_host of "
            f"connection {account.conn_id!r}; both are empty unless a proxy stands before the vendor."
        )

    def unavailable(self, response: Response, reason: str) -> errors.VendorUnavailable:
        """Return the error for a response after which the same call may be sent again, unbilled."""
        return errors.VendorUnavailable(
            f"{self.status_line(response)}: {reason or 'no reason given'}", retry_at=retry_at(response)
        )

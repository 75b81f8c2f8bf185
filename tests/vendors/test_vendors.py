"""What is true of the vendors as a whole, and what may be asked of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_describer.account import Account
from airflow_provider_describer.arguments import LANGUAGE
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.models import Picture, Running
from airflow_provider_describer.vendors import get_vendor, vendors
from airflow_provider_describer.vendors.vendor import Vendor
from airflow_provider_describer.vendors.wire import Response


def test_the_vendors_are_found_by_name() -> None:
    assert list(vendors()) == ["image_describer", "openai_compatible", "segmind"]
    assert get_vendor("segmind") is vendors()["segmind"]


@pytest.mark.parametrize("name", ["", "Segmind", "segmind ", "vendor", "wire", "__init__"])
def test_an_unknown_vendor_is_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(BadInput, match="there are image_describer, openai_compatible, segmind"):
        get_vendor(name)


def test_a_vendor_says_everything_that_others_need_of_it(vendor: Vendor) -> None:
    assert vendor.name.isidentifier() and vendor.title and vendor.model
    assert {url.partition("://")[0] for url in (vendor.base_url, vendor.storage_url)} == {"https"}
    assert not vendor.base_url.endswith("/") and not vendor.storage_url.endswith("/")
    assert {"image/jpeg", "image/png", "image/webp"} <= vendor.media_types
    assert vendor.max_bytes > 1_000_000
    assert vendor.default_lang == "en" and len(set(vendor.languages)) == len(vendor.languages)
    assert vendor.hook_class.endswith("Hook") and vendor.website.startswith("https://")
    assert len({field.name for field in vendor.form()}) == len(vendor.form())
    assert vendor.transports and set(vendor.transports) <= {"file", "inline", "upload"}
    assert vendor.defaults().vendor == vendor.name
    assert (vendor.price_per_call is None) or vendor.price_per_call > 0


def test_image_describer_writes_the_twelve_documented_languages() -> None:
    assert " ".join(get_vendor("image_describer").languages) == "en zh de es fr ja ko fi nl pt tr ru"


@pytest.mark.parametrize(
    ("name", "formats", "megabytes"), [("image_describer", "gif jpeg png webp", 20), ("segmind", "jpeg png webp", 10)]
)
def test_formats_and_size_are_those_that_the_model_takes(name: str, formats: str, megabytes: int) -> None:
    assert sorted(get_vendor(name).media_types) == [f"image/{form}" for form in formats.split()]
    assert get_vendor(name).max_bytes == megabytes * 2**20


@pytest.mark.parametrize("lang", ["xx", "EN", "en-US", "English", " en", "de,fr"])
def test_a_language_that_is_not_written_is_refused_before_it_costs(vendor: Vendor, lang: str) -> None:
    if not vendor.languages and LANGUAGE.fullmatch(lang):
        assert vendor.spec("What is this?", lang).lang == lang
        return
    with pytest.raises(BadInput, match=r"expected one (of|such as) en"):
        vendor.spec("What is this?", lang)


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "\u3000"])
def test_a_blank_prompt_is_refused_before_it_costs(vendor: Vendor, prompt: str) -> None:
    with pytest.raises(BadInput, match="prompt is blank") as caught:
        vendor.spec(prompt)
    assert "None" not in str(caught.value)


def test_a_prompt_that_no_request_can_hold_is_refused_before_it_costs(vendor: Vendor) -> None:
    with pytest.raises(BadInput, match="broken character") as caught:
        vendor.spec("Describe caf\udce9.jpg")
    assert str(caught.value).encode()


def test_a_spec_holds_only_what_the_model_takes(vendor: Vendor) -> None:
    plain, asked = vendor.spec(), vendor.spec("What is this?", (vendor.languages or ["fr"])[-1])
    assert (plain.vendor, plain.model) == (vendor.name, vendor.model)
    if vendor.default_prompt is None:
        assert asked.prompt is None, "another prompt would buy the same description twice"
    else:
        assert (plain.prompt, asked.prompt) == (vendor.default_prompt, "What is this?")
    assert (asked.lang is not None) == (plain.lang is not None) == vendor.takes_lang


def test_what_a_vendor_lacks_is_said_in_its_name(vendor: Vendor, account: Callable[..., Account]) -> None:
    owner = account(vendor)
    lacking = {
        "poll": lambda: vendor.build_poll(owner, Running("8f2d", 0.0)),
        "upload": lambda: vendor.build_upload(owner, Picture("image/png", content=b"x")),
        "credits": lambda: vendor.build_credits(owner),
    }
    for name, build in lacking.items():
        if getattr(type(vendor), f"parse_{name}") is getattr(Vendor, f"parse_{name}"):
            with pytest.raises((NotImplementedError, BadInput), match=vendor.title):
                build()
        else:
            assert build().headers


def test_an_upload_that_is_preferred_exists(vendor: Vendor, account: Callable[..., Account]) -> None:
    if "upload" in vendor.transports:
        answer = Response(200, {}, b'{"file_urls": ["https://a.example.com/1.jpg"]}')
        assert vendor.parse_upload(account(vendor), answer).startswith("https://")
    else:
        with pytest.raises(NotImplementedError):
            vendor.parse_upload(account(vendor), Response(200))


@pytest.mark.parametrize(
    "about", [{}, {"content": b"x", "url": "https://a/1.jpg"}, {"content": None, "url": None}], ids=range(3)
)
def test_a_picture_is_either_bytes_or_an_address(about: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="content, a url, or what signs one"):
        Picture("image/png", **about)  # type: ignore[arg-type]  # what a caller may get wrong

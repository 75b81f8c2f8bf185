"""Another package brings a vendor by an entry point: everything that a vendor has follows from its class."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.errors import BadConnection, BadInput
from airflow_provider_describer.models import Description, Picture
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.vendors import ENTRY_POINTS, get_vendor, vendors
from airflow_provider_describer.vendors.wire import Response

TOY = (Path(__file__).parents[1] / "servers" / "toy_vendor.py").read_text()
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package with these entry points and the module ``toy``, for as long as the test runs."""

    def installed(*points: str) -> None:
        about = tmp_path / "toy-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n" + "\n".join(points) + "\n")
        (tmp_path / "toy.py").write_text(TOY)
        monkeypatch.syspath_prepend(tmp_path)
        vendors.cache_clear()

    yield installed
    vendors.cache_clear()
    sys.modules.pop("toy", None)


def test_it_is_a_vendor_like_any_other(install: Install) -> None:
    before = list(vendors())
    install("toy = toy:Toy")
    assert list(vendors()) == [*before, "toy"]
    toy = get_vendor("toy")
    assert [field.name for field in toy.form()][:4] == ["model", "max_words", "style", "image_transport"]


def test_its_connection_is_read_by_its_own_fields(install: Install) -> None:
    install("toy = toy:Toy")
    defaults = get_vendor("toy").defaults()
    extra = {"model": "m-1", "max_words": "30", "style": '{"tone": "dry"}', "requests_per_minute": 5}
    account = account_from_connection(defaults, conn_id="shop", password=None, extra=extra)
    assert account.options == {"model": "m-1", "max_words": 30, "style": {"tone": "dry"}}
    assert (account.api_key, account.base_url, account.price_per_call) == ("", "https://toy.example.com/v1", 0.03)
    named = account_from_connection(defaults, conn_id="shop", password=None, host="toy.example.com/v1", extra=extra)
    assert named.base_url == account.base_url, "the vendor's own address ends in a path"
    for wrong, said in (
        ({}, "model is empty, expected the name of a model. Correct it under Admin"),
        ({"model": "m", "max_words": 1.5}, "max_words is 1.5, expected a whole number above 0"),
        ({"model": "m", "style": "dry"}, "style is a text, expected a JSON object"),
        ({"model": "m", "style": [1]}, "style is a list, expected a JSON object"),
        ({"model": "m", "max_word": 5}, "did you mean max_words?"),
    ):
        with pytest.raises(BadConnection, match="Connection 'shop'") as caught:
            account_from_connection(defaults, conn_id="shop", password=None, extra=wrong)
        assert said in str(caught.value)


def test_the_connections_model_and_parameters_are_part_of_the_identity(install: Install) -> None:
    install("toy = toy:Toy")
    toy, found = get_vendor("toy"), {}
    for extra in ({"model": "a"}, {"model": "b"}, {"model": "a", "max_words": 9}, {"model": "a", "price_per_call": 9}):
        account = account_from_connection(toy.defaults(), conn_id="shop", password=None, extra=extra)
        spec = toy.configured(account).spec("What?", "pt-BR")
        assert (spec.model, spec.lang) == (extra["model"], "pt-BR")
        found[str(extra)] = identity_keys(spec, "a.jpg", "0" * 64, None)
    assert len(set(found.values())) == 3, "the price is no part of what is asked"
    assert not hasattr(toy, "model"), "a connection sets up an object of its own"


def test_structured_answers_reach_the_description(install: Install) -> None:
    install("toy = toy:Toy")
    toy = get_vendor("toy")
    account = account_from_connection(toy.defaults(), conn_id="shop", password=None, extra={"model": "m-1"})
    toy = toy.configured(account)
    request = toy.build_request(account, toy.spec(), Picture("image/png", content=b"x"))
    assert request.billable
    read = toy.parse_response(account, toy.spec(), Response(200, content=b'{"text": "a cat", "tags": ["cat"]}'))
    assert isinstance(read, Description)
    assert (read.text, read.model, read.fields, read.cost_usd) == ("a cat", "m-1", {"tags": ["cat"]}, 0.03)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("toy = nowhere:Toy", "nowhere"),
        ("toy = toy:Missing", "Missing"),
        ("toy = toy:PRICE", "no subclass of Vendor"),
        ("segmind = toy:SecondSegmind", "'segmind', which there is already"),
    ],
)
def test_one_that_cannot_be_used_is_left_out(
    install: Install, caplog: pytest.LogCaptureFixture, point: str, said: str
) -> None:
    before = dict(vendors())
    install(point, "good = toy:Toy")
    with caplog.at_level(logging.WARNING):
        assert {name: type(vendor) for name, vendor in vendors().items() if name != "toy"} == {
            name: type(vendor) for name, vendor in before.items()
        }
    assert "toy" in vendors() and said in caplog.text and "left out" in caplog.text


def test_without_it_the_error_names_those_that_there_are() -> None:
    with pytest.raises(BadInput, match="No vendor is named 'toy'; there are image_describer, "):
        get_vendor("toy")

"""Whatever JSON a vendor answers: a description, a running request or a leaf of the error tree comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.errors import AccountError, DescriberError
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.vendors.wire import Response

if TYPE_CHECKING:
    from tests.vendors.conftest import Reader

STATUSES = st.one_of(st.just(200), st.sampled_from([400, 401, 404, 406, 422, 429, 500, 502]), st.integers(200, 599))
# With halves of surrogate pairs, which JSON can hold and UTF-8 cannot.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.sampled_from([200, 500, 10004, 30001]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)


def strings(value: Any) -> Iterator[str]:
    """All names and texts in a JSON value."""
    if isinstance(value, str):
        yield value[:200]
    elif isinstance(value, list):
        for item in value[:3]:
            yield from strings(item)
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from strings(item)


_VOCABULARIES: dict[tuple[str, str], list[str]] = {}


def vocabulary(reader: Reader) -> list[str]:
    """The words that this vendor's recorded answers are made of: random JSON then looks like its answers."""
    about = reader.vendor.name, reader.api_version
    if about not in _VOCABULARIES:
        _VOCABULARIES[about] = words_of(reader)
    return _VOCABULARIES[about]


def words_of(reader: Reader) -> list[str]:
    bodies = [Response(200, {}, sample.response.content).json() for sample in reader.samples]
    return sorted({word for body in bodies for word in strings(body)})


def answers(reader: Reader) -> st.SearchStrategy[Any]:
    word = st.sampled_from(vocabulary(reader))
    return st.recursive(
        st.one_of(SCALARS, word),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.one_of(word, TEXTS), inner, max_size=6)
        ),
        max_leaves=12,
    )


def outcome(reader: Reader, operation: str, response: Response) -> object:
    found: object
    try:
        found = reader.read(operation, response)
    except DescriberError as error:
        found = error
    assert type(found) not in (DescriberError, AccountError), "a leaf says what to do"
    if isinstance(found, DescriberError):
        assert str(found).strip() and str(found).encode()
    if isinstance(found, Description):
        assert found.text.strip() and found.text.encode()
        assert found.cost_usd is None or found.cost_usd >= 0
    return found


@settings(max_examples=300, deadline=None)
@given(data=st.data(), status=STATUSES)
def test_any_json_ends_in_a_known_outcome(reader: Reader, data: st.DataObject, status: int) -> None:
    body = json.dumps(data.draw(answers(reader))).encode()
    response = Response(status, {"content-type": "application/json"}, body, 1000.0)
    for operation in reader.operations:
        found = outcome(reader, operation, response)
        assert status < 300 or not isinstance(found, Description | Running)
        if isinstance(found, DescriberError) and operation in ("check", "upload", "credits"):
            assert found.billed == "no"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_recorded_answer_with_one_thing_wrong_ends_in_a_known_outcome(reader: Reader, data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(reader.samples))
    body = Response(200, {}, sample.response.content).json()
    if not isinstance(body, dict) or not body:
        return
    name = data.draw(st.sampled_from(sorted(body)))
    body[name] = data.draw(answers(reader))
    response = Response(sample.response.status, sample.response.headers, json.dumps(body).encode(), 1000.0)
    found = outcome(reader, sample.operation, response)
    if sample.response.status >= 300 and sample.operation == "describe":
        assert isinstance(found, DescriberError)


@settings(max_examples=200, deadline=None)
@given(
    body=st.binary(max_size=200),
    status=STATUSES,
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "x-rate-limit-reset-at-utc", "x-cost", "x-remaining-credits", "content-type"]),
        st.one_of(TEXTS, st.sampled_from(["nan", "-1", "1e999", "text/plain", "Wed, 01 Jan 99999 00:00:00 GMT"])),
    ),
)
def test_any_bytes_and_headers_end_in_a_known_outcome(
    reader: Reader, body: bytes, status: int, headers: dict[str, str]
) -> None:
    for operation in reader.operations:
        found = outcome(reader, operation, Response(status, headers, body, 1000.0))
        retry_at = getattr(found, "retry_at", None)
        assert retry_at is None or abs(retry_at) < float("inf")

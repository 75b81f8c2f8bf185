"""Every recorded answer is read as its expected.json says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer import errors
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.vendors import vendors

if TYPE_CHECKING:
    from tests.vendors.conftest import Parsed, Sample

Read = Callable[["Sample"], "Parsed"]


def test_a_sample_is_read_as_expected(sample: Sample, read: Read) -> None:
    expected = dict(sample.expected)
    if "error" in expected:
        check_error(sample, read, expected)
        return
    ((outcome, value),) = expected.items()
    found = read(sample)
    if outcome in ("description", "running"):
        assert isinstance(found, Description if outcome == "description" else Running)
        assert {name: asdict(found)[name] for name in value} == value
    elif outcome == "check":
        assert isinstance(found, str) and value in found
    else:
        assert found == value


def check_error(sample: Sample, read: Read, expected: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, expected.pop("error"))) as caught:
        read(sample)
    said = expected.pop("says", [])
    assert type(caught.value).__name__ == sample.expected["error"]
    assert {name: getattr(caught.value, name) for name in expected} == expected
    assert [words for words in said if words not in str(caught.value)] == []
    assert str(caught.value).strip()


def test_a_sample_belongs_to_a_vendor_and_says_what_it_cost(sample: Sample) -> None:
    assert sample.vendor in vendors()
    if "error" in sample.expected:
        assert {"kind", "billed"} <= set(sample.expected)

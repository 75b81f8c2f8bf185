"""Every recorded response is read as the ``expected`` beside it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer import errors
from airflow_provider_describer.models import Description, Running
from airflow_provider_describer.vendors import vendors

if TYPE_CHECKING:
    from tests.vendors.conftest import Parsed, Sample

Read = Callable[["Sample"], "Parsed"]
SAMPLES = Path(__file__).parents[1] / "samples"


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


def test_each_sample_belongs_to_a_vendor_and_says_what_it_cost(all_samples: tuple[Sample, ...]) -> None:
    assert {sample.vendor for sample in all_samples} <= set(vendors())
    assert [sample.case for sample in all_samples if not says_what_it_cost(sample.expected)] == []
    responses = {path.with_suffix(".json") for path in SAMPLES.glob("*/*.http")}
    assert responses == set(SAMPLES.glob("*/*.json")), "a response without its expectation, or the other way round"


def says_what_it_cost(expected: dict[str, Any]) -> bool:
    return "error" not in expected or {"kind", "billed"} <= set(expected)

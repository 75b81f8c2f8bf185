"""When a failed call is tried again: decided without a clock, a die or a sleep."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer import errors
from airflow_provider_describer.errors import (
    AmbiguousCall,
    DescriberError,
    RateLimited,
    RequestExpired,
    UnexpectedAnswer,
    VendorUnavailable,
)
from airflow_provider_describer.http.retry import RetryPolicy

NOW = 1_763_708_820.0
DEFAULT = RetryPolicy()
TRANSIENT = (RateLimited, VendorUnavailable)
FINAL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DescriberError) and not issubclass(kind, (*TRANSIENT, AmbiguousCall))
]


def pauses(policy: RetryPolicy, error: DescriberError, jitter: float = 0.0) -> list[float]:
    """All the pauses until it is given up."""
    found: list[float] = []
    while (wait := policy.wait(error, attempt=len(found) + 1, jitter=jitter, now=NOW)) is not None:
        found.append(wait)
        assert len(found) < 1000, "never gives up"
    return found


def test_an_unavailable_vendor_is_tried_five_times_with_doubling_pauses() -> None:
    assert pauses(DEFAULT, VendorUnavailable("no")) == [0.5, 1.0, 2.0, 4.0]


def test_jitter_is_the_upper_half_of_a_pause() -> None:
    assert pauses(DEFAULT, VendorUnavailable("no"), jitter=1.0) == [1.0, 2.0, 4.0, 8.0]


def test_pauses_of_our_own_choosing_are_capped() -> None:
    policy = RetryPolicy(attempts=40, cap=10.0)
    assert max(pauses(policy, VendorUnavailable("no"), jitter=1.0)) == 10.0
    assert len(pauses(policy, VendorUnavailable("no"))) == 39


def test_a_rate_limit_is_waited_for_longer_than_a_failure() -> None:
    assert len(pauses(DEFAULT, RateLimited("slow down"))) == 29


@pytest.mark.parametrize("kind", TRANSIENT)
def test_the_moment_that_the_vendor_names_is_honoured(kind: type[RateLimited | VendorUnavailable]) -> None:
    assert set(pauses(DEFAULT, kind("later", retry_at=NOW + 37.5))) == {37.5}
    late = pauses(DEFAULT, kind("later", retry_at=NOW + 37.5), jitter=0.999)
    assert all(37.5 < wait <= 38.5 for wait in late)


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_wait_longer_than_max_wait_is_given_up(kind: type[RateLimited | VendorUnavailable]) -> None:
    assert pauses(DEFAULT, kind("tomorrow", retry_at=NOW + 901)) == []
    assert pauses(RetryPolicy(max_wait=10), kind("later", retry_at=NOW + 10.5)) == []


@pytest.mark.parametrize("ago", [0.0, 3600.0])
def test_a_moment_that_has_passed_is_no_reason_to_hammer(ago: float) -> None:
    """A vendor's clock that is behind ours would otherwise have us use up all attempts within seconds."""
    assert pauses(DEFAULT, RateLimited("now", retry_at=NOW - ago))[:4] == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("kind", FINAL)
def test_no_other_error_is_tried_again(kind: type[DescriberError]) -> None:
    assert pauses(RetryPolicy(resend_unknown=5), kind("final")) == []


def test_a_billed_answer_that_cannot_be_read_is_not_asked_for_again() -> None:
    assert pauses(RetryPolicy(resend_unknown=5), UnexpectedAnswer("odd", billed="unknown")) == []


def test_an_ambiguous_call_is_sent_again_only_where_that_was_asked_for() -> None:
    assert pauses(DEFAULT, AmbiguousCall("lost")) == []
    assert len(pauses(RetryPolicy(resend_unknown=2), AmbiguousCall("lost"))) == 2


def test_an_expired_request_is_never_sent_again() -> None:
    assert pauses(RetryPolicy(resend_unknown=5), RequestExpired("gone")) == []


@settings(deadline=None)
@given(
    attempt=st.integers(1, 100),
    jitter=st.floats(0, 1, exclude_max=True),
    named=st.none() | st.floats(-1e12, 1e12),
    kind=st.sampled_from(TRANSIENT),
)
def test_a_wait_is_never_negative_nor_longer_than_allowed(
    attempt: int, jitter: float, named: float | None, kind: type[RateLimited | VendorUnavailable]
) -> None:
    wait = DEFAULT.wait(kind("x", retry_at=named), attempt=attempt, jitter=jitter, now=NOW)
    assert wait is None or 0 < wait <= max(DEFAULT.cap, DEFAULT.max_wait)
    if wait is not None and named is not None:
        assert NOW + wait >= named, "never earlier than the vendor said"

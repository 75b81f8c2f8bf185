"""The ready retry policy: what it says of each error, and what becomes of a task that has it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__

from airflow_provider_describer.emulator.process import EmulatorProcess
from airflow_provider_describer.errors import (
    BadConnection,
    BadInput,
    BucketError,
    CorruptShard,
    DescriberError,
    Forbidden,
    InsufficientCredits,
    InvalidKey,
    RateLimited,
    RejectedImage,
    StoreError,
    Unfinished,
    UnknownOutcome,
    VendorUnavailable,
)
from airflow_provider_describer.operators.failures import airflow_error
from airflow_provider_describer.operators.retries import describer_retry_policy

Run = Callable[..., Any]
AIRFLOW = tuple(map(int, __version__.split(".")[:2]))
from_3_4 = pytest.mark.skipif(AIRFLOW < (3, 4), reason="Airflow knows waits without a retry from 3.4 on")
from_3_3 = pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow knows retry policies from 3.3 on")


@pytest.mark.skipif(AIRFLOW >= (3, 3), reason="this Airflow knows retry policies")
def test_before_3_3_it_says_what_it_needs() -> None:
    with pytest.raises(BadInput, match=r"needs Airflow 3\.3") as caught:
        describer_retry_policy()
    assert __version__ in str(caught.value) and "retries" in str(caught.value)


def raised(error: DescriberError) -> BaseException:
    """The exception with which an operator's task ends."""
    try:
        raise airflow_error(error) from None
    except Exception as caught:  # noqa: BLE001  # whatever it is
        return caught


def decided(exception: BaseException) -> Any:
    return describer_retry_policy().evaluate(exception, 1, 3)


@from_3_3
@pytest.mark.parametrize("in_task", [lambda error: error, raised])
@pytest.mark.parametrize(
    ("error", "action"),
    [
        (InsufficientCredits("none left"), "fail"),
        (InvalidKey("not accepted"), "fail"),
        (Forbidden("not yours"), "fail"),
        (BadConnection("no key"), "fail"),
        (CorruptShard("torn"), "fail"),
        (RejectedImage("harmful"), "fail"),
        (UnknownOutcome("one call"), "fail"),
        (BucketError("no bucket", kind="no_such_bucket"), "fail"),
        (BucketError("silence", kind="unreachable"), "default"),
        (StoreError("disk full"), "default"),
        (Unfinished("some left"), "default"),
        (RateLimited("slow down"), "default"),
        (VendorUnavailable("down"), "default"),
    ],
)
def test_each_error_is_judged_as_the_operators_judge_it(
    in_task: Callable[[Any], BaseException], error: DescriberError, action: str
) -> None:
    assert decided(in_task(error)).action.value == action


@from_3_3
@pytest.mark.parametrize("in_task", [lambda error: error, raised])
@pytest.mark.parametrize("kind", [RateLimited, VendorUnavailable])
def test_a_vendor_that_names_a_moment_is_asked_again_then(
    in_task: Callable[[Any], BaseException], kind: type[Any]
) -> None:
    later = decided(in_task(kind("later", retry_at=time.time() + 3600)))
    assert later.action.value == ("retry" if AIRFLOW < (3, 4) else "reschedule")
    assert timedelta(seconds=3500) < later.retry_delay <= timedelta(seconds=3600)
    assert later.reason == kind.__name__
    assert decided(in_task(kind("by now", retry_at=time.time() - 60))).retry_delay == timedelta(0)


@from_3_4
def test_a_wait_without_a_retry_is_limited_by_time_alone() -> None:
    """A number would be reached by the pokes of a sensor."""
    later = decided(RateLimited("later", retry_at=time.time() + 60))
    assert (later.max_reschedules, later.reschedule_timeout) == (None, timedelta(days=1))


@from_3_4
def test_in_a_chain_it_leaves_other_errors_to_the_next_policy() -> None:
    sdk: Any = importlib.import_module("airflow.sdk")
    rule = sdk.RetryRule(exception=LookupError, action=sdk.RetryAction.FAIL)
    chain = sdk.ChainRetryPolicy([describer_retry_policy(), sdk.ExceptionRetryPolicy(rules=[rule])])
    assert chain.evaluate(LookupError("x"), 1, 3).action.value == "fail"
    assert chain.evaluate(RateLimited("later", retry_at=time.time()), 1, 3).action.value == "reschedule"
    assert chain.evaluate(ValueError("x"), 1, 3).action.value == "default"


@from_3_3
@pytest.mark.parametrize("exception", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_what_is_no_error_of_ours_is_the_tasks_own(exception: Exception) -> None:
    assert decided(exception).action.value == "default"


@from_3_3
def test_in_a_dag_run(run_dag: Run, accounts: EmulatorProcess, pictures: list[str], tmp_path: Path) -> None:
    accounts.faults({"all": {"credits": 0.0}})
    ran = run_dag(
        "with_policy", {}, file="retrying.py", image=pictures[0], store=str(tmp_path / "store"), counts=str(tmp_path)
    )
    # A task of one's own, that uses the hook: Airflow by itself would try it again.
    assert (ran.states["account"], ran.tries["account"]) == ("failed", 1)
    assert (ran.states["alone"], ran.tries["alone"]) == ("failed", 2)
    assert (ran.states["operator"], ran.tries["operator"]) == ("failed", 1)
    waits = {name: (ran.states[name], ran.tries[name]) for name in ("later", "twice_later", "without_retries")}
    if AIRFLOW < (3, 4):
        assert waits == {"later": ("success", 2), "twice_later": ("failed", 2), "without_retries": ("failed", 1)}
    else:
        assert waits == {"later": ("success", 1), "twice_later": ("success", 1), "without_retries": ("success", 1)}
    assert accounts.ledger(entries=False)["billed"] == 0

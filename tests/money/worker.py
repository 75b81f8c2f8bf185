"""One task in a process of its own, which a test may kill: what to do is read from a file, what came of it printed."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from airflow_provider_describer.account import account_from_connection
from airflow_provider_describer.engine import chained, second_tries, vendor_history
from airflow_provider_describer.engine.failover import Fallback
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.http import flow
from airflow_provider_describer.http.retry import RetryPolicy
from airflow_provider_describer.images.reference import parse_images
from airflow_provider_describer.rules import parse_rules
from airflow_provider_describer.storage.open_bucket import bucket_from_environment
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.vendors import get_vendor


def main(task: dict[str, Any]) -> None:
    vendor = get_vendor(task["vendor"])
    account = account_from_connection(
        vendor.defaults(), conn_id="shop", password=task["key"], host=task["host"], extra=task["extra"]
    )
    flow.poll_pause = lambda polls: task["poll_s"]
    vendor_history.SETTLING_S = task["settling_s"]
    if task["die"] == "between":
        # The requests of the second pass are asked for when the first one has ended.
        dies = property(lambda self: os.kill(os.getpid(), signal.SIGKILL))
        second_tries.SecondTries.requests = dies  # type: ignore[assignment,method-assign]
    if task["die"] == "before_fallback":
        killed = lambda self, *given: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        chained.ChainedPasses._go_on = killed  # type: ignore[assignment,method-assign]
    job = Job(
        flow.VendorCalls(vendor, account, RetryPolicy(base=0.01, cap=0.02)),
        parse_images(task["images"], vendor, stricter_prompt=task["stricter_prompt"]),
        TaskLimits(**task["limits"]),
        on_claimed=task["on_claimed"],
        store=task["store"],
        task_instance=TaskInstanceKey(**task["run"]),
        on_unknown=task["on_unknown"],
        report=lambda line: None,
        # Each is opened once, as the hooks do it.
        open_bucket=functools.cache(bucket_from_environment),
        rules=parse_rules("rules", task["rules"]),
        fallbacks=[fallback(one, task) for one in task["fallbacks"]],
    )
    outcome = job.run()
    print(json.dumps({"manifest": outcome.manifest, "error": outcome.error and str(outcome.error)}))


def fallback(one: dict[str, Any], task: dict[str, Any]) -> Fallback:
    """A further connection of the chain."""
    vendor = get_vendor(one["vendor"])
    account = account_from_connection(
        vendor.defaults(), conn_id=one["conn_id"], password=one["key"], host=task["host"], extra=one["extra"]
    )
    calls = flow.VendorCalls(vendor, account, RetryPolicy(base=0.01, cap=0.02))
    return Fallback(calls, parse_images(task["images"], vendor))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

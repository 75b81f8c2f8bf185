"""A process for tests that are about kills: it journals calls, settles as it goes, and says what is durable.

Its arguments: the store, a number of this process, and the outcomes to write. It prints each call whose outcome is
durable. Small groups, and maintenance after each, keep it in settling nearly all of the time.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys

from airflow_provider_describer.storage.cas_document import open_document
from airflow_provider_describer.storage.folder import Folder, open_folder
from airflow_provider_describer.storage.open_bucket import bucket_from_environment
from airflow_provider_describer.store import journal as journal_module
from airflow_provider_describer.store import table as table_module
from airflow_provider_describer.store.abandoned import LOCK, settle_abandoned
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.table import SettledTable

TEXT = "A description of some length. " * 10


def outcome(call: str) -> dict[str, object]:
    row = {"uri": call, "text": TEXT, "cost_usd": 0.015, "billed": "yes", "status": "described", "vendor": "v"}
    row |= {"described_at": "2026-01-01T00:00:00.000+00:00", "dag_id": "", "run_id": "", "task_id": "", "map_index": -1}
    return {"event": "outcome", "call": call, "keys": [hashlib.md5(call.encode()).hexdigest()], **row}


async def work(folder: Folder, name: str, count: int) -> None:
    async with Journal(folder, writer=f"w{name}", window=0) as journal:
        for number in range(count):
            call = f"{name}-{number}"
            begun = {"event": "sent", "call": call, "keys": outcome(call)["keys"], "uri": call, "at": 1.0}
            await journal.commit(begun)
            await journal.commit(outcome(call))
            print(call, flush=True)


def main(store: str, name: str, count: str) -> None:
    journal_module.SETTLE_BYTES = 4000
    table_module.MERGES = ((50_000, 3), (250_000, 3))
    table_module.INDEX_AFTER_ROWS, table_module.INDEX_AFTER_SHARE = 10, 0.0
    folder = open_folder(store, bucket_from_environment)
    lock = open_document("store", f"{store}/claims", LOCK, bucket_from_environment)
    # All that earlier processes have left; none of them lives any more.
    settle_abandoned(folder, lambda: (), lock, clock=lambda: 0.0)
    print("settled", flush=True)
    asyncio.run(work(folder, name, int(count)))
    SettledTable(folder).maintain(at_once=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

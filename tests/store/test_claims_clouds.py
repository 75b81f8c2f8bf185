"""Claims in a bucket of either cloud: what they cost a run that is alone, and how many arrive together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from airflow_provider_describer.errors import DescriberError, StoreError
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.claim_files import Claims, open_claims
from airflow_provider_describer.store.claims import LiveRun
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from clouds import Cloud

KEYS = [f"{number:016x}" * 2 for number in range(1000)]


def claims_in(cloud: Cloud, run_id: str = "") -> Claims:
    store = f"{cloud.uri}/store"
    task = TaskInstanceKey("shop", run_id, "describe") if run_id else TaskInstanceKey()
    return open_claims(store, open_folder(store, cloud.open_bucket), cloud.open_bucket, task)


def owner(run: Claims, key: str) -> LiveRun:
    found = run.owner_of([key])
    assert found
    return found


def arrived(cloud: Cloud, *keys: str, run_id: str = "") -> Claims:
    run = claims_in(cloud, run_id)
    run.look()
    run.arrive(keys)
    return run


def test_a_run_alone_sends_few_requests(cloud):
    arrived(cloud, *KEYS).depart()
    before = len(cloud.server.received())
    run = arrived(cloud, *KEYS)
    at_start = len(cloud.server.received()) - before
    run.renew()
    renewing = len(cloud.server.received()) - before - at_start
    run.depart()
    at_end = len(cloud.server.received()) - before - at_start - renewing
    # GCS tells the generation, which a conditional write names, in an answer of its own.
    assert at_start <= (3 if cloud.scheme == "s3" else 4)
    assert renewing == 2
    assert at_end <= (4 if cloud.scheme == "s3" else 5)


def test_owners_are_seen_depart_and_are_taken_over(cloud):
    first, second = arrived(cloud, *KEYS[:2], run_id="night"), arrived(cloud, *KEYS[1:3], run_id="manual")
    assert owner(second, KEYS[1]).name == "shop/night/describe" and second.owner_of([KEYS[2]]) is None
    first.renew()
    again = arrived(cloud, *KEYS[:2], run_id="night")
    assert owner(again, KEYS[1]).id == second.id and again.owner_of([KEYS[0]]) is None
    with pytest.raises(DescriberError, match="no longer lists this run"):
        first.renew()
    first.depart()
    second.poll()
    assert second.owner_of([KEYS[1]]) is None
    second.depart()
    again.poll()
    assert again.owner_of([KEYS[1]]) is None
    again.depart()
    folder = open_folder(f"{cloud.uri}/store", cloud.open_bucket)
    assert folder.names("claims") == ["claims/order.json"]


def test_sixteen_that_arrive_together_all_get_through_and_one_is_first(cloud):
    runs, failed, together = [claims_in(cloud, f"run {number}") for number in range(16)], [], threading.Barrier(16)

    def arrive(run: Claims) -> None:
        try:
            run.look()
            together.wait()
            run.arrive(KEYS[:100])
        except DescriberError as error:
            failed.append(error)

    threads = [threading.Thread(target=arrive, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(run.owner_of(KEYS) is None for run in runs) == 1
    for run in sorted(runs, key=lambda run: len(run._before)):
        assert run.holds()
        run.poll()
        assert run.owner_of(KEYS) is None
        run.depart()


@pytest.mark.parametrize("times", [1, 9])
def test_lost_answers_list_a_run_once(cloud, times):
    first = arrived(cloud, *KEYS)
    run = claims_in(cloud)
    run.look()
    cloud.server.lose_answers(method="PUT", path="claims/order.json", times=times)
    run.arrive(KEYS)
    assert len(run.look()) == 2 and owner(run, KEYS[0]).id == first.id
    cloud.server.lose_answers(method="PUT", path="claims/order.json", times=times)
    first.depart()
    run.poll()
    assert run.owner_of(KEYS) is None and run.look() == {run.id}


def test_a_store_that_denies_stops_the_run_and_is_named(cloud):
    run = claims_in(cloud)
    cloud.server.deny(path="claims/order.json", times=99)
    with pytest.raises(StoreError, match=r"claims/order\.json"):
        run.look()

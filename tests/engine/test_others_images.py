"""Images that another live run is paying for: waited for, reused, taken over or left; billed once all the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_describer.engine import claimed
from airflow_provider_describer.engine.deferral import CarriedTotals
from airflow_provider_describer.engine.job import Job
from airflow_provider_describer.engine.limits import TaskLimits
from airflow_provider_describer.engine.ownership import Ownership
from airflow_provider_describer.engine.passes import Pass
from airflow_provider_describer.engine.progress import Outcome
from airflow_provider_describer.engine.slices import goes_on, slice_of
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.storage.folder import LocalFolder, open_folder
from airflow_provider_describer.store.claim_files import Claims, open_claims
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.journal import Journal
from airflow_provider_describer.store.rows import TaskInstanceKey

if TYPE_CHECKING:
    from clouds import Cloud

    from tests.conftest import Shop

Pictures = Callable[..., list[Path]]
NIGHT = TaskInstanceKey("shop", "night", "describe")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the other runs often, so that a test is short."""
    monkeypatch.setattr(claimed, "FIRST_POLL_S", 0.02)
    monkeypatch.setattr(claimed, "LONGEST_POLL_S", 0.05)


class UnclaimedPass(Pass):
    __slots__ = ()

    def _open_ownership(self) -> Ownership:
        return Ownership(None, self.report)


class Unclaimed(Job):
    """A job whose claims somebody else has made."""

    __slots__ = ()

    def _new_pass(self, *given: Any, **more: Any) -> Pass:
        new = super()._new_pass(*given, **more)
        return UnclaimedPass(**{field.name: getattr(new, field.name) for field in fields(new)})


def unclaimed(job: Job) -> Job:
    return Unclaimed(**{field.name: getattr(job, field.name) for field in fields(job) if field.init})


class Owner:
    """Another live run, which does what a test says."""

    def __init__(self, shop: Shop, paths: list[Path], task: TaskInstanceKey = NIGHT) -> None:
        self.shop, self.task, self.requests = shop, task, shop.job(paths).requests
        self.claims: Claims = open_claims(shop.store, LocalFolder(shop.store), None, task)
        self.claims.look()
        self.claims.arrive(key for request in self.requests for key in self.keys(request))

    def keys(self, request: Any) -> tuple[str, ...]:
        content = Path(request.image.uri.removeprefix("file://")).read_bytes()
        return identity_keys(request.spec, request.image.uri, sha256(content).hexdigest(), None, len(content))

    def write(self, *kinds: str, request: int = 0, call: str = "c1") -> None:
        """Write events of a call for an image to the journal."""

        async def write() -> None:
            async with Journal(LocalFolder(self.shop.store)) as journal:
                for kind in kinds:
                    about = {"keys": list(self.keys(self.requests[request])), "uri": "u", "at": time.time()}
                    more = {"accepted": {"request_id": "r1"}, "closed": {"why": "x"}}.get(kind, {})
                    await journal.commit({"event": kind, "call": call, **about, **more})

        asyncio.run(write())

    def describe(self, count: int | None = None, **options: Any) -> None:
        """Have its images described, as the task instance that it is would."""
        paths = [request.image.uri.removeprefix("file://") for request in self.requests[:count]]
        assert unclaimed(self.shop.job(paths, task_instance=self.task, **options)).run().error is None


@contextmanager
def running(job: Job) -> Iterator[Callable[[], Outcome]]:
    """Run a job in a thread; yield a function that waits for what comes of it."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(job.run()))
    thread.start()

    def end() -> Outcome:
        thread.join()
        return outcomes[0]

    try:
        yield end
    finally:
        job.stop()
        thread.join()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_own_images_are_described_meanwhile_and_the_others_are_reused(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(9)
    lines: list[str] = []
    owner = Owner(shop, paths[:4])
    with running(shop.job(paths, report=lines.append)) as end:
        wait_until(lambda: shop.emulator.ledger()["billed"] == 5)
        owner.describe()
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.counts["described"] == 5 and result.counts["reused"] == 4 and result.error is None
    assert result.ledger["billed"] == 9 and set(result.ledger["by_image"].values()) == {1}
    assert "4 images are being described by shop/night/describe; waiting for them" in lines
    assert any("4 being described by other runs" in line for line in lines)
    assert {row["cost_usd"] for row in result.of("reused")} == {0.0}


def test_each_outcome_is_reused_while_its_owner_still_lives(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    owner = Owner(shop, paths)
    with running(shop.job(paths)) as end:
        owner.describe()
        result = shop.result(end(), [])
    assert result.counts["reused"] == 3 and result.ledger["billed"] == 3
    assert owner.claims.holds()


def test_what_an_owner_has_left_undone_is_described_here(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(4)
    owner = Owner(shop, paths)
    with running(shop.job(paths)) as end:
        owner.describe(1)
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.counts["reused"] == 1 and result.counts["described"] == 3
    assert set(result.ledger["by_image"].values()) == {1}


def test_those_that_are_skipped_stay_pending_and_the_run_succeeds_with_a_warning(
    shop: Shop, pictures: Pictures
) -> None:
    paths = pictures(6)
    lines: list[str] = []
    owner = Owner(shop, paths[:2])
    outcome = shop.job(paths, on_claimed="skip", report=lines.append).run()
    result = shop.result(outcome, lines)
    assert result.error is None and result.counts["described"] == 4 and result.counts["pending"] == 2
    for row in result.of("pending"):
        assert row["error"]["kind"] == "claimed" and "shop/night/describe" in row["error"]["message"]
        assert row["billed"] == "no"
    assert outcome.warning is not None and "2 of 6 images are left pending with on_claimed='skip'" in outcome.warning
    assert "2 images are being described by shop/night/describe; they are left pending" in lines
    assert outcome.skipped == 2 and not goes_on(outcome, shop.account())
    owner.describe()
    owner.claims.depart()
    assert shop.describe(paths).counts["reused"] == 6
    assert shop.emulator.ledger()["billed"] == 6


@pytest.mark.parametrize("on_unknown", ["fail", "hold", "retry"])
def test_a_call_under_way_of_a_run_that_lives_is_not_of_unknown_outcome(
    shop: Shop, pictures: Pictures, on_unknown: Any
) -> None:
    paths = pictures(1)
    owner = Owner(shop, paths)
    owner.write("sent")
    with running(shop.job(paths, on_unknown=on_unknown)) as end:
        owner.describe(on_unknown="retry")
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.error is None and result.counts["reused"] == 1 and result.ledger["billed"] == 1


def test_a_call_of_an_owner_that_went_without_its_end_is_decided_then(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    owner = Owner(shop, paths)
    owner.write("sent")
    with running(shop.job(paths, on_unknown="fail")) as end:
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.error is not None and result.error.kind == "unknown_outcome"
    assert result.counts["unknown"] == 1 and result.ledger["billed"] == 0


def test_a_request_that_its_owner_is_fetching_is_fetched_only_when_the_owner_has_gone(
    shop: Shop, pictures: Pictures
) -> None:
    shop.vendor, shop.fields["api_version"] = "segmind", "v2"
    shop.faults(v2_delay_s=0.4)
    paths = pictures(2)
    owner = Owner(shop, paths, NIGHT)
    unclaimed(shop.job(paths, slice_size=1, max_wait=0.05)).run()
    before = shop.emulator.ledger()
    assert before["requests"] == 1
    lines: list[str] = []
    with running(shop.job(paths, report=lines.append)) as end:
        wait_until(lambda: any("waiting" in line for line in lines))
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.counts["described"] == 2 and result.ledger["billed"] == 2
    assert set(result.ledger["by_image"].values()) == {1}


def test_a_rejection_that_its_owner_gets_again_is_taken_from_it(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(1)
    shop.breaks("harmful")
    assert shop.describe(paths).counts["rejected"] == 1
    owner = Owner(shop, paths)
    with running(shop.job(paths, retry_rejected=True)) as end:
        owner.describe(retry_rejected=True)
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.counts["rejected"] == 1 and result.ledger["requests"] == 2


def test_a_run_whose_budget_is_used_up_does_not_wait(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(6)
    Owner(shop, paths[:2])
    result = shop.describe(paths, max_calls=1)
    assert result.error is None and result.counts["described"] == 1 and result.counts["pending"] == 5
    kinds = sorted(row["error"]["kind"] for row in result.of("pending"))
    assert kinds == ["budget"] * 3 + ["claimed"] * 2


def test_a_run_that_is_stopped_waits_no_longer(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    lines: list[str] = []
    Owner(shop, paths)
    job = shop.job(paths, report=lines.append)
    with running(job) as end:
        wait_until(lambda: any("waiting" in line for line in lines))
        job.stop()
        result = shop.result(end(), [])
    assert result.error is not None and result.error.kind == "unfinished"
    assert {row["error"]["kind"] for row in result.of("pending")} == {"stopped"}


def test_a_run_that_can_defer_leaves_and_comes_back_later_each_time(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    owner, waits, carried = Owner(shop, paths[:2]), [], None
    for _ in range(5):
        outcome = shop.job(paths, max_wait=0.1, carried=carried).run()
        assert outcome.error is None and outcome.resume_condition is not None
        assert outcome.resume_condition.until is not None and outcome.resume_condition.requests == ()
        waits.append(round(outcome.resume_condition.until - time.time()))
        carried = CarriedTotals.from_dict(outcome.carried.to_dict())
    assert waits == [60, 120, 240, 300, 300]
    pending = shop.result(outcome, []).of("pending")
    assert {row["error"]["kind"] for row in pending} == {"waiting"} and len(pending) == 2
    owner.describe(1)
    outcome = shop.job(paths, max_wait=0.1, carried=carried).run()
    assert outcome.manifest["counts"]["reused"] == 1 and outcome.resume_condition is not None
    owner.claims.depart()
    outcome = shop.job(paths, max_wait=0.1, carried=outcome.carried).run()
    result = shop.result(outcome, [])
    assert outcome.resume_condition is None and result.counts["pending"] == 0 and result.ledger["billed"] == 3


def test_a_slice_with_nothing_else_to_do_ends_and_the_next_goes_on(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(3)
    owner = Owner(shop, paths[:2])
    job = shop.job(paths)
    job.limits = replace(slice_of(TaskLimits(), 10), max_wait=0.1)
    outcome = job.run()
    assert outcome.manifest["counts"]["described"] == 1 and goes_on(outcome, shop.account())
    owner.describe()
    owner.claims.depart()
    job = shop.job(paths, carried=outcome.carried)
    job.limits = slice_of(TaskLimits(), 10)
    outcome = job.run()
    assert outcome.manifest["counts"]["reused"] >= 2 and not goes_on(outcome, shop.account())
    assert shop.emulator.ledger()["billed"] == 3


def test_a_later_try_that_takes_over_stops_the_earlier_one(
    shop: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_describer.engine.ownership.RENEW_S", 0.1)
    monkeypatch.setattr("airflow_provider_describer.engine.ownership.LOOK_S", 0.05)
    shop.faults(latency_s=0.3)
    paths = pictures(40)
    with running(shop.job(paths, task_instance=NIGHT, concurrency=2)) as end:
        wait_until(lambda: shop.emulator.ledger()["requests"] >= 2)
        again = Owner(shop, paths, replace(NIGHT, try_number=2))
        result = shop.result(end(), [])
    assert result.error is not None and result.error.kind == "claim_lost"
    assert 0 < result.counts["described"] < 20 and result.counts["described"] == result.ledger["billed"]
    assert again.claims.look() == {again.claims.id}


def test_a_run_that_is_late_sends_nothing_until_it_owns_its_images_again(
    shop: Shop, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was stopped, or the store out of reach."""
    owns = [False]
    monkeypatch.setattr(Claims, "holds", lambda self: owns[0])
    paths = pictures(3)
    with running(shop.job(paths)) as end:
        folder = LocalFolder(shop.store)
        wait_until(lambda: len(folder.names("journal")) > 0)
        time.sleep(0.3)
        assert shop.emulator.ledger()["requests"] == 0
        owns[0] = True
        result = shop.result(end(), [])
    assert result.counts["described"] == 3 and result.ledger["billed"] == 3
    assert shop.describe(paths).counts["reused"] == 3


def test_nothing_to_call_claims_nothing(shop: Shop, pictures: Pictures) -> None:
    paths = pictures(2)
    shop.describe(paths)
    order = shop.store / "claims" / "order.json"
    before = order.stat()
    assert shop.describe(paths).counts["reused"] == 2
    assert order.stat().st_mtime_ns == before.st_mtime_ns
    shop.job([*paths, *pictures(3)[2:]], dry_run=True).run()
    assert order.stat().st_mtime_ns == before.st_mtime_ns
    assert LocalFolder(shop.store).names("claims") == ["claims/order.json"]


def test_a_run_without_a_store_claims_nothing(shop: Shop, pictures: Pictures) -> None:
    assert shop.describe(pictures(2), store=None).counts["described"] == 2
    assert not shop.store.exists()


def test_a_value_that_cannot_work_is_named(shop: Shop, pictures: Pictures) -> None:
    with pytest.raises(BadInput, match="on_claimed is 'never', expected one of wait, skip"):
        shop.job(pictures(1), on_claimed="never").run()


def test_damaged_claims_stop_the_run_before_its_first_call(shop: Shop, pictures: Pictures) -> None:
    LocalFolder(shop.store).create("claims/order.json", b"{")
    with pytest.raises(Exception, match=r"claims/order\.json is damaged") as raised:
        shop.job(pictures(2)).run()
    assert raised.value.kind == "corrupt_claims"  # type: ignore[attr-defined]
    assert shop.emulator.ledger()["requests"] == 0


@pytest.mark.parametrize("what", ["order", "shard", "taken over"])
def test_an_error_while_it_waits_ends_the_run_and_loses_no_row(shop: Shop, pictures: Pictures, what: str) -> None:
    paths = pictures(5)
    owner = Owner(shop, paths[:2])
    folder = LocalFolder(shop.store)
    mine = TaskInstanceKey("shop", "day", "describe")
    with running(shop.job(paths, task_instance=mine)) as end:
        wait_until(lambda: shop.emulator.ledger()["billed"] == 3)
        if what == "order":
            folder.replace("claims/order.json", b"{")
        elif what == "shard":
            folder.create(f"journal/20260101T000000.000-{owner.claims.id}-000001.jsonl", b"{")
        else:
            Owner(shop, paths, mine)
        result = shop.result(end(), [])
    kinds = {"order": "corrupt_claims", "shard": "corrupt_shard", "taken over": "claim_lost"}
    assert result.error is not None and result.error.kind == kinds[what]
    assert result.counts["described"] == 3 and result.counts["pending"] == 2
    assert {row["error"]["kind"] for row in result.of("pending")} == {"stopped"}


def in_cloud(shop: Shop, cloud: Cloud, draw: Callable[..., bytes], count: int) -> list[str]:
    for number in range(count):
        cloud.bucket().put(f"photos/{number}.jpg", draw(number))
    return [f"{cloud.uri}/photos/{number}.jpg" for number in range(count)]


def test_a_run_alone_sends_no_request_more_for_an_image(shop: Shop, cloud: Cloud, draw: Callable[..., bytes]) -> None:
    sent = []
    for count in (2, 30):
        uris = in_cloud(shop, cloud, draw, count)
        before = len(cloud.server.received(path="/claims"))
        outcome = shop.job(uris, store=f"{cloud.uri}/store {count}", open_bucket=cloud.open_bucket).run()
        assert outcome.error is None
        sent.append(len(cloud.server.received(path="/claims")) - before)
    print(f"\n{cloud.scheme}: {sent[0]} requests for the claims of a run")
    assert sent[0] == sent[1] <= (6 if cloud.scheme == "s3" else 7)


def test_a_store_without_conditional_writes_works_as_before_and_says_so(
    shop: Shop, s3: Cloud, draw: Callable[..., bytes]
) -> None:
    uris = in_cloud(shop, s3, draw, 3)
    lines: list[str] = []
    s3.server.fail(501, "NotImplemented", method="PUT", path="order.json", times=99)
    store = f"{s3.uri}/store"
    outcome = shop.job(uris, store=store, open_bucket=s3.open_bucket, report=lines.append).run()
    assert outcome.error is None and outcome.manifest["counts"]["described"] == 3
    assert any("Two runs at once may both pay" in line and "order.json" in line for line in lines)
    assert open_folder(store, s3.open_bucket).names("claims") == []


def test_an_image_that_has_the_content_of_a_claimed_one_shares_its_fate(
    shop: Shop, s3: Cloud, pictures: Pictures, draw: Callable[..., bytes]
) -> None:
    """It is known when the image is read, after the plan."""
    paths = pictures(2)
    lines: list[str] = []
    s3.bucket().put("copy.jpg", draw(0))
    images = [paths[0], paths[1], {"uri": f"{s3.uri}/copy.jpg", "version": "7"}]
    owner = Owner(shop, paths[:1])
    with running(shop.job(images, open_bucket=s3.open_bucket, report=lines.append)) as end:
        wait_until(lambda: shop.emulator.ledger()["billed"] == 1)
        owner.describe()
        owner.claims.depart()
        result = shop.result(end(), [])
    assert result.counts["described"] == 1 and result.counts["reused"] == 2
    assert result.ledger["billed"] == 2
    outcome = shop.job(images, open_bucket=s3.open_bucket).run()
    assert outcome.manifest["counts"]["reused"] == 3

"""Claims: one owner an identity, whatever stops, dies, is late or loses an answer."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_describer.errors import DescriberError, StoreError, Unfinished
from airflow_provider_describer.storage.cas_document import Changed, LocalDocument, MemoryDocument
from airflow_provider_describer.storage.folder import LocalFolder
from airflow_provider_describer.store import claims as rules
from airflow_provider_describer.store.claim_files import Claims, open_claims
from airflow_provider_describer.store.claims import CLOCKS_S, LEASE_S, LiveRun, Order
from airflow_provider_describer.store.rows import TaskInstanceKey

KEYS = [f"{number:032x}" for number in (1 << 120, 2 << 120, 3 << 120)]
A, B, C = KEYS


class Document(MemoryDocument):
    """Loses answers: ``lose`` says of the next writes whether they are made all the same."""

    write_interval = 0.0
    where = "memory:claims/order.json"

    def __init__(self) -> None:
        super().__init__()
        self.lose: list[bool] = []
        self.writes = 0

    def swap(self, content: bytes, token: Any) -> Any:
        self.writes += 1
        if not self.lose:
            return super().swap(content, token)
        if self.lose.pop(0):
            super().swap(content, token)
        raise StoreError("no answer", kind="unreachable")


@dataclass
class Machines:
    """Runs on machines whose clocks differ, on one store."""

    disk: Any
    document: Document = field(default_factory=Document)
    now: float = 1_000_000.0

    def run(self, instance: str = "", name: str = "", ahead: float = 0.0) -> Claims:
        """A new run on a machine whose clock is ``ahead`` by that many seconds."""
        return Claims(
            self.disk,
            self.document,
            instance,
            name,
            clock=lambda: self.now + ahead,
            steady=lambda: self.now - 999_000.0,
        )

    def arrived(self, *keys: str, instance: str = "", name: str = "", ahead: float = 0.0) -> Claims:
        run = self.run(instance, name, ahead)
        run.look()
        run.arrive(keys)
        return run

    def listed(self) -> list[str]:
        order = rules.decode_order("", self.document.load()[0])
        return [run.id for run in order.runs]


@pytest.fixture
def machines(disk: Any) -> Machines:
    return Machines(disk)


def name_of_owner(run: Claims) -> str:
    found = run.owner_of([A])
    assert found
    return found.name


def owner(run: Claims, *keys: str) -> str | None:
    found = run.owner_of(keys)
    return found.id if found else None


def test_a_run_alone_owns_what_it_claims_and_what_it_has_read_is_current(machines):
    run = machines.run()
    assert not run.holds()
    assert run.look() == frozenset()
    assert run.arrive([A, B]) is True
    assert run.holds() and run.owner_of([A]) is None and run.owner_of([C]) is None


def test_what_an_earlier_run_wants_is_its_own_and_the_rest_is_ours(machines):
    first = machines.arrived(A, B, name="shop/night/describe")
    second = machines.run()
    second.look()
    assert second.arrive([B, C]) is True, "what is not its own, nobody else can have paid for meanwhile"
    assert owner(second, B) == first.id and owner(second, C, B) == first.id and owner(second, C) is None
    assert second.owner_of([B]).name == "shop/night/describe"
    assert first.owner_of([B]) is None
    third = machines.arrived(C, A)
    assert owner(third, C) == second.id and owner(third, A) == first.id


def test_an_owner_that_departs_leaves_its_images_to_the_next_in_the_order(machines):
    first, second, third = (machines.arrived(A) for _ in range(3))
    first.depart()
    assert not first.holds()
    third.poll()
    assert owner(third, A) == second.id
    second.poll()
    assert second.owner_of([A]) is None
    second.depart()
    third.poll()
    assert third.owner_of([A]) is None
    third.depart()
    assert machines.listed() == []
    assert machines.disk.files == {}, "nothing is left behind"


def test_of_two_that_begin_in_the_same_instant_one_wins(machines):
    one, other = machines.run(), machines.run()
    one.look()
    other.look()
    assert one.arrive([A]) is True
    assert other.arrive([A]) is False, "it reads the store again"
    assert one.owner_of([A]) is None and owner(other, A) == one.id


def test_one_that_came_paid_and_left_meanwhile_makes_what_was_read_old(machines):
    slow = machines.run()
    slow.look()
    machines.arrived(A).depart()
    assert machines.listed() == []
    assert slow.arrive([A]) is False, "the order is as it was, and yet not the same"


def test_a_dead_owner_is_replaced_about_a_minute_after_its_last_sign(machines):
    dead, heir = machines.arrived(A), machines.arrived(A)
    machines.now += 10
    dead.renew()
    machines.now += LEASE_S + CLOCKS_S - 1
    heir.poll()
    assert owner(heir, A) == dead.id
    machines.now += 2
    heir.renew()
    heir.poll()
    assert heir.owner_of([A]) is None and machines.listed() == [heir.id]
    assert not any(dead.id in name for name in machines.disk.files)


def test_a_new_run_replaces_the_dead_at_once_and_reads_the_store_again(machines):
    dead = machines.arrived(A)
    machines.now += 3600
    heir = machines.run()
    assert heir.look() == {dead.id}
    assert heir.arrive([A]) is False, "the dead may have paid for it since the store was read"
    assert heir.owner_of([A]) is None and machines.listed() == [heir.id]
    assert not any(dead.id in name for name in machines.disk.files)


@pytest.mark.parametrize("ahead", [-CLOCKS_S + 1, CLOCKS_S - 1])
def test_clocks_that_differ_make_no_live_owner_dead(machines, ahead):
    alive = machines.arrived(A)
    for _ in range(20):
        late = machines.arrived(A, ahead=ahead)
        assert owner(late, A) == alive.id
        machines.now += LEASE_S - 1
        late.poll()
        assert owner(late, A) == alive.id and alive.holds()
        late.depart()
        alive.renew()


def test_a_stopped_owner_that_nobody_has_replaced_goes_on(machines):
    stopped, other = machines.arrived(A), machines.arrived(B)
    machines.now += 600
    assert not stopped.holds()
    stopped.renew()
    assert stopped.holds() and stopped.id in machines.listed()
    other.renew()
    late = machines.arrived(A)
    assert owner(late, A) == stopped.id, "it has kept its place"


def test_a_stopped_owner_that_was_replaced_learns_it_before_it_sends(machines):
    stopped, heir = machines.arrived(A), machines.arrived(A)
    machines.now += LEASE_S + CLOCKS_S + 1
    heir.poll()
    assert heir.owner_of([A]) is None and not stopped.holds()
    with pytest.raises(Unfinished) as lost:
        stopped.renew()
    assert lost.value.kind == "claim_lost" and "order.json" in str(lost.value)
    assert not stopped.holds()
    stopped.depart()
    assert not any(stopped.id in name for name in machines.disk.files)


def test_a_stopped_owner_that_wakes_up_while_it_is_being_replaced_wins_or_loses_but_never_both(machines):
    stopped, heir = machines.arrived(A), machines.arrived(A)
    machines.now += LEASE_S + CLOCKS_S + 1
    swap = machines.document.swap
    woken: list[bool] = []

    def wake_first(content: bytes, token: Any) -> Any:
        if not woken:
            woken.append(True)
            stopped.renew()
        return swap(content, token)

    machines.document.swap = wake_first
    heir.poll()
    assert owner(heir, A) == stopped.id and stopped.holds(), "it was still in the order, and took its place again"
    assert any(stopped.id in name for name in machines.disk.files), "and its files are still there"


def test_a_renewal_that_took_too_long_counts_as_late(machines):
    """Its sign of life was written after others could take it for dead."""
    slow, heir = machines.arrived(A), machines.arrived(A)
    machines.now += LEASE_S - 1

    def slowly(number: int, operation: str, name: str) -> None:
        if operation == "replace":
            machines.disk.calm()
            machines.now += CLOCKS_S + 5
            heir.poll()

    machines.disk.before = slowly
    with pytest.raises(Unfinished):
        slow.renew()
    assert heir.owner_of([A]) is None and not slow.holds()


def test_the_next_try_takes_over_at_once_and_the_try_before_learns_it(machines):
    before = machines.arrived(A, B, instance="1234")
    other = machines.arrived(B)
    again = machines.run(instance="1234")
    again.look()
    assert again.arrive([A, B]) is False
    assert again.owner_of([A]) is None and owner(again, B) == other.id
    assert machines.listed() == [other.id, again.id]
    with pytest.raises(Unfinished):
        before.renew()
    assert not before.holds()


def test_runs_outside_airflow_are_not_tries_of_one_task(machines):
    first = machines.arrived(A)
    assert owner(machines.arrived(A), A) == first.id


def test_a_waiting_run_that_was_replaced_learns_it(machines):
    machines.arrived(A)
    waiting = machines.arrived(A, instance="1")
    machines.arrived(A, instance="1")
    with pytest.raises(Unfinished):
        waiting.poll()


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_answer_to_an_arrival_lists_the_run_once(machines, written, times):
    first = machines.arrived(A)
    run = machines.run()
    run.look()
    machines.document.lose = [written] * times
    assert run.arrive([A]) is False
    assert machines.listed() == [first.id, run.id] and run.holds() and owner(run, A) == first.id
    machines.now += LEASE_S
    assert not run.holds()


@pytest.mark.parametrize("written", [True, False])
def test_a_lost_answer_to_a_departure_leaves_nothing(machines, written):
    run = machines.arrived(A)
    machines.document.lose = [written]
    run.depart()
    assert machines.listed() == [] and machines.disk.files == {}


def test_a_departure_that_all_others_get_ahead_of_leaves_nothing(machines):
    """As where 16 tasks wait for the same images: all of them leave when the last image is described."""
    last, *others = [machines.arrived(A) for _ in range(16)]
    load = machines.document.load

    def load_and_be_late() -> Any:
        found = load()
        if others:
            other = others.pop()
            machines.document.load = load
            other.depart()
            machines.document.load = load_and_be_late
        return found

    machines.document.load = load_and_be_late
    last.depart()
    assert others == [] and machines.listed() == [] and machines.disk.files == {}


def test_a_departure_that_cannot_change_the_order_makes_nobody_wait(machines):
    first, second = machines.arrived(A), machines.arrived(A)
    machines.document.lose = [False] * 100
    first.depart()
    machines.document.lose = []
    assert first.id in machines.listed()
    second.poll()
    assert second.owner_of([A]) is None and machines.listed() == [second.id]
    assert not any(first.id in name for name in machines.disk.files)


def test_a_store_that_cannot_be_written_raises_and_owns_nothing(machines):
    run = machines.run()
    run.look()
    machines.disk.fail_on("create")
    with pytest.raises(StoreError):
        run.arrive([A])
    assert not run.holds() and machines.listed() == []
    run.depart()


def test_a_renewal_that_fails_leaves_what_is_owned_until_its_time_is_over(machines):
    run = machines.arrived(A)
    machines.disk.fail_on("replace")
    machines.now += 20
    with pytest.raises(StoreError):
        run.renew()
    assert run.holds()
    machines.now += LEASE_S - 20
    assert not run.holds()
    machines.disk.calm()
    run.renew()
    assert run.holds()


def test_a_clock_that_stood_still_is_not_trusted(machines):
    """As a machine's steady clock may, while it sleeps."""
    run = machines.run()
    run._steady = lambda: 5.0
    run.look()
    run.arrive([A])
    machines.now += LEASE_S - 1
    assert run.holds()
    machines.now += 1
    assert not run.holds()


def test_files_that_a_kill_has_left_are_removed_later(machines):
    stray = machines.run()
    machines.disk.create(f"claims/{stray.id}.keys", rules.encode_keys(rules.pack([A]), machines.now))
    dead = machines.arrived(B)
    machines.now += 600
    machines.arrived(A).depart()
    assert f"claims/{stray.id}.keys" in machines.disk.files, "it may be about to arrive"
    assert not any(dead.id in name for name in machines.disk.files)
    machines.arrived(B)
    machines.now += 7200
    machines.arrived(A)
    assert f"claims/{stray.id}.keys" not in machines.disk.files


def damage(content: bytes) -> dict[str, bytes]:
    newer = content.replace(b'"version": 1', b'"version": 2')
    assert newer != content
    return {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "other": b'{"format": "another"}',
        "text": b"no JSON",
        "list": b"[]",
        "newer": newer,
    }


@pytest.mark.parametrize("kind", ["cut", "empty", "other", "text", "list", "newer"])
def test_a_damaged_or_newer_order_stops_the_run_and_is_named(machines, kind):
    first, second = machines.arrived(A), machines.run()
    content, token = machines.document.load()
    machines.document.swap(damage(content)[kind], token)
    for act in (second.look, first.renew, first.poll):
        with pytest.raises(StoreError) as raised:
            act()
        assert raised.value.kind == "corrupt_claims" and "order.json" in str(raised.value)
        assert ("version" in str(raised.value)) is (kind == "newer")


@pytest.mark.parametrize("kind", ["cut", "empty", "other", "text", "list", "newer", "missing"])
def test_damaged_or_missing_keys_stop_the_run_and_are_named(machines, kind):
    first, second = machines.arrived(A, B), machines.run()
    name = f"claims/{first.id}.keys"
    content = machines.disk.files.pop(name)
    if kind != "missing":
        machines.disk.files[name] = damage(content)[kind]
    second.look()
    with pytest.raises(StoreError) as raised:
        second.arrive([C])
    assert raised.value.kind == "corrupt_claims" and name in str(raised.value)


@pytest.mark.parametrize("kind", ["empty", "other", "text", "list", "newer"])
def test_a_damaged_sign_of_life_stops_the_run_and_is_named(machines, kind):
    first, second = machines.arrived(A), machines.arrived(A)
    first.renew()
    name = f"claims/{first.id}.alive"
    machines.disk.files[name] = damage(machines.disk.files[name])[kind]
    with pytest.raises(StoreError) as raised:
        second.poll()
    assert raised.value.kind == "corrupt_claims" and name in str(raised.value)


def test_keys_that_are_removed_as_their_run_departs_are_no_damage(machines):
    first, second = machines.arrived(A), machines.run()
    second.look()

    def depart(number: int, operation: str, name: str) -> None:
        if operation == "read" and name.endswith(".keys"):
            machines.disk.calm()
            first.depart()

    machines.disk.before = depart
    second.arrive([A])
    assert second.owner_of([A]) is None or owner(second, A) == first.id
    second.poll()
    assert second.owner_of([A]) is None


@pytest.mark.parametrize(
    "run",
    [
        {"id": "", "instance": "", "name": "", "until": 1.0},
        {"id": 5, "instance": "", "name": "", "until": 1.0},
        {"id": "a", "instance": "", "name": "", "until": "soon"},
        {"id": "a", "instance": "", "name": ""},
        {"id": "a", "instance": "", "name": "", "until": 1.0, "more": 1},
        "a",
        None,
    ],
)
def test_an_order_that_lists_no_runs_is_damaged(run):
    document = json.loads(rules.encode_order(Order()))
    for runs in ([run], run):
        with pytest.raises(StoreError, match=r"x/order\.json is damaged"):
            rules.decode_order("x/order.json", json.dumps({**document, "runs": runs}).encode())


def test_an_order_and_keys_are_read_as_they_were_written():
    order = Order((LiveRun("a", "1", "shop/night \udce9/describe", 5.25), LiveRun("b", "", "", 0.0)))
    assert rules.decode_order("", rules.encode_order(order)) == order
    assert rules.encode_order(order) != rules.encode_order(order), "no two documents are alike"
    keys = rules.pack(f"{number:032x}" for number in range(0, 10**38, 10**35))
    assert rules.decode_keys("", rules.encode_keys(keys, 7.5)) == (keys, 7.5)
    assert rules.decode_keys("", rules.encode_keys((), 0.0)) == (frozenset(), 0.0)


def test_a_hundred_thousand_identities_take_less_than_two_megabytes():
    keys = rules.pack(f"{number * 7919:016x}{number:016x}" for number in range(100_000))
    assert len(keys) == 100_000
    assert len(rules.encode_keys(keys, 0.0)) < 2 * 1024 * 1024


def test_the_claims_of_a_task_are_in_its_store(tmp_path):
    folder = LocalFolder(tmp_path / "store")
    task = TaskInstanceKey("shop", "night", "describe", 3)
    first = open_claims(f"{tmp_path / 'store'}/", folder, None, task)
    first.look()
    first.arrive([A])
    second = open_claims(tmp_path / "store", folder, None, TaskInstanceKey())
    second.look()
    second.arrive([A])
    assert name_of_owner(second) == "shop/night/describe[3]"
    third = open_claims(tmp_path / "store", folder, None, task)
    third.look()
    third.arrive([A])
    assert "outside Airflow" in name_of_owner(third)
    assert (tmp_path / "store/claims/order.json").exists()


class Slow(LocalDocument):
    """Takes one write in a while, as an object of a bucket does."""

    write_interval = 0.05
    last: list[float]

    def swap(self, content: bytes, token: Any) -> Any:
        if time.monotonic() - self.last[0] < self.write_interval:
            raise StoreError("slow down", kind="throttled")
        written = super().swap(content, token)
        self.last[0] = time.monotonic()
        return written


def test_sixteen_that_arrive_together_at_a_slow_object_all_get_through(tmp_path):
    folder, last, failed = LocalFolder(tmp_path), [0.0], []
    runs = []
    for _ in range(16):
        document = Slow(tmp_path / "claims" / "order.json")
        document.last = last
        runs.append(Claims(folder, document))
    together = threading.Barrier(16)

    def arrive(run: Claims) -> None:
        try:
            run.look()
            together.wait()
            run.arrive([A])
        except (DescriberError, Changed) as error:
            failed.append(error)

    threads = [threading.Thread(target=arrive, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sum(run.owner_of([A]) is None for run in runs) == 1 and all(run.holds() for run in runs)
    order = rules.decode_order("", (tmp_path / "claims" / "order.json").read_bytes())
    assert {run.id for run in order.runs} == {run.id for run in runs} and len(order.runs) == 16

"""Triggers by themselves, as a triggerer runs them: from the start, more than once, and with an event loop to spare."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from connections import storage

from airflow_provider_describer.arrivals.snapshot import fingerprint_of
from airflow_provider_describer.arrivals.watcher import AGAIN_S, HANDED_OVER_S
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.triggers import images as images_module
from airflow_provider_describer.triggers.credits import CreditsTrigger
from airflow_provider_describer.triggers.images import ListingTrigger, NewImagesTrigger

if TYPE_CHECKING:
    from clouds import Cloud

Make = Callable[..., NewImagesTrigger]


class Clock:
    """A triggerer's time: pauses end at once, and it has passed. Something may happen in each."""

    def __init__(self) -> None:
        self.now = 1e9
        self.pauses: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        assert len(self.pauses) < 50, "waits for ever"
        self.meanwhile()
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()

    monkeypatch.setattr(images_module, "asyncio", SimpleNamespace(sleep=found.sleep, to_thread=asyncio.to_thread))
    monkeypatch.setattr(images_module, "time", found)
    return found


def again(trigger: Any) -> Any:
    """The trigger as another triggerer makes it, from what the metadata database keeps."""
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
    return type(trigger)(**json.loads(json.dumps(arguments)))


async def first(trigger: Any) -> Any:
    """The payload of the first event, after which the triggerer is killed."""
    async for event in trigger.run():
        assert isinstance(event, TriggerEvent)
        return json.loads(json.dumps(event.payload))
    raise AssertionError("ended without an event")


async def events(trigger: Any, count: int) -> AsyncIterator[Any]:
    run = trigger.run()
    for _ in range(count):
        yield (await anext(run)).payload
    await run.aclose()


def names(payload: dict[str, Any]) -> list[str]:
    return [Path(image["uri"]).name for image in payload["images"]]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def make(inbox: Path, tmp_path: Path) -> Make:
    where = {"path": str(inbox), "state_path": str(tmp_path / "state")}
    return lambda **more: again(NewImagesTrigger(**{**where, **more}))


# --- NewImagesTrigger ---


def test_it_is_a_trigger_for_a_watcher(make: Make) -> None:
    from airflow.sdk import Asset, AssetWatcher

    trigger = make()
    assert isinstance(trigger, BaseEventTrigger)
    assert Asset("inbox", watchers=[AssetWatcher(name="arrivals", trigger=trigger)]).watchers
    # By which Airflow tells whether it runs already.
    assert BaseEventTrigger.hash(*trigger.serialize()) == BaseEventTrigger.hash(*again(trigger).serialize())


def test_deltas_follow_each_other(make: Make, clock: Clock, inbox: Path, pictures: list[str]) -> None:
    shutil.copy(pictures[0], inbox)

    def meanwhile() -> None:
        if len(clock.pauses) in (3, 4):
            shutil.copy(pictures[len(clock.pauses)], inbox)

    clock.meanwhile = meanwhile

    async def watch() -> list[Any]:
        return [payload async for payload in events(make(poll_interval=5), 3)]

    payloads = asyncio.run(watch())
    assert [names(payload) for payload in payloads] == [["red.png"], ["yellow.png"], ["black.png"]]
    assert [payload["count"] for payload in payloads] == [1, 1, 1]
    assert len({payload["delta"] for payload in payloads}) == 3
    # After an event it is waited until that has surely arrived.
    assert clock.pauses == [HANDED_OVER_S, 5, 5, HANDED_OVER_S]


def test_a_triggerer_that_is_killed_right_after_an_event_fires_it_again(
    make: Make, clock: Clock, inbox: Path, pictures: list[str]
) -> None:
    shutil.copy(pictures[0], inbox)
    lost = asyncio.run(first(make()))
    shutil.copy(pictures[1], inbox)
    began = clock.now
    assert asyncio.run(first(make())) == lost, "the same delta, once"
    assert clock.now - began >= AGAIN_S, "and not while the trigger that fired it may still run"

    async def goes_on() -> list[str]:
        trigger = make()
        return [name async for payload in events(trigger, 2) for name in names(payload)]

    assert asyncio.run(goes_on()) == ["red.png", "green.png"]


def test_a_triggerer_that_is_killed_later_repeats_nothing(
    make: Make, clock: Clock, inbox: Path, pictures: list[str]
) -> None:
    shutil.copy(pictures[0], inbox)

    class Killed(Exception):
        pass

    def kill() -> None:
        if len(clock.pauses) == 2:
            raise Killed

    clock.meanwhile = kill

    async def watch() -> None:
        async for _ in make().run():
            pass

    with pytest.raises(Killed):
        asyncio.run(watch())
    clock.meanwhile = lambda: shutil.copy(pictures[1], inbox)
    assert names(asyncio.run(first(make()))) == ["green.png"]


def test_two_triggerers_with_one_trigger(make: Make, clock: Clock, inbox: Path, pictures: list[str]) -> None:
    shutil.copy(pictures[0], inbox)

    async def both() -> list[Any]:
        fired: list[Any] = []

        async def one() -> None:
            async for event in make(poll_interval=5).run():
                fired.append(event.payload)  # noqa: PERF401  # it is stopped in the middle

        def stop() -> None:
            if len(clock.pauses) == 20:
                raise asyncio.CancelledError

        clock.meanwhile = stop
        await asyncio.gather(one(), one(), return_exceptions=True)
        return fired

    fired = asyncio.run(both())
    # Time flies here, so that the slower one may take the faster one for dead: the delta is the same one then.
    assert {payload["delta"] for payload in fired} == {fired[0]["delta"]}
    assert names(fired[0]) == ["red.png"]


def test_many_images_are_named_in_a_file(make: Make, clock: Clock, inbox: Path, pictures: list[str]) -> None:
    for path in pictures:
        shutil.copy(path, inbox)
    payload = asyncio.run(first(make(inline_limit=5)))
    assert payload["count"] == 6 and len(Path(payload["images"]).read_text().splitlines()) == 6
    assert len(json.dumps(payload)) < 1000


def test_what_cannot_be_listed_now_is_tried_again(make: Make, clock: Clock, inbox: Path, pictures: list[str]) -> None:
    inbox.rmdir()

    def meanwhile() -> None:
        if len(clock.pauses) == 2:
            inbox.mkdir()
            shutil.copy(pictures[0], inbox)

    clock.meanwhile = meanwhile
    assert names(asyncio.run(first(make()))) == ["red.png"]
    assert len(clock.pauses) == 2


def test_a_listing_does_not_hold_up_other_triggers(
    make: Make, monkeypatch: pytest.MonkeyPatch, inbox: Path, pictures: list[str]
) -> None:
    shutil.copy(pictures[0], inbox)
    listed_in: list[str] = []

    def spy(*arguments: Any) -> Any:
        listed_in.append(threading.current_thread().name)
        return fingerprint_of(*arguments)

    monkeypatch.setattr(images_module, "fingerprint_of", spy)
    monkeypatch.setattr(images_module, "SHORTEST_S", 0.01)
    asyncio.run(first(ListingTrigger(path=str(inbox), fingerprint="", poll_interval=0.01)))
    assert listed_in and threading.main_thread().name not in listed_in


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": ""}, "path is ''"),
        ({"path": 7}, "path is 7"),
        ({"path": "inbox/**"}, "path is 'inbox/\\*\\*'.* absolute"),
        ({"path": "https://shop.example/inbox"}, "a web address has no listing"),
        ({"types": "jpg"}, "types is 'jpg'"),
        ({"types": []}, r"types is \[\]"),
        ({"inline_limit": -1}, "inline_limit is -1"),
        ({"storage_conn_id": 7}, "storage_conn_id is 7"),
        ({"state_path": "~/state"}, "state_path is '~/state'"),
        ({"state_path": "None"}, "state_path is 'None'"),
        ({"min_images": "two"}, "min_images is 'two'"),
        ({"state_path": None}, "state_path is None"),
        ({"state_path": "watching"}, "state_path is 'watching'"),
        ({"min_images": 0}, "min_images is 0"),
        ({"settle_seconds": -5}, "settle_seconds is -5"),
        ({"poll_interval": 0}, "poll_interval is 0"),
        ({"poll_interval": "60"}, "poll_interval is '60'"),
    ],
)
def test_a_mistake_is_said_where_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        NewImagesTrigger(**{"path": "s3://shop/inbox", "state_path": "s3://shop/state", **arguments})


def test_airflows_own_paths_are_taken() -> None:
    from airflow.sdk import ObjectStoragePath

    trigger = NewImagesTrigger(path=ObjectStoragePath("file:///inbox"), state_path=Path("/state"))
    assert (again(trigger).path, again(trigger).state_path) == ("/inbox", "/state")


@pytest.fixture
def in_the_database(airflow_in_process: None, monkeypatch: pytest.MonkeyPatch, cloud: Cloud) -> Iterator[Cloud]:
    """A bucket whose connection is in the metadata database alone."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    fields = storage(cloud)
    extra = json.dumps(fields.pop("extra"))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with create_session() as session:
        session.add(Connection(conn_id="kept", extra=extra, **fields))
    yield cloud
    with create_session() as session:
        session.query(Connection).delete()


def test_a_connection_of_the_database_opens_the_bucket(in_the_database: Cloud, clock: Clock) -> None:
    cloud = in_the_database
    cloud.bucket().put("inbox/a.jpg", b"x")
    where: dict[str, Any] = {"path": f"{cloud.uri}/inbox", "storage_conn_id": "kept"}
    payload = asyncio.run(first(NewImagesTrigger(**where, state_path=f"{cloud.uri}/state")))
    assert names(payload) == ["a.jpg"]
    fingerprint = fingerprint_of(where["path"], cloud.open_bucket, None)
    clock.meanwhile = lambda: cloud.bucket().put(f"inbox/{len(clock.pauses)}.jpg", b"x")
    assert asyncio.run(first(again(ListingTrigger(**where, fingerprint=fingerprint, deadline=7.0)))) == {"deadline": 7}


def test_a_connection_that_comes_later_is_found(clock: Clock, connect: Callable[..., None], s3: Cloud) -> None:
    s3.bucket().put("inbox/a.jpg", b"x")
    clock.meanwhile = lambda: connect("storage", **storage(s3))
    trigger = NewImagesTrigger(path=f"{s3.uri}/inbox", state_path=f"{s3.uri}/state", storage_conn_id="storage")
    assert names(asyncio.run(first(trigger))) == ["a.jpg"]
    assert len(clock.pauses) == 1


# --- ListingTrigger ---


def test_it_fires_once_something_has_changed(clock: Clock, inbox: Path, pictures: list[str]) -> None:
    clock.meanwhile = lambda: len(clock.pauses) == 3 and shutil.copy(pictures[0], inbox)
    fingerprint = fingerprint_of(str(inbox), None, None)
    trigger = ListingTrigger(path=str(inbox), fingerprint=fingerprint, poll_interval=1, deadline=5.0)
    assert asyncio.run(first(again(trigger))) == {"deadline": 5.0}
    assert clock.pauses == [15, 15, 15]


def test_it_fires_when_the_youngest_has_settled(clock: Clock, inbox: Path) -> None:
    fingerprint = fingerprint_of(str(inbox), None, None)
    trigger = ListingTrigger(path=str(inbox), fingerprint=fingerprint, poll_interval=60, until=clock.now + 100)
    asyncio.run(first(again(trigger)))
    assert clock.pauses == [60, 40]


@pytest.mark.parametrize("ago", [0, 1000])
def test_it_never_fires_at_once(clock: Clock, inbox: Path, ago: float) -> None:
    asyncio.run(first(ListingTrigger(path=str(inbox), fingerprint="", until=clock.now - ago)))
    assert clock.pauses == [15]


def test_what_cannot_be_listed_is_the_workers_to_say(clock: Clock) -> None:
    assert asyncio.run(first(ListingTrigger(path="/nowhere/at/all", fingerprint="x"))) == {"deadline": 0.0}


def test_nothing_secret_is_kept_in_the_database(make: Make) -> None:
    triggers = [
        make(),
        ListingTrigger(path="/inbox", fingerprint="x"),
        CreditsTrigger(describer_conn_id="shop", min_credits=1, poke_interval=60),
    ]
    for trigger in triggers:
        assert again(trigger).serialize() == trigger.serialize()

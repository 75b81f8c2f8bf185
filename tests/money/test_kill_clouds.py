"""Images and store in a bucket of S3 or GCS: killed workers, lost answers, throttling and objects that go pay no more.

What each call costs is the emulator's word alone; what is durable is the bucket's.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest

from airflow_provider_describer.images.listing import list_images
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.storage.rest_client import RetrySettings
from airflow_provider_describer.store.index import read_history

pytest.importorskip("obstore")

KILLS, MANY, SOME = 5, 200, 30


@pytest.fixture
def fill(cloud, draw_into, tmp_path):
    """Put that many pictures into the bucket; return their addresses, and the sha256 of each."""

    def fill(count):
        bucket, sums = cloud.bucket(), {}
        (tmp_path / "pictures").mkdir()
        for path in draw_into(tmp_path / "pictures", count):
            bucket.put(f"photos/{path.name}", path.read_bytes())
            sums[f"{cloud.uri}/photos/{path.name}"] = sha256(path.read_bytes()).hexdigest()
        cloud.server.reset()
        return sums

    return fill


@pytest.fixture
def describe(shop, cloud):
    """Run a job over objects, with its store in their bucket; return its manifest, rows by address and the ledger."""

    def describe(images, **options):
        about = {"store": f"{cloud.uri}/store", "open_bucket": cloud.open_bucket, "return_rows": True, **options}
        outcome = shop.job(images, **about).run()
        assert outcome.error is None
        rows = {row["uri"]: row for row in outcome.manifest["descriptions"]}
        return outcome.manifest, rows, shop.emulator.ledger()

    return describe


def outcomes(cloud):
    """How often the journal holds the outcome of each image."""
    folder = open_folder(f"{cloud.uri}/store", cloud.open_bucket)
    return Counter(event["sha256"] for event in read_history(folder) if event["event"] == "outcome")


@pytest.mark.slow
def test_workers_are_killed_and_nothing_is_lost(works, cloud, fill):
    works.cloud, pictures = cloud, fill(MANY)
    works.emulator.faults({"image_describer": {"latency_s": 0.05, "latency_jitter_s": 0.15}})
    images = list(pictures)

    risked = works.kill_often(
        images, KILLS, lambda entry, known: entry["image_sha256"] not in known.outcomes, (30, 0.04), concurrency=8
    )
    survived = works.journaled().outcomes
    result = works.finish(images, concurrency=32)

    ledger = works.check_bill(list(pictures.values()), risked)
    assert result["manifest"]["counts"]["reused"] == len(survived) > 0, "what was durable is not asked again"
    assert result["manifest"]["results"].startswith(f"{cloud.uri}/store/results/")
    assert set(works.journaled().outcomes) == set(pictures.values())
    print(
        f"\n{KILLS} kills, all in {cloud.uri}: {ledger['billed']} calls billed for {len(images)} images; {len(risked)} "
        f"were in flight when a worker was killed, {sum(risked.values())} of them answered and not yet in the bucket"
    )


def test_a_shard_whose_answer_was_lost_is_there_once(cloud, fill, describe):
    pictures = fill(SOME)
    cloud.server.lose_answers(method="PUT", path="/store/journal/", times=6)
    _, rows, ledger = describe(list(pictures), concurrency=4)
    assert not any(fault.times for fault in cloud.server._faults), "fewer shards than answers to be lost"
    written = Counter(asked.path for asked in cloud.server.received("PUT", "/store/journal/"))
    assert written.total() > len(written), "nothing was sent again"
    assert {uri: row["status"] for uri, row in rows.items()} == dict.fromkeys(pictures, "described")
    assert ledger["by_image"] == dict.fromkeys(pictures.values(), 1)
    assert outcomes(cloud) == Counter(pictures.values())
    manifest, _, ledger = describe(list(pictures))
    assert manifest["counts"]["reused"] == SOME and ledger["requests"] == SOME


@pytest.mark.slow
def test_a_store_that_throttles_only_slows_the_run(cloud, fill, describe):
    pictures = fill(SOME)
    throttled = {"GET": 60, "PUT": 10}
    for method, times in throttled.items():
        cloud.server.slow_down(method=method, path=cloud.name, times=times)
    # More often than all that is throttled, so that no request of them gives up, however they take turns.
    retry = RetrySettings(retries=100, first=0.002, longest=0.01)
    _, rows, ledger = describe(
        list(pictures), concurrency=4, open_bucket=lambda scheme, name: cloud.bucket(name, retry=retry)
    )
    assert not any(fault.times for fault in cloud.server._faults)
    assert {uri: row["status"] for uri, row in rows.items()} == dict.fromkeys(pictures, "described")
    assert ledger["by_image"] == dict.fromkeys(pictures.values(), 1) and ledger["requests"] == SOME
    assert outcomes(cloud) == Counter(pictures.values())


@pytest.mark.slow
def test_a_store_that_goes_on_throttling_ends_the_run_and_a_later_one_pays_the_rest(shop, cloud, fill, describe):
    pictures = fill(SOME)
    cloud.server.slow_down(method="PUT", path="/store/journal/", times=float("inf"))
    job = shop.job(list(pictures), store=f"{cloud.uri}/store", open_bucket=cloud.open_bucket, concurrency=4)
    outcome = job.run()
    assert outcome.error is not None and outcome.error.kind == "store" and cloud.uri in str(outcome.error)
    assert shop.emulator.ledger()["billed"] == 0, "called without an intent on disk"
    cloud.server.reset()
    _, _, ledger = describe(list(pictures))
    assert ledger["by_image"] == dict.fromkeys(pictures.values(), 1)


@pytest.mark.parametrize("moment", ["listed", "planned"])
def test_an_object_that_goes_before_it_is_read_is_missing_and_unpaid(cloud, fill, describe, moment):
    pictures = fill(SOME)
    listed = [found.to_dict() for found in list_images(f"{cloud.uri}/photos/", cloud.open_bucket)]
    gone = sorted(pictures)[7]
    delete = lambda *_: cloud.bucket().delete(gone.removeprefix(f"{cloud.uri}/"))  # noqa: E731  # now, or in the run
    if moment == "listed":
        delete()
    options = {"report": delete} if moment == "planned" else {}
    manifest, rows, ledger = describe(listed, **options)
    assert (rows[gone]["status"], rows[gone]["error"]["kind"]) == ("rejected", "missing")
    assert rows[gone]["billed"] == "no" and gone in rows[gone]["error"]["message"]
    assert manifest["counts"]["described"] == SOME - 1 and manifest["counts"]["rejected"] == 1
    assert ledger["by_image"] == dict.fromkeys(set(pictures.values()) - {pictures[gone]}, 1)

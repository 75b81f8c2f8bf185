"""Plan COUNT images against a store of as many outcomes, in a process of its own. Prints its figures as JSON."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import tempfile
import time

from airflow_provider_describer.engine.plan import IdentifiedImage, make_plan
from airflow_provider_describer.models import DescribeRequest, Description, Image
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.identity import identity_keys
from airflow_provider_describer.store.index import load_index
from airflow_provider_describer.store.rows import TaskInstanceKey, new_row
from airflow_provider_describer.store.shard import encode_shard, json_line, shard_name
from airflow_provider_describer.vendors import get_vendor

SHARD = 10_000


def identified(number: int) -> IdentifiedImage:
    """Return a made-up image whose content is known."""
    spec = get_vendor("image_describer").spec()
    request = DescribeRequest(Image(f"/data/catalog/{number:09d}.jpg"), spec)
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return IdentifiedImage(request, identity_keys(spec, request.image.uri, sha256, None), sha256, None)


def fill(store: str, count: int) -> None:
    """Write a journal of that many described images, in shards as a merge leaves them."""
    folder = open_folder(store)
    for start in range(0, count, SHARD):
        lines = []
        for number in range(start, min(start + SHARD, count)):
            image = identified(number)
            done = Description(
                "A picture of nothing much. " * 20, "image_describer", "describe-image-v2", cost_usd=0.01
            )
            row = new_row(
                image.request, TaskInstanceKey("d", "r", "t"), "described", 1.7e9, description=done, sha256=image.sha256
            )
            lines.append(
                json_line({"event": "outcome", "call": f"{number:024x}", "keys": list(image.keys), **row.to_dict()})
            )
        folder.create(shard_name(1.7e9, f"bench-{start:09d}"), encode_shard(lines))


def main(count: int) -> None:
    """Fill a store in a child's stead, then read it and plan."""
    with tempfile.TemporaryDirectory() as store:
        fill(store, count)
        images = [identified(number) for number in range(count)]
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        plan = make_plan(images, load_index(open_folder(store)))
        wall = time.monotonic() - began
        assert plan.count("reuse") == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"images": count, "wall": wall, "more_mb": (peak - base) / 1024}))


if __name__ == "__main__":
    main(int(sys.argv[1]))

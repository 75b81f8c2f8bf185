"""Measure the gallery of a large store against that of a small one. Prints rows of `engine.py`'s table.

``python benchmarks/page.py [--quick]``: the large store has 10^6 outcomes, or 10^5 with ``--quick``; it takes ten
minutes to make. ``python benchmarks/page.py STORE STORE`` measures two stores that are there: first the small one.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engine import say
from made_store import TEXT_BYTES, fill
from store import many

from airflow_provider_describer.gallery.search import Filter, StoreGallery
from airflow_provider_describer.storage.folder import open_folder

ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of a piece of work that was done once before."""
    work()
    durations = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        work()
        durations.append(time.monotonic() - began)
    return statistics.median(durations)


def cold_totals(store: str) -> float:
    """Return the time of the first sums of a store that was opened before."""
    gallery = StoreGallery(open_folder(store))
    gallery.page(Filter())
    began = time.monotonic()
    assert gallery.totals(Filter()).count
    return time.monotonic() - began


def measure(store: str) -> dict[str, float]:
    """Return what each piece of work takes, in seconds."""
    gallery = StoreGallery(open_folder(store))
    first = gallery.page(Filter())
    run = Filter(dag_id=first.rows[0]["dag_id"], run_id=first.rows[0]["run_id"])
    return {
        "a page": seconds(lambda: gallery.page(Filter())),
        "the second page": seconds(lambda: gallery.page(Filter(), after=first.next)),
        "a page of one run": seconds(lambda: gallery.page(run)),
        "a page that nothing is on": seconds(lambda: gallery.page(Filter(status="failed"))),
        "a page of a common word": seconds(lambda: gallery.page(Filter(text="python"))),
        "the first totals": statistics.median(cold_totals(store) for _ in range(ROUNDS)),
        "totals of one run": seconds(lambda: StoreGallery(open_folder(store)).totals(run)),
        "totals again": seconds(lambda: gallery.totals(Filter())),
    }


GOALS = {"a page": "≤ 0.3 s", "a page of one run": "≤ 0.3 s", "the first totals": "≤ 1.5 s"}


def main() -> None:
    """Print the rows."""
    given = [name for name in sys.argv[1:] if not name.startswith("--")]
    with tempfile.TemporaryDirectory() as place:
        if not given:
            for count in (10_000, 100_000) if "--quick" in sys.argv else (100_000, 1_000_000):
                given.append(str(Path(place) / f"store-{count}"))
                fill(open_folder(given[-1]), count, text_bytes=TEXT_BYTES)
        small, large = given
        counts = [StoreGallery(open_folder(store)).totals(Filter()).count for store in given]
        before, after = measure(small), measure(large)
        for name, found in after.items():
            what = f"{name}, {many(counts[1])} outcomes against {many(counts[0])}"
            say(what, f"{found / before[name]:.1f} × ({found * 1000:.0f} ms)", GOALS.get(name, ""))
        say(
            "memory of the process, all of it",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB",
            "",
        )


if __name__ == "__main__":
    main()

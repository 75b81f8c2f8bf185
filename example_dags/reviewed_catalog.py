"""Describe a folder of images, then let a person review some of the new texts, and publish what counts.

The form waits under Browse > Required Actions. Needs a connection of type ``image_describer`` or ``segmind``.
"""

from __future__ import annotations

from datetime import timedelta
from glob import glob

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.operators.review import ReviewDescriptionsOperator
from airflow_provider_describer.store import open_store


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once would ask people about the same texts.
    max_active_runs=1,
    params={
        "images": Param("/data/catalog/*.jpg", type="string", title="Images", description="A pattern of file names"),
        "store": Param("/data/descriptions", type="string", title="Store"),
        "share": Param(0.1, type="number", exclusiveMinimum=0, maximum=1, title="Share to review"),
    },
    tags=["describer", "example"],
    doc_md=__doc__,
)
def reviewed_catalog() -> None:
    @task
    def list_images(params: dict[str, str]) -> list[str]:
        return sorted(glob(params["images"]))  # noqa: PTH207  # a whole pattern, as users write it

    describe = DescribeImagesOperator(task_id="describe", images=list_images(), store="{{ params.store }}")
    review = ReviewDescriptionsOperator(
        task_id="review",
        store="{{ params.store }}",
        results=describe.output,
        share="{{ params.share }}",
        # Nobody has to answer: after a day the task succeeds, and nothing is reviewed.
        response_timeout=timedelta(days=1),
        defaults="Submit",
    )

    @task
    def publish(manifest: dict[str, str]) -> int:
        """Load the current descriptions into the catalog; this example only prints them."""
        rows = open_store(manifest["store"]).current(lang="en").to_pylist()
        for row in rows:
            print(row["uri"], "->", row["text"])
        return len(rows)

    publish(review.output)


reviewed_catalog()

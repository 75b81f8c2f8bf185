"""Describe images as soon as they arrive in a bucket, and trigger the DAGs that use the descriptions.

Needs a running triggerer, a connection of type ``image_describer`` or ``segmind``, one of type ``aws``
(``aws_default``) for the bucket, and ``pip install 'airflow-provider-describer[amazon]'``.
"""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher, dag, get_current_context, task

from airflow_provider_describer.operators.assets import arrived_images, store_asset
from airflow_provider_describer.operators.describe import DescribeImagesOperator
from airflow_provider_describer.triggers.images import NewImagesTrigger

STORE = "s3://catalog/descriptions/"
ARRIVALS = NewImagesTrigger(
    path="s3://catalog/inbox/**",
    state_path="s3://catalog/watching/inbox",  # keeps what was seen, so that a new triggerer loses nothing
    settle_seconds=30,
)
INBOX = Asset("product_images", uri="s3://catalog/inbox", watchers=[AssetWatcher(name="arrivals", trigger=ARRIVALS)])
DESCRIPTIONS = store_asset(STORE)


@dag(
    schedule=[INBOX],
    max_active_runs=1,  # a second run would only wait for the images of the first
    tags=["describer", "example"],
    doc_md=__doc__,
)
def images_arrived() -> None:
    @task
    def arrived() -> object:
        """Return the images of all events that have triggered this run; skip if there are none."""
        return arrived_images(get_current_context(), INBOX)

    DescribeImagesOperator(task_id="describe", images=arrived(), store=STORE, outlets=[DESCRIPTIONS])


@dag(
    schedule=[DESCRIPTIONS],
    max_active_runs=1,  # it pays for nothing, but two loads at once may write the same rows
    tags=["describer", "example"],
    doc_md=__doc__,
)
def descriptions_arrived() -> None:
    @task
    def load() -> int:
        """Load the rows into the catalog; this example only prints the paths of their files."""
        events = get_current_context()["triggering_asset_events"].get(DESCRIPTIONS, ())
        for event in events:
            print(event.extra["described"], "new descriptions:", event.extra["results"])
        return len(events)

    load()


images_arrived()
descriptions_arrived()

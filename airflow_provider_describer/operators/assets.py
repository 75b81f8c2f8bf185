"""Assets: the description store as an asset with events, and the images that an asset watcher has found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, AssetAlias

from airflow_provider_describer.arguments import as_path, shown
from airflow_provider_describer.arrivals.snapshot import merge_deltas
from airflow_provider_describer.engine.slices import described_before
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.operators.base import DescriberBaseOperator, task_instance_key
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.storage.address import parse_shared_folder
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.listings import write_listing

if TYPE_CHECKING:
    from airflow.sdk import Context

INLINE = 1000
"""The most images of several events that are returned as a list; more are in a file below the ``state_path``."""


def store_asset(store: str, name: str | None = None) -> Asset:
    """Return a store as an asset, for ``outlets=`` of the task that writes it and ``schedule=`` of DAGs that read it.

    :param store: as the operators take it: an absolute path, ``s3://…`` or ``gs://…``, and no template.
    :param name: the asset's name; by default its uri.
    :raises BadInput: for a relative path, which means another folder in each process.
    """
    path = as_path(store)
    if not isinstance(path, str):
        raise BadInput(f"store is {shown(path)}, expected a folder such as '/data/descriptions', s3://… or gs://….")
    place = parse_shared_folder("store", path)
    uri = place.as_uri() if isinstance(place, Path) else str(place).rstrip("/")
    return Asset(name=name or uri, uri=uri)


def announce(task: DescriberBaseOperator, context: Context, described: int, about: Mapping[str, Any]) -> None:
    """Add what was described to the event of the task's store; if nothing was, prevent the event.

    The store's outlets are the assets with its uri, and every AssetAlias, which gets the store's asset. A try that
    finds everything described by earlier, failed tries of its task instance announces their descriptions.

    :param described: number of images that this try has described.
    :param about: further facts for the event's extra.
    """
    store = task.given.store
    if store is None:
        return
    # Compared as assets, because Airflow normalises their uris.
    uri = store_asset(store).uri
    own = [
        outlet
        for outlet in task.outlets
        if isinstance(outlet, AssetAlias) or (isinstance(outlet, Asset) and outlet.uri == uri)
    ]
    if not own:
        return
    run = task_instance_key(context)
    if not described and run.try_number > 1:
        described = described_before(open_folder(store, buckets_of(task.given.storage_conn_id)), run)
    if not described:
        task.outlets = [outlet for outlet in task.outlets if outlet not in own]
        return
    extra = {"store": store, **about, "described": described}
    for outlet in own:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(extra)
        else:
            context["outlet_events"][outlet].add(store_asset(store), extra=extra)


def announce_manifest(task: DescriberBaseOperator, context: Context, manifest: Mapping[str, Any]) -> None:
    """Announce a manifest's descriptions as `announce` does."""
    about = {name: manifest[name] for name in ("vendor", "results", "counts", "calls", "cost_usd")}
    announce(task, context, manifest["counts"]["described"], about)


def arrived_images(context: Context, asset: Asset, storage_conn_id: str | None = None) -> list[Any] | str:
    """Return the images whose arrival has triggered this DAG run, as ``images`` of an operator takes them.

    The images of several events are returned together, each image once, as its latest event describes it. If there is
    one event, its list or listing file is returned as it is.

    :param asset: the asset that a ``NewImagesTrigger`` watches.
    :param storage_conn_id: connection for listing files in a bucket.
    :raises AirflowSkipException: if no event has triggered the run.
    """
    events = context["triggering_asset_events"]
    payloads = [event.extra["payload"] for event in events.get(asset, ())]
    # An event may come twice, under the same id.
    deltas = list({payload["delta"]: payload for payload in payloads}.values())
    if not deltas:
        raise AirflowSkipException(f"No event of {asset.name!r} has triggered this run.")
    if len(deltas) == 1:
        found: list[Any] | str = deltas[0]["images"]
        return found
    with airflow_errors():
        open_bucket = buckets_of(storage_conn_id)

        def images_of(images: Any) -> Iterator[Any]:
            if isinstance(images, list):
                yield from images
                return
            for _, item in read_listing(images, open_bucket):
                if isinstance(item, BadInput):
                    raise item
                yield item

        folder = open_folder(deltas[-1]["state"], open_bucket)
        together = merge_deltas(images_of(delta["images"]) for delta in deltas)
        return write_listing(iter(together), folder, task_instance_key(context), inline=INLINE, max_chunks=1)

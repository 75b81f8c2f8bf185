"""Assets: a description store that tells when it has grown, and the images that a watcher has seen arrive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, AssetAlias, BaseOperator

from airflow_provider_describer.arrivals.snapshot import merged
from airflow_provider_describer.engine.slices import described_before
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.hooks.storage import buckets_of
from airflow_provider_describer.images.listing_file import read_listing
from airflow_provider_describer.operators.failures import airflow_errors
from airflow_provider_describer.operators.planning import run_of
from airflow_provider_describer.storage.address import is_local, local_path
from airflow_provider_describer.storage.folder import open_folder
from airflow_provider_describer.store.listings import write_listing

if TYPE_CHECKING:
    from airflow.sdk import Context


INLINE = 1000
"""Images of several events that are handed on themselves; more of them in a file below the trigger's ``state_path``."""


def store_asset(store: str, name: str | None = None) -> Asset:
    """
    Return the asset that a description store is, for ``outlets=`` of the task that writes it and ``schedule=`` of DAGs
    that read it.

    :param store: as the operators take it; an absolute path or an address, and no template.
    :param name: the asset's name; by default its address.
    :raises BadInput: for what is not the same store everywhere.
    """
    uri = _address(store)
    if uri is None:
        raise BadInput(f"store is {store!r}, expected a folder such as '/data/descriptions', s3://… or gs://….")
    return Asset(name=name or uri, uri=uri)


def announce(task: BaseOperator, context: Context, store: str | None, described: int, about: Mapping[str, Any]) -> None:
    """Let the outlets of a task that are its store say what it has described; where that is nothing, no event comes.

    Outlets count as the store that have its address, and every AssetAlias, which is given the store's asset. A try that
    finds all of its images described by earlier tries of the same task instance, which did not come to an end, speaks
    for them.

    :param about: what the event's extra tells.
    """
    address = None if store is None else _address(store)
    own = [outlet for outlet in task.outlets if _is_store(outlet, address)]
    if store is None or not own:
        return
    run = run_of(context)
    if not described and run.try_number > 1:
        open_bucket = buckets_of(getattr(task, "storage_conn_id", None))
        described = described_before(open_folder(store, open_bucket), run)
    if not described:
        task.outlets = [outlet for outlet in task.outlets if outlet not in own]
        return
    extra = {"store": store, **about, "described": described}
    for outlet in own:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(extra)
        else:
            context["outlet_events"][outlet].add(store_asset(store), extra=extra)


def announce_manifest(task: BaseOperator, context: Context, manifest: Mapping[str, Any]) -> None:
    """Announce what a manifest tells."""
    about = {name: manifest[name] for name in ("vendor", "results", "counts", "calls", "cost_usd")}
    announce(task, context, manifest["store"], manifest["counts"]["described"], about)


def arrived_images(context: Context, asset: Asset, storage_conn_id: str | None = None) -> list[Any] | str:
    """
    Return the images whose arrival has triggered this DAG run, as ``images`` of an operator takes them.

    Events that came together are taken together, each image once, as its latest event has it. Where one event tells of
    them all, its list or listing file is returned as it is.

    :param asset: the one that a ``NewImagesTrigger`` watches.
    :param storage_conn_id: for listing files in a bucket.
    :raises AirflowSkipException: where no event has triggered the run.
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

        def images_of(images: Any) -> Iterable[Any]:
            return images if isinstance(images, list) else (item for _, item in read_listing(images, open_bucket))

        folder = open_folder(deltas[-1]["state"], open_bucket)
        together = merged(images_of(delta["images"]) for delta in deltas)
        return write_listing(iter(together), folder, run_of(context), inline=INLINE, max_chunks=1)


def _is_store(outlet: object, address: str | None) -> bool:
    # Compared as assets, which Airflow writes in one way of several.
    return isinstance(outlet, AssetAlias) or (
        address is not None and isinstance(outlet, Asset) and outlet.uri == Asset(address).uri
    )


def _address(store: str) -> str | None:
    """The store as an address; None for a path that is relative, another one for each process."""
    if not is_local(store):
        return store.rstrip("/")
    path = local_path(store)
    return Path(path).as_uri() if path and path.is_absolute() else None

"""What Airflow discovers through the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from airflow_provider_describer import __version__
from airflow_provider_describer.hooks.form import conn_fields, ui_behaviour
from airflow_provider_describer.vendors import vendors
from airflow_provider_describer.vendors.vendor import Vendor

_NAME = "Describer"
_PACKAGE = "airflow_provider_describer"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the form of Airflow's provider_info.schema.json."""
    return {
        "package-name": "airflow-provider-describer",
        "name": _NAME,
        "description": "Describe the images of a catalog with paid APIs; every image is paid for once.",
        "versions": [__version__],
        "integrations": [
            # The project's own page, as in the package's metadata; the vendors have theirs.
            _integration(_NAME, "https://pypi.org/project/airflow-provider-describer/"),
            *(_integration(vendor.title, vendor.website) for vendor in vendors().values()),
        ],
        "hooks": _modules("hooks.describer"),
        "operators": _modules("operators.describe", "operators.list_images", "operators.review"),
        "sensors": _modules("sensors.credits", "sensors.images"),
        "triggers": _modules("triggers.credits", "triggers.describe", "triggers.images"),
        "notifications": [f"{_PACKAGE}.notifications.describer.DescriberNotifier"],
        "task-decorators": [
            {
                "name": "describe_images",
                "class-name": f"{_PACKAGE}.decorators.describe_images.describe_images_task",
            }
        ],
        "connection-types": [_connection(vendor) for vendor in vendors().values()],
        "extra-links": [f"{_PACKAGE}.links.describer.{name}Link" for name in ("Descriptions", "Results", "Vendor")],
        "config": {
            "describer": {
                "description": "The page Descriptions of Airflow's UI. See docs/page.md.",
                "options": {"stores": _option(_STORES, _STORES_EXAMPLE), "images": _option(_IMAGES, _IMAGES_EXAMPLE)},
            }
        },
    }


_STORES = """
The description stores that the page may show: entries ``ADDRESS [storage_conn_id]``, separated by commas or line
ends. An address that ends in ``/*`` allows every store below it. Without this the page shows nothing.
"""
_STORES_EXAMPLE = "s3://catalog/descriptions aws_default, /srv/stores/*"
_IMAGES = """
Folders and prefixes, local, s3://, gs:// or https://, whose images the page may show as thumbnails: entries
``PREFIX [storage_conn_id]``, separated by commas or line ends. A store in a bucket shows that bucket's images
without this.
"""
_IMAGES_EXAMPLE = "s3://photographs/catalog/ aws_default, https://images.example.com/"


def _option(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description.strip() + "\n",
        "version_added": "0.1.0",
        "type": "string",
        "example": example,
        "default": "",
    }


def _integration(name: str, documentation: str) -> dict[str, Any]:
    return {"integration-name": name, "external-doc-url": documentation, "tags": ["service"]}


def _modules(*names: str) -> list[dict[str, Any]]:
    return [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.{name}" for name in names]}]


def _connection(vendor: Vendor) -> dict[str, Any]:
    return {
        "connection-type": vendor.name,
        "hook-name": vendor.title,
        "hook-class-name": f"{_PACKAGE}.hooks.describer.{vendor.hook_class}",
        "conn-fields": conn_fields(vendor.name),
        "ui-field-behaviour": ui_behaviour(vendor.name),
    }

"""What Airflow discovers through the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from airflow_provider_describer import __version__
from airflow_provider_describer.hooks.form import conn_fields, ui_behaviour

_NAME = "Describer"
_PACKAGE = "airflow_provider_describer"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the form of Airflow's provider_info.schema.json."""
    return {
        "package-name": "airflow-provider-describer",
        "name": _NAME,
        "description": "Describe images with Image Describer and Segmind; every image is paid for once.",
        "versions": [__version__],
        "integrations": [
            # The project's own page, as in the package's metadata; the two vendors have theirs.
            _integration(_NAME, "https://pypi.org/project/airflow-provider-describer/"),
            _integration("Image Describer", "https://imagedescriber.online"),
            _integration("Segmind", "https://www.segmind.com/models/ideogram-describe"),
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
        "connection-types": [
            _connection("image_describer", "Image Describer", "ImageDescriberHook"),
            _connection("segmind", "Segmind", "SegmindHook"),
        ],
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


def _connection(conn_type: str, name: str, hook: str) -> dict[str, Any]:
    return {
        "connection-type": conn_type,
        "hook-name": name,
        "hook-class-name": f"{_PACKAGE}.hooks.describer.{hook}",
        "conn-fields": conn_fields(conn_type),
        "ui-field-behaviour": ui_behaviour(conn_type),
    }

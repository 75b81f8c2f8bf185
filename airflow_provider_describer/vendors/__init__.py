"""The vendors. Each module beside this one that defines a `Vendor` subclass is one; nothing lists them twice."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.vendors.vendor import Vendor


@cache
def vendors() -> Mapping[str, Vendor]:
    """Return every vendor by its name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {kind.name: kind() for kind in sorted(Vendor.__subclasses__(), key=lambda kind: kind.name)}


def get_vendor(name: str) -> Vendor:
    """Return the vendor of that name.

    :raises BadInput: naming the vendors there are.
    """
    try:
        return vendors()[name]
    except KeyError:
        raise BadInput(f"No vendor is named {name!r}; there are {', '.join(vendors())}.") from None

"""The vendors. A third vendor is one new file in this folder:

1. Subclass `Vendor` (in ``vendor.py``) and set its class attributes: name, model, addresses, price, limits.
2. Write its four abstract methods; write poll, upload, credits and history if the vendor has them. No I/O, no clock.
3. Raise the leaves of ``errors.py``, each with a ``billed`` that is true.
4. Record its responses in ``tests/samples/<name>/``; the contract test then runs them without being told.
5. Add its connection type: a subclass in ``hooks/describer.py``, an entry in ``provider_info.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.vendors.vendor import Vendor


@cache
def vendors() -> Mapping[str, Vendor]:
    """Return every vendor by its name. Each module beside this one that defines a `Vendor` subclass is a vendor."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {kind.name: kind() for kind in sorted(Vendor.__subclasses__(), key=lambda kind: kind.name)}


def get_vendor(name: str) -> Vendor:
    """Return the vendor of that name.

    :raises BadInput: naming the vendors that exist.
    """
    try:
        return vendors()[name]
    except KeyError:
        raise BadInput(f"No vendor is named {name!r}; there are {', '.join(vendors())}.") from None

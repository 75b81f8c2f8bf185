"""The vendors. A further vendor is one file:

1. Subclass `Vendor` (in ``vendor.py``) and set its class attributes: name, model, addresses, price, form, limits.
2. Write its four abstract methods; write poll, upload, credits and history if the vendor has them. No I/O, no clock.
3. Raise the leaves of ``errors.py``, each with a ``billed`` that is true.
4. Record its responses in ``tests/samples/<name>/``; the contract test then runs them without being told.

A file in this folder is found by itself. Another package names its subclass as an entry point of the group
`ENTRY_POINTS`. The connection type, its form and its hook follow from the class.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points

from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.vendors.vendor import Vendor

ENTRY_POINTS = "airflow_provider_describer.vendors"
"""The group of entry points by which other packages bring vendors."""

_log = logging.getLogger(__name__)


@cache
def vendors() -> Mapping[str, Vendor]:
    """Return every vendor by its name: those of this package, and those of others.

    One that cannot be loaded, or that has the name of another, is left out with a warning.
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    own = [kind for kind in Vendor.__subclasses__() if kind.__module__.startswith(f"{__name__}.")]
    found = {kind.name: kind() for kind in sorted(own, key=lambda kind: kind.name)}
    for where, kind in _of_other_packages():
        if kind.name in found:
            _log.warning("%s brings a vendor named %r, which there is already: it is left out.", where, kind.name)
        else:
            found[kind.name] = kind()
    return found


def _of_other_packages() -> Iterator[tuple[str, type[Vendor]]]:
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        where = f"The entry point {entry.name} = {entry.value} of {ENTRY_POINTS}"
        try:
            kind = entry.load()
        except Exception as error:  # noqa: BLE001  # another package's fault must not stop this one
            _log.warning("%s cannot be loaded (%s: %s): it is left out.", where, type(error).__name__, error)
            continue
        if isinstance(kind, type) and issubclass(kind, Vendor):
            yield where, kind
        else:
            _log.warning("%s is no subclass of Vendor: it is left out.", where)


def get_vendor(name: str) -> Vendor:
    """Return the vendor of that name.

    :raises BadInput: naming the vendors that exist.
    """
    try:
        return vendors()[name]
    except KeyError:
        raise BadInput(f"No vendor is named {name!r}; there are {', '.join(vendors())}.") from None

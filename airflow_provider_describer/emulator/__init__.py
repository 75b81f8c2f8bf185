"""The vendors on one loopback port, with a billing ledger and fault injection. See docs/emulator.md.

Start it with `python -m airflow_provider_describer.emulator`, or from a test with `EmulatorProcess`.
It imports nothing from the rest of the package: it is a second, independent reading of the vendors' documentation,
which can prove the package wrong.
"""

from __future__ import annotations

from airflow_provider_describer.emulator.process import EmulatorProcess

__all__ = ["EmulatorProcess"]

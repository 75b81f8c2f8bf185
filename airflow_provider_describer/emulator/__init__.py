"""Both vendors on one loopback port, with a billing ledger and fault injection.

Start it with `python -m airflow_provider_describer.emulator`, or from a test with `EmulatorProcess`.
It is an independent reading of the vendors' documentation: nothing here imports the rest of the package,
so that it can prove the rest of the package wrong.
"""

from __future__ import annotations

from airflow_provider_describer.emulator.process import EmulatorProcess

__all__ = ["EmulatorProcess"]

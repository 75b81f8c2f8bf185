"""Everything that lives as long as the emulator does, in one place."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_describer.emulator.assets import Assets
from airflow_provider_describer.emulator.fault_rolls import Dice
from airflow_provider_describer.emulator.faults import VENDORS, FaultPlan, VendorFaults, read_plan
from airflow_provider_describer.emulator.image_input import Intake
from airflow_provider_describer.emulator.ledger import Ledger, micro_usd


class World:
    """The vendors' keys, accounts and memory, and the faults in force."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.ledger = Ledger(VENDORS)
        self.dice = Dice()
        self.intake = Intake()
        self.assets = Assets()
        self.use(read_plan({}))

    def use(self, plan: FaultPlan) -> None:
        """Put faults in force, and set every balance to what they say (1000 USD where they say nothing)."""
        self.dice.use(plan)
        for vendor, account in self.ledger.accounts.items():
            given = plan.vendors[vendor].credits
            account.balance = None if given is None else micro_usd(given)

    def faults(self, vendor: str) -> VendorFaults:
        return self.dice.faults(vendor)

    def price(self, vendor: str) -> int:
        """Return what a call costs, in micro-dollars."""
        return micro_usd(self.faults(vendor).price)

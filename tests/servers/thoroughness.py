"""How often tests that kill and damage at random do so."""

from __future__ import annotations

import os

FULL = os.environ.get("DESCRIBER_FULL") == "1"
"""Whether they take the time for more rounds than `make test-all` does: `DESCRIBER_FULL=1 make test-slow`."""

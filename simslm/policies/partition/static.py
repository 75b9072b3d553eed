"""The split that the scenario states, for ever."""

from __future__ import annotations

from simslm.policies.partition import PhaseWindow, Split
from simslm.policies.registry import PolicyOptions, policy


@policy("partition", "static")
class Static:
    """Each group keeps the `sm_fraction` it states (MPS active thread percentage, set once)."""

    window = 0
    needs_slo = False

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def split(self, seen: PhaseWindow) -> Split:
        return seen.split

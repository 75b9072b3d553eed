"""A power budget kept by the clock."""

from __future__ import annotations

from pydantic import Field

from simslm.policies.power import PowerOptions, PowerView
from simslm.policies.registry import policy


class BudgetOptions(PowerOptions):
    budget_w: float = Field(default=1000.0, gt=0, le=1e9, description="what all devices may draw together, W")
    margin: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="share of the budget that must be left at a higher clock to return to it",
    )


@policy("power", "budget", BudgetOptions)
class Budget:
    """Lower clocks while power is over the budget, higher ones with a margin (POLCA, arXiv:2308.12908, §5).

    As POLCA's thresholds do, the clock is lowered as soon as power is over the budget, to the highest clock at which it
    is not, and raised one level at a time, when the next level would leave the margin.
    """

    def __init__(self, options: BudgetOptions) -> None:
        self._budget_w, self._least_w = options.budget_w, options.budget_w * (1 - options.margin)

    def level(self, seen: PowerView) -> int:
        level, power_w = seen.level, seen.power_w
        while power_w[level] > self._budget_w and level + 1 < len(power_w):
            level += 1
        if level == seen.level > 0 and power_w[level - 1] <= self._least_w:
            return level - 1
        return level

"""A replica that switches contexts, for tests: every iteration takes one tick."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.scenarios import Choice
from support.synthetic import LinearCost, deployment

TICK = 2.0**-8


def switching(
    *, preemption: str = "lowest-priority", priorities: Choice | None = None, pool: int = 10, **options: Any
) -> Any:
    """One replica of ``pool`` blocks, first come first served among equal priorities, that swaps."""
    served = deployment(
        queueing="priority",
        num_gpu_blocks=pool,
        watermark=0.0,
        **{"cost": LinearCost(TICK, 0.0, 0.0, 0.0, 0.0), "swap_blocks": 1000} | options,
    )
    group = served.groups[0]

    def policies() -> Any:
        return replace(
            group.policies(),
            preemption=Choice("preemption", preemption).make(),
            priorities=(priorities or Choice("priorities", "fixed")).make(),
        )

    return replace(served, groups=(replace(group, policies=policies),))

"""A replica that switches contexts, for tests: every iteration takes one tick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from simslm.sim.parts.swap import Swap
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


@contextmanager
def host_watched(served: Any) -> Iterator[set[Swap]]:
    """At every iteration, the blocks on the host are those of their owners and the free ones; yields the hosts seen."""
    waits, seen = Swap.waits, set()
    total = served.groups[0].engine.swap_blocks

    def watched(self: Swap, now: float) -> float:
        seen.add(self)
        assert self.host.free >= 0
        assert self.host.free + _on_host(self) == total
        return waits(self, now)

    with patch.object(Swap, "waits", watched):
        yield seen


def _on_host(swap: Swap) -> int:
    """Blocks on the host, counted one owner after the other."""
    copies = [*swap.copies.values(), *swap.on_host.values()]
    return sum(copy.blocks for copy in copies) + (0 if swap.turns is None else swap.turns.blocks)

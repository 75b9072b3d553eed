"""The split of one device between its prefill and decode replicas, moved as a partition policy says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simslm.policies.partition import PartitionPolicy, PhaseWindow, Split
from simslm.sim.clock import Clock


class Tenant(Protocol):
    """A replica whose part of the multiprocessors can be set; it holds from its next iteration on."""

    sm_fraction: float | None


class Partitioner:
    """Watches the replicas of one device.

    Args:
        clock: the simulation's clock.
        policy: asked after every ``window`` requests.
        prefill, decode: the replicas of each phase; those of a phase have the same part.
        split: as it is at the start.
        ttft_slo_s, tpot_slo_s: bounds of the scenario, or None.

    Attributes:
        splits: every split and since when, in seconds.
    """

    def __init__(
        self,
        clock: Clock,
        policy: PartitionPolicy,
        prefill: Sequence[Tenant],
        decode: Sequence[Tenant],
        split: Split,
        ttft_slo_s: float | None,
        tpot_slo_s: float | None,
    ) -> None:
        self._clock = clock
        self._policy = policy
        self._tenants = (prefill, decode)
        self._slos = (ttft_slo_s, tpot_slo_s)
        self.splits = [(clock.now, split)]
        self._clear()

    def prefilled(self, waiting_s: float, prefill_s: float) -> None:
        """A request has its first token, so long after it was first scheduled, and that so long after it arrived."""
        self._waiting_s.append(waiting_s)
        self._prefill_s.append(prefill_s)

    def decoded(self, tpot_s: float) -> None:
        """A request has its last token."""
        self._tpot_s.append(tpot_s)
        if len(self._tpot_s) == self._policy.window:
            self._look()

    def _look(self) -> None:
        split = self.splits[-1][1]
        seen = PhaseWindow(
            split, tuple(self._waiting_s), tuple(self._prefill_s), tuple(self._tpot_s), *self._slos
        )
        self._clear()
        moved = self._policy.split(seen)
        if moved == split:
            return
        self.splits.append((self._clock.now, moved))
        for tenants, part in zip(self._tenants, moved, strict=True):
            for tenant in tenants:
                tenant.sm_fraction = part

    def _clear(self) -> None:
        self._waiting_s: list[float] = []
        self._prefill_s: list[float] = []
        self._tpot_s: list[float] = []

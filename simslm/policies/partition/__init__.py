"""Partition policies: how the multiprocessors of a device are divided between its prefill and decode replicas.

A policy is a class with one method, ``split(seen) -> Split``, asked each time ``window`` requests have had their last
token on the device. A new split holds for each replica from its next iteration on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Split(NamedTuple):
    """The part of the multiprocessors that each phase may use, in (0, 1].

    They are limits, not reservations, and may be more than 1 together.
    """

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class PhaseWindow:
    """What a device did since its policy was asked last.

    Attributes:
        split: as it is now.
        waiting_s: from arrival to first time scheduled, of each request whose first token came, s.
        prefill_s: from there to that token, of the same requests; the TTFT is the sum of both.
        tpot_s: time per output token of each request of two tokens or more whose last token came, s.
        ttft_slo_s, tpot_slo_s: what they should be at most; None where the scenario has no such bound.
    """

    split: Split
    waiting_s: tuple[float, ...]
    prefill_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    ttft_slo_s: float | None
    tpot_slo_s: float | None


class PartitionPolicy(Protocol):
    """Divides a device.

    Attributes:
        window: requests after whose last token it is asked again; 0 = never.
        needs_slo: the scenario must bound both TTFT and TPOT.
    """

    window: int
    needs_slo: bool

    def split(self, seen: PhaseWindow) -> Split:
        """The split from here on; a function of what is seen alone."""
        ...

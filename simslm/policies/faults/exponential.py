"""Faults at random times."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heapreplace

import numpy as np
from pydantic import Field

from simslm.policies.faults import Fault, FaultOptions
from simslm.policies.registry import policy


class ExponentialOptions(FaultOptions):
    mtbf_s: float = Field(
        default=86400.0, ge=0.05, le=1e9, description="mean time that a replica works between two faults, s"
    )
    mttr_s: float = Field(default=60.0, gt=0, le=1e6, description="mean time until it serves again, s")


@policy("faults", "exponential", ExponentialOptions)
class Exponential:
    """Each replica works, and is down, for exponential times (alternating renewals; Barlow & Proschan, 1965)."""

    def __init__(self, options: ExponentialOptions, *, stream: np.random.Generator) -> None:
        self._mtbf_s, self._mttr_s, self._stream = options.mtbf_s, options.mttr_s, stream

    def faults(self, replicas: int) -> Iterator[Fault]:
        coming = [(float(self._stream.exponential(self._mtbf_s)), replica) for replica in range(replicas)]
        heapify(coming)
        while coming:
            at_s, replica = coming[0]
            down_s = float(self._stream.exponential(self._mttr_s))
            yield Fault(at_s, replica, down_s)
            works_s = float(self._stream.exponential(self._mtbf_s))
            heapreplace(coming, (at_s + down_s + works_s, replica))

"""Routing by the power of two choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simslm.policies.draws import uniforms
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


@policy("routing", "power-of-two")
class PowerOfTwo:
    """The one with fewer requests waiting or running of two replicas drawn at random (Mitzenmacher, TPDS, 2001).

    The two are different, and the first drawn of equals is taken.
    """

    looks_at_replicas = True

    def __init__(self, options: PolicyOptions, *, stream: np.random.Generator) -> None:
        del options
        self.draws = uniforms(stream)

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        count = len(replicas)
        first = int(next(self.draws) * count)
        other = (first + 1 + int(next(self.draws) * (count - 1))) % count
        return other if replicas[other].outstanding < replicas[first].outstanding else first

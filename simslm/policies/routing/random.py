"""Random routing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simslm.policies.draws import uniforms
from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


@policy("routing", "random")
class Random:
    """Any replica, all equally likely (the base case of Mitzenmacher, TPDS, 2001)."""

    looks_at_replicas = False

    def __init__(self, options: PolicyOptions, *, stream: np.random.Generator) -> None:
        del options
        self.draws = uniforms(stream)

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        return int(next(self.draws) * len(replicas))

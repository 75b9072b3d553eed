"""Prefix-affinity routing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.route import ArrivingRequest, ReplicaLoad


class PrefixAffinityOptions(PolicyOptions):
    cache_threshold: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="smallest share of the prompt worth following to where it is cached",
    )
    balance_abs_threshold: int = Field(
        default=64, ge=0, description="requests by which a replica may always exceed the least loaded"
    )
    balance_rel_threshold: float = Field(
        default=1.5, ge=1, description="factor by which a replica may always exceed the least loaded"
    )


@policy("routing", "prefix-affinity", PrefixAffinityOptions)
class PrefixAffinity:
    """Where most of the prompt is cached, unless too loaded; else the least outstanding (SGLang; Preble, ICLR 2025).

    Names and defaults are those of SGLang's cache-aware router. A replica whose requests exceed those of the least
    loaded by more than both thresholds allow is not followed to. Of equals the least loaded is taken, then the
    first.
    """

    looks_at_replicas = True

    def __init__(self, options: PrefixAffinityOptions) -> None:
        self.least_share = options.cache_threshold
        self.excess = options.balance_abs_threshold
        self.factor = options.balance_rel_threshold

    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        loads = [replica.outstanding for replica in replicas]
        least = min(loads)
        best, most = loads.index(least), 0
        if not request.units:
            return best
        needed = max(1, self.least_share * len(request.units))
        bound = max(least + self.excess, least * self.factor)
        for i, load in enumerate(loads):
            # The look into a cache is the expensive part, and no use on a replica that is too loaded.
            cached = replicas[i].cached_units(request) if load <= bound else 0
            if cached >= needed and (cached, -load) > (most, -loads[best]):
                best, most = i, cached
        return best

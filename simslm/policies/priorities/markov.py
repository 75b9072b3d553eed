"""Priorities as Markov chains: a request that was urgent probably stays urgent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from simslm.policies.draws import uniforms
from simslm.policies.registry import PolicyOptions, policy


class MarkovOptions(PolicyOptions):
    every: int = Field(default=50, ge=1, description="iterations between two changes")
    levels: int = Field(default=100, ge=1, description="how many priorities there are, from 0")
    stay: float = Field(default=0.8, ge=0, le=1, description="probability that a request keeps its priority")


@policy("priorities", "markov", MarkovOptions)
class Markov:
    """A request keeps its priority with a probability, else draws it afresh (FastSwitch, arXiv:2411.18424).

    A pattern with temporal locality, as the random one has not; the chain with one probability of staying is the
    simplest. The paper's own chain, its probabilities and how often priorities change are not verified.
    """

    def __init__(self, options: MarkovOptions, stream: np.random.Generator) -> None:
        self.every = options.every
        self._levels, self._stay = options.levels, options.stay
        self._uniforms = uniforms(stream)

    def redraw(self, priorities: Sequence[int]) -> list[int]:
        return [
            priority if next(self._uniforms) < self._stay else int(next(self._uniforms) * self._levels)
            for priority in priorities
        ]

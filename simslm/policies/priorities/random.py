"""All priorities are drawn afresh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from simslm.policies.draws import uniforms
from simslm.policies.registry import PolicyOptions, policy


class RandomOptions(PolicyOptions):
    every: int = Field(default=50, ge=1, description="iterations between two changes")
    levels: int = Field(default=100, ge=1, description="how many priorities there are, from 0")


@policy("priorities", "random", RandomOptions)
class Random:
    """Every so many iterations all priorities are drawn afresh (FastSwitch, arXiv:2411.18424, random pattern)."""

    def __init__(self, options: RandomOptions, stream: np.random.Generator) -> None:
        self.every = options.every
        self._levels = options.levels
        self._uniforms = uniforms(stream)

    def redraw(self, priorities: Sequence[int]) -> list[int]:
        return [int(next(self._uniforms) * self._levels) for _ in priorities]

"""Priorities stay as requests bring them."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.policies.registry import PolicyOptions, policy


@policy("priorities", "fixed")
class Fixed:
    """A request keeps the priority it arrives with (vLLM `--scheduling-policy priority`)."""

    every = 0

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def redraw(self, priorities: Sequence[int]) -> list[int]:
        return list(priorities)

"""Random numbers for policies that draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

BLOCK = 1024
"""Numbers drawn at once: a call of the generator for each would take several times as long."""

KEPT_BLOCKS = 64
"""Blocks of numbered draws that are kept: requests under way have numbers close to each other."""


def uniforms(stream: np.random.Generator) -> Iterator[float]:
    """Independent uniform numbers in [0, 1), without end; ``int(u * n)`` is an index below any ``n`` < 2**52."""
    while True:
        yield from stream.random(BLOCK).tolist()


class Numbered:
    """Independent uniform numbers in [0, 1), one for each whole number from 0 on, in whatever order they are asked for.

    Number ``i`` is the ``i``-th that the stream would have drawn; memory does not grow with how many are asked for.

    Args:
        stream: of a PCG64 generator, which can be set to any place of its sequence; nothing else may draw from it.
    """

    def __init__(self, stream: np.random.Generator) -> None:
        self._stream = stream
        self._start = stream.bit_generator.state
        self._blocks: dict[int, list[float]] = {}

    def __getitem__(self, number: int) -> float:
        block, place = divmod(number, BLOCK)
        return (self._blocks.get(block) or self._drawn(block))[place]

    def _drawn(self, block: int) -> list[float]:
        if len(self._blocks) == KEPT_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        generator: Any = self._stream.bit_generator
        generator.state = self._start
        generator.advance(block * BLOCK)
        found = self._blocks[block] = self._stream.random(BLOCK).tolist()
        return found

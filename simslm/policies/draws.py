"""Random numbers for policies that draw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1024
"""Numbers drawn at once: a call of the generator for each would take several times as long."""


def uniforms(stream: np.random.Generator) -> Iterator[float]:
    """Independent uniform numbers in [0, 1), without end; ``int(u * n)`` is an index below any ``n`` < 2**52."""
    while True:
        yield from stream.random(BLOCK).tolist()

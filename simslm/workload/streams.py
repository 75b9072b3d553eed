"""Random streams by name: what one part of a run draws never moves what another part draws."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one name under one seed.

    It depends on nothing else: not on other streams, the process, or Python's hash seed.

    Args:
        seed: the scenario's seed.
        name: what the stream is for, e.g. ``arrivals`` or ``jitter/replica-3``.
    """
    digest = sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest, "little"))))


class Streams(dict[str, np.random.Generator]):
    """The streams of one seed by name, each going on where it was left; one that is new begins.

    Args:
        seed: the scenario's seed.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, name: str) -> np.random.Generator:
        found = self[name] = stream(self._seed, name)
        return found

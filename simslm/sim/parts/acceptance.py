"""Which proposed tokens are right: a property of each request's output, the same for every draft and any number."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


class Acceptance:
    """Tokens of an output are foreseen by the draft independently of each other, with the request's probability.

    An iteration that verifies ``k`` proposed tokens accepts those up to the first that is not foreseen, and emits one
    more: that token, or the one after them all. Whether a token is foreseen depends on the seed, the request and the
    token's place alone, so that two ways of speculating meet the same outputs.

    Args:
        rates: probability for each request, in [0, 1), shape ``(requests,)``.
        seed: the scenario's.
    """

    def __init__(self, rates: np.ndarray, seed: int) -> None:
        self._rates = rates
        self._key = int.from_bytes(sha256(f"{seed}/acceptance".encode()).digest()[:16], "little")

    def breaks(self, request: int, tokens: int) -> list[int]:
        """Places, from 0, of the tokens of an output that are not foreseen, ascending; the last is beyond its end.

        Args:
            request: its number.
            tokens: length of its output.
        """
        generator = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, request]))
        runs = generator.geometric(1.0 - self._rates[request], tokens)
        places = np.cumsum(np.minimum(runs, tokens + 1)) - 1
        inside = int(np.searchsorted(places, tokens))
        return [*places[:inside].tolist(), tokens]

"""Which prompts begin alike: chains of units, so that equal units mean equal prompts up to there.

Units are numbered, from 0, and the numbers of one prompt are the same objects as those of the others: a workload
holds one tuple of references per request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simslm.scenario.workload import PREFIX_UNIT_TOKENS, Prefixes

Units = list[tuple[int, ...]]


def shared_prefixes(prefixes: Prefixes, prompt_tokens: np.ndarray, rng: np.random.Generator) -> Units:
    """Units of :data:`~simslm.scenario.workload.PREFIX_UNIT_TOKENS` for the shared part of each prompt.

    Only whole units are shared; a prompt without a prefix has none.
    """
    chosen, uniform = rng.random((len(prompt_tokens), 2)).T
    which = np.where(chosen < prefixes.share, np.floor(uniform * prefixes.count), -1).astype(np.int64)
    each = prefixes.tokens // PREFIX_UNIT_TOKENS
    lengths = np.minimum(prompt_tokens // PREFIX_UNIT_TOKENS, each)
    chains = {
        index: tuple(range(index * each, (index + 1) * each))
        for index in np.unique(which[which >= 0]).tolist()
    }
    return [
        chains[index][:length] if index >= 0 else ()
        for index, length in zip(which.tolist(), lengths.tolist(), strict=True)
    ]


class HashChains:
    """Numbers recorded hashes in order of appearance.

    A hash counts as the same unit where it follows the same units and stands for as many tokens: so the numbers
    are chains whatever a file holds, and a hash that repeats within one prompt is two units.

    Args:
        unit_tokens: tokens of a unit.
    """

    def __init__(self, unit_tokens: int) -> None:
        self._unit_tokens = unit_tokens
        self._known: dict[tuple[int, int, int], int] = {}

    def __call__(self, hashes: Sequence[Sequence[int]], prompt_tokens: Sequence[int]) -> Units:
        """The units of the next prompts."""
        known, chains = self._known, []
        for row, prompt in zip(hashes, prompt_tokens, strict=True):
            chain: list[int] = []
            last = -1
            for position, value in enumerate(row):
                tokens = min(self._unit_tokens, prompt - position * self._unit_tokens)
                last = known.setdefault((last, value, tokens), len(known))
                chain.append(last)
            chains.append(tuple(chain))
        return chains

"""Which iterations lie inside what was measured.

* Decode-only: the batch and the mean context lie between the smallest and the largest measured, and the
  context is no longer than measured at the neighbouring batch sizes (between two of them, their limits are
  interpolated).
* Prefill-only: the same with prompt tokens in place of the batch, and the mean context a prompt token attends
  to in place of the decoding sequences'.
* With drafted tokens: those are prompt tokens of a mixed iteration, without attention of their own.
* Mixed: both parts satisfy the above, and batch and prompt tokens are at most the largest of any measured
  mixed iteration. Fewer prompt tokens than the smallest measured prompt count as inside, because iterations
  without any are measured too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.catalog.work import IterationShape

_SLACK = 1 + 1e-9


@dataclass(frozen=True)
class Region:
    """Measured sizes, and the range of contexts measured at each.

    Attributes:
        sizes: increasing, shape ``(n,)``.
        longest: the longest mean context at each size, shape ``(n,)``.
        shortest: the shortest mean context at any size.
    """

    sizes: np.ndarray
    longest: np.ndarray
    shortest: float

    @classmethod
    def of(cls, sizes: np.ndarray, contexts: np.ndarray) -> Region:
        """The region that measured points, each of shape ``(k,)``, span."""
        nodes = np.unique(sizes)
        longest = np.array([contexts[sizes == node].max() for node in nodes])
        return cls(nodes, longest, float(contexts.min()))

    def holds(self, size: np.ndarray, context: np.ndarray, smaller: bool = False) -> np.ndarray:
        """Mask of the points inside; ``smaller`` admits sizes below the smallest measured one."""
        inside = (size <= self.sizes[-1]) & (context * _SLACK >= self.shortest)
        inside &= context <= np.interp(size, self.sizes, self.longest) * _SLACK
        return inside if smaller else inside & (size >= self.sizes[0])


@dataclass(frozen=True)
class Domain:
    """What a trace measured.

    Attributes:
        decode: of decode-only iterations.
        prefill: of prefill-only iterations.
        mixed_seqs: the most sequences decoded in a mixed iteration; 0 when none was measured.
        mixed_tokens: the most prompt tokens in one.
    """

    decode: Region
    prefill: Region
    mixed_seqs: float
    mixed_tokens: float

    def holds(self, shapes: IterationShape) -> np.ndarray:
        """Mask of the iterations inside, shape ``(n,)``."""
        seqs, tokens = np.asarray(shapes.decode_seqs), np.asarray(shapes.prefill_tokens)
        context = shapes.decode_ctx_tokens / np.maximum(seqs, 1)
        attended = shapes.prefill_pairs / np.maximum(tokens, 1)
        rows = tokens + np.asarray(shapes.draft_tokens)
        mixed = (seqs > 0) & (rows > 0)
        decode = (seqs == 0) | self.decode.holds(seqs, context)
        prefill = (tokens == 0) | self._prefill(tokens, attended, mixed)
        both = ~mixed | ((seqs <= self.mixed_seqs) & (rows <= self.mixed_tokens))
        return decode & prefill & both

    def _prefill(self, tokens: np.ndarray, attended: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        alone = self.prefill.holds(tokens, attended)
        beside = self.prefill.holds(tokens, np.maximum(attended, self.prefill.shortest), smaller=True)
        return np.where(mixed, beside, alone)

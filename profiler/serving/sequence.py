"""A request while it is on the engine: its tokens, how many of them are cached, and in which blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan

import numpy as np

NO_BLOCKS = np.empty(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class Sequence:
    """A request in flight; policies see it as ``Prompt`` and ``ArrivingRequest``, without its true length.

    Attributes:
        request_id: its row in the workload.
        arrival_s: when it was due.
        prompt_tokens: tokens of its prompt.
        output_tokens: tokens it will have when it is done.
        max_tokens: declared limit of its output.
        priority: the lower, the sooner.
        ids: prompt and output, ``(prompt_tokens + output_tokens,)``; the first ``length`` are known.
        session_id, units, uncached_tokens: what policies may read; live requests have no session or prefix.
        generated: output tokens so far.
        cached: its first tokens, whose keys and values are in the cache.
        remaining: tokens still to prefill; after a preemption what had been generated is among them.
        blocks: KV blocks that admitting it takes.
        table: the blocks it owns.
        first_scheduled_s, first_token_s, last_token_s, finish_s: what became of it; NaN until then.
        preemptions: how often it was preempted.
        recomputed_tokens: tokens that it lost from the cache by that.
        rejected: it was not let in.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    priority: int
    ids: np.ndarray = field(repr=False)
    session_id: int = -1
    units: tuple[int, ...] = ()
    uncached_tokens: int = 0
    generated: int = 0
    cached: int = 0
    remaining: int = 0
    blocks: int = 0
    table: np.ndarray = field(default_factory=lambda: NO_BLOCKS, repr=False)
    first_scheduled_s: float = nan
    first_token_s: float = nan
    last_token_s: float = nan
    finish_s: float = nan
    preemptions: int = 0
    recomputed_tokens: int = 0
    rejected: bool = False

    @property
    def length(self) -> int:
        """Tokens that are known."""
        return self.prompt_tokens + self.generated

    @property
    def output(self) -> np.ndarray:
        """The tokens it was answered with so far."""
        return self.ids[self.prompt_tokens : self.length]

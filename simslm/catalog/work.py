"""The shape of one iteration (= one forward pass of one replica), and the work it asks of a device.

Every field may be a Python number or a numpy array; arrays give one element per iteration.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class IterationShape(NamedTuple):
    """What runs in one iteration.

    Attributes:
        decode_seqs: sequences that decode one token each.
        decode_ctx_tokens: tokens already in the KV cache, summed over the decoding sequences.
        prefill_seqs: prompts (or chunks of prompts) prefilled in this iteration.
        prefill_tokens: new prompt tokens this iteration, summed.
        prefill_ctx_tokens: tokens of those same prompts that were already in the cache, summed.
        prefill_pairs: (query, key) pairs the prefill attention visits: the sum over prompts of
            ``new * (cached + (new + 1) / 2)``; :func:`equal_prompts` gives it for prompts of one length.
    """

    decode_seqs: Any
    decode_ctx_tokens: Any
    prefill_seqs: Any = 0
    prefill_tokens: Any = 0
    prefill_ctx_tokens: Any = 0
    prefill_pairs: Any = 0.0


def equal_prompts(
    decode_seqs: Any, decode_ctx_tokens: Any, prefill_seqs: Any, prefill_tokens: Any, prefill_ctx_tokens: Any
) -> IterationShape:
    """The shape whose ``prefill_seqs`` prompts share tokens and cached context equally."""
    import numpy as np

    each = np.maximum(prefill_seqs, 1)
    pairs = prefill_tokens * (prefill_ctx_tokens / each + (prefill_tokens / each + 1) / 2)
    return IterationShape(
        decode_seqs, decode_ctx_tokens, prefill_seqs, prefill_tokens, prefill_ctx_tokens, pairs
    )

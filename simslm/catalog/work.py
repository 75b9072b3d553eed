"""The shape of one iteration (= one forward pass of one replica), and the work it asks of a device.

Every field may be a Python number or a numpy array; arrays give one element per iteration. Only ``+ - * /``
and comparisons are used, in one order, so that a scalar and an array element come out bitwise the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from simslm.catalog.architecture import Architecture, element_bytes
from simslm.catalog.experts import Routing


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
        unread_seqs: sequences that got a token in the iteration before, if the host looks at those outputs only
            while this one runs; no work for the device.
        draft_tokens: tokens that are proposed for the decoding sequences, as many for each, and verified beside the
            one that each decodes (speculative decoding); what proposing them takes is not in it.
        prefill_layers: share of the layers that the prompts pass in this iteration, in (0, 1]. Prompt tokens, context
            and pairs are counted by it: ``n`` tokens through half of the layers are ``n / 2``. A cost that knows of no
            experts is the same for both.
    """

    decode_seqs: Any
    decode_ctx_tokens: Any
    prefill_seqs: Any = 0
    prefill_tokens: Any = 0
    prefill_ctx_tokens: Any = 0
    prefill_pairs: Any = 0.0
    unread_seqs: Any = 0
    draft_tokens: Any = 0
    prefill_layers: Any = 1.0

    @property
    def new_tokens(self) -> Any:
        """Rows of the layers' matrix products."""
        return self.decode_seqs + self.prefill_tokens + self.draft_tokens

    @property
    def plain_decode(self) -> Any:
        """Whether nothing runs but sequences that decode one token each."""
        return (self.prefill_tokens == 0) & (self.draft_tokens == 0)


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


class Work(NamedTuple):
    """Floating-point operations and bytes of device memory traffic of one iteration, by component.

    Attributes:
        linear_flops: projections and MLPs of every layer, for every token.
        linear_bytes: the layers' weights, read once.
        decode_flops: attention of the decoding sequences.
        decode_bytes: their keys and values: the whole context read, one token written.
        prefill_flops: attention of the prompts.
        prefill_bytes: their keys and values: cached and new tokens read once, new tokens written.
        head_flops: logits of the rows that sample: decoding sequences and prompts.
        head_bytes: the head's weights, read once.
        embedding_bytes: the tokens' rows of the embedding (and learned position) table.
    """

    linear_flops: Any
    linear_bytes: Any
    decode_flops: Any
    decode_bytes: Any
    prefill_flops: Any
    prefill_bytes: Any
    head_flops: Any
    head_bytes: Any
    embedding_bytes: Any

    @property
    def flops(self) -> Any:
        """All floating-point operations."""
        return self.linear_flops + self.decode_flops + self.prefill_flops + self.head_flops

    @property
    def bytes(self) -> Any:
        """All bytes."""
        caches = self.decode_bytes + self.prefill_bytes
        return self.linear_bytes + caches + self.head_bytes + self.embedding_bytes


class WorkModel:
    """The work of any iteration of one architecture in one data type, its constants computed once.

    With ``T`` new tokens, ``P`` layer matrix parameters, ``d`` the width of all query heads, and per layer:

    * linear: ``2 P T`` FLOPs (a multiply and an add per weight and token; Kaplan et al. 2020,
      arXiv:2001.08361, section 2.1); weights read once however many tokens share them.
    * attention: ``4 d`` FLOPs per (query, key) pair, ``2 d`` for the score and ``2 d`` for the weighted value
      (ibid.). A decoding sequence with ``c`` tokens cached has ``c + 1`` pairs; a prompt's pairs are the
      shape's ``prefill_pairs``. Bytes assume a kernel that never writes the scores to memory and reads each
      key and value once (FlashAttention; Dao et al. 2022, arXiv:2205.14135, section 3.1).
    * experts: a token is multiplied with those of its choice only; of a block's, those are read, once, that any of
      the iteration's tokens has chosen, see :class:`~simslm.catalog.experts.Routing`. Real routers prefer some experts
      over others, so that fewer are read. Prompts that pass a share of the layers have all their tokens in those and
      none in the others.
    * head: ``2`` FLOPs per weight and sampled row.
    * ``k`` drafted tokens of a sequence are ``k`` more tokens of the layers and rows of the head; the ``i``-th attends
      to ``c + 1 + i`` keys, which are read once for all its tokens (Leviathan et al. 2023, arXiv:2211.17192, section
      3.4).

    Activations (``T`` times a few hidden sizes per layer) stay in caches or are small beside the weights, and
    are left out. A layer with a sliding window of ``w`` tokens attends to at most ``w`` per sequence: totals
    are capped at ``w`` times the sequences, which is exact when the sequences are all longer or all shorter.

    Args:
        architecture: the model.
        dtype: data type of weights and KV cache.
        flops_per_s, bytes_per_s: of a device; then work is counted in seconds at these rates.

    Attributes:
        linear_flops, head_flops, embedding_bytes: per token or row.
        linear_bytes, head_bytes: per iteration; of the layers without their experts, where a router chooses.
        expert_bytes: of all experts of all layers, 0 without a router.
        full_flops, full_bytes: per (query, key) pair, and per key read, of the layers without a window.
        all_bytes: per key written, of all layers.
        window: tokens; 0 without.
        window_flops, window_bytes: as ``full``, of the layers with a window.
        plain: whether decoding and prefilling are proportional to the sums of a shape, and all weights are read.
    """

    def __init__(
        self, architecture: Architecture, dtype: str, flops_per_s: float = 1.0, bytes_per_s: float = 1.0
    ) -> None:
        element = element_bytes(dtype)
        layers = architecture.num_layers
        vectors = layers * architecture.layer_vector_parameters()
        active = layers * architecture.layer_active_parameters()
        experts = layers * architecture.num_experts * architecture.expert_parameters()
        routed = experts * (architecture.num_experts > 1)
        matrices = layers * architecture.layer_matrix_parameters() - routed
        projections = architecture.embedding_size * architecture.hidden_size
        projections *= architecture.embedding_size != architecture.hidden_size
        table = architecture.vocab_size * architecture.embedding_size
        learned = architecture.hidden_size * (architecture.positions == "learned")
        pair_flops = 4.0 * architecture.query_size / flops_per_s
        kv_bytes = 2 * architecture.kv_size * element / bytes_per_s
        full = layers - architecture.sliding_window_layers
        self.linear_flops = 2.0 * (active + projections) / flops_per_s
        self.linear_bytes = (matrices + vectors + projections) * element / bytes_per_s
        self.expert_bytes = routed * element / bytes_per_s
        self._routing = Routing(architecture.num_experts, architecture.num_experts_per_tok)
        self.head_flops = 2.0 * (table + projections) / flops_per_s
        self.head_bytes = architecture.head_parameters() * element / bytes_per_s
        self.embedding_bytes = (architecture.embedding_size + learned) * element / bytes_per_s
        self.full_flops, self.full_bytes = pair_flops * full, kv_bytes * full
        self.all_bytes = kv_bytes * layers
        self.window = float(architecture.sliding_window or 0)
        self.window_flops = pair_flops * architecture.sliding_window_layers
        self.window_bytes = kv_bytes * architecture.sliding_window_layers
        self.plain = not self.window and not self.expert_bytes

    def knots(self, decode_seqs: int) -> tuple[float, ...]:
        """The total contexts of decoding sequences where their work changes its slope: full windows."""
        return (max(decode_seqs * (self.window - 1.0), 0.0),)

    def __call__(self, shape: IterationShape) -> Work:
        """The work of one iteration, or of many when the shape's fields are arrays."""
        seqs, context, prompts, tokens, cached, pairs, _, drafted, layers = shape
        total = seqs + tokens + drafted
        rows = seqs + prompts + drafted
        keys = context + seqs
        # ``+ (seqs == 0)``: no division by 0, for numbers and arrays alike and without a branch.
        each = drafted / (seqs + (seqs == 0))
        visited = keys + drafted * (keys / (seqs + (seqs == 0)) + (each + 1) / 2)
        keys = keys + drafted
        decode_flops = visited * self.full_flops
        decode_bytes = keys * self.full_bytes + (seqs + drafted) * self.all_bytes
        prefill_flops = pairs * self.full_flops
        prefill_bytes = (cached + tokens) * self.full_bytes + tokens * self.all_bytes
        if self.window:
            decode_flops = (
                decode_flops + _at_most(visited, (seqs + drafted) * self.window) * self.window_flops
            )
            seen = _at_most(keys, seqs * self.window + drafted)
            decode_bytes = decode_bytes + seen * self.window_bytes
            prefill_flops = prefill_flops + _at_most(pairs, tokens * self.window) * self.window_flops
            behind = _at_most(cached, prompts * self.window)
            prefill_bytes = prefill_bytes + (behind + tokens) * self.window_bytes
        linear_bytes = (total > 0) * self.linear_bytes
        if self.expert_bytes:
            # Prompts that pass a share of the layers have all their tokens in those: ``tokens`` is counted by the
            # share.
            passed = self._routing.share(seqs + drafted + tokens / layers) * layers
            passed = passed + self._routing.share(seqs + drafted) * (1.0 - layers)
            linear_bytes = linear_bytes + passed * self.expert_bytes
        return Work(
            total * self.linear_flops,
            linear_bytes,
            decode_flops,
            decode_bytes,
            prefill_flops,
            prefill_bytes,
            rows * self.head_flops,
            (rows > 0) * self.head_bytes,
            total * self.embedding_bytes,
        )


@lru_cache(maxsize=64)
def work_model(architecture: Architecture, dtype: str) -> WorkModel:
    """The :class:`WorkModel` of an architecture and data type; built once, as it never changes."""
    return WorkModel(architecture, dtype)


def work(architecture: Architecture, dtype: str, shape: IterationShape) -> Work:
    """The work of one iteration; a caller with many asks :func:`work_model` once and calls that.

    Raises:
        UsageError: for an unknown data type.
    """
    return work_model(architecture, dtype)(shape)


def _at_most(value: Any, limit: Any) -> Any:
    """``min(value, limit)`` for scalars and arrays alike."""
    over = value > limit
    return value * (1 - over) + limit * over


def pairs_within(before: float, new: float, kept: float) -> float:
    """(Query, key) pairs of ``new`` tokens after ``before`` in a sequence; the ``i``-th: ``min(before + i, kept)``."""
    growing = min(max(kept - before, 0), new)
    return growing * (before + (growing + 1) / 2) + (new - growing) * kept

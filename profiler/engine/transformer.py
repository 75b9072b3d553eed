"""The forward pass: embeddings, blocks and head of the supported families, over rows of a mixed batch.

Sources: OPT (arXiv:2205.01068; blocks as in ``transformers`` ``modeling_opt.py``, the 350M model normalises
after each sublayer), Llama (arXiv:2302.13971), Qwen2 (arXiv:2407.10671), Qwen3 (arXiv:2505.09388, normalised
queries and keys), Phi-2 (parallel attention and MLP), Gemma 2 (arXiv:2408.00118, section 2; ``modeling_gemma2.py``:
norms around attention and MLP, scaled embeddings, capped logits), OLMoE and Qwen3-MoE (:mod:`profiler.engine.experts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from profiler.engine.attention import Attention
from profiler.engine.cache import PagedCache
from profiler.engine.experts import Experts, MakeExperts, SeparateExperts
from profiler.engine.weights import Linear, MakeLinear, linear
from simslm.catalog.architecture import Architecture

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Block:
    """The callables of one transformer block; ``None`` where the family has no such part."""

    norm1: Norm
    norm2: Norm | None
    post_norm1: Norm | None
    post_norm2: Norm | None
    qkv: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    out: Linear
    mlp: Linear | Experts


@dataclass(frozen=True, slots=True)
class Rows:
    """One iteration on the device.

    Attributes:
        tokens, positions, slots: of every token row, ``(rows,)``.
        last_rows: the row of each sequence's last token, ``(seqs,)``.
        spans: what attention made of the batch.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    last_rows: Tensor
    spans: Any


class Transformer:
    """A decoder-only transformer with fused QKV and gate-up projections.

    Args:
        architecture: of a supported family.
        weights: as from :func:`profiler.engine.weights.random_weights`; emptied, so that no matrix is held
            both fused and unfused.
        cache: where keys and values go.
        attention: how they are read.
        layer: makes the linear layers of the blocks, of a matrix ``(out, in)`` and perhaps a bias.
        experts: makes the experts of blocks that have some.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: dict[str, Tensor],
        cache: PagedCache,
        attention: Attention,
        layer: MakeLinear = linear,
        experts: MakeExperts = SeparateExperts,
    ) -> None:
        self.architecture, self.cache, self.attention = architecture, cache, attention
        self._embedding = weights.pop("embedding")
        self._embedding_scale = _embedding_scale(architecture, self._embedding.dtype)
        self._positions = weights.pop("positions", None)
        self._project_in = _projection(weights.pop("project_in", None))
        self._project_out = _projection(weights.pop("project_out", None))
        self.blocks = [
            _block(architecture, weights, i, layer, experts) for i in range(architecture.num_layers)
        ]
        self._final_norm = _norm(architecture, weights, "final_norm") if architecture.final_norm else None
        head = weights.pop("head.weight", self._embedding)
        self._head = linear(head, weights.pop("head.bias", None))
        self._rotary = _rotary_table(architecture, head) if architecture.positions == "rotary" else None

    def forward(self, rows: Rows) -> Tensor:
        """Logits of every sequence's last token, ``(seqs, vocab_size)``."""
        hidden = self.embed(rows)
        rotation = self.rotation(rows.positions)
        for index, block in enumerate(self.blocks):
            hidden = self._run_block(index, block, hidden, rotation, rows)
        return self.head(hidden.index_select(0, rows.last_rows))

    def embed(self, rows: Rows) -> Tensor:
        """Token and position embeddings, ``(rows, hidden_size)``."""
        hidden = functional.embedding(rows.tokens, self._embedding)
        if self._embedding_scale is not None:
            hidden = hidden * self._embedding_scale
        if self._project_in is not None:
            hidden = self._project_in(hidden)
        if self._positions is not None:
            hidden = hidden + self._positions[rows.positions + self.architecture.position_offset]
        return hidden

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of every row's rotary angles, ``(rows, 1, rotary_dim / 2)``; None if learned."""
        if self._rotary is None:
            return None
        cosine, sine = self._rotary[:, positions]
        return cosine[:, None], sine[:, None]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of rows of the residual stream."""
        if self._final_norm is not None:
            hidden = self._final_norm(hidden)
        if self._project_out is not None:
            hidden = self._project_out(hidden)
        logits = self._head(hidden)
        if cap := self.architecture.logit_softcap:
            logits.div_(cap).tanh_().mul_(cap)
        return logits

    def _run_block(
        self, index: int, block: Block, hidden: Tensor, rotation: tuple[Tensor, Tensor] | None, rows: Rows
    ) -> Tensor:
        attend = partial(self._attend, index, block, rotation, rows)
        if self.architecture.parallel_block:
            inner = block.norm1(hidden)
            return hidden + attend(inner) + block.mlp(inner)
        assert block.norm2 is not None
        if block.post_norm1 is not None and block.post_norm2 is not None:
            hidden = hidden + block.post_norm1(attend(block.norm1(hidden)))
            return hidden + block.post_norm2(block.mlp(block.norm2(hidden)))
        if self.architecture.norm_first:
            hidden = hidden + attend(block.norm1(hidden))
            return hidden + block.mlp(block.norm2(hidden))
        hidden = block.norm1(hidden + attend(hidden))
        return block.norm2(hidden + block.mlp(hidden))

    def _attend(
        self, index: int, block: Block, rotation: tuple[Tensor, Tensor] | None, rows: Rows, hidden: Tensor
    ) -> Tensor:
        a = self.architecture
        queries, keys, values = block.qkv(hidden).split((a.query_size, a.kv_size, a.kv_size), dim=-1)
        queries, keys, values = (x.unflatten(-1, (-1, a.head_dim)) for x in (queries, keys, values))
        if block.q_norm is not None and block.k_norm is not None:
            queries, keys = block.q_norm(queries), block.k_norm(keys)
        if rotation is not None:
            queries, keys = _rotate(queries, *rotation), _rotate(keys, *rotation)
        self.cache.write(index, rows.slots, keys, values)
        return block.out(self.attention.attend(index, queries.flatten(1), rows.spans))


def _block(
    architecture: Architecture,
    weights: dict[str, Tensor],
    index: int,
    layer: MakeLinear,
    experts: MakeExperts,
) -> Block:
    a, prefix = architecture, f"layers.{index}."
    return Block(
        norm1=_norm(a, weights, prefix + "norm1"),
        norm2=None if a.parallel_block else _norm(a, weights, prefix + "norm2"),
        post_norm1=_norm(a, weights, prefix + "post_norm1") if a.post_norms else None,
        post_norm2=_norm(a, weights, prefix + "post_norm2") if a.post_norms else None,
        qkv=_fused(weights, prefix, ("q", "k", "v"), layer),
        q_norm=_head_norm(a, weights.pop(prefix + "q_norm.weight")) if a.qk_norm else None,
        k_norm=_head_norm(a, weights.pop(prefix + "k_norm.weight")) if a.qk_norm else None,
        out=_fused(weights, prefix, ("out",), layer),
        mlp=_mlp(a, weights, prefix, layer, experts),
    )


def _mlp(
    a: Architecture, weights: dict[str, Tensor], prefix: str, layer: MakeLinear, experts: MakeExperts
) -> Linear | Experts:
    """Up, activate, down, with a gate that multiplies where the family has one; or experts of that sort."""
    if a.num_experts > 1:
        names = ("router.weight", "experts_gate_up", "experts_down")
        return experts(a, *(weights.pop(prefix + name) for name in names))
    up = _fused(weights, prefix, ("gate", "up") if a.gated_mlp else ("up",), layer)
    down = _fused(weights, prefix, ("down",), layer)
    activate = _ACTIVATIONS[a.activation]

    def gated(hidden: Tensor) -> Tensor:
        gate, inner = up(hidden).chunk(2, dim=-1)
        return down(activate(gate).mul_(inner))

    return gated if a.gated_mlp else lambda hidden: down(activate(up(hidden)))


def _fused(weights: dict[str, Tensor], prefix: str, names: Sequence[str], layer: MakeLinear) -> Linear:
    """One linear layer whose outputs are those of several, side by side."""
    matrices = [weights.pop(f"{prefix}{name}.weight") for name in names]
    biases = [weights.pop(f"{prefix}{name}.bias", None) for name in names]
    bias = torch.cat([b for b in biases if b is not None]) if biases[0] is not None else None
    return layer(torch.cat(matrices), bias)


def _projection(weight: Tensor | None) -> Linear | None:
    return None if weight is None else linear(weight, None)


def _norm(architecture: Architecture, weights: dict[str, Tensor], name: str) -> Norm:
    weight, eps = weights.pop(f"{name}.weight"), architecture.norm_eps
    if architecture.norm_offset:
        return _offset_rms_norm(weight, eps)
    if architecture.norm == "rmsnorm":
        return _rms_norm(weight, eps)
    bias = weights.pop(f"{name}.bias")
    return lambda x: functional.layer_norm(x, weight.shape, weight, bias, eps)


def _head_norm(a: Architecture, weight: Tensor) -> Norm:
    """Of queries or keys ``(rows, heads, head_dim)``: of each head, or of all heads of a row together."""
    norm = _rms_norm(weight, a.norm_eps)
    if not a.qk_norm_across_heads:
        return norm
    return lambda heads: norm(heads.flatten(1)).view(heads.shape)


def _rms_norm(weight: Tensor, eps: float) -> Norm:
    """Root-mean-square normalisation (arXiv:1910.07467, eq. 4); torch has it fused for a GPU only."""
    if weight.device.type != "cpu":
        return lambda x: functional.rms_norm(x, weight.shape, weight, eps)
    return lambda x: (x * _reciprocal_rms(x, eps).to(x.dtype)).mul_(weight)


def _offset_rms_norm(weight: Tensor, eps: float) -> Norm:
    """The same by one plus the weight, all in float32 (``Gemma2RMSNorm`` in ``modeling_gemma2.py``)."""
    factor = 1.0 + weight.float()
    if weight.device.type != "cpu":
        return lambda x: functional.rms_norm(x.float(), factor.shape, factor, eps).to(x.dtype)
    return lambda x: (x * _reciprocal_rms(x, eps)).mul_(factor).to(x.dtype)


def _reciprocal_rms(x: Tensor, eps: float) -> Tensor:
    """Of every row, in float32."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _embedding_scale(architecture: Architecture, dtype: torch.dtype) -> float | None:
    """Of embeddings, rounded to their type as ``Gemma2TextScaledWordEmbedding`` rounds it; None for one."""
    scale = torch.tensor(architecture.hidden_size**0.5, dtype=dtype)
    return scale.item() if architecture.scale_embeddings else None


def _rotary_table(architecture: Architecture, like: Tensor) -> Tensor:
    """Cosine and sine by position, ``(2, positions, rotary_dim / 2)`` (RoFormer, arXiv:2104.09864, §3.2)."""
    half = torch.arange(0, architecture.rotary_dim, 2, dtype=torch.float64)
    frequencies = architecture.rope_theta ** (-half / architecture.rotary_dim)
    angles = torch.arange(architecture.max_position_embeddings, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()]).to(like.device, like.dtype)


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the first ``rotary_dim`` dimensions of ``heads`` ``(rows, heads, head_dim)``, in halves."""
    half = cosine.shape[-1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat((*turned, rest), dim=-1)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu_,
    "silu": functional.silu,
    "gelu": partial(functional.gelu, approximate="tanh"),
}

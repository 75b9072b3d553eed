"""The forward pass: embeddings, blocks and head of the supported families, over rows of a mixed batch.

Sources: OPT (arXiv:2205.01068; blocks as in ``transformers`` ``modeling_opt.py``, the 350M model normalises
after each sublayer), Llama (arXiv:2302.13971), Qwen2 (arXiv:2407.10671), Qwen3 (arXiv:2505.09388, normalised
queries and keys), Phi-2 (parallel attention and MLP), Gemma 2 (arXiv:2408.00118, section 2; ``modeling_gemma2.py``:
norms around attention and MLP, scaled embeddings, capped logits), OLMoE and Qwen3-MoE (:mod:`profiler.engine.experts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from profiler.engine.attention import Attention
from profiler.engine.between import HeadNorms, Norm, Steps, TorchSteps, Where
from profiler.engine.cache import PagedCache
from profiler.engine.experts import Experts, MakeExperts, SeparateExperts
from profiler.engine.weights import Linear, MakeLinear, Weights, linear
from simslm.catalog.architecture import Architecture

MakeSteps = Callable[[Architecture, PagedCache, Tensor | None], Steps]
"""Of an architecture, its cache, and its rotary table or None."""


@dataclass(frozen=True, slots=True)
class Block:
    """The callables of one transformer block; ``None`` where the family has no such part."""

    norm1: Norm
    norm2: Norm | None
    post_norm1: Norm | None
    post_norm2: Norm | None
    qkv: Linear
    head_norms: HeadNorms | None
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


Stream = tuple[Tensor, Tensor | None]
"""The residual stream ``(rows, hidden_size)``, and what is still to be added to it."""


class Transformer:
    """A decoder-only transformer with fused QKV and gate-up projections.

    Args:
        architecture: of a supported family.
        weights: by the names of :func:`profiler.engine.weights.weight_shapes`; taken one by one, so that no more than
            a layer's are held both fused and unfused.
        cache: where keys and values go.
        attention: how they are read.
        layer: makes the linear layers of the blocks, of a matrix ``(out, in)`` and perhaps a bias.
        experts: makes the experts of blocks that have some.
        steps: makes what lies between matrix products and attention.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        cache: PagedCache,
        attention: Attention,
        layer: MakeLinear = linear,
        experts: MakeExperts = SeparateExperts,
        steps: MakeSteps = TorchSteps,
    ) -> None:
        self.architecture, self.attention = architecture, attention
        self._embedding = weights.pop("embedding")
        self._embedding_scale = _embedding_scale(architecture, self._embedding.dtype)
        self._positions = weights.pop("positions", None)
        self._project_in = _projection(weights.pop("project_in", None))
        self._project_out = _projection(weights.pop("project_out", None))
        rotary = _rotary_table(architecture, self._embedding) if architecture.positions == "rotary" else None
        self.steps = steps(architecture, cache, rotary)
        make = _Parts(architecture, weights, self.steps, layer, experts)
        self.blocks = [make.block(f"layers.{index}.") for index in range(architecture.num_layers)]
        self._final_norm = make.norm("final_norm") if architecture.final_norm else None
        head = weights.pop("head.weight", self._embedding)
        self._head = linear(head, weights.pop("head.bias", None))

    def forward(self, rows: Rows) -> Tensor:
        """Logits of every sequence's last token, ``(seqs, vocab_size)``."""
        hidden, added = self.embed(rows), None
        where = Where(rows.slots, rows.positions, self.steps.rotation(rows.positions))
        for index, block in enumerate(self.blocks):
            hidden, added = self._run_block(index, block, (hidden, added), where, rows)
        hidden = hidden.index_select(0, rows.last_rows)
        return self.head(hidden, None if added is None else added.index_select(0, rows.last_rows))

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

    def head(self, hidden: Tensor, added: Tensor | None = None) -> Tensor:
        """Logits of rows of the residual stream, and of what is still to be added to them."""
        if self._final_norm is not None:
            _, hidden = _sum_and_norm(self._final_norm, (hidden, added))
        elif added is not None:
            hidden = hidden + added
        if self._project_out is not None:
            hidden = self._project_out(hidden)
        logits = self._head(hidden)
        if cap := self.architecture.logit_softcap:
            logits.div_(cap).tanh_().mul_(cap)
        return logits

    def _run_block(self, index: int, block: Block, stream: Stream, where: Where, rows: Rows) -> Stream:
        """Adds to the residual stream only where a norm follows, so that both are one step."""
        if not self.architecture.norm_first:
            assert block.norm2 is not None
            hidden = stream[0]
            _, hidden = block.norm1.add(hidden, self._attend(index, block, where, rows, hidden))
            return block.norm2.add(hidden, block.mlp(hidden))[1], None
        hidden, inner = _sum_and_norm(block.norm1, stream)
        mixed = self._attend(index, block, where, rows, inner)
        if block.norm2 is None:  # attention and MLP side by side
            return hidden, mixed.add_(block.mlp(inner))
        if block.post_norm1 is not None:
            mixed = block.post_norm1(mixed)
        hidden, inner = block.norm2.add(hidden, mixed)
        out = block.mlp(inner)
        return hidden, out if block.post_norm2 is None else block.post_norm2(out)

    def _attend(self, index: int, block: Block, where: Where, rows: Rows, hidden: Tensor) -> Tensor:
        queries = self.steps.place(index, block.qkv(hidden), block.head_norms, where)
        return block.out(self.attention.attend(index, queries, rows.spans))


def _sum_and_norm(norm: Norm, stream: Stream) -> tuple[Tensor, Tensor]:
    hidden, added = stream
    return (hidden, norm(hidden)) if added is None else norm.add(hidden, added)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Makes the parts of an architecture, and takes their weights out of those that are given."""

    a: Architecture
    weights: Weights
    steps: Steps
    layer: MakeLinear
    experts: MakeExperts

    def block(self, prefix: str) -> Block:
        a = self.a
        return Block(
            norm1=self.norm(prefix + "norm1"),
            norm2=None if a.parallel_block else self.norm(prefix + "norm2"),
            post_norm1=self.norm(prefix + "post_norm1") if a.post_norms else None,
            post_norm2=self.norm(prefix + "post_norm2") if a.post_norms else None,
            qkv=self.fused(prefix, ("q", "k", "v")),
            head_norms=self._head_norms(prefix) if a.qk_norm else None,
            out=self.fused(prefix, ("out",)),
            mlp=self._mlp(prefix),
        )

    def norm(self, name: str) -> Norm:
        weight = self.weights.pop(f"{name}.weight")
        bias = self.weights.pop(f"{name}.bias") if self.a.norm == "layernorm" else None
        return self.steps.norm(weight, bias)

    def fused(self, prefix: str, names: Sequence[str]) -> Linear:
        """One linear layer whose outputs are those of several, side by side."""
        matrices = [self.weights.pop(f"{prefix}{name}.weight") for name in names]
        biases = [self.weights.pop(f"{prefix}{name}.bias", None) for name in names]
        bias = torch.cat([b for b in biases if b is not None]) if biases[0] is not None else None
        fused = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
        del matrices
        return self.layer(fused, bias)

    def _head_norms(self, prefix: str) -> HeadNorms:
        return HeadNorms(*(self.weights.pop(f"{prefix}{name}.weight") for name in ("q_norm", "k_norm")))

    def _mlp(self, prefix: str) -> Linear | Experts:
        """Up, activate, down, with a gate that multiplies where the family has one; or experts of that sort."""
        if self.a.num_experts > 1:
            names = ("router.weight", "experts_gate_up", "experts_down")
            return self.experts(self.a, *(self.weights.pop(prefix + name) for name in names))
        gated = self.a.gated_mlp
        up = self.fused(prefix, ("gate", "up") if gated else ("up",))
        down = self.fused(prefix, ("down",))
        activate = self.steps.gate() if gated else self.steps.activation()
        return lambda hidden: down(activate(up(hidden)))


def _projection(weight: Tensor | None) -> Linear | None:
    return None if weight is None else linear(weight, None)


def _embedding_scale(architecture: Architecture, dtype: torch.dtype) -> float | None:
    """Factor of embeddings, rounded to their type as in ``Gemma2TextScaledWordEmbedding``; None where it is 1."""
    scale = torch.tensor(architecture.hidden_size**0.5, dtype=dtype)
    return scale.item() if architecture.scale_embeddings else None


def _rotary_table(architecture: Architecture, like: Tensor) -> Tensor:
    """Cosine and sine by position, ``(2, positions, rotary_dim / 2)`` (RoFormer, arXiv:2104.09864, §3.2)."""
    half = torch.arange(0, architecture.rotary_dim, 2, dtype=torch.float64)
    frequencies = architecture.rope_theta ** (-half / architecture.rotary_dim)
    angles = torch.arange(architecture.max_position_embeddings, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()]).to(like.device, like.dtype)

"""Sparse attention whose reads do not grow with the context."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from simslm.catalog.work import IterationShape
from simslm.transforms.registry import Footprint, Served, ShapeTransform, transform


@transform("lserve")
class LServe(ShapeTransform):
    """Half of the heads read a window, the others a budget of pages that fit the query (LServe, arXiv:2502.14866).

    A share ``s`` of the heads are streaming heads: sinks and the most recent tokens, ``w = sink + local``, are all
    they read and keep. The others keep everything; a decoding sequence reads at most ``budget`` tokens of it, in
    pages, and beyond the budget the selector reads one pair of keys for each logical page, anew only every
    ``reuse_interval`` tokens. In tokens read by all heads, a sequence with ``c`` tokens in its cache reads

        s · min(c, w) + (1 - s) · (min(c, budget) + max(c - budget, 0) / (page_tokens · reuse_interval))

    and a prompt's tokens attend to ``s · min(keys, sink + prefill_local) + (1 - s) · keys``: the others stay dense.
    The wider window of prefill is read while a prompt is computed and not kept. Sums over a batch are bounded by the
    number of its sequences times the bound: exact where all are beyond it, or none, and else too much (a minimum is
    concave), so that what is won is not overstated; a replica knows the sum of its contexts, not each of them.

    Defaults are those of the authors' benchmark (OmniServe, ``scripts/lserve_benchmark``): half of the heads, sinks of
    128, windows of 256 in decoding and 8,192 in prefill, a budget of 4,096, blocks of 64 tokens in 4 logical pages, a
    selection for every 4 tokens.
    """

    streaming_share: float = Field(default=0.5, ge=0, le=1, description="share of the heads that stream")
    sink_tokens: int = Field(default=128, ge=0, description="first tokens that streaming heads keep")
    local_tokens: int = Field(default=256, ge=1, description="most recent tokens that streaming heads keep")
    prefill_local_tokens: int = Field(
        default=8192,
        ge=1,
        description="most recent tokens that a prompt's tokens attend to in streaming heads",
    )
    budget_tokens: int | None = Field(
        default=4096, ge=1, description="tokens that the other heads read; null = all of them"
    )
    page_tokens: int = Field(default=16, ge=1, description="tokens of a logical page, for the selector")
    reuse_interval: int = Field(default=4, ge=1, description="decode iterations that share a selection")

    @property
    def window(self) -> int:
        """Tokens that a streaming head keeps of a sequence."""
        return self.sink_tokens + self.local_tokens

    def neutral(self, served: Served) -> bool:
        del served
        return self.streaming_share == 0 and self.budget_tokens is None

    def shape(self, shape: IterationShape) -> IterationShape:
        seen = self.sink_tokens + self.prefill_local_tokens
        return shape._replace(
            decode_ctx_tokens=self._read(shape.decode_ctx_tokens, shape.decode_seqs),
            prefill_ctx_tokens=self._streamed(shape.prefill_ctx_tokens, shape.prefill_seqs * seen),
            prefill_pairs=self._streamed(shape.prefill_pairs, shape.prefill_tokens * seen),
        )

    def knots(self, decode_seqs: int) -> tuple[float, ...]:
        bounds = [self.window] if self.streaming_share else []
        bounds += [self.budget_tokens] if self.budget_tokens is not None else []
        return tuple(float(decode_seqs * bound) for bound in bounds)

    def footprint(self, held: Footprint, served: Served) -> Footprint:
        """Streaming heads' windows are set aside for every sequence; the others' tokens take blocks."""
        del served
        streaming = int(held.kv_bytes_per_token * self.streaming_share)
        return replace(
            held,
            # At least a byte: with streaming heads alone a token takes none, and blocks could not be counted.
            kv_bytes_per_token=max(held.kv_bytes_per_token - streaming, 1),
            kv_bytes_per_seq=held.kv_bytes_per_seq + self.window * streaming,
        )

    def _read(self, context: Any, seqs: Any) -> Any:
        """Tokens that decoding sequences read, averaged over heads."""
        dense = context
        if self.budget_tokens is not None:
            within = _at_most(context, seqs * self.budget_tokens)
            dense = within + (context - within) / (self.page_tokens * self.reuse_interval)
        near = _at_most(context, seqs * self.window)
        return self.streaming_share * near + (1.0 - self.streaming_share) * dense

    def _streamed(self, keys: Any, bound: Any) -> Any:
        """Keys that prompts attend to, averaged over heads."""
        return self.streaming_share * _at_most(keys, bound) + (1.0 - self.streaming_share) * keys


def _at_most(value: Any, limit: Any) -> Any:
    """``min(value, limit)`` for numbers and arrays alike."""
    over = value > limit
    return value * (1 - over) + limit * over

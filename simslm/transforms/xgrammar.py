"""Structured output: the mask of allowed tokens, computed on the CPU in every iteration."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from simslm.catalog.work import IterationShape
from simslm.transforms.registry import Served, TimeTransform, transform


@transform("xgrammar")
class XGrammar(TimeTransform):
    """Grammar masks on the CPU, overlapped with the device or not (XGrammar, arXiv:2411.15100).

    Every sequence that samples (decoding, or at the end of a prompt) needs a mask over the vocabulary before it does:
    ``mask = fixed + per_seq · constrained · sequences``. Computed while the device runs the layers, an iteration takes
    ``host + max(device, mask)``; computed before sampling starts, ``host + device + mask``. The default of a mask is
    not verified: those who describe the paper say below 50 µs.
    """

    per_seq_s: float = Field(
        default=4e-5, ge=0, le=1e3, description="CPU time of one sequence's mask, in seconds"
    )
    fixed_s: float = Field(
        default=0.0, ge=0, le=1e3, description="CPU time of an iteration's masks beside it"
    )
    constrained: float = Field(default=1.0, ge=0, le=1, description="share of the sequences with a grammar")
    overlapped: bool = Field(default=True, description="masks are computed while the device runs")

    def neutral(self, served: Served) -> bool:
        del served
        return self.fixed_s == 0 and self.per_seq_s * self.constrained == 0

    def host_s(self, shape: IterationShape, host_s: Any) -> Any:
        """Masks that are not overlapped keep the device waiting."""
        return host_s if self.overlapped else host_s + self._mask_s(shape)

    def device_at_least_s(self, shape: IterationShape) -> Any:
        """Overlapped masks must be there when the logits are."""
        return self._mask_s(shape) if self.overlapped else None

    def _mask_s(self, shape: IterationShape) -> Any:
        sampling = shape.decode_seqs + shape.prefill_seqs + shape.draft_tokens
        return self.fixed_s + self.per_seq_s * (self.constrained * sampling)

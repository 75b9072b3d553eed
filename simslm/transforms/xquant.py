"""A cache of the layers' inputs instead of keys and values, which are computed again whenever they are read."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from pydantic import Field

from simslm.catalog.work import IterationShape, Work
from simslm.transforms.registry import Footprint, Served, WorkTransform, transform


@transform("xquant")
class XQuant(WorkTransform):
    """Layer inputs cached in few bits, keys and values computed from them again (XQuant, arXiv:2508.10395, section 3).

    Per token and layer the cache holds the layer's input, ``hidden`` wide, or, where keys and values together are
    narrower (grouped queries), its projections onto the input spaces of both, ``2 kv`` wide:

        width = min(hidden, 2 kv)          factor = 2 kv · data type's bits / (width · b)

    with ``b = bits + scale_bits / group_size``. Traffic and memory of the KV cache are divided by ``factor``. Every
    cached token that attention reads costs ``2 · width_in · 2 kv`` operations per layer, ``width_in`` being ``hidden``
    or ``kv``: keys and values are made on the chip and never written.
    """

    bits: float = Field(default=4.0, gt=0, le=32, description="bits of a cached value")
    group_size: int | None = Field(
        default=128, ge=1, description="values that share a scale; null = scales take no room"
    )
    scale_bits: int = Field(default=16, ge=0, le=64, description="bits of a scale (and zero point)")

    def factor(self, served: Served) -> float:
        """How many times smaller the cache is."""
        architecture = served.architecture
        keys_and_values = 2 * architecture.kv_size
        stored = self.bits + (self.scale_bits / self.group_size if self.group_size else 0.0)
        return (
            keys_and_values * served.element_bits / (min(architecture.hidden_size, keys_and_values) * stored)
        )

    def recomputation(self, served: Served) -> float:
        """Operations for one cached token, all layers together, in the unit of ``served``."""
        architecture = served.architecture
        # Grouped queries: the projections of both inputs are narrower than the input itself, and are cached instead.
        latent = architecture.hidden_size > 2 * architecture.kv_size
        width = architecture.kv_size if latent else architecture.hidden_size
        return architecture.num_layers * (2.0 * width * 2 * architecture.kv_size) * served.operation

    def work(self, shape: IterationShape, work: Work, served: Served) -> Work:
        """Traffic divided by the factor; what is cached is computed again, what is new is computed anyway."""
        factor, each = self.factor(served), self.recomputation(served)
        return work._replace(
            decode_bytes=work.decode_bytes / factor,
            prefill_bytes=work.prefill_bytes / factor,
            decode_flops=work.decode_flops + shape.decode_ctx_tokens * each,
            prefill_flops=work.prefill_flops + shape.prefill_ctx_tokens * each,
        )

    def footprint(self, held: Footprint, served: Served) -> Footprint:
        factor = self.factor(served)
        return replace(
            held,
            kv_bytes_per_token=ceil(held.kv_bytes_per_token / factor),
            kv_bytes_per_seq=ceil(held.kv_bytes_per_seq / factor),
        )

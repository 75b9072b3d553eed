"""Weights of fewer bits than the activations they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from simslm.catalog.architecture import Architecture
from simslm.catalog.work import IterationShape, Work
from simslm.transforms.registry import Footprint, Served, WorkTransform, transform


@transform("weights")
class Weights(WorkTransform):
    """Weights of few bits: less traffic and memory, dequantised on the way or looked up (arXiv:2401.14112, 2408.06003).

    The matrices of the layers have ``bits`` each, and a scale for every ``group_size`` of them: ``b = bits +
    scale_bits / group_size``. Norms, biases, embedding and output head keep the data type. So weight bytes and traffic
    are ``b / data type's bits`` of the matrices' (Quant-LLM, arXiv:2401.14112: 6/16 for FP6).

    Kernels that dequantise do ``dequantize_ops`` operations for every weight they read, on the units that are not
    matrix units (ibid., section 5), and then compute at the data type's rate. A table lookup has none
    (``dequantize_ops: 0``) and its own rate (LUT Tensor Core, arXiv:2408.06003): ``compute`` times the data type's.
    """

    bits: float = Field(gt=0, le=32, description="bits of a weight")
    group_size: int | None = Field(
        default=128, ge=1, description="weights that share a scale; null = scales take no room"
    )
    scale_bits: int = Field(default=16, ge=0, le=64, description="bits of a scale (and zero point)")
    dequantize_ops: float = Field(
        default=2.0, ge=0, le=1e3, description="operations to dequantise a weight that is read"
    )
    compute: float = Field(
        default=1.0,
        gt=0,
        le=1e3,
        description="arithmetic rate of the layers, as a multiple of the data type's",
    )

    @property
    def stored_bits(self) -> float:
        """Bits of a weight, its part of the scale included."""
        return self.bits + (self.scale_bits / self.group_size if self.group_size else 0.0)

    def neutral(self, served: Served) -> bool:
        same = self.stored_bits == served.element_bits and self.dequantize_ops == 0
        return same and self.compute == 1.0

    def work(self, shape: IterationShape, work: Work, served: Served) -> Work:
        """Less weight traffic; arithmetic at its own rate, after dequantising what was read."""
        del shape
        matrices = _matrix_share(served.architecture)
        read = work.linear_bytes * matrices / (served.element_bits / 8 * served.byte)
        return work._replace(
            linear_bytes=work.linear_bytes * (1.0 + matrices * (self._ratio(served) - 1.0)),
            linear_flops=work.linear_flops / self.compute
            + read * (self.dequantize_ops * served.scalar_operation),
        )

    def footprint(self, held: Footprint, served: Served) -> Footprint:
        matrices = served.architecture.num_layers * served.architecture.layer_matrix_parameters()
        saved = matrices * (served.element_bits / 8) * (1.0 - self._ratio(served))
        return replace(held, weight_bytes=held.weight_bytes - int(saved))

    def _ratio(self, served: Served) -> float:
        return self.stored_bits / served.element_bits


def quantized(provenance: Mapping[str, Any]) -> tuple[Weights, ...]:
    """The weights that a trace was measured with where they had eight bits, with one scale for each output."""
    return (Weights(bits=8, group_size=None),) if provenance.get("quantization") else ()


def _matrix_share(architecture: Architecture) -> float:
    """The quantised part of what the layers read in an iteration."""
    layer, vectors = architecture.layer_matrix_parameters(), architecture.layer_vector_parameters()
    return layer / (layer + vectors)

"""Weights of eight bits: quantised on loading, multiplied with activations of the engine's own type.

Symmetric, with one scale for each output (LLM.int8(), arXiv:2208.07339, §2.1, without its outliers, for integers; FP8
formats, arXiv:2209.05433, §3, for e4m3). The matrices of the layers are quantised; embedding, head, norms and biases
are not. Few rows read the eight bits directly; for many, which arithmetic bounds and not memory, the matrix is
dequantised first and multiplied as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from profiler.engine.tiles import Fitting, Options, power_of_two, shallower
from profiler.engine.weights import Linear
from simslm.errors import DeviceError, UsageError, nearest

QUANTIZATIONS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""Types that weights can be quantised to, by vLLM's names."""

_LARGEST = {"int8": 127.0, "fp8": 448.0}
_FP8_CAPABILITY = (8, 9)
_FEW_ROWS = {"cpu": 32, "cuda": 64}
_LEAST_PROGRAMS = 256


def check_quantization(kind: str | None, device: torch.device) -> None:
    """Refuse what is not there.

    Raises:
        UsageError: for an unknown name.
        DeviceError: when the device cannot read such weights.
    """
    if kind is not None and kind not in QUANTIZATIONS:
        raise UsageError(
            f"the measured engine has no quantization {kind!r}{nearest(kind, list(QUANTIZATIONS))}",
            remedy=f"use one of {', '.join(QUANTIZATIONS)}",
        )
    if kind == "fp8" and (
        device.type != "cuda" or torch.cuda.get_device_capability(device) < _FP8_CAPABILITY
    ):
        raise DeviceError(
            f"fp8 weights need a GPU of compute capability 8.9 or more; {device} is none",
            remedy="use --quantization int8",
        )


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantised matrix, or a stack of them.

    Attributes:
        matrix: ``(…, out, in)``, eight bits each.
        scale: of each output, in the type of the activations, ``(…, out)``.
    """

    matrix: Tensor
    scale: Tensor

    def dequantized(self) -> Tensor:
        """The matrix in the type of the activations."""
        return self.matrix.to(self.scale.dtype) * self.scale[..., None]


def quantize(weight: Tensor, kind: str) -> Quantized:
    """A matrix ``(…, out, in)`` rounded to eight bits."""
    largest = _LARGEST[kind]
    scale = (weight.abs().amax(-1).float() / largest).to(weight.dtype)
    scaled = (weight.float() / scale.float()[..., None]).clamp_(-largest, largest)
    if kind == "int8":
        scaled.round_()
    return Quantized(scaled.to(QUANTIZATIONS[kind]), scale)


def quantized_linear(weight: Tensor, bias: Tensor | None, kind: str) -> Linear:
    """A linear layer of a matrix ``(out, in)`` that is kept in eight bits."""
    quantized = quantize(weight, kind)
    few = _few_rows(weight)
    direct = _multiply_on_cpu if weight.device.type == "cpu" else multiply_in_place

    def run(x: Tensor) -> Tensor:
        if len(x) <= few:
            return direct(x, quantized, bias)
        return functional.linear(x, quantized.dequantized(), bias)

    return run


def _few_rows(weight: Tensor) -> int:
    """Up to how many rows the eight bits are read directly: on a CPU that is fast for many only in bf16."""
    device = weight.device.type
    return 1 if device == "cpu" and weight.dtype != torch.bfloat16 else _FEW_ROWS[device]


def _multiply_on_cpu(x: Tensor, weight: Quantized, bias: Tensor | None) -> Tensor:
    product = torch.ops.aten._weight_int8pack_mm(x.contiguous(), weight.matrix, weight.scale)
    return product if bias is None else product.add_(bias)


def multiply_in_place(x: Tensor, weight: Quantized, bias: Tensor | None) -> Tensor:
    """Rows ``(rows, in)`` times a quantised matrix that is read as it is, by a Triton kernel: ``(rows, out)``."""
    from profiler.engine.kernels import multiply_quantized, product_type

    (rows, depth), outputs = x.shape, len(weight.matrix)
    height = max(16, power_of_two(rows))
    width = next((w for w in (64, 32) if outputs >= w * _LEAST_PROGRAMS), 16)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    tile: Options = {"BLOCK_M": height, "BLOCK_N": width, "BLOCK_K": 128, "num_stages": 3}
    kinds: dict[str, Any] = {"PRODUCT": product_type(x), "FP8": weight.matrix.dtype != torch.int8}

    def run(options: Options) -> None:
        multiply_quantized[(-(-outputs // width),)](
            x.contiguous(),
            weight.matrix.view(torch.int8),
            weight.scale,
            bias,
            out,
            rows,
            outputs,
            depth,
            **kinds,
            **options,
        )

    _fitting(x.device).launch((height, width, x.dtype, weight.matrix.dtype), shallower(tile), run)
    return out


@cache
def _fitting(device: torch.device) -> Fitting:
    """What of the tiles fits on a device is the same for all matrices."""
    del device
    return Fitting()

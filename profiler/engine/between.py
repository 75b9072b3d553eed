"""What lies between matrix products and attention: norms, activations, rotation, and the write to the cache.

:class:`TorchSteps` does it with torch alone; :class:`FusedSteps` with one Triton kernel for each step that inference
engines fuse (kernels in ``between_kernels.py``), which a GPU needs: of 27 operators of a Llama layer 14 were the
rotation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from profiler.engine.cache import PagedCache
from profiler.engine.tiles import power_of_two
from simslm.catalog.architecture import Architecture

_HEADS_AT_ONCE = 8
_ELEMENTS_AT_ONCE = 1024
_WIDE = 2048
_FUSED_ACTIVATIONS = ("silu", "gelu")


class Norm(ABC):
    """A norm of rows."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The norm of ``x`` ``(rows, width)``."""

    @abstractmethod
    def add(self, residual: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """``residual + x``, which may take the place of ``residual``, and the norm of that."""


Activation = Callable[[Tensor], Tensor]
"""Rows that a matrix product made to what goes into the next one; may take their place."""


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Weights of the norms of queries and keys, each of one head or of all heads of a row."""

    query: Tensor
    key: Tensor


class Where(NamedTuple):
    """Where the rows of an iteration belong.

    Attributes:
        slots: where its keys and values go, ``(rows,)``.
        positions: its place in its sequence, ``(rows,)``.
        rotation: what :meth:`Steps.rotation` made of the positions.
    """

    slots: Tensor
    positions: Tensor
    rotation: Any


class Steps(ABC):
    """The steps of one model.

    Args:
        architecture: of the model.
        cache: where keys and values go.
        rotary: cosine and sine by position, ``(2, positions, rotary_dim / 2)``; None for learned positions.
    """

    def __init__(self, architecture: Architecture, cache: PagedCache, rotary: Tensor | None) -> None:
        self._a, self._cache, self._rotary = architecture, cache, rotary

    @abstractmethod
    def norm(self, weight: Tensor, bias: Tensor | None) -> Norm:
        """The architecture's norm: a layer norm where there is a bias, else of the root mean square."""

    def activation(self) -> Activation:
        """The activation alone."""
        return _ACTIVATIONS[self._a.activation]

    def gate(self) -> Activation:
        """Gates and up-projections ``(rows, 2 * width)``, gates first, to ``activation(gate) * up``."""
        activate = self.activation()

        def run(rows: Tensor) -> Tensor:
            gate, inner = rows.chunk(2, dim=-1)
            return activate(gate).mul_(inner)

        return run

    @abstractmethod
    def rotation(self, positions: Tensor) -> Any:
        """What all layers need to rotate rows at such positions."""

    @abstractmethod
    def place(self, layer: int, qkv: Tensor, norms: HeadNorms | None, where: Where) -> Tensor:
        """Norms and rotates queries and keys, and writes keys and values to the cache.

        Args:
            layer: whose cache.
            qkv: queries, keys and values of every row side by side; may be written to.
            norms: of queries and keys; None without.
            where: of every row.

        Returns:
            The queries, ``(rows, query_size)``.
        """


class TorchSteps(Steps):
    """Operator by operator."""

    def norm(self, weight: Tensor, bias: Tensor | None) -> Norm:
        return _TorchNorm(_normed(weight, bias, self._a.norm_eps, self._a.norm_offset))

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of every row's angles, ``(rows, 1, rotary_dim / 2)``."""
        if self._rotary is None:
            return None
        cosine, sine = self._rotary[:, positions]
        return cosine[:, None], sine[:, None]

    def place(self, layer: int, qkv: Tensor, norms: HeadNorms | None, where: Where) -> Tensor:
        a = self._a
        parts = qkv.split((a.query_size, a.kv_size, a.kv_size), dim=-1)
        queries, keys, values = (x.unflatten(-1, (-1, a.head_dim)) for x in parts)
        if norms is not None:
            queries, keys = self._normed(queries, norms.query), self._normed(keys, norms.key)
        if where.rotation is not None:
            queries, keys = _rotate(queries, *where.rotation), _rotate(keys, *where.rotation)
        self._cache.write(layer, where.slots, keys, values)
        return queries.flatten(1)

    def _normed(self, heads: Tensor, weight: Tensor) -> Tensor:
        """``(rows, heads, head_dim)``, each head, or all heads of a row together."""
        norm = _normed(weight, None, self._a.norm_eps, False)
        if not self._a.qk_norm_across_heads:
            return norm(heads)
        return norm(heads.flatten(1)).view(heads.shape)


class FusedSteps(Steps):
    """Kernel by kernel; needs Triton."""

    def norm(self, weight: Tensor, bias: Tensor | None) -> Norm:
        return _FusedNorm(weight, bias, self._a.norm_eps, self._a.norm_offset)

    def gate(self) -> Activation:
        from profiler.engine.between_kernels import activate_and_multiply

        if self._a.activation not in _FUSED_ACTIVATIONS:
            return super().gate()
        silu = self._a.activation == "silu"

        def run(rows: Tensor) -> Tensor:
            width = rows.shape[1] // 2
            out = torch.empty(len(rows), width, dtype=rows.dtype, device=rows.device)
            sizes: dict[str, Any] = {"WIDTH": width, "BLOCK": _ELEMENTS_AT_ONCE, "SILU": silu}
            grid = (len(rows), -(-width // _ELEMENTS_AT_ONCE))
            activate_and_multiply[grid](rows, out, **sizes)
            return out

        return run

    def rotation(self, positions: Tensor) -> None:
        """Nothing: the kernel looks angles up itself."""

    def place(self, layer: int, qkv: Tensor, norms: HeadNorms | None, where: Where) -> Tensor:
        from profiler.engine.between_kernels import place_heads

        a = self._a
        if norms is not None and a.qk_norm_across_heads:
            _norm_into(qkv[:, : a.query_size], norms.query, a.norm_eps)
            _norm_into(qkv[:, a.query_size : a.query_size + a.kv_size], norms.key, a.norm_eps)
            norms = None
        half = 0 if self._rotary is None else self._rotary.shape[-1]
        kept = norms is None and not half
        queries = qkv[:, : a.query_size] if kept else qkv.new_empty(len(qkv), a.query_size)
        first = a.num_heads if kept else 0
        heads = a.num_heads + 2 * a.num_kv_heads - first
        sizes: dict[str, Any] = {
            "HEADS": a.num_heads,
            "KV_HEADS": a.num_kv_heads,
            "HEAD_DIM": a.head_dim,
            "PADDED_DIM": power_of_two(a.head_dim),
            "HALF": half,
            "NORMED": norms is not None,
            "FIRST": first,
            "BLOCK": _HEADS_AT_ONCE,
        }
        place_heads[(len(qkv), -(-heads // _HEADS_AT_ONCE))](
            qkv,
            queries,
            self._cache.keys[layer],
            self._cache.values[layer],
            where.slots,
            where.positions,
            self._rotary,
            norms and norms.query,
            norms and norms.key,
            qkv.stride(0),
            0 if self._rotary is None else self._rotary[0].numel(),
            a.norm_eps,
            **sizes,
        )
        return queries


class _TorchNorm(Norm):
    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        self._norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        return self._norm(x)

    def add(self, residual: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        total = residual + x
        return total, self._norm(total)


class _FusedNorm(Norm):
    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float, offset: bool) -> None:
        self._weight, self._bias, self._eps, self._offset = weight, bias, eps, offset

    def __call__(self, x: Tensor) -> Tensor:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        _launch_norm(x, None, out, self._weight, self._bias, self._eps, self._offset)
        return out

    def add(self, residual: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        _launch_norm(x, residual, out, self._weight, self._bias, self._eps, self._offset)
        return residual, out


def _norm_into(x: Tensor, weight: Tensor, eps: float) -> None:
    _launch_norm(x, None, x, weight, None, eps, False)


def _launch_norm(
    x: Tensor,
    residual: Tensor | None,
    out: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    offset: bool,
) -> None:
    from profiler.engine.between_kernels import add_and_norm

    width = x.shape[1]
    sizes: dict[str, Any] = {
        "WIDTH": width,
        "BLOCK": power_of_two(width),
        "OFFSET": offset,
        "CENTRED": bias is not None,
        "num_warps": 8 if width > _WIDE else 4,
    }
    add_and_norm[(len(x),)](
        x, residual, residual, out, weight, bias, x.stride(0), out.stride(0), eps, **sizes
    )


def _normed(weight: Tensor, bias: Tensor | None, eps: float, offset: bool) -> Callable[[Tensor], Tensor]:
    if offset:
        return _offset_rms_norm(weight, eps)
    if bias is None:
        return _rms_norm(weight, eps)
    return lambda x: functional.layer_norm(x, weight.shape, weight, bias, eps)


def _rms_norm(weight: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """Root-mean-square normalisation (arXiv:1910.07467, eq. 4); torch has it fused for a GPU only."""
    if weight.device.type != "cpu":
        return lambda x: functional.rms_norm(x, weight.shape, weight, eps)
    return lambda x: (x * _reciprocal_rms(x, eps).to(x.dtype)).mul_(weight)


def _offset_rms_norm(weight: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """The same by one plus the weight, all in float32 (``Gemma2RMSNorm`` in ``modeling_gemma2.py``)."""
    factor = 1.0 + weight.float()
    if weight.device.type != "cpu":
        return lambda x: functional.rms_norm(x.float(), factor.shape, factor, eps).to(x.dtype)
    return lambda x: (x * _reciprocal_rms(x, eps)).mul_(factor).to(x.dtype)


def _reciprocal_rms(x: Tensor, eps: float) -> Tensor:
    """One over the root mean square of every row, in float32."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


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

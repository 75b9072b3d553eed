"""Mixtures of experts: a router sends every row through a few of many MLPs (OLMoE, arXiv:2409.02060, §2).

As ``transformers`` has it (``models/{olmoe,qwen3_moe}/modeling_*.py``): softmax over all experts in fp32, the largest
of them, scaled to sum to one where ``norm_topk_prob`` says so, and their weighted sum.

Invariant: of the experts' matrices those that some row passes are read, and a row is multiplied with its own only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from profiler.engine.quantized import Quantized, quantize
from profiler.engine.tiles import Fitting, Options, power_of_two, shallower
from profiler.engine.weights import MakeLinear, linear
from simslm.catalog.architecture import Architecture
from simslm.errors import DeviceError

_LEAST_ROWS, _MOST_ROWS = 16, 128
_GROUPING: dict[str, Any] = {"BLOCK": 1024}


def check_experts(attention: str, device: torch.device) -> None:
    """Refuse a GPU that would have to wait for its host in every block.

    Raises:
        DeviceError: attention is not the one of Triton, with which experts are grouped by kernels.
    """
    if device.type == "cuda" and attention != "paged":
        raise DeviceError(
            f"mixtures of experts run on {device} with kernels in Triton only, not with {attention} attention",
            remedy="pip install triton, and leave the attention to the engine",
        )


class Routes(NamedTuple):
    """Which experts rows pass.

    Attributes:
        shares: of each of a row's experts in the result, ``(rows, num_experts_per_tok)`` in fp32.
        chosen: their numbers, as many.
    """

    shares: Tensor
    chosen: Tensor


class Experts(ABC):
    """The router and the experts of one block.

    Args:
        architecture: with more than one expert, each gated by SiLU and without bias.
        router: ``(num_experts, hidden_size)``.
    """

    def __init__(self, architecture: Architecture, router: Tensor) -> None:
        self._count, self._per_token = architecture.num_experts, architecture.num_experts_per_tok
        self._normalised = architecture.norm_topk_prob
        self._router = linear(router, None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Rows ``(rows, hidden_size)`` through their experts."""
        return self.run(hidden, self.route(hidden))

    @abstractmethod
    def route(self, hidden: Tensor) -> Routes:
        """Chooses for every row."""

    @abstractmethod
    def run(self, hidden: Tensor, routes: Routes) -> Tensor:
        """Rows through experts that were chosen."""


MakeExperts = Callable[[Architecture, Tensor, Tensor, Tensor], Experts]
"""Of a router ``(num_experts, hidden_size)``, gates and up-projections ``(num_experts, 2 * intermediate_size,
hidden_size)``, gates first, and down-projections ``(num_experts, hidden_size, intermediate_size)``."""


class SeparateExperts(Experts):
    """Experts one by one, each with linear layers of its own: for CPUs, where reading the routing back costs nothing.

    Args:
        layer: makes the linear layers.
    """

    def __init__(
        self,
        architecture: Architecture,
        router: Tensor,
        gate_up: Tensor,
        down: Tensor,
        layer: MakeLinear = linear,
    ) -> None:
        super().__init__(architecture, router)
        self._up = [layer(matrix, None) for matrix in gate_up]
        self._down = [layer(matrix, None) for matrix in down]

    def route(self, hidden: Tensor) -> Routes:
        weights = torch.softmax(self._router(hidden), dim=-1, dtype=torch.float32)
        shares, chosen = weights.topk(self._per_token, dim=-1)
        if self._normalised:
            shares /= shares.sum(-1, keepdim=True)
        return Routes(shares, chosen)

    def run(self, hidden: Tensor, routes: Routes) -> Tensor:
        chosen = routes.chosen.flatten()
        order = chosen.argsort(stable=True)
        counts = chosen.bincount(minlength=self._count).tolist()
        parts = hidden.index_select(0, order // self._per_token).split(counts)
        results = torch.cat([self._pass(expert, part) for expert, part in enumerate(parts) if len(part)])
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        each = results.index_select(0, back).unflatten(0, routes.chosen.shape)
        return each.mul_(routes.shares.to(each.dtype)[..., None]).sum(1)

    def _pass(self, expert: int, rows: Tensor) -> Tensor:
        gate, inner = self._up[expert](rows).chunk(2, dim=-1)
        return self._down[expert](functional.silu(gate).mul_(inner))


class GroupedExperts(Experts):
    """All experts at once, by Triton kernels over stacked matrices; which row passes which expert stays on the device.

    Args:
        quantization: of the experts' matrices; None keeps them as they are.
    """

    def __init__(
        self,
        architecture: Architecture,
        router: Tensor,
        gate_up: Tensor,
        down: Tensor,
        quantization: str | None = None,
    ) -> None:
        super().__init__(architecture, router)
        self._choice: dict[str, Any] = {
            "EXPERTS": self._count,
            "PADDED": power_of_two(self._count),
            "PER_TOKEN": self._per_token,
            "SLOTS": power_of_two(self._per_token),
            "NORMALISED": self._normalised,
        }
        self._fitting = Fitting()
        self._up = quantize(gate_up, quantization) if quantization else gate_up
        self._down = quantize(down, quantization) if quantization else down

    def route(self, hidden: Tensor) -> Routes:
        from profiler.engine.expert_kernels import choose_experts  # needs Triton

        logits = self._router(hidden)
        shape, device = (len(hidden), self._per_token), hidden.device
        shares = torch.empty(shape, dtype=torch.float32, device=device)
        chosen = torch.empty(shape, dtype=torch.int32, device=device)
        choose_experts[(len(hidden),)](logits, shares, chosen, **self._choice)
        return Routes(shares, chosen)

    def run(self, hidden: Tensor, routes: Routes) -> Tensor:
        groups = self._group(routes.chosen)
        inner = self._multiply(hidden.contiguous(), self._up, groups, None, self._per_token)
        results = self._multiply(inner, self._down, groups, routes.shares, 1)
        return results.unflatten(0, routes.chosen.shape).sum(1)

    def _group(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Assignments in the order of their experts, and where each expert's begin and end."""
        from profiler.engine.expert_kernels import group_by_expert

        order = torch.empty_like(chosen).flatten()
        bounds = torch.empty(self._count, 2, dtype=torch.int32, device=chosen.device)
        group_by_expert[(self._count,)](chosen, order, bounds, len(order), **_GROUPING)
        return order, bounds

    def _multiply(
        self,
        x: Tensor,
        matrices: Tensor | Quantized,
        groups: tuple[Tensor, Tensor],
        shares: Tensor | None,
        per_row: int,
    ) -> Tensor:
        """Rows by experts: gate and up-projection, activated, of whole rows; or the down-projection, with shares."""
        from profiler.engine.expert_kernels import multiply_by_experts
        from profiler.engine.kernels import product_type

        stack, scale = (
            (matrices.matrix, matrices.scale) if isinstance(matrices, Quantized) else (matrices, None)
        )
        gated = shares is None
        outputs, assignments = stack.shape[1] // (1 + gated), len(groups[0])
        out = torch.empty(assignments, outputs, dtype=x.dtype, device=x.device)
        tile = _tile(assignments / self._count, gated, x.element_size())
        parts = max(1, assignments // (self._count * tile["BLOCK_M"]))
        kind: dict[str, Any] = {"PRODUCT": product_type(x), "FP8": stack.dtype == torch.float8_e4m3fn}
        shape: dict[str, Any] = {"OUTPUTS": outputs, "DEPTH": x.shape[1], "PER_ROW": per_row, "GATED": gated}
        grid = (parts, -(-outputs // tile["BLOCK_N"]), self._count)

        def run(options: Options) -> None:
            multiply_by_experts[grid](
                x,
                stack if scale is None else stack.view(torch.int8),
                scale,
                *groups,
                shares,
                out,
                **shape,
                **kind,
                **options,
            )

        self._fitting.launch((gated, tile["BLOCK_M"]), shallower(tile), run)
        return out


def _tile(rows: float, gated: bool, itemsize: int) -> dict[str, Any]:
    """How a product is cut and compiled, for so many rows of an expert on average.

    A tile has room for twice the average, so that few experts have their matrices read for a second tile.
    """
    height = min(_MOST_ROWS, max(_LEAST_ROWS, power_of_two(int(2 * rows))))
    tall = height == _MOST_ROWS
    return {
        "BLOCK_M": height,
        "BLOCK_N": 128 if tall and not gated else 64,
        "BLOCK_K": 64 if itemsize == 2 else 32,
        "num_warps": 8 if tall else 4,
        "num_stages": 3 if tall else 4,
    }

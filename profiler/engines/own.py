"""The project's own engine as it is measured: an iteration is staged by the serving loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from profiler import ENGINE
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import Engine
from profiler.engine.support import kernels_lack
from profiler.grid import Shape
from profiler.measure.timing import KernelTimes
from profiler.serving.stage import Stage
from simslm.catalog.architecture import Architecture


class OwnEngine(Engine):
    """See :class:`profiler.engines.subject.Subject`."""

    block_size: ClassVar[int] = BLOCK_SIZE
    memory_share: ClassVar[float] = 1.0
    loads_twice: ClassVar[bool] = False

    @classmethod
    def label(cls) -> str:
        return ENGINE

    @classmethod
    def possible(cls, shape: Shape) -> Shape:
        return shape

    @classmethod
    def open(
        cls,
        architecture: Architecture,
        *,
        dtype: str,
        device: str,
        shapes: Sequence[Shape],
        seed: int,
        quantization: str | None = None,
        num_blocks: int = 0,
        block_size: int = BLOCK_SIZE,
    ) -> Self:
        """The engine with room for the shapes, and at least ``num_blocks`` KV blocks of ``block_size`` tokens."""
        longest = architecture.max_position_embeddings
        return cls(
            architecture,
            dtype=dtype,
            device=device,
            num_blocks=max(num_blocks, *(shape.blocks(block_size, longest) for shape in shapes)),
            block_size=block_size,
            seed=seed,
            quantization=quantization,
        )

    def stage(self, shape: Shape, rng: np.random.Generator) -> Stage:
        return Stage(self, shape, rng, self.kernels)

    @cached_property
    def kernels(self) -> KernelTimes | None:
        """Times kernels; made while nothing else is on the device. None on a CPU, where there are no launch gaps."""
        return KernelTimes(self) if self.device.type == "cuda" else None

    def _kernel_note(self) -> str:
        if self.device.type == "cpu":
            return "torch's own"
        lack = kernels_lack(self.device)
        return f"torch's own: {lack}" if lack else "Triton's, and torch's own for matrix products"

    def facts(self) -> dict[str, Any]:
        return {
            "engine": ENGINE,
            "quantization": self.quantization,
            "attention": type(self.attention).__name__,
            "kernels": self._kernel_note(),
            "graph_sizes": self.graphs and self.graphs.sizes,
            "mixed_graph_sizes": self.graphs and self.graphs.mixed_sizes,
            "block_size": self.cache.block_size,
            "num_gpu_blocks": self.cache.num_blocks,
            "host_time": _HOST_TIME[self.device.type],
        }


_HOST_TIME = {
    "cpu": "the serving loop's planning and books, laying out the batch, reading the sampled tokens; operator "
    "dispatch counts as device time",
    "cuda": "wall time of the serving loop's step less the time of its kernels, which is measured in every visit "
    "behind other work on the device, so that no kernel waits to be launched; of replicas together, what one has "
    "alone: they compete for device time only",
}

"""What a campaign needs of an engine: a stage for a shape, and what the provenance says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch

from profiler.grid import Shape
from profiler.measure.timing import Timing
from simslm.catalog.architecture import Architecture

KERNELS_NOTE = (
    "not measured: operators one by one, and replicas that share the device, are the own engine's only"
)
"""What the provenance of another engine's trace says of what it lacks."""


class WallTiming(NamedTuple):
    """Seconds of one iteration of an engine whose host time is not known."""

    latency_s: float
    host_s: None = None


class Staged(Protocol):
    """Sequences set up such that the next iteration has a shape."""

    def time(self) -> Timing | WallTiming:
        """Runs the iteration, times it, and puts the sequences back to where they were.

        Raises:
            DeviceError: the engine ran something else than the shape.
        """
        ...


class Subject(Protocol):
    """An engine that is measured.

    Attributes:
        block_size: tokens per KV block.
        memory_share: of the memory beside the weights, what its KV blocks may take; it uses the rest beside them.
        loads_twice: whether all weights are there twice while it starts.
        architecture, dtype, device: what runs, and where.
    """

    block_size: ClassVar[int]
    memory_share: ClassVar[float]
    loads_twice: ClassVar[bool]
    architecture: Architecture
    dtype: str
    device: torch.device

    @classmethod
    def label(cls) -> str:
        """Name and version, as in ``provenance.engine``.

        Raises:
            DeviceError: its package is not installed, or of a version without what is needed here.
        """
        ...

    @classmethod
    def possible(cls, shape: Shape) -> Shape:
        """The shape that can be forced and is nearest to one of the grid."""
        ...

    @classmethod
    def open(
        cls, architecture: Architecture, *, dtype: str, device: str, shapes: Sequence[Shape], seed: int
    ) -> Self:
        """The engine with random weights and room for any one of the shapes.

        Raises:
            DeviceError: the device is not there, or the engine does not start on it.
            InfeasibleError: the shapes do not fit.
        """
        ...

    def stage(self, shape: Shape, rng: np.random.Generator) -> Staged:
        """Sets the shape up; the stage before it is of no more use."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the provenance says of it: ``engine``, ``attention``, ``block_size``, ``num_gpu_blocks``,
        ``host_time``, and what else matters."""
        ...

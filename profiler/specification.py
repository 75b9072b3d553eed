"""What a campaign measures: the model, the device, how finely, and how many replicas share the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from profiler.colocation import check as check_together
from profiler.engine.engine import open_device, torch_dtype
from profiler.engine.quantized import check_quantization
from profiler.engine.weights import check_supported
from profiler.engines.choice import OWN, choose_engine, refuse_others
from profiler.engines.subject import Subject
from profiler.grid import Reach, Shape, heldout_shapes, measured_shapes
from simslm.catalog.architecture import Architecture
from simslm.catalog.models import load_model
from simslm.errors import InfeasibleError, UsageError

REPEATS = {"quick": 8, "full": 12}
"""Most passes over the grid, by grid."""


@dataclass(frozen=True, kw_only=True)
class Specification:
    """What a campaign measures. A campaign that was cut off goes on where it stopped, under the same specification.

    Attributes:
        model: catalogue name, path of a Hugging Face ``config.json``, or an architecture.
        device: ``cpu`` or ``cuda:N``; of a plan, a device of the catalogue.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        grid: ``quick`` or ``full``.
        quantization: ``int8`` or ``fp8`` weights, of one replica of the own engine.
        engine: see :mod:`profiler.engines.choice`; of another than the own one no operators and no replicas that share
            the device are measured.
        reach: where the grid ends; by default as far as the model goes.
        repeats: passes over the grid; by default :data:`REPEATS`.
        threads: CPU threads of torch; by default as many as torch chooses.
        seed: of weights, order and block tables.
        replicas: how many share the device, one campaign for each number.
        sharing: in which ways, of :data:`profiler.replicas.WAYS`.
        output: the trace's directory; by default ``traces/<device>/<model>-<dtype>``, ending in ``-<quantization>``
            where there is one, and in ``-<engine>`` for another engine than the own one.
    """

    model: str | Architecture
    device: str = "cpu"
    dtype: str = "bf16"
    grid: str = "quick"
    quantization: str | None = None
    engine: str = OWN
    reach: Reach | None = None
    repeats: int | None = None
    threads: int | None = None
    seed: int = 0
    replicas: Sequence[int] = (1,)
    sharing: Sequence[str] = ("time-slice",)
    output: Path | str | None = None

    @cached_property
    def architecture(self) -> Architecture:
        """The model's architecture.

        Raises:
            UsageError: the catalogue does not know it.
        """
        return load_model(self.model) if isinstance(self.model, str) else self.model

    @cached_property
    def subject(self) -> type[Subject]:
        """The engine that is measured.

        Raises:
            UsageError: there is none of that name.
            DeviceError: its package is not there.
        """
        return choose_engine(self.engine)

    @property
    def passes(self) -> int:
        """Most passes over the grid."""
        return self.repeats or REPEATS[self.grid]

    @property
    def alone(self) -> bool:
        """Whether one replica alone is measured."""
        return 1 in self.replicas

    @property
    def together(self) -> list[int]:
        """Numbers of replicas that are measured together."""
        return sorted({count for count in self.replicas if count != 1})

    def check(self) -> None:
        """Refuses what cannot be measured on this machine.

        Raises:
            UsageError: an unknown model, dtype, device, engine or way of sharing, or things that do not go together.
            DeviceError: the device or the engine's package is not there.
        """
        self.check_plan()
        check_quantization(self.quantization, open_device(self.device))

    def check_plan(self) -> None:
        """Refuses what cannot be measured anywhere.

        Raises:
            UsageError: as of :meth:`check`.
        """
        choose_engine(self.engine)
        check_together(self.device, self.replicas, self.sharing)
        refuse_others(self.engine, replicas=bool(self.together), quantization=self.quantization is not None)
        if self.quantization and self.together:
            raise UsageError("replicas are measured without quantization", remedy="use --replicas 1")
        check_supported(self.architecture)
        torch_dtype(self.dtype)

    def target(self, device: str) -> Path:
        """The trace's directory.

        Args:
            device: its name in the catalogue.
        """
        if self.output:
            return Path(self.output)
        endings = [self.quantization, None if self.engine == OWN else self.engine]
        name = "-".join([self.architecture.name, self.dtype, *filter(None, endings)])
        return Path("traces") / device / name

    def header(self, device: str, block_size: int) -> dict[str, Any]:
        """What makes two campaigns the same, as their journals have it.

        Args:
            device: its name in the catalogue.
            block_size: of the KV cache, tokens.
        """
        return {
            "model": self.architecture.name,
            "device": device,
            "dtype": self.dtype,
            "grid": self.grid,
            "seed": self.seed,
            "engine": self.subject.label(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "reach": list(self.reach) if self.reach else None,
            "quantization": self.quantization,
            "block_size": block_size,
        }

    def shapes(self, kind: str, blocks: int, block_size: int) -> tuple[list[Shape], list[Shape]]:
        """The grid's shapes and the held-out ones, as far as memory allows and the engine can be made to.

        Args:
            kind: of device, ``cpu`` or ``cuda``.
            blocks, block_size: KV blocks that fit, and tokens in each.

        Raises:
            UsageError: an unknown grid.
            InfeasibleError: no shape fits.
        """
        shapes = measured_shapes(self.architecture, kind, self.grid, blocks, block_size, self.reach)
        if not shapes:
            raise InfeasibleError(
                f"no shape of the grid fits beside the weights of {self.architecture.name} in {self.dtype}",
                where=f"device {self.device}",
                remedy="profile a smaller model or a narrower dtype, or free memory",
            )
        heldout = heldout_shapes(self.architecture, blocks, block_size, self.reach)
        possible = self.subject.possible
        return list(dict.fromkeys(map(possible, shapes))), list(dict.fromkeys(map(possible, heldout)))

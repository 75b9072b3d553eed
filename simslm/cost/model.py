"""What every cost model answers: iteration shape in, seconds and joules out.

Two callers with different needs share one function of the shape:

* the simulator's loop asks for one number at a time, millions of times: :meth:`CostModel.decode`
  (a piecewise linear function of the total context, fixed for a batch size, cached) and
  :meth:`CostModel.latency_s` for iterations that prefill;
* the metrics ask once for whole columns after the run: :meth:`CostModel.evaluate`.

Both give bitwise the same latency for the same shape: only ``+ - * /`` and comparisons are used, in the same
order, because ``exp``, ``log`` and ``pow`` may differ between a scalar and a vector unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.facts import Facts

if TYPE_CHECKING:
    import pyarrow as pa

    from simslm.cost.sharing import DemandModel


@dataclass(frozen=True, slots=True)
class DecodeLine:
    """Latency of decode-only iterations of one batch size against their total context: piecewise linear.

    Segment ``i`` covers contexts in ``[starts[i], starts[i + 1])`` with ``intercepts[i] + slopes[i] * ctx``
    seconds. ``starts[0]`` is 0, and the last segment has no end.
    """

    starts: tuple[float, ...]
    intercepts: tuple[float, ...]
    slopes: tuple[float, ...]

    def latency_s(self, ctx_tokens: float) -> float:
        i = bisect_right(self.starts, ctx_tokens) - 1
        return self.intercepts[i] + self.slopes[i] * ctx_tokens

    def latencies_s(self, ctx_tokens: np.ndarray) -> np.ndarray:
        """The same for an array of contexts, bitwise equal element by element."""
        if len(self.starts) == 1:
            return self.intercepts[0] + self.slopes[0] * ctx_tokens
        i = np.searchsorted(np.asarray(self.starts), ctx_tokens, side="right") - 1
        return np.asarray(self.intercepts)[i] + np.asarray(self.slopes)[i] * ctx_tokens

    def segment(self, ctx_tokens: float) -> tuple[float, float, float]:
        """Intercept and slope at a context, and the context where they change next (inf for never)."""
        i = bisect_right(self.starts, ctx_tokens)
        return self.intercepts[i - 1], self.slopes[i - 1], self.starts[i] if i < len(self.starts) else inf


@dataclass(frozen=True, slots=True)
class Costs:
    """Columns over iterations, each of shape ``(n,)``.

    Attributes:
        latency_s: the whole iteration, host time included.
        host_s: the part of it in which no kernel runs.
        energy_j: energy of the device during the iteration, or None when the model knows no power.
        in_domain: whether the shape lies inside what was measured (all False for a roofline).
    """

    latency_s: np.ndarray
    host_s: np.ndarray
    energy_j: np.ndarray | None
    in_domain: np.ndarray


class CostModel(ABC):
    """Iteration shape to seconds and joules.

    Args:
        facts: source, engine, idle power, provenance and more, see :class:`~simslm.cost.facts.Facts`.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._lines: dict[int, DecodeLine] = {}

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The decode-only latency of batches of ``decode_seqs`` >= 1 sequences; built once, then looked up."""
        line = self._lines.get(decode_seqs)
        if line is None:
            line = self._lines[decode_seqs] = self._line(decode_seqs)
        return line

    @abstractmethod
    def _line(self, decode_seqs: int) -> DecodeLine:
        """Builds what :meth:`decode` looks up."""

    @abstractmethod
    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included; for decode-only shapes equal to :meth:`decode`."""

    @abstractmethod
    def host_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration in which no kernel runs; contexts do not change it."""

    @abstractmethod
    def evaluate(self, shapes: IterationShape) -> Costs:
        """The cost of many iterations at once; every field of ``shapes`` is an array of shape ``(n,)``."""

    @abstractmethod
    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """The same a standard error cheaper and dearer, a pair for each independent direction in which it is uncertain.

        Empty when it is not known how uncertain it is.
        """

    @property
    def source(self) -> str:
        """``measured | calibrated | imported | roofline``."""
        return self.facts.source

    @property
    def engine(self) -> str:
        """Name and version of the engine whose host time this is, and what was changed about it."""
        return self.facts.engine

    @property
    def idle_w(self) -> float | None:
        """Device power with nothing running, W; None when the model knows no power."""
        return self.facts.idle_w

    @property
    def power_note(self) -> str:
        """Why energy is unknown; empty when it is known."""
        return self.facts.power_note

    @property
    def provenance(self) -> dict[str, Any]:
        """What goes into the manifest (trace path, content hash, device, date, ...)."""
        return self.facts.provenance

    @property
    def demand(self) -> DemandModel | None:
        """What an iteration asks of a shared device; None = as the roofline has it."""
        return self.facts.demand

    @property
    def colocated(self) -> pa.Table | None:
        """Iterations measured with other replicas on the device, rows of a trace; None without."""
        return self.facts.colocated

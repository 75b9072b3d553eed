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

from bisect import bisect_right
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from simslm.catalog.work import IterationShape

if TYPE_CHECKING:
    import pyarrow as pa


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


class CostModel(Protocol):
    """Iteration shape to seconds and joules.

    Attributes:
        source: ``measured | calibrated | imported | roofline``.
        engine: name and version of the engine whose host time this is.
        idle_w: device power with nothing running, or None when the model knows no power.
        power_note: why energy is unknown; empty when it is known.
        provenance: what goes into the manifest (trace path, content hash, device, date, ...).
        colocated: iterations measured with other replicas on the device, rows of a trace; None without.
    """

    source: str
    engine: str
    idle_w: float | None
    power_note: str
    provenance: dict[str, Any]
    colocated: pa.Table | None

    def decode(self, decode_seqs: int) -> DecodeLine:
        """The decode-only latency of batches of ``decode_seqs`` >= 1 sequences."""
        ...

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration, host time included; for decode-only shapes equal to :meth:`decode`."""
        ...

    def host_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration in which no kernel runs."""
        ...

    def evaluate(self, shapes: IterationShape) -> Costs:
        """The cost of many iterations at once; every field of ``shapes`` is an array of shape ``(n,)``."""
        ...

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """The same a standard error cheaper and dearer, a pair for each independent direction in which it is uncertain.

        Empty when it is not known how uncertain it is.
        """
        ...

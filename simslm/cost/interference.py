"""Interference of co-located replicas, from a trace that measured them together.

Replicas of one model that all run the same iteration form a closed network: each alternates a host phase and a device
phase at a processor shared by those in it. Replicas compete for device time only: a host phase lasts as long as it does
alone, and so no other replica is in its way, but for ``streams``, whose replicas are threads of one process and have
their host phases one after the other. In such a network the throughput depends on the phases' mean times only, not on
their distributions (Baskett, Chandy, Muntz & Palacios, JACM 1975, types 2 and 3; host phases one after the other are
their type 1, for which the distribution has to be exponential). So the measured latency of ``n`` replicas tells how
much slower device phases run than the demand model says: by one factor, ``contention``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel
from simslm.cost.sharing import Demand, DemandModel, Sharing
from simslm.traces.shapes import shapes

_LEAST, _MOST = 0.25, 16.0


class Contended:
    """A way of sharing, its speeds divided by a measured factor.

    A replica alone is not slowed, and no replica is faster together than alone.

    Args:
        inner: the speeds by the replicas' demands.
        contention: the measured factor; above 1 where replicas slow each other more than their demands say.
    """

    def __init__(self, inner: Sharing, contention: float) -> None:
        self.name = inner.name
        self.serial_host = inner.serial_host
        self.partitioned = inner.partitioned
        self._inner = inner
        self.contention = contention

    def speeds(self, demands: Sequence[Demand]) -> list[float]:
        speeds = self._inner.speeds(demands)
        return speeds if len(demands) < 2 else [min(1.0, speed / self.contention) for speed in speeds]


def cycle_s(host_s: float, device_s: float, demand: Demand, replicas: int, sharing: Sharing) -> float:
    """Mean latency of an iteration when ``replicas`` equal replicas run it over and over on one device.

    With ``k`` replicas in their device phase, phases end at rate ``k speed(k) / device_s`` and begin at rate
    ``(replicas - k) / host_s``, or ``1 / host_s`` where host phases exclude each other: a birth-death chain, whose
    throughput gives the cycle by Little's law.
    """
    weights = [1.0]
    rates = [0.0]
    for k in range(1, replicas + 1):
        rates.append(k * sharing.speeds([demand] * k)[0] / device_s)
        preparing = 1 if sharing.serial_host else replicas - k + 1
        weights.append(weights[-1] * preparing / max(host_s, 1e-12) / rates[k])
    throughput = float(np.dot(weights, rates)) / sum(weights)
    return replicas / throughput


def contention(colocated: pa.Table, cost: CostModel, demand: DemandModel, sharing: Sharing) -> float | None:
    """How much slower device phases run together than ``sharing`` says, a factor.

    It is the median over the measured points of that way of sharing in which all replicas ran the same iteration. The
    factor of one point is found by bisection: the cycle of :func:`cycle_s` grows with it. Where the trace has parts of
    the multiprocessors both by MPS and by green contexts, those by MPS count: green contexts are threads of one
    process, which delay each other on the host too.

    Args:
        colocated: rows of a trace with ``replicas`` above 1.
        cost: of an iteration alone.
        demand: what an iteration asks of the device.
        sharing: the speeds by the demands.

    Returns:
        The factor; None where the trace has no such point.
    """
    here = np.array(colocated.column("sharing").to_pylist()) == sharing.name
    by_mps = here & (np.array(colocated.column("partition").to_pylist()) != "green-context")
    here = by_mps if by_mps.any() else here
    together = colocated.column("replicas").to_numpy()
    factors = []
    for replicas in np.unique(together[here]).tolist():
        points = shapes(colocated.filter(pa.array(here & (together == replicas))))
        for measured, shape in zip(points.median("latency_s"), _each(points.work), strict=True):
            latency = cost.latency_s(shape)
            host = min(cost.host_s(shape), latency)
            asked = demand(shape, max(latency - host, 1e-12))
            factors.append(_solve(float(measured), host, latency - host, asked, replicas, sharing))
    return float(np.median(factors)) if factors else None


def _solve(
    measured_s: float, host_s: float, device_s: float, demand: Demand, replicas: int, sharing: Sharing
) -> float:
    low, high = _LEAST, _MOST
    for _ in range(40):
        middle = (low * high) ** 0.5
        if cycle_s(host_s, device_s, demand, replicas, Contended(sharing, middle)) < measured_s:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _each(work: IterationShape) -> list[IterationShape]:
    """The shapes of columns, one by one, as Python's own numbers."""
    count = len(np.atleast_1d(work.decode_seqs))
    columns = [np.broadcast_to(column, count).tolist() for column in work]
    return [IterationShape(*row) for row in zip(*columns, strict=True)]

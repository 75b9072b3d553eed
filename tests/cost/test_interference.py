"""Interference: a closed form for equal replicas, the factor recovered from measurements, the simulator agreeing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from support.invariants import simulate
from support.synthetic import FixedDemand, LinearCost, Lists, deployment

from simslm.catalog.work import IterationShape
from simslm.cost.interference import Contended, contention, cycle_s
from simslm.cost.sharing import Demand, Mps, TimeSlice, sharing
from simslm.traces.schema import ITERATIONS


def rows(points: list[tuple[int, int, float]], kind: str) -> pa.Table:
    """Co-located decode iterations: (replicas, decode_seqs, latency)."""
    columns = {name: [None] * len(points) for name in ITERATIONS.names}
    columns |= {
        name: [0] * len(points) for name in ("prefill_seqs", "prefill_tokens", "prefill_ctx_tokens", "repeat")
    }
    columns |= {
        "replicas": [replicas for replicas, _, _ in points],
        "decode_seqs": [seqs for _, seqs, _ in points],
        "decode_ctx_tokens": [100 * seqs for _, seqs, _ in points],
        "latency_s": [latency for _, _, latency in points],
        "sharing": [kind] * len(points),
    }
    return pa.table(columns, schema=ITERATIONS)


def test_limits_of_the_closed_form():
    idle, full = Demand(0.1, 0.2), Demand(0.2, 1.0)
    assert cycle_s(1.0, 2.0, idle, 1, Mps()) == pytest.approx(3.0)
    assert cycle_s(1.0, 2.0, idle, 4, Mps()) == pytest.approx(3.0)
    assert cycle_s(1e-9, 2.0, full, 4, Mps()) == pytest.approx(8.0, rel=1e-6)
    assert cycle_s(1e-9, 2.0, idle, 4, TimeSlice()) == pytest.approx(8.0, rel=1e-6)
    assert cycle_s(2.0, 2.0, full, 2, Mps()) > 4.0


@pytest.mark.parametrize("kind", ["mps", "time-slice", "sm-partition", "streams"])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3, 2.0])
def test_the_factor_is_recovered(kind, factor):
    cost, demand = LinearCost(), FixedDemand(0.3, 0.8)
    truth = Contended(sharing(kind, 4), factor)
    points = []
    for replicas in (2, 4):
        for seqs in (8, 64):
            latency = cost.decode(seqs).latency_s(100 * seqs)
            measured = cycle_s(latency / 3, 2 * latency / 3, Demand(0.3, 0.8), replicas, truth)
            points.append((replicas, seqs, measured))
    found = contention(rows(points, kind), cost, demand, sharing(kind, 4))
    assert found == pytest.approx(factor, rel=1e-6)


def test_a_trace_without_that_way_of_sharing_does_not_tell():
    assert contention(rows([(2, 8, 0.01)], "mps"), LinearCost(), FixedDemand(), TimeSlice()) is None


def test_nobody_is_faster_than_alone():
    assert Contended(Mps(), 0.5).speeds([Demand(0.1, 0.1)] * 2) == [1.0, 1.0]
    assert Contended(Mps(), 3.0).speeds([Demand(1.0, 1.0)]) == [1.0]


def test_host_phases_one_after_the_other_take_turns_too():
    """Threads of one process: with long host phases each replica waits for those of the others."""
    idle = Demand(0.1, 0.1)
    assert cycle_s(2.0, 1e-9, idle, 4, sharing("streams", 4)) == pytest.approx(8.0, rel=1e-6)
    assert cycle_s(2.0, 1e-9, idle, 4, Mps()) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mps", "time-slice", "streams"])
def test_the_simulator_agrees_with_the_closed_form(kind):
    """Two replicas whose iterations have random lengths: the phases lose step, as the closed form assumes.

    Prompts of exponential length, one output token each, make every iteration a prefill of random latency, a third
    of it host time; requests all wait from the start. Throughput within 5 % of the network's.
    """
    count, mean = 6000, 400.0
    cost = LinearCost(fixed=1e-9, per_pair=0.0)
    prompts = np.maximum(np.random.default_rng(5).exponential(mean, count), 1).astype(int)
    engine = deployment(
        replicas=2, replicas_per_device=2, sharing_name=kind, cost=cost, max_num_seqs=1, max_num_batched_tokens=10**6,
        max_model_len=10**6,
    )  # fmt: skip
    result = simulate(Lists.of(np.zeros(count), prompts, 1), engine)
    latency = cost.latency_s(IterationShape(0, 0, 1, prompts.mean(), 0, 0.0))
    expected = cycle_s(latency / 3, latency * 2 / 3, Demand(0.3, 0.7), 2, sharing(kind, 2))
    measured = 2 * result.summary["makespan_s"] / count
    assert measured == pytest.approx(expected, rel=0.05)

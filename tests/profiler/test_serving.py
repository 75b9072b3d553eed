"""The serving loop: the simulator's own schedule on a virtual clock, and the engine's right tokens on a real one."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.scenarios import examples
from support.synthetic import LinearCost, Lists, deployment

from profiler.engine.batch import Chunk
from profiler.engine.cache import BlockPool
from profiler.engine.engine import Engine
from profiler.engine.weights import random_weights
from profiler.engines.own import OwnEngine
from profiler.grid import Shape
from profiler.measure.meters import NoMeter, ReplayMeter
from profiler.measure.timing import Timing, time_iteration
from profiler.memory import affordable_blocks
from profiler.serving.clock import WallClock
from profiler.serving.live import LiveEngine, sequences
from profiler.serving.log import Served
from profiler.serving.loop import Loop
from profiler.serving.replica import Limits, Policies, Replica
from profiler.serving.stage import Stage, served_alike
from simslm.catalog.work import IterationShape
from simslm.errors import InfeasibleError, UsageError
from simslm.policies.admission.limits import Limits as Limited
from simslm.policies.admission.limits import LimitsOptions
from simslm.sim.deployment import Deployment
from simslm.sim.log import REJECTED

SERVED = ("chunked-prefill", "prefill-first", "orca")
"""Batching policies that the engine can run."""

SHAPE = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")
BOOKS = ("waiting", "running", "kv_blocks_used")
TIMES = ("first_scheduled_s", "first_token_s", "finish_s")


class VirtualClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now(self) -> float:
        return self.time_s

    def wait_until(self, moment_s: float) -> None:
        assert moment_s >= self.time_s
        self.time_s = moment_s


class ClosedForm:
    """An engine whose iterations take exactly what a closed-form cost says; every token is 0."""

    def __init__(self, clock: VirtualClock, replica: Replica, cost: LinearCost) -> None:
        self._clock, self._replica, self._cost = clock, replica, cost

    def __call__(self, batch: Many[Chunk]) -> tuple[list[int], Timing]:
        prompts = [chunk for chunk in batch if not self._decodes(chunk)]
        decodes = [chunk for chunk in batch if self._decodes(chunk)]
        assert batch == decodes + prompts
        tokens = sum(len(chunk.tokens) for chunk in prompts)
        cached = sum(chunk.cached for chunk in prompts)
        pairs = sum(len(each.tokens) * (each.cached + (len(each.tokens) + 1) / 2) for each in prompts)
        context = sum(chunk.cached for chunk in decodes)
        shape = IterationShape(len(decodes), context, len(prompts), tokens, cached, pairs)
        latency_s = self._cost.latency_s(shape)
        self._clock.time_s += latency_s
        return [0] * len(batch), Timing(latency_s, latency_s / 3)

    def _decodes(self, chunk: Chunk) -> bool:
        """Whether these are tokens of a sequence that decodes: they are part of its own."""
        return any(np.shares_memory(chunk.tokens, each.ids) for each in self._replica.decoders)


def looped(requests: Lists, setting: Deployment, *, vocabulary: int = 7) -> Served:
    """A workload through the loop, on a virtual clock and at closed-form cost."""
    (group,) = setting.groups
    limits, made, clock = group.engine, group.policies(), VirtualClock()
    replica = Replica(
        BlockPool(limits.num_gpu_blocks),
        limits.block_size,
        Limits(limits.max_num_seqs, limits.max_num_batched_tokens, limits.watermark_blocks),
        Policies(
            batching=made.batching, order=made.order, admission=made.admission, preemption=made.preemption
        ),
    )
    assert isinstance(group.cost, LinearCost)
    workload = sequences(vars(requests), vocabulary, np.random.default_rng(0))
    served = Loop(replica, ClosedForm(clock, replica, group.cost), clock, workload).serve()
    assert replica.pool.free == limits.num_gpu_blocks
    return served


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Lists, dict[str, Any]]:
    """Random requests, and limits under which some wait and some are preempted; all of them fit."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 40))
    rate = draw(st.sampled_from([10.0, 100.0, 2000.0]))
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    if draw(st.booleans()):
        arrivals = np.zeros(count)
    prompts, outputs = rng.integers(1, 61, (2, count))
    requests = Lists.of(arrivals, prompts, outputs)
    requests.max_tokens = outputs + rng.integers(0, 20, count)
    requests.priority = rng.integers(0, 3, count)
    most = draw(st.integers(1, 12))
    limits = {
        "max_num_seqs": most,
        "max_num_batched_tokens": draw(st.integers(max(most, 61), 200)),
        "block_size": draw(st.sampled_from([4, 16])),
        "watermark": draw(st.sampled_from([0.0, 0.1])),
        "queueing": draw(st.sampled_from(["fcfs", "priority", "shortest-prompt"])),
    }
    limits["num_gpu_blocks"] = draw(st.integers(-(-141 // limits["block_size"]), 80))
    return requests, limits


@pytest.mark.parametrize("batching", SERVED)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(crowds())
def test_the_loop_keeps_the_simulators_schedule(batching, crowd):
    """The same requests at the same cost: the same iterations, and the same times to the last bits."""
    requests, limits = crowd
    setting = deployment(batching=batching, **limits)
    simulated, served = simulate(requests, setting), looped(requests, setting)
    expected = simulated.request_columns
    assert (expected["status"] == 0).all()
    for name in TIMES:
        np.testing.assert_allclose(served.requests[name], expected[name], rtol=1e-12, atol=0)
    for name in ("preemptions", "recomputed_tokens"):
        assert (served.requests[name] == expected[name]).all()
    table = simulated.tables[0].columns
    for name in (*SHAPE, *BOOKS):
        assert (served.iterations[name] == table[name]).all(), name
    for name in ("start_s", "duration_s"):
        np.testing.assert_allclose(served.iterations[name], table[name], rtol=1e-9)
    assert len(served.gaps_s) == (requests.output_tokens - 1).sum()
    total = np.nansum(expected["finish_s"] - expected["first_token_s"])
    np.testing.assert_allclose(served.gaps_s.sum(), total, rtol=1e-9)


@pytest.mark.parametrize("batching", ["chunked-prefill", "prefill-first"])
def test_some_of_those_crowds_are_preempted(batching):
    requests = Lists.of(np.zeros(12), 40, 50)
    setting = deployment(batching=batching, num_gpu_blocks=30, block_size=4, max_num_batched_tokens=100)
    served = looped(requests, setting)
    assert served.requests["preemptions"].sum() > 10
    assert served.iterations["kv_blocks_used"].max() == 30
    expected = simulate(requests, setting).request_columns
    for name in ("preemptions", "recomputed_tokens"):
        assert (served.requests[name] == expected[name]).all()


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.sampled_from([0.3, 0.6, 1.0]))
def test_the_requests_that_are_rejected_are_the_simulators(seed, queue, utilization):
    """A request that arrives while an iteration runs is judged by the replica as it then is."""
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, 61, (2, 40))
    requests = Lists.of(np.cumsum(rng.exponential(1 / 100, 40)), prompts, outputs)
    admission = Limited(LimitsOptions(max_queue=queue, max_kv_utilization=utilization))
    setting = deployment(admission=admission, num_gpu_blocks=40, block_size=4, max_num_seqs=8)
    served, expected = looped(requests, setting), simulate(requests, setting).request_columns
    assert (served.requests["rejected"] == (expected["status"] == REJECTED)).all()
    np.testing.assert_allclose(served.requests["finish_s"], expected["finish_s"], rtol=1e-12)


def test_padding_is_refused():
    with pytest.raises(UsageError, match="padding"):
        looped(Lists.of([0.0], 5, 5), deployment(batching="static"))


def test_a_policy_that_admits_no_request_is_an_error():
    with pytest.raises(UsageError, match="stands idle with 1 requests waiting"):
        looped(Lists.of([0.0], 50, 5), deployment(batching="orca", num_gpu_blocks=3, block_size=4))


def test_being_told_to_stop_ends_it_between_two_iterations():
    clock = VirtualClock()
    replica = Replica(BlockPool(40), 4, Limits(4, 64), served_alike())
    workload = sequences(vars(Lists.of([0.0, 0.0], 5, 50)), 7, np.random.default_rng(0))
    loop = Loop(replica, ClosedForm(clock, replica, LinearCost()), clock, workload)
    with pytest.raises(KeyboardInterrupt):
        loop.serve(stopping=lambda: workload[0].generated == 7)
    assert [each.generated for each in workload] == [7, 7]


# ---- on the engine and the wall clock ------------------------------------------------------------------------


def engine_of(architecture: Any, num_blocks: int) -> Engine:
    return Engine(architecture, dtype="fp32", num_blocks=num_blocks, block_size=4)


def asked(count: int, rate: float, seed: int = 1) -> Lists:
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(2, 21, (2, count))
    return Lists.of(np.cumsum(rng.exponential(1 / rate, count)), prompts, outputs)


@pytest.mark.parametrize("budget", [12, 64])
def test_served_tokens_equal_the_dense_pass_though_many_are_preempted(llama, reference, budget):
    """Chunks, whole prompts and recomputed ones: what a client gets is what the model says."""
    requests = asked(10, rate=1e9)
    engine = LiveEngine.open(llama, "fp32", "cpu", 14, block_size=4, seed=5, meter=NoMeter("none"))
    served = engine.serve(vars(requests), Limits(8, budget), served_alike())
    assert served.requests["preemptions"].sum() > 3
    assert served.energy_j is None
    weights = random_weights(llama, torch.float32, seed=5)
    prompts = sequences(vars(requests), llama.vocab_size, np.random.default_rng(5))
    for sequence, output in zip(prompts, served.outputs, strict=True):
        prompt = sequence.ids[: sequence.prompt_tokens].tolist()
        expected = reference.reference_greedy(llama, weights, prompt, sequence.output_tokens)
        assert output.tolist() == expected


def test_serving_has_the_blocks_it_was_given_whatever_the_engine_has(llama):
    """An engine that is measured in turns may have more."""
    engine = OwnEngine(llama, dtype="fp32", num_blocks=100, block_size=4, seed=5)
    served = LiveEngine(engine, 14, 5, NoMeter("none")).serve(
        vars(asked(10, rate=1e9)), Limits(8, 12), served_alike()
    )
    assert served.requests["preemptions"].sum() > 3
    assert served.iterations["kv_blocks_used"].max() <= 14


def test_requests_are_served_in_real_time(llama):
    requests = asked(6, rate=40)
    engine = LiveEngine.open(llama, "fp32", "cpu", 100, block_size=4, meter=ReplayMeter([10.0, 12.5]))
    began = time.perf_counter()
    served = engine.serve(vars(requests), Limits(4, 64), served_alike())
    took = time.perf_counter() - began
    columns, iterations = served.requests, served.iterations
    assert (columns["first_scheduled_s"] >= requests.arrival_s).all()
    assert (columns["first_token_s"] > columns["first_scheduled_s"]).all()
    assert (columns["finish_s"] >= columns["first_token_s"]).all()
    assert requests.arrival_s[-1] < columns["finish_s"].max() < took
    ends = iterations["start_s"] + iterations["duration_s"]
    assert (iterations["start_s"][1:] >= ends[:-1]).all()
    assert (iterations["host_s"] > 0).all()
    assert (iterations["host_s"] < iterations["duration_s"]).all()
    assert served.energy_j == 2.5


def test_the_wall_clock_wakes_up_in_time():
    clock = WallClock()
    for moment_s in (0.004, 0.02, 0.01):
        clock.wait_until(moment_s)
        assert clock.now() >= moment_s


@pytest.mark.parametrize(
    "shape",
    [Shape(3, 8), Shape(0, 0, 1, 5, 0), Shape(0, 0, 2, 6, 9), Shape(4, 7, 2, 5, 0), Shape(2, 3, 1, 4, 8)],
)
def test_a_stage_runs_its_shape_every_time(llama, shape):
    """The loop's own step, on sequences that are put back: the same work, and the same tokens, each time."""
    engine = engine_of(llama, shape.blocks(4, llama.max_position_embeddings))
    stage = Stage(engine, shape, np.random.default_rng(0))
    batches = []

    def run(batch):
        tokens, timing = time_iteration(engine, batch)
        batches.append([(list(chunk.tokens), chunk.cached, sorted(chunk.blocks)) for chunk in batch] + tokens)
        return tokens, timing

    stage._loop._run = run
    timings = [stage.time() for _ in range(3)]
    assert all(0 < timing.host_s < timing.latency_s for timing in timings)
    served = stage._loop.log.served([])
    for name, value in shape.columns().items():
        assert (served.iterations[name] == value).all(), name
    without_blocks = [[part[:2] if isinstance(part, tuple) else part for part in batch] for batch in batches]
    assert without_blocks[0] == without_blocks[1] == without_blocks[2]


def test_warming_up_needs_no_more_blocks_than_there_are(llama, monkeypatch):
    monkeypatch.setattr(
        "profiler.serving.live.warm_up", lambda call: [call() > 0 for _ in range(3)].count(True)
    )
    engine = LiveEngine.open(llama, "fp32", "cpu", 2, block_size=4, meter=NoMeter("none"))
    engine.warm(Limits(1, 1), 8)
    assert engine.describe()["warmup"] == 1 + 2 + 3


@pytest.mark.parametrize("blocks", [3, 30])
def test_warming_up_meets_every_number_of_tokens_and_of_decodes_by_pages(llama, monkeypatch, blocks):
    """Prompts longer than the longest context are several; nothing reaches beyond the blocks there are."""
    monkeypatch.setattr("profiler.serving.live.warm_up", lambda call: 0)
    engine = LiveEngine.open(llama, "fp32", "cpu", blocks, block_size=4, meter=NoMeter("none"))
    met = []
    iterate = engine._engine.iterate
    monkeypatch.setattr(engine._engine, "iterate", lambda batch: (met.append(batch), iterate(batch))[1])
    engine.warm(Limits(3, 40), 12)
    prompts = [batch for batch in met if not batch[0].cached]
    decodes = [batch for batch in met if batch[0].cached]
    assert sorted(sum(len(chunk.tokens) for chunk in batch) for batch in prompts) == list(range(1, 41))
    assert max(len(chunk.tokens) for batch in prompts for chunk in batch) == 12
    pages = sorted((len(batch), (batch[0].cached + 1) // 4) for batch in decodes)
    assert pages == [(seqs, page) for seqs in (1, 2, 3) for page in (1, 2, 3)]
    assert len(met) == engine.describe()["warmup"]


def test_warming_up_ends_in_time(llama, monkeypatch):
    monkeypatch.setattr("profiler.serving.live._PREPARE_S", -1.0)
    monkeypatch.setattr("profiler.serving.live.warm_up", lambda call: 0)
    engine = LiveEngine.open(llama, "fp32", "cpu", 30, block_size=4, meter=NoMeter("none"))
    engine.warm(Limits(3, 40), 12)
    assert engine.describe()["warmup"] == 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_memory_of_an_engine_that_is_gone_is_free_for_the_next(make_tiny):
    """What the process would keep is the machine's again before blocks are counted."""

    def held_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = held_bytes()
    engine = Engine(make_tiny("llama"), dtype="fp32", num_blocks=40_000)
    size = sum(tensor.nbytes for tensor in (*engine.cache.keys, *engine.cache.values))
    assert held_bytes() - before > 0.9 * size
    del engine
    assert affordable_blocks(make_tiny("llama"), "cpu", "fp32") > 0
    assert held_bytes() - before < 0.3 * size


def test_the_engine_keeps_its_matrix_products(llama, monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    engine_of(llama, 2)
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) > 10_000


def test_more_blocks_than_memory_are_refused(llama):
    with pytest.raises(InfeasibleError, match="fit into the memory free now"):
        LiveEngine.open(llama, "fp32", "cpu", 10**12)

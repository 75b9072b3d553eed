"""Exact oracles: what queueing theory and arithmetic say, computed without the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from support.invariants import simulate
from support.synthetic import LinearCost, Lists, deployment

from simslm.catalog.work import IterationShape


@pytest.mark.parametrize("batching", ["prefill-first", "chunked-prefill"])
@pytest.mark.parametrize("output", [1, 7])
def test_batch_1_fcfs_is_lindleys_recursion_bitwise(batching, output):
    """A request begins when it arrives or when the one before is finished, and takes its prefill and the sum of
    its decode iterations, an arithmetic series."""
    rng = np.random.default_rng(7)
    count = 3000
    arrivals = np.cumsum(rng.exponential(0.05, count))
    prompts = rng.integers(1, 900, count)
    cost = LinearCost()
    result = simulate(
        Lists.of(arrivals, prompts, output), deployment(batching=batching, max_num_seqs=1, cost=cost)
    )
    free = 0.0
    for i in range(count):
        now = max(arrivals[i], free)
        assert result.request_columns["first_scheduled_s"][i] == now
        prompt = int(prompts[i])
        now += cost.latency_s(IterationShape(0, 0, 1, prompt, 0, prompt * (prompt + 1) / 2))
        assert result.request_columns["first_token_s"][i] == now
        if steps := output - 1:
            now = now + (
                steps * cost.decode(1).latency_s(prompt) + (steps * (steps - 1) // 2) * cost.per_context
            )
        assert result.request_columns["finish_s"][i] == now
        free = now


def test_all_at_once_is_a_closed_form():
    """Equal requests that all fit run as one batch: one prefill iteration, then the arithmetic series."""
    count, prompt, output = 32, 50, 40
    cost = LinearCost()
    result = simulate(
        Lists.of(np.zeros(count), prompt, output), deployment(batching="prefill-first", cost=cost)
    )
    pairs = count * prompt * (prompt + 1) / 2
    prefill = cost.latency_s(IterationShape(0, 0, count, count * prompt, 0, pairs))
    steps = output - 1
    context = count * (steps * prompt + steps * (steps - 1) / 2)
    decode = steps * (cost.fixed + cost.per_seq * count) + cost.per_context * context
    assert result.summary["makespan_s"] == pytest.approx(prefill + decode, rel=1e-12)
    assert result.summary["ttft_s"]["max"] == pytest.approx(prefill, rel=1e-12)


@pytest.mark.slow
def test_m_d_1_mean_wait():
    """Batch 1 with equal requests is M/D/1: mean wait rho s / (2 (1 - rho)) (Pollaczek-Khinchine), 24 seeds."""
    cost = LinearCost()
    service = cost.latency_s(IterationShape(0, 0, 1, 100, 0, 5050.0))
    rho, waits = 0.7, []
    for seed in range(24):
        arrivals = np.cumsum(np.random.default_rng(seed).exponential(service / rho, 4000))
        result = simulate(Lists.of(arrivals, 100, 1), deployment(max_num_seqs=1, cost=cost))
        waits.append(result.request_columns["queue_s"].mean())
    expected = rho * service / (2 * (1 - rho))
    z = (np.mean(waits) - expected) / (np.std(waits, ddof=1) / np.sqrt(len(waits)))
    assert abs(z) < 3.5


def test_times_scale_with_latencies_and_arrivals():
    """Latencies and arrivals times 2: every time times 2, exactly, since 2 is a power of two."""
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(0.02, 300))
    prompts, outputs = rng.integers(1, 300, 300), rng.integers(1, 100, 300)
    twice = LinearCost(*(2 * value for value in (3e-3, 3e-5, 2e-8, 2e-5, 1e-9)))
    slow = simulate(Lists.of(2 * arrivals, prompts, outputs), deployment(num_gpu_blocks=120, cost=twice))
    fast = simulate(Lists.of(arrivals, prompts, outputs), deployment(num_gpu_blocks=120))
    for name in ("first_token_s", "finish_s", "ttft_s", "e2e_s"):
        assert np.array_equal(slow.request_columns[name], 2 * fast.request_columns[name])


def test_more_blocks_and_a_faster_device_are_never_worse_all_at_once():
    requests = Lists.of(np.zeros(100), 64, 64)
    finish = [
        simulate(requests, deployment(num_gpu_blocks=blocks)).summary["makespan_s"]
        for blocks in (30, 60, 240, 4096)
    ]
    assert finish == sorted(finish, reverse=True)
    faster = simulate(requests, deployment(cost=LinearCost(fixed=2e-3))).summary["makespan_s"]
    assert faster < finish[-1]

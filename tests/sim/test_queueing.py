"""Oracles of queueing theory, on constructions for which the theory is exact.

Prompt and output lengths are integers, so exponential service is played by geometric lengths: a geometric number of
equal pieces. Where pieces are so many that the difference cannot be seen (M/M/1), the continuous formula is used;
elsewhere iterations are seen by those who arrive in the middle of one, and the oracle is the exact chain of the
number in the system at the beginnings of iterations, which a test without simulation holds to Erlang's formula and
to that of processor sharing.

Means are taken over 24 independent runs; ``z`` is their distance from the oracle in standard errors, and 3.5 of
them are allowed (one false alarm in 2,000).
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
import pytest
from support.invariants import simulate
from support.synthetic import LinearCost, Lists, deployment

SEEDS = 24


def z_score(means: list[float], expected: float) -> float:
    return float((np.mean(means) - expected) / (np.std(means, ddof=1) / np.sqrt(len(means))))


def only(**terms: float) -> LinearCost:
    """A cost of nothing but the terms given."""
    none = dict.fromkeys(("fixed", "per_seq", "per_context", "per_token", "per_pair"), 0.0)
    return LinearCost(**(none | terms), watts=None)


def means(
    workload: Callable[[np.random.Generator], Lists], column: str, skip: int, **setting: Any
) -> list[float]:
    """The mean of a column of requests over the runs, without the first ``skip``, which find too few others."""
    found = []
    for seed in range(SEEDS):
        result = simulate(workload(np.random.default_rng(seed)), deployment(**setting))
        found.append(float(result.request_columns[column][skip:].mean()))
    return found


# ---- M/M/1 -------------------------------------------------------------------------------------------------

PIECES = 1_000_000
"""Mean prompt, in tokens: geometric over it is exponential to one part in a million."""


def long_prompts(rho: float, count: int) -> Callable[[np.random.Generator], Lists]:
    """Poisson arrivals of prompts of a mean service of one second, one output token each."""

    def workload(rng: np.random.Generator) -> Lists:
        return Lists.of(np.cumsum(rng.exponential(1 / rho, count)), rng.geometric(1 / PIECES, count), 1)

    return workload


ONE_SERVER = {
    "batching": "prefill-first",
    "max_num_seqs": 1,
    "cost": only(per_token=1 / PIECES),
    "max_num_batched_tokens": 10**9,
    "max_model_len": 10**9,
    "num_gpu_blocks": 10**9,
}


@pytest.mark.slow
def test_m_m_1():
    """One sequence at a time, time per prompt token alone: mean wait rho / (1 - rho) of the mean service."""
    rho = 0.6
    assert abs(z_score(means(long_prompts(rho, 3000), "queue_s", 300, **ONE_SERVER), rho / (1 - rho))) < 3.5


@pytest.mark.slow
def test_random_routing_divides_a_poisson_stream_into_m_m_1_queues():
    """Independent thinning: each of two replicas is the M/M/1 queue of half the rate."""
    rho = 0.6
    found = means(long_prompts(2 * rho, 4000), "queue_s", 400, router="random", replicas=2, **ONE_SERVER)
    assert abs(z_score(found, rho / (1 - rho))) < 3.5


@pytest.mark.slow
def test_shortest_queues_lie_between_one_queue_for_all_and_none_shared():
    """Join-the-shortest-queue has no simple formula; a central queue (Erlang C) bounds it from below, separate
    queues (M/M/1) from above, each by much more than its standard error."""
    rho, servers = 0.6, 3
    found = means(
        long_prompts(servers * rho, 3000),
        "queue_s",
        300,
        router="join-shortest-queue",
        replicas=servers,
        **ONE_SERVER,
    )
    assert z_score(found, erlang_c_wait(servers, rho)) > 3.5
    assert z_score(found, rho / (1 - rho)) < -3.5


# ---- c servers with one queue --------------------------------------------------------------------------------


def erlang_c_wait(servers: int, rho: float) -> float:
    """Mean wait of M/M/c in mean services: C / (c (1 - rho)) (Erlang, 1917)."""
    offered = servers * rho
    last = offered**servers / factorial(servers) / (1 - rho)
    delayed = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    return delayed / (servers * (1 - rho))


def poisson(mean: float, size: int) -> np.ndarray:
    terms = np.concatenate([[1.0], mean / np.arange(1, size)])
    return np.exp(-mean) * np.cumprod(terms)


def binomial(n: int, p: float) -> np.ndarray:
    row = np.array([1.0])
    for _ in range(n):
        row = np.convolve(row, [1 - p, p])
    return row


def chain(
    rate: float, p: float, served: Callable[[int], int], lasts_s: Callable[[int], float], size: int
) -> Any:
    """Stationary law of the number in the system at the beginnings of iterations, and the mean wait and number.

    Of ``n`` in the system, ``served(n)`` run in an iteration of ``lasts_s(n)`` seconds, each done after it with
    probability ``p``; meanwhile a Poisson number arrives. An empty system waits for the next arrival, which begins
    an iteration at once. By renewal reward the mean number in the system is that of an iteration weighed with its
    length, those who arrive in it counted for half of it; by Little's law that gives the mean times.

    Returns:
        mean wait for the first iteration, and mean time in the system.
    """
    transition = np.zeros((size, size))
    for n in range(1, size):
        left = binomial(served(n), p)[::-1]
        following = np.convolve(left, poisson(rate * lasts_s(n), size))[: size - (n - served(n))]
        transition[n, n - served(n) :] = following
        transition[n, -1] += 1 - following.sum()
    transition[:, 1] += transition[:, 0]
    system = transition[1:, 1:].T - np.eye(size - 1)
    system[-1] = 1.0
    law = np.linalg.solve(system, np.eye(size - 1)[-1])
    number = np.arange(1, size)
    length = np.array([lasts_s(n) for n in number])
    running = np.array([served(n) for n in number])
    empty = sum(law[n - 1] * p ** served(n) * np.exp(-rate * lasts_s(n)) for n in number if served(n) == n)
    cycle = float(law @ length) + empty / rate
    meanwhile = rate * length**2 / 2
    waiting = float(law @ ((number - running) * length + meanwhile)) / cycle
    present = float(law @ (number * length + meanwhile)) / cycle
    return waiting / rate, present / rate


def test_the_chains_tend_to_erlang_c_and_to_processor_sharing():
    """With ever shorter iterations; no simulation here."""
    piece = 1e-3
    for servers, rho in ((2, 0.5), (4, 0.8)):
        wait, _ = chain(servers * rho, piece, lambda n, c=servers: min(n, c), lambda n: piece, 160)
        assert wait == pytest.approx(erlang_c_wait(servers, rho), rel=0.01)
    _, sojourn = chain(0.6, piece, lambda n: n, lambda n: n * piece, 80)
    assert sojourn == pytest.approx(1 / (1 - 0.6), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["orca", "prefill-first", "chunked-prefill"])
def test_slots_are_the_servers_of_one_queue(batching):
    """Iterations of one length whatever the batch: ``max_num_seqs`` slots serve one queue like M/M/c.

    Outputs are geometric with mean 40. Prompts are one token; prefill-first gives them an iteration of their own,
    so there the wait alone agrees with nothing exact, and it is only held to be no shorter.
    """
    servers, rho, mean, count = 4, 0.8, 40, 2000

    def workload(rng: np.random.Generator) -> Lists:
        rate = servers * rho / mean
        return Lists.of(np.cumsum(rng.exponential(1 / rate, count)), 1, rng.geometric(1 / mean, count))

    expected, _ = chain(servers * rho / mean, 1 / mean, lambda n: min(n, servers), lambda n: 1.0, 200)
    found = means(workload, "queue_s", 200, batching=batching, max_num_seqs=servers, cost=only(fixed=1.0))
    z = z_score(found, expected)
    assert z > -3.5
    assert batching == "prefill-first" or z < 3.5


# ---- processor sharing ---------------------------------------------------------------------------------------


def shared(rho: float, outputs: Callable[[np.random.Generator, int], np.ndarray], mean: float) -> Any:
    """Poisson arrivals of one-token prompts on a replica whose iterations take as long as they have sequences."""

    def workload(rng: np.random.Generator) -> Lists:
        return Lists.of(np.cumsum(rng.exponential(mean / rho, 2000)), 1, outputs(rng, 2000))

    return workload


PROCESSOR = {"max_num_seqs": 1000, "cost": only(per_seq=1.0, per_token=1.0), "num_gpu_blocks": 10**6}


@pytest.mark.slow
def test_a_linear_cost_shares_the_replica_like_a_processor():
    """Every sequence gets a token an iteration, every token costs one second: time in the system by the chain."""
    rho, mean = 0.6, 10
    _, expected = chain(rho / mean, 1 / mean, lambda n: n, lambda n: float(n), 100)
    found = means(shared(rho, lambda rng, n: rng.geometric(1 / mean, n), mean), "e2e_s", 200, **PROCESSOR)
    assert abs(z_score(found, expected)) < 3.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fixed", "two lengths"])
def test_processor_sharing_does_not_care_how_lengths_are_distributed(kind):
    """M/G/1-PS: mean time in the system is mean service / (1 - rho) for any distribution (Kleinrock, 1967).

    Exact in the limit of short iterations: here a service is 300 of them, and who arrives waits for the end of one,
    which on average is less than 1 % of the time in the system, half a standard error.
    """
    rho, mean = 0.5, 300

    def outputs(rng: np.random.Generator, count: int) -> np.ndarray:
        return np.full(count, mean) if kind == "fixed" else rng.choice([60, 540], count)

    found = means(shared(rho, outputs, mean), "e2e_s", 200, **PROCESSOR)
    assert abs(z_score(found, mean / (1 - rho))) < 3.5

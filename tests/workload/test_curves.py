"""Rate curves, laws of gaps, and populations of clients: rates, spread, and pieces that are the whole."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simslm.scenario.arrivals import Arrivals, GapLaw
from simslm.workload import arrivals as drawn
from simslm.workload.arrivals import arrival_pieces, arrival_times
from simslm.workload.gaps import first_gap, unit_gaps, weibull_shape
from simslm.workload.streams import stream

CURVE = {
    "process": "rate-curve",
    "rate_rps": 8,
    "shape": [1, 0, 3, 2],
    "step_s": 30,
    "gaps": {"dist": "gamma", "cv": 2},
}
CLIENTS = {
    "process": "clients",
    "rate_rps": 8,
    "clients": [
        {"share": 3, "count": 20, "skew": 1.2},
        {"share": 1, "gaps": {"dist": "weibull", "cv": 5}, "shape": [1, 3], "step_s": 60},
    ],
}
WEIBULL = {"process": "weibull", "rate_rps": 8, "cv": 3}
PROCESSES = [CURVE, CLIENTS, WEIBULL, CURVE | {"tick_s": 3.0}]


def model(process):
    return TypeAdapter(Arrivals).validate_python(process)


def times(process, num_requests=None, duration_s=None, seed=0):
    return arrival_times(model(process), num_requests, duration_s, stream(seed, "arrivals"))


@pytest.mark.parametrize("process", PROCESSES)
def test_the_mean_rate_is_the_one_asked_for(process):
    counts = [len(times(process, duration_s=7_200, seed=seed)) for seed in range(8)]
    assert np.mean(counts) == pytest.approx(8 * 7_200, rel=0.04)


@pytest.mark.parametrize(
    ("law", "cv"),
    [
        ({"dist": "exponential"}, 1),
        ({"dist": "gamma", "cv": 2.5}, 2.5),
        ({"dist": "weibull", "cv": 2.5}, 2.5),
        ({"dist": "weibull", "cv": 0.3}, 0.3),
        ({"dist": "quantiles", "values": [0, 2]}, 1 / math.sqrt(3)),
        ({"dist": "quantiles", "values": [0, 0, 10], "at": [0, 0.9, 1]}, math.sqrt(0.1 / 3 * 100 / 0.25 - 1)),
    ],
)
def test_gaps_have_mean_1_and_the_spread_asked_for(law, cv):
    gaps = unit_gaps(TypeAdapter(GapLaw).validate_python(law), stream(1, "gaps"))(400_000)
    assert gaps.mean() == pytest.approx(1, rel=0.03)
    assert gaps.std() == pytest.approx(cv, rel=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(
    "law",
    [
        {"dist": "exponential"},
        {"dist": "gamma", "cv": 2.5},
        {"dist": "weibull", "cv": 2.5},
        {"dist": "quantiles", "values": [0, 1, 1, 9]},
    ],
)
def test_a_process_that_has_always_been_running_is_met_in_a_gap_by_its_length(law):
    """The mean residual life of a renewal process is ``(1 + cv^2) / 2`` mean gaps."""
    law, rng = TypeAdapter(GapLaw).validate_python(law), stream(1, "gaps")
    gaps = unit_gaps(law, rng)(1_000_000)
    firsts = [first_gap(law, rng) for _ in range(40_000)]
    assert np.mean(firsts) == pytest.approx((1 + gaps.var()) / 2, rel=0.06)


@pytest.mark.parametrize("cv", [0.01, 0.3, 1, 7, 100])
def test_a_weibull_shape_has_its_spread(cv):
    power = 1 / weibull_shape(cv)
    assert math.expm1(math.lgamma(1 + 2 * power) - 2 * math.lgamma(1 + power)) == pytest.approx(
        cv**2, rel=1e-9
    )


def test_a_curve_is_followed_over_and_over():
    found = times(CURVE | {"gaps": {"dist": "exponential"}}, duration_s=120 * 500)
    shares = np.histogram(found % 120, bins=4, range=(0, 120))[0] / len(found)
    assert shares == pytest.approx([1 / 6, 0, 1 / 2, 1 / 3], abs=0.01)


def test_a_flat_curve_of_exponential_gaps_is_poisson():
    flat = times({"process": "rate-curve", "rate_rps": 8, "shape": [7.0], "step_s": 11.0}, num_requests=5000)
    assert flat == pytest.approx(times({"process": "poisson", "rate_rps": 8}, num_requests=5000), rel=1e-9)


def test_ticks_cut_times_and_nothing_else():
    free, cut = times(CURVE, num_requests=3000), times(CURVE | {"tick_s": 3.0}, num_requests=3000)
    assert np.array_equal(cut, np.floor(free / 3) * 3)


def test_clients_send_their_shares_by_rank():
    pieces = list(arrival_pieces(model(CLIENTS), 400_000, None, stream(0, "arrivals")))
    senders = np.concatenate([piece.client for piece in pieces])
    assert np.mean(senders == 1) == pytest.approx(0.25, abs=0.02)
    few = {"process": "clients", "rate_rps": 8, "clients": [{"share": 1, "count": 2, "skew": 1}]}
    one = {"process": "clients", "rate_rps": 8, "clients": [{"share": 1}]}
    assert len(times(few, duration_s=3600)) == pytest.approx(len(times(one, duration_s=3600)), rel=0.05)


def test_a_few_bursty_clients_make_the_whole_bursty():
    """ServeGen's finding: the bursts of many equal clients come apart; those of a few big ones show."""

    def dispersion(clients):
        found = times({"process": "clients", "rate_rps": 20, "clients": clients}, duration_s=6000)
        counts = np.bincount((found / 5).astype(int))
        return counts.var() / counts.mean()

    bursty = {"dist": "gamma", "cv": 4}
    one, many = (
        dispersion([{"share": 1, "gaps": bursty}]),
        dispersion([{"share": 1, "count": 1000, "gaps": bursty}]),
    )
    few = dispersion([{"share": 1, "count": 1000, "skew": 2, "gaps": bursty}])
    assert one > 12
    assert many < one / 2
    assert few > 1.5 * many


def test_another_client_moves_no_other_s_pattern():
    alone = times({"process": "clients", "rate_rps": 4, "clients": [{"share": 1}]}, num_requests=200)
    both = {"process": "clients", "rate_rps": 8, "clients": [{"share": 1}, {"share": 1}]}
    (piece,) = arrival_pieces(model(both), 300, None, stream(0, "arrivals"))
    mine = piece.times_s[piece.client == 0]
    assert np.array_equal(mine, alone[: len(mine)])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(PROCESSES), st.integers(1, 2000), st.floats(1e-3, 200), st.integers(0, 2**40))
def test_shorter_runs_and_pieces_are_the_beginning_of_longer_ones(process, count, duration_s, seed):
    counted = times(process, num_requests=count, seed=seed)
    timed = times(process, duration_s=duration_s, seed=seed)
    assert len(counted) == count
    assert np.all(np.diff(counted) >= 0)
    shared = min(count, len(timed))
    assert np.array_equal(counted[:shared], timed[:shared])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "PIECE", 97)
        assert np.array_equal(times(process, num_requests=count, seed=seed), counted)


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (CURVE | {"shape": [0, 0]}, "nothing would ever arrive"),
        (CURVE | {"gaps": {"dist": "quantiles", "values": [2, 1]}}, "quantiles never fall"),
        (CURVE | {"gaps": {"dist": "quantiles", "values": [0, 0]}}, "largest quantile is 0"),
        (CURVE | {"gaps": {"dist": "quantiles", "values": [0, 1], "at": [0, 0.5, 1]}}, "3 probabilities"),
        (CURVE | {"gaps": {"dist": "quantiles", "values": [0, 1], "at": [0.1, 1]}}, "rises from 0 to 1"),
        (CURVE | {"gaps": {"dist": "pareto"}}, "does not match any of the expected tags"),
        ({"process": "clients", "rate_rps": 8, "clients": []}, "at least 1"),
        (
            {"process": "clients", "rate_rps": 8, "clients": [{"share": 1, "count": 60_000}] * 2},
            "120,000 clients",
        ),
    ],
)
def test_processes_that_make_no_sense_are_refused(process, message):
    with pytest.raises(ValidationError, match=message):
        model(process)

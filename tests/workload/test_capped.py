"""A rate with a cap on what is in flight: what is due waits at its client."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simslm.api import load_scenario, simulate
from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import generate


def capped(small, cap, rate_rps, think_time_s=0.0, **workload):
    arrivals = {
        "process": "closed-loop",
        "concurrency": cap,
        "rate_rps": rate_rps,
        "think_time_s": think_time_s,
    }
    small["workload"] |= {"arrivals": arrivals, **workload}
    return small


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    cap=st.integers(1, 6),
    rate_rps=st.floats(1, 200),
    think_time_s=st.sampled_from([0.0, 0.0, 0.05]),
    seed=st.integers(0, 9),
)
def test_a_request_is_sent_when_it_is_due_and_a_client_is_free(cap, rate_rps, think_time_s, seed):
    """Sent at the later of when it is due and when, of those before it, all but ``cap`` - 1 are over."""
    small = {
        "name": "capped",
        "seed": seed,
        "model": "opt-1.3b",
        "device": "h200",
        "cost": {"roofline": {}},
        "workload": {
            "num_requests": 40,
            "prompt_tokens": {"dist": "uniform", "low": 1, "high": 400},
            "output_tokens": {"dist": "uniform", "low": 1, "high": 60},
        },
    }
    scenario = load_scenario(capped(small, cap, rate_rps, think_time_s))
    due_s = generate(scenario.workload, seed, 2048, None).arrival_s
    rows = simulate(scenario, with_intervals=False).requests
    busy: list[float] = []
    for due, sent, finished in zip(due_s, rows["arrival_s"], rows["finish_s"], strict=True):
        free = heapq.heappop(busy) if len(busy) == cap else 0.0
        assert sent == pytest.approx(max(due, free), abs=1e-9)
        heapq.heappush(busy, finished + think_time_s)


def test_requests_are_due_as_without_a_cap(small):
    """At a light load a cap changes nothing: the same draws as open Poisson arrivals."""
    poisson = small | {"workload": small["workload"] | {"arrivals": {"process": "poisson", "rate_rps": 3}}}
    free = simulate(load_scenario(poisson), with_intervals=False).requests
    many = simulate(load_scenario(capped(small, 50, 3)), with_intervals=False).requests
    assert np.array_equal(many["arrival_s"], free["arrival_s"])
    assert np.array_equal(many["finish_s"], free["finish_s"])


def test_nothing_is_sent_once_the_duration_is_over(small):
    rows = simulate(load_scenario(capped(small, 1, 100, duration_s=0.5)), with_intervals=False).requests
    sent = rows["arrival_s"].dropna()
    assert 0 < len(sent) < 50
    assert (sent < 0.5).all()


def test_clients_who_are_turned_away_or_leave_make_room(small):
    """Requests that can never be served, and clients who leave, free their place."""
    scenario = capped(small, 2, 50, timeout_s=0.05)
    scenario["max_model_len"] = 400
    summary = simulate(load_scenario(scenario), with_intervals=False).summary
    assert summary["requests"]["arrived"] == 50
    assert summary["requests"]["rejected"] > 0
    assert summary["requests"]["failed"] > 0


def test_a_rate_with_a_cap_can_be_checked(cases):
    scenario = load_scenario(cases / "traffic" / "rate-and-cap.yaml")
    rows = simulate(scenario, with_intervals=False).requests
    starts, ends = np.sort(rows["arrival_s"]), np.sort(rows["finish_s"])
    in_flight = np.arange(1, 65) - np.searchsorted(ends, starts, side="right")
    assert in_flight.max() <= 4
    assert 64 / starts[-1] == pytest.approx(5, rel=0.3)


@pytest.mark.parametrize(
    "more",
    [
        {"programs": {"kind": "conversation", "turns": 2, "think_time_s": 1}},
        {"classes": {"one": {}, "other": {}}},
    ],
)
def test_programs_and_classes_have_no_clients_with_a_rate(more, small):
    with pytest.raises(ScenarioError, match="rate_rps of a closed loop cannot"):
        load_scenario(capped(small, 2, 5, **more))
    with pytest.raises(ValueError, match="greater than 0"):
        Workload.model_validate(small["workload"] | {"arrivals": {"process": "closed-loop", "rate_rps": 0}})

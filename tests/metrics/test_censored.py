"""What a client that has left does not see is not recorded, and every latency says which requests it is taken over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.scenarios import deployments, examples, workloads

import simslm
from simslm.metrics.definitions import BY_KEY, ENERGY, LATENCIES
from simslm.metrics.glossary import markdown


def test_no_first_token_comes_after_its_client_has_left(cases: Path):
    scenario = simslm.load_scenario(cases / "traffic" / "timeout.yaml")
    result = simslm.simulate(scenario, with_intervals=False)
    rows, summary = result.requests, result.summary
    assert not (rows["ttft_s"] > 5.0).any()
    assert summary["ttft_s"]["max"] <= 5.0
    assert (summary["requests"]["failed"], summary["slo"]["attainment"]) == (390, 0.025)
    assert summary["population"]["ttft_s"] == rows["first_token_s"].notna().sum() == 83
    assert summary["population"]["e2e_s"] == (rows["status"] == "finished").sum() == 10
    assert summary["population"]["queue_s"] == rows["first_scheduled_s"].notna().sum()


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_latencies_keep_the_patience_of_clients(data: st.DataObject):
    requests = data.draw(workloads())
    if requests.patience_s is None:
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        requests.patience_s = rng.exponential(0.05, len(requests.prompt_tokens))
    columns = simulate(requests, data.draw(deployments(requests))).request_columns
    patience_s = requests.patience_s[columns["request_id"]]
    left_s = columns["arrival_s"] + patience_s
    for name in ("first_token_s", "finish_s"):
        assert not (columns[name] > left_s).any()


@pytest.mark.parametrize("metric", LATENCIES, ids=lambda metric: metric.key)
def test_a_latency_says_which_requests_it_is_taken_over(metric):
    assert metric.over
    assert metric.stated.endswith(f"; over {metric.over}")
    assert metric.stated in markdown()
    assert not ENERGY.over


def test_where_prefill_and_decode_are_apart_ttft_ends_with_the_prefill(cases: Path):
    """283.2 ms; the copy of 262 MB at 32 GB/s and the first decode iteration come after it, as the first gap."""
    result = simslm.simulate(simslm.load_scenario(cases / "traffic" / "pd.yaml"), with_intervals=False)
    assert result.summary["ttft_s"]["p50"] == pytest.approx(0.2832, abs=1e-3)
    assert result.summary["itl_s"]["max"] == pytest.approx(0.00819 + 0.0119, abs=2e-4)
    for words in ("DistServe", "llm-d", "copy", "one decode"):
        assert words in BY_KEY["ttft_s"].detail
        assert words in markdown()

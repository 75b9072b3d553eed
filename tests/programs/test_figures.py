"""Figures of programs, by hand and from the rows of a run."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.invariants import simulate as run
from support.programs import programs
from support.synthetic import LinearCost, deployment

from simslm.api import load_scenario, simulate
from simslm.metrics.files import requests_arrow
from simslm.workload.calls import Call

TICK = 2.0**-8
STEADY = LinearCost(TICK, 0.0, 0.0, 0.0, 0.0)


def test_the_times_of_a_chain_with_pauses():
    """JCT counts pauses, the active time does not."""
    chain = [Call(10, 4), Call(10, 6, after=[0], delay_s=0.5), Call(10, 2, after=[1], delay_s=0.25)]
    found = run(programs([chain], 3.0), deployment(cost=STEADY)).summary["programs"]
    assert found["jct_s"]["max"] == 12 * TICK + 0.75
    assert found["active_s"]["max"] == 12 * TICK
    assert (found["arrived"], found["finished"], found["failed"], found["requests_not_sent"]) == (1, 1, 0, 0)


def test_the_times_of_branches_that_overlap():
    """A long branch covers a short one with a pause; then a gap; then the join."""
    fork = [
        Call(10, 2),
        Call(10, 30, after=[0]),
        Call(10, 3, after=[0], delay_s=4 * TICK),
        Call(10, 5, after=[1, 2], delay_s=10 * TICK),
    ]
    found = run(programs([fork], 0.0), deployment(cost=STEADY)).summary["programs"]
    assert found["jct_s"]["max"] == 47 * TICK
    assert found["active_s"]["max"] == 37 * TICK


def test_programs_that_lose_a_request_have_failed():
    chain = [Call(10, 4), Call(9000, 6, after=[0]), Call(10, 2, after=[1]), Call(10, 2, after=[2])]
    good = [Call(10, 8)]
    found = run(programs([chain, good], [0.0, 0.0]), deployment(cost=STEADY)).summary["programs"]
    assert (found["arrived"], found["finished"], found["failed"], found["unfinished"]) == (2, 1, 1, 0)
    assert found["requests_not_sent"] == 2
    assert found["jct_s"]["max"] == 8 * TICK


@pytest.fixture
def agents(small):
    small["workload"] |= {
        "num_requests": 40,
        "arrivals": {"process": "poisson", "rate_rps": 4},
        "programs": {
            "kind": "agent",
            "calls": {"dist": "uniform", "low": 1, "high": 5},
            "tool_time_s": {"dist": "exponential", "mean": 1},
            "tool_tokens": 50,
        },
    }
    small["deployment"] = {"engine": {"prefix_caching": True}}
    return small


def test_the_figures_of_a_run_follow_from_its_rows(agents):
    result = simulate(load_scenario(agents))
    requests = result.requests
    times = requests.groupby("program").agg(first=("arrival_s", "min"), last=("finish_s", "max"))
    jct_s = (times["last"] - times["first"]).to_numpy()
    found = result.summary["programs"]
    assert found["finished"] == found["arrived"] == 40
    assert found["jct_s"]["p90"] == pytest.approx(np.percentile(jct_s, 90))
    assert found["active_s"]["mean"] == pytest.approx(requests["e2e_s"].sum() / 40)
    assert (requests["stage"] == requests.groupby("program").cumcount()).all()
    finish = requests.set_index("request_id")["finish_s"]
    for row in requests.to_dict("records"):
        assert list(row["depends_on"]) == ([row["request_id"] - 1] if row["stage"] else [])
        assert all(finish[parent] <= row["arrival_s"] for parent in row["depends_on"])


def test_the_columns_of_programs_are_in_the_file_and_nobody_elses(agents, tmp_path):
    result = simulate(load_scenario(agents))
    pq.write_table(requests_arrow(result.request_columns), tmp_path / "requests.parquet")
    table = pq.read_table(tmp_path / "requests.parquet")
    assert table["depends_on"].to_pylist()[:2] == [[], [0]] or table["stage"].to_pylist()[1] == 0
    assert table["program"].to_pylist() == sorted(table["program"].to_pylist())
    del agents["workload"]["programs"]
    plain = simulate(load_scenario(agents))
    assert {"program", "stage", "depends_on", "class"}.isdisjoint(plain.requests)
    assert "programs" not in plain.summary


def test_programs_are_the_same_whatever_serves_them(agents):
    """Another batch limit, another policy: who waits for whom, lengths and pauses stay, only times move."""
    one = simulate(load_scenario(agents))
    other = simulate(
        load_scenario(
            agents, ["deployment.engine.max_num_seqs=2", "deployment.engine.batching=prefill-first"]
        )
    )
    for name in ("program", "stage", "prompt_tokens", "output_tokens"):
        assert one.requests[name].tolist() == other.requests[name].tolist()
    assert one.summary["programs"]["jct_s"] != other.summary["programs"]["jct_s"]
    again = simulate(load_scenario(agents))
    assert again.summary == one.summary


def test_groups_keep_whole_programs(agents):
    """With two groups of replicas, no program is divided between them."""
    agents["deployment"] = {
        "num_devices": 2,
        "groups": [{"name": "left", "devices": [0]}, {"name": "right", "devices": [1], "share": 2}],
    }
    requests = simulate(load_scenario(agents)).requests
    assert requests.groupby("program")["replica"].nunique().tolist() == [1] * 40
    assert set(requests["replica"]) == {0, 1}

"""A gateway and the choice among groups in a scenario: what is chosen, what is refused, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from simslm.api import prepare, simulate
from simslm.errors import ScenarioError
from simslm.metrics.files import RunWriter
from simslm.scenario.load import load_scenario
from simslm.sim.ahead import served_by
from simslm.workload.streams import stream

CASCADE = """name: cascade
model: opt-125m
device: h200
cost: {roofline: {}}
workload:
  num_requests: 400
  arrivals: {process: poisson, rate_rps: 20}
  prompt_tokens: {dist: fixed, value: 64}
  output_tokens: {dist: uniform, low: 1, high: 40}
  prefixes: {count: 20, share: 0.5, tokens: 64}
deployment:
  sharing: mps
  gateway: response-cache
  group_router: {policy: cascade, acceptance: [0.6]}
  groups:
    - {name: small}
    - {name: large, model: opt-1.3b}
slo: {e2e_s: 1.0}
"""


def loaded(tmp_path: Path, overrides: dict[str, Any] | None = None) -> Any:
    path = tmp_path / "scenario.yaml"
    path.write_text(CASCADE, encoding="utf-8")
    return load_scenario(path, overrides=overrides)


def test_a_run_tells_what_the_gateway_answered_and_what_each_group_was_asked(tmp_path):
    scenario = loaded(tmp_path)
    with RunWriter(tmp_path / "run") as writer:
        result = simulate(scenario, sink=writer, with_intervals=False)
        writer.finish(result)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    requests = pq.read_table(tmp_path / "run" / "requests.parquet").to_pandas()
    at_gateway, again = requests["replica"].isna(), requests["escalations"] > 0
    assert summary["gateway"]["answered"] == at_gateway.sum() > 50
    assert summary["gateway"]["answered_share"] == at_gateway.mean()
    small, large = summary["group_routing"]["groups"]
    assert small == {"name": "small", "requests": small["requests"], "answered": 0, "escalated": 0} | {
        "answered": (requests["replica"] == 0).sum(),
        "escalated": again.sum(),
    }
    assert large["requests"] == large["answered"] == again.sum() == (requests["replica"] == 1).sum()
    assert summary["group_routing"]["escalations"] == again.sum() > 50
    held_back = requests[requests["replica"] == 0]
    assert (held_back["ttft_s"] == held_back["e2e_s"]).all()


def test_nothing_is_told_where_nothing_is_stated(tmp_path):
    result = simulate(
        loaded(tmp_path, {"deployment.gateway": None, "deployment.group_router": None}), with_intervals=False
    )
    assert not {"gateway", "group_routing"} & result.summary.keys()
    assert "escalations" not in result.requests.columns


def test_stated_shares_are_the_shares_that_are_drawn_without(tmp_path):
    """A draw for each request from the stream of the groups, as ever."""
    plain = {"deployment.gateway": None, "deployment.groups.1.share": 2.0}
    without, stated = (
        simulate(loaded(tmp_path, plain | {"deployment.group_router": router}), with_intervals=False)
        for router in (None, "shares")
    )
    assert without.requests.equals(stated.requests)
    ends = np.cumsum(np.array([1.0, 2.0]) / 3.0)[:-1]
    drawn = np.searchsorted(ends, stream(0, "groups").random(400), side="right")
    assert without.requests["replica"].tolist() == drawn.tolist()


def test_which_groups_serve_each_request_is_known_ahead_and_comes_true(tmp_path):
    plain = {"deployment.gateway": None}
    prepared = prepare(loaded(tmp_path, plain))
    served = served_by(prepared.requests, prepared.deployment())
    assert served is not None
    result = simulate(loaded(tmp_path, plain), with_intervals=False)
    groups = result.summary["group_routing"]["groups"]
    assert served.sum(axis=1).tolist() == [group["requests"] for group in groups]
    assert np.array_equal(served[1], result.request_columns["replica"] == 1)
    looking = prepare(loaded(tmp_path, {"deployment.group_router": "soonest"}))
    assert served_by(looking.requests, looking.deployment()) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"deployment.groups": None},
            "scenario.yaml:11: deployment: group_router: chooses among groups, and requests can go to one only",
        ),
        (
            {"deployment.groups.1.share": 2.0},
            "group 'large': share is what group_router: shares goes by, not cascade",
        ),
        ({"deployment.group_router": "cascde"}, "did you mean 'cascade'?"),
        ({"deployment.group_router.acceptance": [1.5]}, "less than or equal to 1"),
        ({"deployment.group_router.acceptance": []}, "expected at least 1 in the list, got 0"),
        ({"deployment.gateway": {"policy": "response-cache", "size": 3}}, "size"),
        ({"deployment.gatway": "response-cache"}, "did you mean 'gateway'?"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_reason(tmp_path, changes, said):
    with pytest.raises(ScenarioError) as refused:
        loaded(tmp_path, changes)
    assert said in str(refused.value)


def test_a_cache_of_responses_needs_to_know_equal_prompts(tmp_path):
    with pytest.raises(
        ScenarioError, match=r"scenario.yaml:13: response-cache finds equal prompts .* has none"
    ):
        prepare(loaded(tmp_path, {"workload.prefixes": None}))

"""Claims are read strictly, both sides of each can be run, and the report says what came out."""

from __future__ import annotations

import re

import pytest
from ruamel.yaml import YAML
from systems.claim import CLAIMS, SCENARIOS, Claim, read_claim, read_claims
from systems.measuring import Measured, measured
from systems.report import markdown, ratio, sentence
from systems.roofline import roofline_section

from simslm.api import load_scenario, simulate
from simslm.errors import SimslmError, UsageError

CLAIMED = [claim for claim in read_claims() if claim.scenario is not None]
FEW = {"workload.num_requests": 12}


def with_figures(path, *figures, **changes) -> Claim:
    """A claim about the scenario at ``path``: prefill-first with a batch limit against one sequence at a time."""
    return Claim.model_validate(
        {
            "row": 7,
            "system": "Many",
            "source": "Nobody (2024), §1",
            "mechanism": "A batch.",
            "conditions": "none",
            "scenario": str(path),
            "baseline": {"name": "one", "set": {"deployment.engine.max_num_seqs": 1}},
            "figures": figures,
            "reason": "it is made up",
            "seeds": 2,
        }
        | changes
    )


@pytest.fixture
def small_path(small, tmp_path):
    path = tmp_path / "small.yaml"
    small["workload"]["num_requests"] = 300
    small["deployment"] = {"engine": {"batching": {"policy": "prefill-first"}, "max_num_seqs": 8}}
    YAML().dump(small, path)
    return path


def test_every_scenario_of_the_systems_is_claimed_and_no_other():
    assert {claim.scenario for claim in CLAIMED} == {path.name for path in SCENARIOS.glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMED, ids=lambda claim: claim.system)
def test_a_claim_s_two_sides_run_and_differ(claim):
    assert claim.baseline is not None
    for compared in claim.figures:
        changed = {**compared.set, **FEW}
        system = load_scenario(claim.path, changed)
        baseline = load_scenario(claim.path, {**claim.baseline.set, **changed})
        assert system.model_dump() != baseline.model_dump()
    for scenario in (system, baseline):
        counts = simulate(scenario, with_intervals=False).summary["requests"]
        assert counts["finished"] == counts["arrived"] > 0


@pytest.mark.parametrize("claim", CLAIMED, ids=lambda claim: claim.system)
def test_a_scenario_serves_the_table_s_traffic_on_its_model_and_device_or_says_what_it_changes(claim):
    """The rate and the number of requests are its own."""
    mine, fixed = load_scenario(claim.path), load_scenario(SCENARIOS / "sarathi-serve.yaml")
    same = all(
        getattr(each, name) == getattr(other, name)
        for each, other, names in (
            (mine, fixed, ("model", "device", "dtype", "max_model_len")),
            (mine.workload, fixed.workload, ("prompt_tokens", "output_tokens")),
        )
        for name in names
    )
    assert same or claim.setup


@pytest.mark.slow
def test_a_figure_is_the_ratio_of_both_sides_under_the_same_seeds(small_path):
    latency = {"name": "E2E", "published": "", "of": "e2e_s.mean", "better": "low", "at_least": 1.0}
    rate = {"name": "rate", "published": "", "of": "throughput.requests_per_s"}
    claim = with_figures(small_path, latency, rate)
    ((e2e, served),) = measured([claim], jobs=1)
    for seed in range(2):
        one, many = (
            simulate(load_scenario(small_path, {"seed": seed, **changed}), with_intervals=False).summary
            for changed in ({"deployment.engine.max_num_seqs": 1}, {})
        )
        assert e2e.ratios[seed] == one["e2e_s"]["mean"] / many["e2e_s"]["mean"]
        assert (
            served.ratios[seed] == many["throughput"]["requests_per_s"] / one["throughput"]["requests_per_s"]
        )
    assert e2e.bounds[0] <= e2e.ratio <= e2e.bounds[1]
    assert e2e.holds
    assert served.holds is None


@pytest.mark.slow
def test_a_capacity_is_the_highest_rate_within_the_bounds(small_path):
    bound = {"capacity": "workload.arrivals.rate_rps", "within": ["e2e_s.p99 <= 1"]}
    claim = with_figures(small_path, {"name": "capacity", "published": "", **bound})
    ((capacity,),) = measured([claim], jobs=1)
    rate = capacity.system[1]
    for factor, within in ((1.0, True), (1.021, False)):
        at_rate = load_scenario(small_path, {"seed": 1, "workload.arrivals.rate_rps": factor * rate})
        found = simulate(at_rate, with_intervals=False).summary["e2e_s"]["p99"]
        assert (found <= 1) == within
    assert capacity.ratio > 1


@pytest.mark.slow
def test_a_capacity_by_the_slo_too(small_path):
    claim = with_figures(
        small_path, {"name": "capacity", "published": "", "capacity": "workload.arrivals.rate_rps"}
    )
    ((capacity,),) = measured([claim], jobs=1)
    met = load_scenario(small_path, {"workload.arrivals.rate_rps": capacity.system[0]})
    assert simulate(met, with_intervals=False).summary["slo"]["attainment"] >= 0.9


@pytest.mark.slow
def test_a_figure_that_has_no_value_is_no_ratio(small_path):
    claim = with_figures(small_path, {"name": "preemptions", "published": "", "of": "kv.preemptions"})
    with pytest.raises(SimslmError, match=r"kv\.preemptions is 0"):
        measured([claim], jobs=1)


@pytest.mark.slow
def test_the_report_says_the_ratio_the_bound_and_how_to_run_it(small_path):
    good = {"name": "E2E", "published": "2 ×", "of": "e2e_s.mean", "better": "low", "at_least": 1.0}
    bad = good | {"name": "TPOT", "of": "tpot_s.mean", "at_least": 50}
    claim = with_figures(small_path, good, bad, setup="another model")
    found = measured([claim], jobs=1)
    text = markdown([claim], found)
    assert f"| 7 | Many | one | E2E | 2 × | ÷ {found[0][0].ratio:.2f} (" in text
    assert "≥ 50 **missed**" in text
    assert sentence(found[0]).startswith("1 of 2 ratios with a bound hold it. Missed: TPOT (")
    assert "`--set deployment.engine.max_num_seqs=1`" in text
    assert "set up: another model" in text
    assert len(set(re.findall(r"^\|.*\|$", text, re.MULTILINE))) == 4
    assert all(line.count("|") == 10 for line in text.splitlines() if line.startswith("| 7"))


def test_the_roofline_has_every_operator_with_its_bound_and_the_shares_of_an_iteration_add_up():
    text = roofline_section()
    phases = text.split("\n### ")[1:]
    assert [phase.split(":")[0] for phase in phases] == ["prefill", "decode", "decode"]
    for phase in phases:
        rows = [line.split(" | ") for line in phase.splitlines() if line.endswith("% |")]
        assert {"attention", "down_proj", "lm_head"} < {row[0].removeprefix("| ") for row in rows}
        assert {row[5] for row in rows} <= {"memory", "compute"}
        assert abs(sum(float(row[7].removesuffix("% |")) for row in rows) - 100) < 1
    assert "| down_proj | 32 | 241 GFLOP | 184.00 MiB | 1,247 | compute |" in phases[0]


def test_more_is_times_and_less_is_divided_by():
    figures = ({"name": "x", "published": "", "of": "e2e_s.mean", "better": way} for way in ("high", "low"))
    claim = with_figures("x", *figures)
    high, low = (Measured(compared, (2.0, 2.0), (1.0, 1.0)) for compared in claim.figures)
    assert ratio(high) == "× 2.00"
    assert ratio(low) == "÷ 0.50 (+100 %)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 3}, "ratio: Extra inputs"),
        ({"of": "itl_s.p98"}, "no figure 'itl_s.p98' in summary.json .did you mean"),
        ({"capacity": "x"}, "state either of"),
        ({"within": ["itl_s.p99 <= 1"]}, "within says what a capacity is"),
        ({"of": None, "capacity": "x", "within": ["itl_s.p99 < 1"]}, "within: expected a figure"),
    ],
)
def test_a_wrong_figure_is_refused_with_its_place(change, message, tmp_path):
    claim = with_figures("x.yaml", {"name": "x", "published": "", "of": "itl_s.p99"}).model_dump(mode="json")
    claim["figures"][0] |= change
    path = tmp_path / "claim.yaml"
    YAML().dump(claim, path)
    with pytest.raises(UsageError, match=rf"claim\.yaml: .*{message}"):
        read_claim(path)


def test_a_claim_is_whole_or_stands_elsewhere():
    whole = with_figures("x.yaml", {"name": "x", "published": "", "of": "itl_s.p99"}).model_dump()
    with pytest.raises(ValueError, match="state scenario, baseline, figures, conditions and reason"):
        Claim.model_validate(whole | {"reason": ""})
    with pytest.raises(ValueError, match="elsewhere stands for"):
        Claim.model_validate(whole | {"elsewhere": "make paper"})


def test_a_claim_that_is_not_there_names_the_nearest():
    with pytest.raises(UsageError, match=r"no claim 'sarathi' .did you mean 'sarathi-serve'"):
        read_claims(CLAIMS, ["sarathi"])

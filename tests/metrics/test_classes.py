"""Figures by class are those of the class's own rows; SLOs and fairness by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from simslm.api import load_scenario, prepare, simulate
from simslm.errors import ScenarioError
from simslm.metrics.classes import Classes, ClassTallies, fairness_figures, jain
from simslm.metrics.divided import BY_CLASS
from simslm.metrics.figure_paths import figures_of, metric_of, title
from simslm.metrics.files import RunWriter
from simslm.search.objectives import figure, goals
from simslm.search.run_length import resized
from simslm.sim.log import FAILED, FINISHED, REJECTED


def columns() -> dict[str, np.ndarray]:
    """Six requests: two fast, one slow, one without a second token, one that failed, one rejected."""
    nan = math.nan
    return {
        "request_id": np.arange(6),
        "arrival_s": np.arange(6.0),
        "status": np.array([FINISHED, FINISHED, FINISHED, FINISHED, FAILED, REJECTED]),
        "prompt_tokens": np.array([10, 20, 30, 40, 50, 60]),
        "output_tokens": np.array([10, 20, 30, 1, 50, 60]),
        "ttft_s": np.array([0.1, 0.2, 3.0, 0.4, nan, nan]),
        "tpot_s": np.array([0.01, 0.02, 0.03, nan, nan, nan]),
        "e2e_s": np.array([1.0, 2.0, 10.0, 0.4, nan, nan]),
        "queue_s": np.array([0.0, 0.0, 2.0, 0.0, 1.0, nan]),
        "preemptions": np.array([0, 1, 0, 0, 2, 0]),
        "recomputed_tokens": np.array([0, 7, 0, 0, 0, 0]),
        "cached_prompt_tokens": np.array([0, 16, 0, 8, 0, 0]),
    }


def split(of: list[int], *bounds: dict) -> Classes:
    names = tuple("abc"[: len(bounds)])
    return Classes(names, np.array(of), bounds)


def tallied(classes: Classes) -> ClassTallies:
    """The requests counted in two parts."""
    tallies = ClassTallies(classes)
    for part in (slice(0, 2), slice(2, None)):
        tallies.take({name: column[part] for name, column in columns().items()})
    return tallies


def test_each_request_is_held_to_the_bounds_of_its_class():
    """a: TTFT within 0.3 s; b: E2E within 0.5 s, met by request 3 alone; c has no bound to meet."""
    classes = split([0, 0, 1, 1, 2, 0], {"ttft_s": 0.3, "tpot_s": None}, {"e2e_s": 0.5}, {})
    whole = tallied(classes).slo(10.0)
    assert whole["attainment"] == 3 / 5
    assert whole["goodput_rps"] == 0.3
    assert whole["goodput_output_tokens_per_s"] == 3.1
    parts = tallied(classes).figures(10.0)
    assert parts["a"]["slo"]["attainment"] == 2 / 3
    assert parts["b"]["slo"]["attainment"] == 1 / 2
    assert parts["c"]["slo"]["attainment"] is None
    assert fairness_figures(parts)["min_attainment"] == 1 / 2
    assert fairness_figures(parts)["attainment_gap"] == pytest.approx(1 / 6)


def test_without_any_bound_nothing_is_attained():
    classes = split([0] * 6, {"ttft_s": None})
    assert tallied(classes).slo(10.0)["attainment"] is None
    assert fairness_figures(tallied(classes).figures(10.0))["min_attainment"] is None


def test_figures_by_class_are_those_of_its_rows():
    classes = split([0, 1, 0, 1, 1, 1], {}, {})
    parts = tallied(classes).figures(10.0)
    assert parts["a"]["requests"] == {
        "arrived": 2,
        "finished": 2,
        "rejected": 0,
        "failed": 0,
        "unfinished": 0,
    }
    assert parts["b"]["requests"] == {
        "arrived": 4,
        "finished": 2,
        "rejected": 1,
        "failed": 1,
        "unfinished": 0,
    }
    assert parts["a"]["throughput"]["output_tokens_per_s"] == 4.0
    assert parts["b"]["ttft_s"]["mean"] == pytest.approx(0.3)
    assert parts["b"]["kv"] == {
        "preemptions": 3,
        "recomputed_tokens": 7,
        "recomputed_share": 7 / (60 - 24 + 21 + 7),
        "cached_prompt_share": 24 / 60,
    }
    assert parts["a"]["service_tokens_per_s"] == 40 / 11
    assert parts["b"]["service_tokens_per_s"] == 21 / 2.4


def test_jains_index():
    assert jain([3.0, 3.0, 3.0]) == 1.0
    assert jain([5.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain([1.0, 2.0]) == 0.9
    assert jain([0.0]) is None
    assert jain([]) is None


def test_a_class_without_requests_is_no_witness_and_one_without_any_finished_is():
    parts = tallied(split([0, 0, 0, 0, 1, 1], {}, {}, {})).figures(10.0)
    assert parts["c"]["requests"]["arrived"] == 0
    assert parts["c"]["ttft_s"]["p99"] is None
    assert fairness_figures(parts)["jain"] == 0.5


@pytest.fixture
def divided(small):
    """Interactive traffic with a bound of its own beside batch work without one."""
    small["slo"] = {"ttft_s": 0.05}
    small["workload"] |= {
        "num_requests": 300,
        "arrivals": {"process": "poisson", "rate_rps": 60},
        "classes": {
            "chat": {"share": 2, "priority": -1, "slo": {"ttft_s": 0.02, "attainment": 0.5}},
            "batch-2": {"output_tokens": {"dist": "fixed", "value": 300}},
        },
    }
    small["deployment"] = {"engine": {"max_num_seqs": 16, "scheduling_policy": "priority"}}
    return small


def test_a_run_in_classes(divided, tmp_path):
    """In the files and in the summary, with the priority that tells."""
    result = simulate(load_scenario(divided))
    requests, parts = result.requests, result.summary["classes"]
    assert set(requests["class"]) == {"chat", "batch-2"}
    for name, bound in (("chat", 0.02), ("batch-2", 0.05)):
        mine = requests[requests["class"] == name]
        assert parts[name]["requests"]["arrived"] == len(mine)
        assert parts[name]["ttft_s"]["p99"] == pytest.approx(float(np.nanpercentile(mine["ttft_s"], 99)))
        assert parts[name]["slo"]["attainment"] == (mine["ttft_s"] <= bound).mean()
    bounds = np.where(requests["class"] == "chat", 0.02, 0.05)
    met = (requests["ttft_s"].to_numpy() <= bounds).mean()
    assert result.summary["slo"]["attainment"] == met
    assert parts["chat"]["queue_s"]["mean"] < 0.2 * parts["batch-2"]["queue_s"]["mean"]
    known = [
        figure(parts[name], metric.key) for name in parts for metric in BY_CLASS if not metric.has_statistics
    ]
    assert all(value is not None for value in known)
    with RunWriter(tmp_path / "run") as writer:
        for index, window, table in result.windows:
            writer.take(index, window, table)
        writer.finish(result)
    assert pq.read_table(tmp_path / "run" / "requests.parquet")["class"].to_pylist() == list(
        requests["class"]
    )


def test_classes_change_nothing_where_there_is_one_like_the_whole(small):
    """One class that takes all arrivals and states nothing but its name: the arrivals are the same."""
    whole = simulate(load_scenario(small))
    small["workload"]["classes"] = {"all": {}}
    one = simulate(load_scenario(small))
    assert one.requests["arrival_s"].tolist() == whole.requests["arrival_s"].tolist()
    assert one.summary["slo"] == one.summary["classes"]["all"]["slo"]
    assert one.summary["ttft_s"] == one.summary["classes"]["all"]["ttft_s"]
    assert one.summary["fairness"]["jain"] == 1.0
    assert "classes" not in whole.summary
    assert "class" not in whole.requests


def test_every_figure_of_a_class_is_known_by_its_path(divided):
    divided["workload"]["classes"]["chat"]["programs"] = {
        "kind": "conversation",
        "turns": 2,
        "think_time_s": 0,
    }
    summary = simulate(load_scenario(divided)).summary
    paths = figures_of(("chat", "batch-2"), programs=True)
    assert len(set(paths)) == len(paths)
    assert not [path for path in paths if metric_of(path) is None or not title(path)]
    nowhere = {path for path in paths if figure(summary, path) is None}
    assert not {path for path in nowhere if not path.startswith(("energy", "economics"))}
    assert title("classes.batch-2.ttft_s.p99") == "TTFT p99 of batch-2"


def test_a_search_may_bound_a_class(divided):
    divided["search"] = {
        "space": {"deployment.engine.max_num_seqs": [4, 64]},
        "objectives": {"classes.batch-2.throughput.output_tokens_per_s": "max", "fairness.jain": "max"},
        "constraints": ["classes.chat.ttft_s.p99 <= 0.5", "classes.batch-2.slo.attainment >= 0.9"],
    }
    scenario = load_scenario(divided)
    assert scenario.search is not None
    assert "classes.chat.ttft_s.p99" in goals(scenario, scenario.search).paths
    divided["search"]["constraints"] = ["classes.chatt.ttft_s.p99 <= 0.5"]
    wrong = load_scenario(divided)
    assert wrong.search is not None
    with pytest.raises(ScenarioError, match=r"did you mean 'classes\.chat\.ttft_s\.p99'"):
        goals(wrong, wrong.search)


def test_what_a_search_finds_about_a_class(divided):
    """The point that keeps the bound of the class is chosen over the one that does not."""
    import simslm

    divided["workload"] |= {"num_requests": 100}
    divided["workload"]["prompt_tokens"] = divided["workload"]["prompt_tokens"] | {
        "max": 1500
    }  # all can be served
    divided["search"] = {
        "space": {"deployment.engine.max_num_seqs": [2, 64]},
        "objectives": {"classes.chat.ttft_s.p99": "min"},
        "slo": "ignored",
        "constraints": ["classes.chat.ttft_s.p99 <= 0.2"],
    }
    found = simslm.search(load_scenario(divided)).frontier
    (point,) = found["points"]
    assert point["parameters"]["deployment.engine.max_num_seqs"] == 64
    assert point["objectives"]["classes.chat.ttft_s.p99"]["value"] <= 0.2


def test_a_shorter_trial_has_less_of_every_class(divided, tmp_path):
    """A trace in full, so many requests, so many seconds: a quarter of each."""
    rows = "".join(f"{i},20,5\n" for i in range(40))
    (tmp_path / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)
    rate = {"process": "deterministic", "rate_rps": 4}
    divided["workload"]["classes"] |= {
        "old": {"replay": {"format": "csv", "path": "trace.csv"}},
        "some": {"arrivals": rate, "num_requests": 80},
        "timed": {"arrivals": rate, "duration_s": 10},
    }
    (tmp_path / "scenario.json").write_text(json.dumps(divided))
    scenario = load_scenario(tmp_path / "scenario.json")
    whole = prepare(scenario).requests
    short = prepare(
        load_scenario(tmp_path / "scenario.json", resized(scenario, 0.25, lambda: whole))
    ).requests
    assert whole.class_of is not None
    assert short.class_of is not None
    counts = [np.bincount(each, minlength=5).tolist() for each in (whole.class_of, short.class_of)]
    assert [count[2:] for count in counts] == [[40, 80, 40], [10, 20, 10]]
    assert sum(counts[1][:2]) == 75

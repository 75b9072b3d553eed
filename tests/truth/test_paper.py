"""The paper's scenarios load and run; their points are compared like measured runs; the page says what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from truth import paper
from truth.posed import posed

from simslm.api import load_scenario, prepare, simulate
from simslm.errors import SimslmError, UsageError
from simslm.runs.lengths import read_lengths
from simslm.search.space import space

SCENARIOS = sorted(paper.SCENARIOS.glob("*.yaml"))
POINT = {"num_requests": 8, "arrivals": {"process": "all-at-once"}}
DEPLOYED = {"sharing": "mps", "engine": {"batching": "prefill-first", "max_num_seqs": 4}}


@pytest.fixture
def small_path(small, tmp_path) -> Path:
    """Two batch limits by one and thirty replicas, of which the latter do not fit."""
    small |= {
        "workload": small["workload"] | POINT,
        "deployment": DEPLOYED,
        "search": {
            "space": {
                "deployment.replicas_per_device": [1, 60],
                "deployment.engine.max_num_seqs": [2, 4],
            },
            "objectives": {"itl_s.mean": "min"},
        },
    }
    path = tmp_path / "small.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(small, file)
    return path


def test_there_is_a_scenario_of_each_model_and_question():
    names = {path.stem for path in SCENARIOS}
    assert {f"sweep-{model}" for model in paper.FAMILY} <= names
    assert {f"replicas-{model}" for model in paper.REPLICATED} <= names
    assert {f"advisor-{model}" for model in paper.TRACES} <= names


@pytest.mark.slow
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_prepares_runs_and_can_be_searched(path):
    """Ten requests of it; every value of its search is one that its key takes."""
    scenario = load_scenario(path, {"workload.num_requests": 10})
    assert prepare(scenario).groups[0].memory.num_gpu_blocks > 0
    assert scenario.name == f"paper-{path.stem}"
    assert scenario.deployment.engine.disable_async_output_proc is False
    assert scenario.search is not None
    assert len(space(scenario, scenario.search)) >= 10
    summary = simulate(scenario, with_intervals=False).summary
    assert summary["requests"]["finished"] == 10
    calibrated = scenario.model in paper.TRACES
    assert (scenario.cost.trace is not None) == calibrated
    assert ("not measured" in path.read_text(encoding="utf-8")) != calibrated


@pytest.mark.parametrize(("model", "file"), [("opt-2.7b", "opt"), ("llama-2-7b", "llama")])
def test_drawn_conversations_are_as_long_as_the_reconstructed_ones(truth, model, file):
    """Means and 95th percentiles of 2,000 draws: within 8 %, about two standard errors of the widest."""
    drawn = prepare(load_scenario(paper.SCENARIOS / f"replicas-{model}.yaml")).requests
    listed = read_lengths(truth / "h100-vllm" / f"sharegpt_lengths_{file}.csv")
    for ours, theirs in zip((drawn.prompt_tokens, drawn.output_tokens), listed, strict=True):
        assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.08)
        assert np.percentile(ours, 95) == pytest.approx(np.percentile(theirs, 95), rel=0.08)


@pytest.mark.slow
def test_points_become_runs_without_measurements(small_path):
    (found,) = posed([small_path], jobs=1)
    assert found.source == "roofline"
    assert [each.run.max_num_seqs for each in found.comparisons] == [2, 4]
    assert [name for name, _ in found.infeasible] == [
        "replicas_per_device 60, max_num_seqs 2",
        "replicas_per_device 60, max_num_seqs 4",
    ]
    assert all("memory" in reason for _, reason in found.infeasible)
    second = found.comparisons[1]
    alone = simulate(load_scenario(small_path, {"deployment.replicas_per_device": 1}), with_intervals=False)
    assert second.simulated["output_tokens_per_s"] == alone.summary["throughput"]["output_tokens_per_s"]
    assert second.simulated["host_gap"] == alone.summary["utilization"]["host_gap"]
    assert second.error == {}
    assert second.run.workload == "sharegpt"
    assert second.run.batching == "prefill-first"
    assert second.run.replicas == 1
    assert second.run.num_gpu_blocks == alone.summary["kv"]["num_gpu_blocks"]
    assert second.run.output_tokens == pytest.approx(alone.request_columns["output_tokens"].mean())


@pytest.mark.slow
def test_a_scenario_without_a_search_or_with_hopeless_requests_is_refused(small_path):
    text = small_path.read_text(encoding="utf-8")
    small_path.write_text(text.partition("search:")[0], encoding="utf-8")
    with pytest.raises(UsageError, match="no search section"):
        posed([small_path], jobs=1)
    longer = text.replace("mean: 200", "mean: 1000").replace("p95: 600", "p95: 3500")
    small_path.write_text(longer.replace("num_requests: 8", "num_requests: 60"), encoding="utf-8")
    with pytest.raises(SimslmError, match="not all of its 60 requests can be served"):
        posed([small_path], jobs=1)


@pytest.fixture(scope="module")
def short() -> list:
    """A sweep and a replication, of few requests, as the page's evidence."""
    from truth import posed as room

    found = []
    for name in ("sweep-opt-2.7b", "sweep-opt-125m", "replicas-opt-2.7b"):
        path = paper.SCENARIOS / f"{name}.yaml"
        points = [dict(point) for point in room._points(path)]
        answers = [
            room._answer(path, point | {"workload.num_requests": 30})
            for point in points
            if point["deployment.engine.max_num_seqs"] in (1, 32, 96, 128, 256, 384)
        ]
        source = room._source(load_scenario(path))
        found.append(room.Posed(path, source, tuple(answers), (("too many", "no memory"),)))
    return found


@pytest.fixture
def no_others(monkeypatch):
    """The page of the models that :func:`short` has."""
    monkeypatch.setattr(paper, "FAMILY", ("opt-125m", "opt-2.7b"))


@pytest.mark.slow
def test_without_a_table_the_page_says_so_and_measured_is_empty(short, no_others):
    page = paper.view(short, ())
    assert page.notes == ["No table of measured runs was found: what was measured is left empty."]
    measured = [row[2] for section in page.sections for row in section.rows]
    assert len(measured) > 20
    assert set(measured) == {""}
    assert all(row[3] for section in page.sections for row in section.rows if not row[1])
    text = paper.markdown(page)
    assert f"**{page.notes[0]}**" in text
    assert page.sources == [("calibrated", "opt-2.7b"), ("roofline", "opt-125m")]
    assert "Points that do not fit the device's memory: replicas-opt-2.7b: too many." in text
    for section in page.sections:
        assert f"## {section.title}\n" in text


def test_with_a_table_both_are_drawn_and_the_sentence_counts_the_bounds(short, no_others):
    """What was measured is taken to be what was simulated: every difference is 0."""
    recorded = [
        replace(each, run=replace(each.run, measured=each.simulated))
        for one in short
        for each in one.comparisons
    ]
    page = paper.view(short, recorded)
    assert page.notes == []
    rows = [row for section in page.sections for row in section.rows if row[2]]
    assert len(rows) > 20
    assert {row[4] for row in rows} <= {"0", "+0.0 %", "+0.0 points", "-0.0 points"}
    (gain,) = [row for row in rows if row[0] == "2 × 128 over 1 × 384"]
    assert gain[-1] in ("inside", "outside")
    judged = sum(row[-1] != "" for row in rows)
    assert page.sentence.startswith(f"{sum(row[-1] == 'inside' for row in rows)} of {judged} figures")
    plot = page.sections[0].plots[0]
    assert [trace["mode"] for trace in plot.figure["data"]] == ["lines+markers", "markers"]
    assert ("**outside**" in paper.markdown(page)) == (gain[-1] == "outside")

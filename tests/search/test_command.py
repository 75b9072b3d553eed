"""``simslm search`` at the terminal: what it prints, how it ends, and errors with the line they are on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli.conftest import here, simslm  # noqa: F401

SCENARIO = """\
name: asked
model: opt-1.3b
device: h200
cost: {roofline: {}}
workload:
  num_requests: 30
  arrivals: {process: all-at-once}
  prompt_tokens: {dist: fixed, value: 100}
  output_tokens: {dist: uniform, low: 1, high: 40}
search:
  space:
    deployment.engine.max_num_seqs: [2, 8]
  objectives:
    throughput.output_tokens_per_s: max
    itl_s.p50: min
  constraints:
    - e2e_s.max <= 100
"""


@pytest.fixture
def path(here: Path) -> Path:  # noqa: F811
    place = here / "asked.yaml"
    place.write_text(SCENARIO, encoding="utf-8")
    return place


def test_it_prints_the_frontier_and_writes_its_files(simslm, path, here):  # noqa: F811
    ended = simslm("search", "asked.yaml", "--jobs", "1")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("Choose max_num_seqs 8: ")
    assert "It has the highest output token throughput of the 2 points that keep " in ended.out
    assert "2 points tried: 2 keep all constraints, 2 of them on the frontier; " in ended.out
    assert " (10 trials, 300 requests)" in ended.out
    head = next(line for line in ended.out.splitlines() if line.lstrip().startswith("max_num_seqs"))
    assert head.split()[-2:] == ["rejected", "failed"]
    assert "simslm simulate asked.yaml --set deployment.engine.max_num_seqs=8" in ended.out
    assert "from: roofline, not measured" in ended.out
    directory = here / "runs" / "asked"
    assert sorted(file.name for file in directory.iterdir()) == [
        "frontier.json", "report.html", "trials.jsonl", "trials.parquet"
    ]  # fmt: skip
    frontier = json.loads((directory / "frontier.json").read_text(encoding="utf-8"))
    assert [point["parameters"] for point in frontier["points"]] == [
        {"deployment.engine.max_num_seqs": 8},
        {"deployment.engine.max_num_seqs": 2},
    ]
    assert frontier["best"] == 1
    assert str(here) not in json.dumps(frontier)
    trials = pq.read_table(directory / "trials.parquet").to_pylist()
    assert [row["trial"] for row in trials] == list(range(10))
    assert {row["seed"] for row in trials} == {0, 1, 2, 3, 4}
    values = {(row["point"], row["seed"]): row["itl_s.p50"] for row in trials}
    for point in frontier["points"]:
        for each in point["runs"]:
            assert each["values"]["itl_s.p50"] == values[point["point"], each["seed"]]


def test_an_impossible_search_says_why_and_exits_4(simslm, path, here):  # noqa: F811
    ended = simslm("search", "asked.yaml", "--jobs", "1", "--set", "search.constraints=['e2e_s.max <= 0.001']",
                   "--set", "search.space.deployment.engine.max_num_seqs=[2,8,4096]")  # fmt: skip
    assert ended.code == 4
    *_, complaint = ended.err.splitlines()
    assert complaint.startswith(
        "simslm: none of 3 points is feasible; 1 infeasible (deployment.engine: max_num_batched"
    )
    assert "2 of 2 break e2e_s.max <= 0.001, the closest with " in complaint
    assert "nearest: deployment.engine.max_num_seqs 8 (misses e2e_s.max <= 0.001 by " in complaint
    assert "see it with: simslm simulate asked.yaml --set " in complaint
    frontier = json.loads((here / "runs/asked/frontier.json").read_text(encoding="utf-8"))
    assert (frontier["points"], frontier["hypervolume"]) == ([], None)
    page = (here / "runs/asked/report.html").read_text(encoding="utf-8")
    assert "No point is feasible" in page
    assert "The nearest point" in page


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("max_num_seqs: [2, 8]", "max_num_seq: [2, 8]",
         "asked.yaml:12: search.space: deployment.engine.max_num_seq: unknown key (did you mean 'max_num_seqs'?)"),
        ("[2, 8]", "[2, eight]",
         "asked.yaml:12: search.space: deployment.engine.max_num_seqs: input should be a valid integer, got 'eight'"),
        ("itl_s.p50", "latency",
         "asked.yaml:15: search.objectives: no figure 'latency' in summary.json"),
        ("- e2e_s.max <=", "- e2es.max <=",
         "asked.yaml:17: search.constraints: no figure 'e2es.max' in summary.json (did you mean 'e2e_s.max'?)"),
        ("- e2e_s.max <= 100", "- e2e_s.max < 100",
         "asked.yaml:16: search.constraints: expected a path, <= or >=, and a number, got 'e2e_s.max < 100'"),
        ("[2, 8]", "{low: 2, high: 8}",
         "asked.yaml:10: search: grid tries every combination, and deployment.engine.max_num_seqs is a range: give a "
         "list of its values, or choose random, nsga2, or halving with num_points"),
        ("search:", "search:\n  method: {name: nsga3}",
         "asked.yaml:11: search.method.name: unknown name 'nsga3' (did you mean 'nsga2'?); known: grid, random, nsga2, "
         "halving, advisor"),
        ("search:", "search:\n  reference: {itl_s.p50: 1}",
         "asked.yaml:10: search: reference has one number for each objective: throughput.output_tokens_per_s, "
         "itl_s.p50"),
        ("search:", "search:\n  capacity: {of: workload.arrivals.rate_rps}",
         "asked.yaml:11: search.capacity needs an slo to meet"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_refused_with_its_line(simslm, path, here, before, after, complaint):  # noqa: F811
    path.write_text(SCENARIO.replace(before, after), encoding="utf-8")
    ended = simslm("search", "asked.yaml", "--jobs", "1")
    assert (ended.code, ended.complaint) == (2, complaint)
    assert list(here.iterdir()) == [path]


def test_a_scenario_without_a_search(simslm, path, here):  # noqa: F811
    path.write_text(SCENARIO.partition("search:")[0], encoding="utf-8")
    ended = simslm("search", "asked.yaml")
    assert ended.code == 2
    assert ended.complaint.startswith(
        "asked.yaml: has no search section; state search.space and search.objectives"
    )
    assert list(here.iterdir()) == [path]


@pytest.mark.parametrize("arguments", [("--jobs", "0"), ("--executor", "slurm")])
def test_bad_usage(simslm, path, arguments):  # noqa: F811
    assert simslm("search", "asked.yaml", *arguments).code == 2


@pytest.mark.slow
def test_report_draws_the_page_again(simslm, path, here):  # noqa: F811
    assert simslm("search", "asked.yaml", "--jobs", "1").code == 0
    written = (here / "runs/asked/report.html").read_bytes()
    again = simslm("report", "runs/asked", "-o", "again.html")
    assert (again.code, again.out) == (0, "again.html\n")
    assert (here / "again.html").read_bytes() == written


@pytest.mark.slow
def test_advice_is_printed(simslm, path, here):  # noqa: F811
    ended = simslm("search", "asked.yaml", "--jobs", "1", "--set", "search.method=advisor")
    assert (ended.code, ended.err) == (0, "")
    advice = json.loads((here / "runs/asked/frontier.json").read_text(encoding="utf-8"))["advice"]
    assert f"B_opt is {advice['best_batch']}. It needs " in ended.out
    assert "over the best single" in ended.out

"""From a workload to requests: streams kept apart, replay in order, declared limits."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import ClosedLoop, generate

BASE = {
    "num_requests": 500,
    "arrivals": {"process": "poisson", "rate_rps": 8},
    "prompt_tokens": {"dist": "lognormal", "mean": 256, "p95": 768},
    "output_tokens": {"dist": "gamma", "mean": 100, "p95": 250},
}


def requests(given=None, seed=0, max_model_len=2048, base_dir=Path(), **changes):
    workload = Workload.model_validate((BASE if given is None else given) | changes)
    return generate(workload, seed, max_model_len, base_dir)


def columns(found):
    return [found.arrival_s, found.prompt_tokens, found.output_tokens, found.max_tokens]


def test_columns_have_their_types_and_order():
    found = requests()
    assert len(found) == 500
    assert [column.dtype.name for column in columns(found)] == ["float64", "int64", "int64", "int64"]
    assert np.all(np.diff(found.arrival_s) >= 0)
    assert min(found.prompt_tokens.min(), found.output_tokens.min(), found.max_tokens.min()) >= 1
    assert found.source == "generated: poisson arrivals"
    assert found.arrival_rate_rps == pytest.approx(8, rel=0.2)


def test_the_same_seed_gives_the_same_requests_and_another_does_not():
    assert all(map(np.array_equal, columns(requests()), columns(requests())))
    assert not np.array_equal(requests().arrival_s, requests(seed=1).arrival_s)


def test_changing_one_part_redraws_no_other():
    base = requests()
    other = requests(arrivals={"process": "gamma", "rate_rps": 3, "cv": 2})
    assert np.array_equal(base.prompt_tokens, other.prompt_tokens)
    assert np.array_equal(base.output_tokens, other.output_tokens)
    other = requests(output_tokens={"dist": "fixed", "value": 3})
    assert np.array_equal(base.arrival_s, other.arrival_s)
    assert np.array_equal(base.prompt_tokens, other.prompt_tokens)


def test_prompts_and_outputs_of_one_distribution_are_independent():
    same = BASE["prompt_tokens"]
    found = requests(num_requests=20_000, output_tokens=same)
    assert abs(np.corrcoef(found.prompt_tokens, found.output_tokens)[0, 1]) < 0.03


def test_a_shorter_workload_is_the_beginning_of_a_longer_one():
    short, long = requests(num_requests=100), requests()
    assert all(np.array_equal(a, b[:100]) for a, b in zip(columns(short), columns(long), strict=True))


def test_the_declared_limit_is_what_the_prompt_leaves():
    found = requests(prompt_tokens={"dist": "uniform", "low": 1, "high": 4000}, max_model_len=2048)
    assert np.array_equal(found.max_tokens, np.maximum(2048 - found.prompt_tokens, 1))


def test_outputs_end_at_an_explicit_limit():
    free, cut = requests(), requests(max_tokens=50)
    assert set(cut.max_tokens) == {50}
    assert np.array_equal(cut.output_tokens, np.minimum(free.output_tokens, 50))


def test_a_duration_alone_says_how_many_arrive():
    given = {key: value for key, value in BASE.items() if key != "num_requests"}
    found = requests(given, duration_s=100)
    assert len(found) == pytest.approx(800, abs=120)
    assert found.arrival_s[-1] < 100
    assert np.array_equal(found.arrival_s[:500], requests().arrival_s)


def test_a_closed_loop_is_left_to_the_simulator():
    loop = {"process": "closed-loop", "concurrency": 4, "think_time_s": 0.5}
    found = requests(arrivals=loop, duration_s=60)
    assert found.closed_loop == ClosedLoop(concurrency=4, think_time_s=0.5, until_s=60)
    assert not found.arrival_s.any()
    assert found.arrival_rate_rps is None
    assert requests().closed_loop is None


def test_no_request_at_all_is_refused():
    given = {key: value for key, value in BASE.items() if key != "num_requests"}
    with pytest.raises(ScenarioError, match="no request arrives within duration_s"):
        requests(given, duration_s=1e-9)


def test_a_length_that_fails_names_its_key(tmp_path):
    missing = {"dist": "empirical", "file": "nothing.csv", "column": "tokens"}
    with pytest.raises(ScenarioError, match="output_tokens: no such file"):
        requests(output_tokens=missing, base_dir=tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "arrivals, prompt_tokens, output_tokens missing"),
        (BASE | {"num_requests": None}, "give num_requests, duration_s, or both"),
        (
            BASE | {"num_requests": None, "arrivals": {"process": "all-at-once"}},
            "all-at-once arrivals need it",
        ),
        (
            BASE | {"replay": {"format": "csv", "path": "x"}},
            "remove num_requests, prompt_tokens, output_tokens",
        ),
        (BASE | {"arrivals": {"process": "poisson", "rate_rps": 0}}, "greater than 0"),
        (BASE | {"arrivals": {"process": "poisson", "rate_rps": float("nan")}}, "finite number"),
        (BASE | {"arrivals": {"process": "mmpp", "rates_rps": [1, 2], "mean_dwell_s": [1]}}, "2 states"),
        (BASE | {"arrivals": {"process": "mmpp", "rates_rps": [0, 0], "mean_dwell_s": [1, 1]}}, "0 in every"),
        (BASE | {"arival": 1}, "Extra inputs"),
    ],
)
def test_a_workload_that_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Workload.model_validate(given)


TRACE = """arrival_s,prompt_tokens,output_tokens
107.5,1,10
100.5,2,20
103.0,3,30
100.5,4,40
103.0,5,50
"""


def replay(tmp_path, text=TRACE, **options):
    (tmp_path / "trace.csv").write_text(text)
    given = {"replay": {"format": "csv", "path": "trace.csv"} | options}
    return requests(given, base_dir=tmp_path)


def test_a_replay_is_sorted_with_ties_as_in_the_file_and_starts_at_0(tmp_path):
    found = replay(tmp_path)
    assert found.arrival_s.tolist() == [0.0, 0.0, 2.5, 2.5, 7.0]
    assert found.prompt_tokens.tolist() == [2, 4, 3, 5, 1]
    assert found.output_tokens.tolist() == [20, 40, 30, 50, 10]
    assert found.source == "replayed: csv trace.csv"


def test_a_replay_may_be_scaled_and_cut_after_sorting(tmp_path):
    found = replay(tmp_path, time_scale=0.5, limit=3)
    assert found.arrival_s.tolist() == [0.0, 0.0, 1.25]
    assert found.prompt_tokens.tolist() == [2, 4, 3]


def test_a_replay_scaled_beyond_all_measure_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match="its last request arrives after inf s"):
        replay(tmp_path, time_scale=1e308)


def test_a_replay_declares_limits_too(tmp_path):
    (tmp_path / "trace.csv").write_text(TRACE)
    given = {"replay": {"format": "csv", "path": "trace.csv"}, "max_tokens": 25}
    assert requests(given, base_dir=tmp_path).output_tokens.tolist() == [20, 25, 25, 25, 10]


def test_a_replay_without_requests_is_refused(tmp_path):
    header = TRACE.splitlines()[0]
    for text in (header, f"{header}\n"):
        with pytest.raises(ScenarioError, match=r"trace\.csv: the file has no rows"):
            replay(tmp_path, text)
    text = "Timestamp,Request tokens,Response tokens\n1,0,0\n"
    with pytest.raises(ScenarioError, match=r"dropped: 1 failed"):
        replay(tmp_path, text, format="burstgpt")


def test_the_whole_conversation_trace_is_replayed_at_any_scale(workloads):
    given = {"replay": {"format": "azure-2023", "path": "azure2023_conv.csv"}}
    full = requests(given, base_dir=workloads)
    given["replay"]["time_scale"] = 0.25
    quick = requests(given, base_dir=workloads)
    assert len(full) == len(quick) == 9754
    assert full.arrival_s[-1] == pytest.approx(1753.25714, abs=1e-9)
    assert np.array_equal(quick.arrival_s, full.arrival_s * 0.25)

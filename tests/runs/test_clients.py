"""What benchmarking clients write, with contents as they have them: read for what it is, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simslm.api import prepare, simulate
from simslm.errors import UsageError
from simslm.runs.replay import scenario_of, simulated
from simslm.runs.source import read_measured
from simslm.runs.table import CountedWindow, MeasuredRun

SERVER = {
    "model": "opt-1.3b",
    "device": "h200",
    "max_num_seqs": "64",
    "max_num_batched_tokens": "2048",
    "batching": "chunked-prefill",
}
VLLM = {
    "date": "20260101-000000",
    "endpoint_type": "openai",
    "backend": "openai",
    "model_id": "Qwen/Qwen2.5-0.5B-Instruct",
    "num_prompts": 6,
    "request_rate": 2.0,
    "burstiness": 1.0,
    "max_concurrency": None,
    "duration": 8.0,
    "completed": 6,
    "failed": 0,
    "total_input_tokens": 600,
    "total_output_tokens": 120,
    "request_throughput": 0.75,
    "output_throughput": 15.0,
    "median_ttft_ms": 20.0,
}
SGLANG = {
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": 5.0,
    "max_concurrency": None,
    "server_info": {
        "version": "0.4.6",
        "model_path": "Qwen/Qwen2.5-0.5B-Instruct",
        "max_running_requests": 128,
        "chunked_prefill_size": 4096,
    },
    "duration": 64.0,
    "completed": 320,
    "total_input_tokens": 81920,
    "total_output_tokens": 40960,
    "request_throughput": 5.0,
    "input_throughput": 1280.0,
    "output_throughput": 640.0,
    "mean_e2e_latency_ms": 690.0,
    "mean_ttft_ms": 31.0,
    "median_tpot_ms": 5.1,
}


def guidellm(**changed: Any) -> dict[str, Any]:
    """A benchmark whose window lies between a warm-up and a cool-down."""

    def spread(mean: float) -> dict[str, Any]:
        return {"successful": {"mean": mean, "max": mean, "percentiles": {"p50": mean}}}

    return {
        "config": {
            "strategy": {"type_": "concurrent", "streams": 8, "rampup_duration": 1.0},
            "backend": {"model": "Qwen/Qwen2.5-0.5B-Instruct", "type_": "openai_http"},
        },
        "duration": 10.0,
        "warmup_duration": 2.0,
        "cooldown_duration": 1.0,
        "metrics": {
            "request_totals": {"successful": 130, "errored": 0, "incomplete": 0},
            "requests_per_second": spread(12.0),
            "prompt_token_count": spread(200.0),
            "output_token_count": spread(50.0),
            "inter_token_latency_ms": spread(6.0),
            "time_to_first_token_ms": spread(40.0),
            "request_latency": spread(0.7),
        },
        "requests": {"successful": []},
    } | changed


def saved(folder: Path, value: Any, name: str = "result.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def read(path: Path, settings: Mapping[str, str] = SERVER) -> list[MeasuredRun]:
    return list(read_measured([path], settings).runs)


# ---- arrivals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, {"max_concurrency": 4}, {"ramp_up_strategy": "linear"}])
def test_recorded_starts_are_replayed(tmp_path, changed):
    starts = [50.0, 50.0, 50.1, 54.0, 54.2, 52.0]
    lengths = {"input_lens": [100] * 5 + [50], "output_lens": [20] * 5 + [10], "start_times": starts}
    (run,) = read(saved(tmp_path, VLLM | lengths | changed))
    assert run.arrivals == "recorded"
    assert run.paced
    assert not run.drawn
    run = replace(run, prompt_tokens=550 / 6, output_tokens=110 / 6)
    requests = prepare(scenario_of(run, {"roofline": {}})).requests
    assert requests.arrival_s == pytest.approx([0, 0, 0.1, 2.0, 4.0, 4.2])
    assert requests.prompt_tokens.tolist() == [100, 100, 100, 50, 100, 100]
    assert any("start_times" in note for note in run.notes)


def test_a_process_that_is_stated_takes_the_place_of_recorded_starts(tmp_path):
    path = saved(tmp_path, VLLM | {"start_times": [0.0, 1, 2, 3, 4, 5]})
    (run,) = read(path, SERVER | {"arrivals": "poisson:2"})
    assert (run.arrivals, run.arrival_s) == ("poisson:2", None)


@pytest.mark.parametrize(
    ("starts", "rate", "streams", "arrivals"),
    [
        ([0.0, 0.01, 0.02, 0.02, 0.03, 0.1], "inf", None, "all-at-once"),
        ([0.0, 0.0, 0.0, 5.0, 5.0, 5.0], "inf", None, "recorded"),
        ([0.0, 0.0, 0.5, 0.9, 1.0, 2.0], "inf", 2, "closed-loop:2"),
    ],
)
def test_a_burst_is_one_only_where_its_starts_say_so(tmp_path, starts, rate, streams, arrivals):
    """Starts of a closed loop followed the engine that was measured: its clients wait for another one."""
    changed = {"start_times": starts, "request_rate": rate, "max_concurrency": streams}
    assert read(saved(tmp_path, VLLM | changed))[0].arrivals == arrivals


def test_guidellm_times_are_replayed_too(tmp_path):
    requests = [
        {"prompt_tokens": 100, "output_tokens": 10, "request_start_time": 100.0 + start}
        for start in (0.0, 3.0, 1.0)
    ]
    benchmark = guidellm(
        requests={"successful": requests},
        warmup_duration=0,
        cooldown_duration=0,
        config={"strategy": {"type_": "poisson", "rate": 1.0}},
    )
    benchmark["metrics"] = benchmark["metrics"] | {"request_totals": {"successful": 3}}
    (run,) = read(saved(tmp_path, {"benchmarks": [benchmark]}))
    assert run.arrival_s == (0.0, 1.0, 3.0)


def test_lengths_files_may_say_when_requests_arrived(tmp_path):
    (tmp_path / "lengths.csv").write_text("arrival_s,prompt_tokens,output_tokens\n9,10,3\n5,20,3\n7,30,3\n")
    row = "a,opt-1.3b,h200,chat,20,3,lengths.csv,3,{},8,2048,chunked-prefill"
    head = "run,model,device,workload,prompt_tokens,output_tokens,lengths_file,num_requests,arrivals,max_num_seqs,"
    head += "max_num_batched_tokens,batching\n"
    for arrivals, times in (("recorded", [0, 2, 4]), ("poisson:1", [0, 2, 4]), ("all-at-once", [0, 0, 0])):
        (run,) = read(saved(tmp_path, head + row.format(arrivals), "runs.csv"), {})
        requests = prepare(scenario_of(run, {"roofline": {}})).requests
        assert requests.arrival_s.tolist() == times, arrivals
        assert requests.prompt_tokens.tolist() == ([20, 30, 10] if any(times) else [10, 20, 30])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrivals", "spread"),
    [("poisson:3", 0.1), ("gamma:3:2", 0.2), ("closed-loop:3", None), ("all-at-once", None)],
)
def test_how_long_random_arrivals_take_is_left_to_chance(tmp_path, arrivals, spread):
    (run,) = read(saved(tmp_path, VLLM), SERVER | {"arrivals": arrivals})
    run = replace(run, num_requests=100)
    assert run.spread_of_arrivals == spread
    if spread is not None:
        ends = [
            prepare(scenario_of(run, {"roofline": {}}, seed=seed)).requests.arrival_s[-1]
            for seed in range(200)
        ]
        assert np.std(ends) / np.mean(ends) == pytest.approx(spread, rel=0.2)


# ---- windows -----------------------------------------------------------------------------------------------


def test_a_window_is_measured_as_the_report_says(tmp_path):
    (run,) = read(saved(tmp_path, {"benchmarks": [guidellm()]}))
    assert run.window == CountedWindow(2.0, 10.0)
    assert run.measured["output_tokens_per_s"] == pytest.approx(12 * 50)
    assert run.measured["total_tokens_per_s"] == pytest.approx(12 * 250)
    assert run.measured["duration_s"] == 10.0
    assert run.num_requests == 12 * 13
    assert any("rampup_duration" in note for note in run.notes)


def test_without_a_rate_of_its_own_a_window_has_no_throughput(tmp_path):
    benchmark = guidellm()
    del benchmark["metrics"]["requests_per_second"]
    (run,) = read(saved(tmp_path, {"benchmarks": [benchmark]}))
    assert "output_tokens_per_s" not in run.measured
    assert run.measured["ttft_mean_s"] == 0.04
    assert any("throughput is not compared" in note for note in run.notes)


def test_the_simulation_counts_the_same_window(tmp_path):
    """A closed loop that starts empty: without its first wave, times to first token are those of the steady state."""
    (run,) = read(saved(tmp_path, {"benchmarks": [guidellm()]}))
    run = replace(run, num_requests=600, prompt_tokens=900.0)
    result = simulate(scenario_of(run, {"roofline": {}}), with_intervals=False)
    whole, counted = simulated(result, replace(run, window=None)), simulated(result, run)
    requests = result.requests
    until = min(12.0, requests["arrival_s"].max())
    inside = (requests["finish_s"] > 2.0) & (requests["arrival_s"] < until)
    assert 0 < inside.sum() < len(requests)
    assert counted["ttft_mean_s"] == pytest.approx(requests["ttft_s"][inside].mean())
    assert counted["tpot_p50_s"] == pytest.approx(requests["tpot_s"][inside].median())
    assert counted["duration_s"] == pytest.approx(until - 2.0)
    done = ((requests["finish_s"] > 2.0) & (requests["finish_s"] <= until)).sum()
    assert counted["requests_per_s"] * counted["duration_s"] == pytest.approx(done, rel=0.1)
    assert whole["duration_s"] > counted["duration_s"]


def test_steady_throughput_leaves_out_the_first_and_the_last_batch(tmp_path):
    (run,) = read(saved(tmp_path, VLLM | {"max_concurrency": 4, "request_rate": "inf"}))
    run = replace(run, num_requests=200)
    result = simulate(scenario_of(run, {"roofline": {}}), with_intervals=False)
    found = simulated(result, run)
    first = np.sort(result.requests["first_token_s"])[3]
    last = np.sort(result.requests["finish_s"])[200 - 5]
    gone = result.requests["finish_s"].between(first, last, inclusive="right").sum()
    expected = gone * 20 / (last - first)
    assert found["steady_output_tokens_per_s"] == pytest.approx(expected, rel=0.03)
    assert "steady_output_tokens_per_s" not in simulated(
        result, replace(run, arrivals="closed-loop:100", max_num_seqs=100)
    )


# ---- what a file is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["result.jsonl", "result.json", "result.txt", "result"])
def test_lines_of_sglang_are_read_whatever_the_file_is_called(tmp_path, name):
    text = "\n".join(json.dumps(SGLANG | {"request_rate": rate}) for rate in (5.0, float("inf"), 9.0))
    runs = read(saved(tmp_path, text, name), {"device": "l4", "batching": "chunked-prefill"})
    assert [run.arrivals for run in runs] == ["poisson:5.0", "all-at-once", "poisson:9.0"]
    assert len({run.run for run in runs}) == 3
    run = runs[0]
    assert (run.model, run.engine) == ("qwen2.5-0.5b", "sglang-0.4.6")
    assert (run.max_num_seqs, run.max_num_batched_tokens) == (128, 4096)
    assert (run.prompt_tokens, run.output_tokens) == (256, 128)
    assert run.measured["e2e_mean_s"] == pytest.approx(0.69)
    assert run.measured["tpot_p50_s"] == pytest.approx(0.0051)


def test_the_backend_is_the_clients(tmp_path):
    for backend in ("openai", "openai-chat", "vllm", "sglang"):
        (run,) = read(saved(tmp_path, VLLM | {"backend": backend}))
        assert run.engine == ""
    (run,) = read(saved(tmp_path, VLLM | {"engine": "vllm-0.11.0"}))
    assert run.engine == "vllm-0.11.0"
    assert read(saved(tmp_path, VLLM), SERVER | {"engine": "tgi-3"})[0].engine == "tgi-3"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"request_throughput": {"avg": 2}, "time_to_first_token": {}, "inter_token_latency": {}}, "aiperf"),
        ({"load_summary": {}, "successes": {}, "failures": {}}, "inference-perf"),
        (
            {"elapsed_time": 1, "num_requests": 2, "requests_per_second": 2, "tokens_per_second": 9},
            "vllm bench throughput",
        ),
    ],
)  # fmt: skip
def test_other_clients_are_refused_by_name(tmp_path, value, name):
    with pytest.raises(
        UsageError, match=f"is a result of {name}.*, which is not read; write its figures into"
    ):
        read(saved(tmp_path, value))


# ---- what is wrong ----------------------------------------------------------------------------------------


def test_what_is_left_is_used_and_the_rest_named(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    saved(folder, VLLM, "good.json")
    saved(folder, VLLM | {"completed": 1, "failed": 5}, "failed.json")
    saved(folder, "{broken", "broken.json")
    failed = guidellm(metrics=guidellm()["metrics"] | {"request_totals": {"successful": 3, "errored": 2}})
    saved(folder, {"benchmarks": [guidellm(), failed, guidellm()]}, "sweep.json")
    saved(folder, {"hello": 1}, "other.json")
    found = read_measured([folder, tmp_path / "none.json"], SERVER)
    assert [run.run for run in found.runs] == ["good 20260101-000000", "sweep 1", "sweep 3"]
    reasons = {each.run: each.reason for each in found.skipped}
    assert set(reasons) == {"failed.json", "broken.json", "sweep 2", "other.json", "none.json"}
    assert "only 1 of 6 requests were completed" in reasons["failed.json"]
    assert "benchmark 2: 2 requests failed" in reasons["sweep 2"]
    head = "run,model,device,prompt_tokens,output_tokens,num_requests,arrivals,max_num_seqs,batching,ttft_mean_s\n"
    rows = "a,opt-1.3b,h200,10,10,10,all-at-once,4,static,0.1\nb,opt-1.3b,h200,10,,10,all-at-once,4,static,0.1\nc,x\n"
    found = read_measured([saved(tmp_path, head + rows, "runs.csv")])
    assert [run.run for run in found.runs] == ["a"]
    assert [each.run for each in found.skipped] == ["b", "c"]
    assert "runs.csv:3: output_tokens: is empty" in found.skipped[0].reason
    assert "runs.csv:4: expected 10 cells, found 2" in found.skipped[1].reason


def test_when_none_is_left_each_reason_is_said_once(tmp_path):
    for number in range(3):
        saved(tmp_path, "{broken", f"{number}.json")
    with pytest.raises(
        UsageError, match=r"not one of 3 runs can be used: .*0\.json: is not valid JSON.*1\.json"
    ):
        read_measured([tmp_path])


# ---- models and devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-0.5B-Instruct",
        "unsloth/qwen2.5-0.5b-instruct",
        "/data/models/Qwen2.5-0.5B/",
        "C:\\m\\Qwen2.5-0.5B",
        "/root/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B-Instruct/snapshots/7ae557604adf67be",
    ],
)  # fmt: skip
def test_models_go_by_their_names_elsewhere(tmp_path, name):
    server = {key: value for key, value in SERVER.items() if key != "model"}
    assert read(saved(tmp_path, VLLM | {"model_id": name}), server)[0].model == "qwen2.5-0.5b"


def test_what_a_file_does_not_say_is_assumed_and_what_it_says_stays(tmp_path):
    server = {key: value for key, value in SERVER.items() if key not in ("model", "device")}
    said = {"model": "opt-1.3b", "device": "l4"}
    alias = saved(tmp_path, VLLM | {"model_id": "my-model"}, "alias.json")
    known = saved(tmp_path, VLLM | {"device": "h200"}, "known.json")
    first, second = read_measured([alias, known], server, said).runs
    assert (first.model, first.device) == ("opt-1.3b", "l4")
    assert (second.model, second.device) == ("qwen2.5-0.5b", "h200")
    assert any(
        "my-model is not in the catalogue under that name: taken to be opt-1.3b" in n for n in first.notes
    )
    with pytest.raises(UsageError, match="does not say model, device; my-model is not"):
        read_measured([alias], server)


def test_devices_may_be_files_or_written_inline(tmp_path):
    (tmp_path / "mine.yaml").write_text("{like: l4, memory_bytes: 48.0e9}\n")
    inline = "{name: half, like: l4, memory_bandwidth_bytes_per_s: 1.5e11}"
    head = "run,model,device,prompt_tokens,output_tokens,num_requests,arrivals,max_num_seqs,batching\n"
    rows = f'a,opt-1.3b,mine.yaml,10,10,10,all-at-once,4,static\nb,opt-1.3b,"{inline}",10,10,10,all-at-once,4,static\n'
    first, second = read(saved(tmp_path, head + rows, "runs.csv"), {})
    assert (first.device, second.device) == ("mine", "half")
    assert prepare(scenario_of(first, {"roofline": {}})).device.memory_bytes == 48e9
    assert prepare(scenario_of(second, {"roofline": {}})).device.memory_bandwidth_bytes_per_s == 1.5e11
    with pytest.raises(UsageError, match=r"device: .*none.yaml: cannot be read"):
        read(saved(tmp_path, VLLM), SERVER | {"device": "none.yaml"})

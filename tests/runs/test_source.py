"""Result files of benchmarking clients become the same runs that a table would hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simslm.api import prepare
from simslm.errors import UsageError
from simslm.runs.replay import scenario_of
from simslm.runs.source import read_measured
from simslm.runs.table import MeasuredRun

SERVER = {
    "device": "h200",
    "max_num_seqs": "64",
    "max_num_batched_tokens": "2048",
    "batching": "chunked-prefill",
}

VLLM = {
    "date": "20250102-030405",
    "backend": "vllm",
    "label": None,
    "model_id": "facebook/opt-1.3b",
    "tokenizer_id": "facebook/opt-1.3b",
    "num_prompts": 3,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": None,
    "duration": 2.0,
    "completed": 3,
    "total_input_tokens": 600,
    "total_output_tokens": 90,
    "request_throughput": 1.5,
    "request_goodput": None,
    "output_throughput": 45.0,
    "total_token_throughput": 345.0,
    "mean_ttft_ms": 40.0,
    "median_ttft_ms": 35.0,
    "std_ttft_ms": 3.0,
    "p99_ttft_ms": 80.0,
    "mean_tpot_ms": 7.0,
    "median_tpot_ms": 6.5,
    "p99_tpot_ms": 9.0,
    "mean_itl_ms": 6.9,
    "median_itl_ms": 6.4,
    "p99_itl_ms": 20.0,
    "mean_e2el_ms": 300.0,
    "p99_e2el_ms": 500.0,
}
DETAILED = VLLM | {"input_lens": [100, 300, 200], "output_lens": [30, 10, 50], "ttfts": [0.1, 0.1, 0.2]}


def summary(mean: float, **more: Any) -> dict[str, Any]:
    percentiles = {"p001": 0.0, "p50": mean, "p90": 2 * mean, "p95": 3 * mean, "p99": 4 * mean, "p999": 9.0}
    good = {"mean": mean, "median": mean, "max": 5 * mean, "count": 3, "percentiles": percentiles} | more
    return {"successful": good, "errored": {"mean": 0.0}, "incomplete": {"mean": 0.0}, "total": good}


def request(start: float, prompt: int, output: int, gap_ms: float) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "output_tokens": output,
        "inter_token_latency_ms": gap_ms,
        "request_start_time": start,
    }


BENCHMARK = {
    "type_": "generative_benchmark",
    "config": {
        "strategy": {"type_": "concurrent", "streams": 2, "max_concurrency": 2},
        "backend": {"target": "http://localhost:8000", "model": "facebook/opt-1.3b"},
    },
    "start_time": 10.0,
    "end_time": 12.5,
    "duration": 2.5,
    "metrics": {
        "request_totals": {"successful": 3, "errored": 0, "incomplete": 0, "total": 3},
        "request_latency": summary(0.5),
        "prompt_token_count": summary(200.0),
        "output_token_count": summary(30.0),
        "time_to_first_token_ms": summary(50.0),
        "time_per_output_token_ms": summary(99.0),
        "inter_token_latency_ms": summary(8.0),
    },
    "requests": {
        "successful": [
            request(3.0, 200, 50, 9.0),
            request(1.0, 100, 30, 6.0),
            request(2.0, 300, 10, 12.0),
        ],
        "incomplete": [],
        "errored": [],
    },
}
OLD = {
    "type_": "generative_benchmark",
    "args": {"strategy": {"type_": "constant", "rate": 10.0, "max_concurrency": None}},
    "run_stats": {"requests_made": {"successful": 3, "errored": 0, "incomplete": 2, "total": 5}},
    "worker": {"backend_model": "facebook/opt-1.3b"},
    "start_time": 10.0,
    "end_time": 12.5,
    "metrics": BENCHMARK["metrics"],
    "requests": {"successful": BENCHMARK["requests"]["successful"]},
}

Save = Callable[..., Path]


def read(paths: list[Path], settings: dict[str, str] | None = None) -> list[MeasuredRun]:
    return list(read_measured(paths, settings).runs)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(*values: Any, name: str = "result.json") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(value) for value in values))
        return path

    return write


def guidellm(**changes: Any) -> dict[str, Any]:
    return {"metadata": {"version": 1}, "args": {}, "benchmarks": [BENCHMARK | changes]}


def test_a_vllm_result_is_a_run(save):
    path = save(VLLM)
    (run,) = read([path], SERVER)
    assert (run.run, run.model, run.device, run.engine) == (
        "result 20250102-030405",
        "opt-1.3b",
        "h200",
        "",
    )
    assert (run.workload, run.prompt_tokens, run.output_tokens) == ("fixed", 200, 30)
    assert (run.num_requests, run.arrivals, run.where) == (3, "all-at-once", str(path))
    assert (run.max_num_seqs, run.max_num_batched_tokens, run.batching) == (64, 2048, "chunked-prefill")
    assert run.measured == pytest.approx(
        {
            "duration_s": 2.0,
            "requests_per_s": 1.5,
            "output_tokens_per_s": 45.0,
            "total_tokens_per_s": 345.0,
            "ttft_mean_s": 0.040,
            "ttft_p50_s": 0.035,
            "ttft_p99_s": 0.080,
            "tpot_mean_s": 0.007,
            "tpot_p50_s": 0.0065,
            "tpot_p99_s": 0.009,
            "itl_mean_s": 0.0069,
            "itl_p50_s": 0.0064,
            "itl_p99_s": 0.020,
            "e2e_mean_s": 0.300,
            "e2e_p99_s": 0.500,
        }
    )


@pytest.mark.parametrize(
    ("traffic", "arrivals"),
    [
        ({"max_concurrency": 16}, "closed-loop:16"),
        ({"request_rate": 4.0}, "poisson:4.0"),
        ({"request_rate": 4.0, "burstiness": 0.25}, "gamma:4.0:2.0"),
    ],
)
def test_vllm_traffic(save, traffic, arrivals):
    assert read([save(VLLM | traffic)], SERVER)[0].arrivals == arrivals


@pytest.mark.parametrize(
    ("traffic", "why"),
    [
        ({"request_rate": 4.0, "max_concurrency": 16}, "no more than max_concurrency at once"),
        ({"ramp_up_strategy": "linear", "request_rate": 4.0}, "ramped up"),
    ],
)
def test_vllm_traffic_that_no_arrivals_say(save, traffic, why):
    with pytest.raises(UsageError, match=f"does not say arrivals; .*{why}.*; add --set arrivals=..."):
        read([save(VLLM | traffic)], SERVER)
    stated = SERVER | {"arrivals": "poisson:4"}
    assert read([save(VLLM | traffic)], stated)[0].arrivals == "poisson:4"


def test_detailed_vllm_results_keep_the_lengths_of_their_requests(save):
    (run,) = read([save(DETAILED)], SERVER)
    assert run.workload == "recorded"
    requests = prepare(scenario_of(run, {"roofline": {}})).requests
    assert requests.prompt_tokens.tolist() == [100, 300, 200]
    assert requests.output_tokens.tolist() == [30, 10, 50]


def test_metadata_says_what_the_server_was_told(save):
    told = {"max_num_seqs": "32", "num_gpu_blocks": "5000", "batching": "prefill-first", "device": "l4"}
    told |= {"max_num_batched_tokens": "4096", "engine": "vllm-0.11.0"}
    (run,) = read([save(VLLM | told)])
    assert (run.device, run.max_num_seqs, run.num_gpu_blocks) == ("l4", 32, 5000)
    assert run.engine == "vllm-0.11.0"
    assert read([save(VLLM | told)], {"max_num_seqs": "8"})[0].max_num_seqs == 8


def test_what_is_missing_is_named_all_at_once(save):
    path = save(VLLM | {"model_id": "acme/opt-chat"})
    with pytest.raises(UsageError) as failed:
        read([path])
    assert str(failed.value) == (
        f"{path}: vllm bench serve does not say model, device, max_num_seqs, batching, max_num_batched_tokens; "
        "acme/opt-chat is not in the catalogue under that name; add --set model=... --set device=... "
        "--set max_num_seqs=... --set batching=... --set max_num_batched_tokens=..."
    )


def test_failed_requests_are_refused(save):
    with pytest.raises(UsageError, match="only 2 of 3 requests were completed; measure it again"):
        read([save(VLLM | {"completed": 2})], SERVER)


def test_appended_results_and_folders(save, tmp_path):
    later = VLLM | {"date": "20250102-040000"}
    save(VLLM, later, name="b.json")
    save(DETAILED, name="a.json")
    runs = read([tmp_path], SERVER)
    assert [run.run for run in runs] == [
        "a 20250102-030405",
        "b 20250102-030405",
        "b 20250102-040000",
    ]


def test_a_guidellm_benchmark_is_a_run(save):
    path = save(guidellm(), name="benchmarks.json")
    (run,) = read([path], SERVER)
    assert (run.run, run.model, run.num_requests, run.arrivals) == (
        "benchmarks 1",
        "opt-1.3b",
        3,
        "closed-loop:2",
    )
    assert run.lengths == ((100, 300, 200), (30, 10, 50))
    assert run.measured["itl_mean_s"] == 0.008
    assert run.measured["tpot_mean_s"] == pytest.approx(0.009)
    assert run.measured["tpot_max_s"] == pytest.approx(0.012)
    assert run.measured["ttft_p99_s"] == pytest.approx(0.2)
    assert run.measured["ttft_max_s"] == pytest.approx(0.25)
    assert run.measured["e2e_p95_s"] == pytest.approx(1.5)
    assert run.measured["output_tokens_per_s"] == pytest.approx(36)
    assert run.measured["total_tokens_per_s"] == pytest.approx(276)
    assert run.measured["duration_s"] == 2.5
    assert "itl_p50_s" not in run.measured


def test_an_older_guidellm_and_a_benchmark_that_time_cut_off(save):
    path = save({"benchmarks": [OLD, OLD]}, name="benchmarks.json")
    one, two = read([path], SERVER)
    assert (one.run, two.run) == ("benchmarks 1", "benchmarks 2")
    assert (one.model, one.num_requests, one.arrivals) == ("opt-1.3b", 5, "gamma:10.0:1e-06")
    assert "output_tokens_per_s" not in one.measured
    assert one.measured["ttft_mean_s"] == 0.05
    arrivals = prepare(scenario_of(one, {"roofline": {}})).requests.arrival_s
    assert arrivals == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-4)


@pytest.mark.parametrize(
    ("strategy", "arrivals"),
    [
        ({"type_": "synchronous"}, "closed-loop:1"),
        ({"type_": "throughput", "max_concurrency": None}, "all-at-once"),
        ({"type_": "throughput", "max_concurrency": 512}, "closed-loop:512"),
        ({"type_": "poisson", "rate": 2.5, "max_concurrency": None}, "poisson:2.5"),
    ],
)
def test_guidellm_traffic(save, strategy, arrivals):
    config = copy.deepcopy(BENCHMARK["config"]) | {"strategy": strategy}
    assert read([save(guidellm(config=config, requests={}))], SERVER)[0].arrivals == arrivals


def test_guidellm_traffic_that_no_arrivals_say(save):
    config = BENCHMARK["config"] | {"strategy": {"type_": "trace"}}
    with pytest.raises(UsageError, match="its strategy 'trace' is none that simslm knows"):
        read([save(guidellm(config=config, requests={}))], SERVER)


def test_a_sample_of_the_requests_is_not_taken_for_all(save):
    requests = {"successful": BENCHMARK["requests"]["successful"][:2]}
    (run,) = read([save(guidellm(requests=requests))], SERVER)
    assert run.lengths is None
    assert run.workload == "fixed"
    assert "tpot_mean_s" not in run.measured


def test_guidellm_errors_are_refused(save):
    totals = {"successful": 3, "errored": 2, "incomplete": 0}
    metrics = BENCHMARK["metrics"] | {"request_totals": totals}
    with pytest.raises(UsageError, match=r"benchmark 1: 2 requests failed and 3 were completed"):
        read([save(guidellm(metrics=metrics))], SERVER)


def test_a_missing_figure_is_named(save):
    metrics = {name: value for name, value in BENCHMARK["metrics"].items() if name != "request_latency"}
    with pytest.raises(UsageError, match=r"metrics.request_latency.successful: is missing"):
        read([save(guidellm(metrics=metrics))], SERVER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("", "the file is empty"),
        ("[1]", "is no result of `vllm bench serve --save-result`"),
        ('{"a": 1}', "is no result of `vllm bench serve --save-result`"),
        ('{"benchmarks": []}', "benchmarks: holds none"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        read([tmp_path / "x.json"], SERVER)


def test_places_without_results_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read([tmp_path / "x.json"])
    with pytest.raises(UsageError, match="holds no result file"):
        read([tmp_path])


def test_tables_take_settings_too(table):
    path = table({}, {"run": "two"}, without=("device",))
    assert [run.device for run in read([path], {"device": "l4"})] == ["l4", "l4"]


@pytest.mark.parametrize("name", ["run", "max_num_seq", "ttft_mean_s"])
def test_an_unknown_setting_is_refused(table, name):
    with pytest.raises(UsageError, match=f"--set {name}: no such setting of a run"):
        read([table({})], {name: "1"})


def test_names_are_unique_over_all_files(table, save):
    found = read_measured([table({}), table({})])
    assert [run.run for run in found.runs] == ["one"]
    assert "is the name of" in found.skipped[0].reason

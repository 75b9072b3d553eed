"""``simslm simulate``: files with the promised names, columns and keys, and an answer on stdout."""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli.conftest import SCENARIO

from simslm.cli import screen
from simslm.metrics.definitions import ATTAINMENT, ENERGY, GOODPUT, LATENCIES

FILES = {"requests.parquet", "iterations.parquet", "summary.json", "manifest.json", "report.html"}
FILES |= {"stages.parquet", "gaps.parquet"}
REQUESTS = [
    "request_id",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "replica",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "queue_s",
    "cached_prompt_tokens",
    "preemptions",
    "recomputed_tokens",
    "energy_j",
    "status",
]
ITERATIONS = [
    "replica",
    "start_s",
    "duration_s",
    "decode_seqs",
    "decode_ctx_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_ctx_tokens",
    "waiting",
    "running",
    "kv_blocks_used",
    "power_w",
    "host_s",
]
SPREAD = {"mean", "p50", "p90", "p95", "p99", "max"}
SUMMARY = {
    "requests": {"arrived", "finished", "rejected", "failed", "unfinished"},
    "throughput": {"requests_per_s", "output_tokens_per_s", "total_tokens_per_s"},
    **dict.fromkeys(("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s"), SPREAD),
    "slo": {"attainment", "goodput_rps"},
    "energy": {"total_j", "prefill_j", "decode_j", "idle_j", "mean_power_w", "j_per_output_token",
               "j_per_total_token"},
    "kv": {"num_gpu_blocks", "peak_utilization", "preemptions"},
    "utilization": {"busy", "host_gap"},
    "coverage": {"in_domain_time"},
}  # fmt: skip


def read(directory: Path, name: str) -> Any:
    return json.loads((directory / name).read_text(encoding="utf-8"))


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_files_as_promised(simslm, scenario, here):
    ended = simslm("simulate", scenario)
    run = here / "runs" / "small"
    assert ended.code == 0
    assert ended.err == ""
    assert names(run) == FILES
    assert pq.read_schema(run / "requests.parquet").names == REQUESTS
    assert pq.read_schema(run / "iterations.parquet").names == ITERATIONS
    assert pq.read_metadata(run / "requests.parquet").num_rows == 30
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_summary_has_the_promised_keys(simslm, scenario, here):
    assert simslm("simulate", scenario).code == 0
    summary = read(here / "runs" / "small", "summary.json")
    assert summary["schema_version"] == 1
    assert summary["name"] == "small"
    assert summary["makespan_s"] > 0
    for section, keys in SUMMARY.items():
        assert keys <= set(summary[section]), section
    assert summary["requests"] == {"arrived": 30, "finished": 30, "rejected": 0, "failed": 0, "unfinished": 0}
    assert summary["coverage"]["in_domain_time"] == 0.0


def test_the_manifest_is_enough_to_run_it_again(simslm, scenario, here):
    options = ("--set", "workload.arrivals.rate_rps=5", "--seed", 9)
    assert simslm("simulate", scenario, *options, "-o", "first").code == 0
    manifest = read(here / "first", "manifest.json")
    assert manifest["seed"] == 9
    assert manifest["scenario"]["workload"]["arrivals"]["rate_rps"] == 5
    assert {"simslm", "python", "simpy", "numpy"} <= set(manifest["versions"])
    assert manifest["traces"] == []
    assert manifest["events"] > 30
    assert manifest["wall_time_s"] > 0
    again = here / "again.json"
    again.write_text(json.dumps(manifest["scenario"]), encoding="utf-8")
    assert simslm("simulate", again, "-o", "second").code == 0
    same(here / "first", here / "second")


def same(first: Path, second: Path) -> None:
    """Two runs left the same answer."""
    for name in ("requests.parquet", "iterations.parquet", "summary.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


CONFIG = {
    "model_type": "opt",
    "_name_or_path": "mine",
    "activation_function": "relu",
    "enable_bias": True,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "tie_word_embeddings": True,
    "vocab_size": 50272,
}


@pytest.mark.slow
def test_a_manifest_is_a_scenario_that_finds_its_files_from_anywhere(
    simslm, trace, scenario, here, monkeypatch
):
    (here / "requests.csv").write_text(
        "arrival_s,prompt_tokens,output_tokens\n0,16,4\n1,64,9\n", encoding="utf-8"
    )
    (here / "lengths.csv").write_text("tokens\n5\n50\n", encoding="utf-8")
    (here / "mine").mkdir()
    (here / "mine" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    empirical = "{dist: empirical, file: lengths.csv, column: tokens}"
    mixed = f"{{dist: mixture, components: [{empirical[:-1]}, weight: 1}}]}}"
    questions = {
        "replayed": ("cost={trace: traces/cpu/mine}", "workload={replay: {format: csv, path: requests.csv}}"),
        "drawn": ("model=mine", f"workload.prompt_tokens={empirical}", f"workload.output_tokens={mixed}"),
    }
    read_files = {"replayed": ["requests.csv"], "drawn": ["mine", "lengths.csv"]}
    on_disk = {"mine": here / "mine" / "config.json"}
    for name, question in questions.items():
        sets = [word for setting in question for word in ("--set", setting)]
        ended = simslm("simulate", scenario, *sets, "-o", here / name)
        assert ended.code == 0, ended.err
        manifest = read(here / name, "manifest.json")
        assert manifest["base_dir"] == str(here)
        assert manifest["files"] == [
            {"path": file, "sha256": sha256(on_disk.get(file, here / file).read_bytes()).hexdigest()}
            for file in read_files[name]
        ]
    (used,) = read(here / "replayed", "manifest.json")["traces"]
    assert used["trace"] == "traces/cpu/mine"
    assert "path" not in used
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    for name in questions:
        assert simslm("simulate", here / name / "manifest.json", "-o", "again").code == 0
        same(here / name, here / "elsewhere" / "again")
    ended = simslm("simulate", here / "drawn" / "manifest.json", "--set", "seed=x")
    assert ended.complaint.startswith("--set: seed: ")


@pytest.mark.slow
def test_the_manifest_states_the_memory_that_groups_had(simslm, scenario, here):
    groups = (
        "deployment={sharing: mps, groups: [{name: a}, {name: b, engine: {gpu_memory_utilization: 0.3}}]}"
    )
    assert simslm("simulate", scenario, "--set", groups, "-o", "first").code == 0
    again = simslm("simulate", here / "first" / "manifest.json", "-o", "second")
    assert again.code == 0, again.err
    same(here / "first", here / "second")


def test_json_is_the_summary_and_nothing_else(simslm, scenario, here):
    ended = simslm("simulate", scenario, "--json")
    assert json.loads(ended.out) == read(here / "runs" / "small", "summary.json")
    assert ended.err == ""


def test_the_answer_names_its_source_and_its_page(simslm, scenario):
    out = simslm("simulate", scenario, "-o", "mine").out
    assert "roofline, not measured" in out
    assert f"page: {Path('mine') / 'report.html'}\n" in out
    assert "why:" in out


def test_every_figure_has_its_definition_beside_it(simslm, scenario, here):
    ended = simslm("simulate", scenario)
    page = (here / "runs" / "small" / "report.html").read_text(encoding="utf-8")
    for metric in (*LATENCIES, ATTAINMENT, GOODPUT, ENERGY):
        (line,) = [line for line in ended.out.splitlines() if line.strip().startswith(metric.name)]
        assert line.endswith(f"  {metric.stated}")
        assert metric.definition in page
    assert "\x1b" not in ended.out
    assert "SLO attainment" not in simslm("simulate", scenario, "--set", "slo=null").out


@pytest.mark.parametrize(("columns", "beside"), [(80, False), (160, True)])
def test_definitions_are_dim_and_go_below_where_the_terminal_is_narrow(monkeypatch, capsys, columns, beside):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(screen, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    definition = "first output token’s time − arrival"
    screen.show_defined(("", "p50"), [("TTFT", "3" * 50)], [definition])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith(f"  \x1b[2m{definition}\x1b[0m") is beside
    assert lines[2:] == ([] if beside else [f"\x1b[2m  TTFT  {definition}\x1b[0m"])
    monkeypatch.setenv("NO_COLOR", "1")
    screen.show_defined(("", "p50"), [("TTFT", "3")], [definition])
    assert "\x1b" not in capsys.readouterr().out


def test_set_reaches_nested_keys_lists_and_sections(simslm, scenario, here):
    ended = simslm(
        "simulate", scenario, "-o", "out",
        "--set", "deployment.engine.max_num_seqs=4",
        "--set", "deployment.engine.batching.policy=prefill-first",
        "--set", "cost.transforms=[{host: {fixed_s: 0.001, per_seq_s: 0}}]",
        "--set", "cost.transforms.0.host.fixed_s=0.125",
        "--set", "workload.arrivals={process: gamma, rate_rps: 3, cv: 2}",
        "--set", "name=an other",
        "--set", "slo=null",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    resolved = read(here / "out", "manifest.json")["scenario"]
    assert resolved["deployment"]["engine"]["max_num_seqs"] == 4
    assert resolved["deployment"]["engine"]["batching"]["policy"] == "prefill-first"
    assert resolved["cost"]["transforms"][0]["host"]["fixed_s"] == 0.125
    assert resolved["workload"]["arrivals"] == {"process": "gamma", "rate_rps": 3, "cv": 2}
    assert resolved["slo"] is None
    assert read(here / "out", "summary.json")["slo"]["attainment"] is None


@pytest.mark.slow
def test_choosing_another_member_of_a_section_drops_only_what_it_does_not_have(simslm, scenario, here):
    ended = simslm("simulate", scenario, "--set", "workload.arrivals.process=deterministic", "-o", "a")
    assert ended.code == 0
    arrivals = read(here / "a", "manifest.json")["scenario"]["workload"]["arrivals"]
    assert arrivals == {"process": "deterministic", "rate_rps": 2}
    ended = simslm("simulate", scenario, "--set", "workload.arrivals.process=all-at-once", "-o", "b")
    assert ended.code == 0
    assert read(here / "b", "manifest.json")["scenario"]["workload"]["arrivals"] == {"process": "all-at-once"}
    ended = simslm("simulate", scenario, "--set", "workload.arrivals.process=nonsense", "-o", "c")
    assert "unknown process 'nonsense'" in ended.complaint
    assert ended.complaint.startswith("--set: workload.arrivals.process: ")


@pytest.mark.slow
def test_the_seed_decides_and_nothing_else_does(simslm, scenario, here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert simslm("simulate", scenario, "--seed", seed, "-o", name).code == 0
    for name in ("requests.parquet", "summary.json"):
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
        assert (here / "a" / name).read_bytes() != (here / "c" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("a/b/c", "a-b-c"),
        ("../../up", "up"),
        ("..", "scenario"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("two words", "two-words"),
        ("日本語", "日本語"),
        ("日" * 200, "日" * 40),
        ("-rf", "rf"),
    ],
)
def test_a_name_never_leaves_runs(simslm, scenario, here, name, directory):
    ended = simslm("simulate", scenario, "--set", f"name={json.dumps(name)}")
    assert ended.code == 0, ended.err
    assert names(here) == {"small.yaml", "runs"}
    assert names(here / "runs") == {directory}
    assert read(here / "runs" / directory, "summary.json")["name"] == name
    assert "<script>alert" not in (here / "runs" / directory / "report.html").read_text(encoding="utf-8")


def test_a_second_run_replaces_the_first_and_nothing_else(simslm, scenario, here):
    assert simslm("simulate", scenario, "-o", "out").code == 0
    (here / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    assert simslm("simulate", scenario, "-o", "out", "--set", "workload.num_requests=5").code == 0
    assert names(here / "out") == FILES | {"notes.txt"}
    assert pq.read_metadata(here / "out" / "requests.parquet").num_rows == 5


@pytest.mark.parametrize("place", ["small.yaml", "small.yaml/deeper", "x" * 300])
def test_a_place_where_no_directory_can_be_is_refused_before_the_work(
    simslm, scenario, here, place, monkeypatch
):
    from simslm import api

    monkeypatch.setattr(api, "simulate", None)
    ended = simslm("simulate", scenario, "-o", place)
    assert ended.code == 2
    assert ended.complaint.startswith(f"{place}: ")
    assert names(here) == {"small.yaml"}
    assert scenario.read_text(encoding="utf-8") == SCENARIO


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_directory_without_permission_is_refused(simslm, scenario, here):
    (here / "closed").mkdir(mode=0o500)
    ended = simslm("simulate", scenario, "-o", "closed/out")
    assert ended.code == 2
    assert "permission" in ended.complaint


def test_permission_is_asked_of_the_nearest_directory_there_is(simslm, scenario, here, monkeypatch):
    def readable_only(path: Path, mode: int) -> bool:
        asked.append(path)
        return mode == os.R_OK

    asked: list[Path] = []
    monkeypatch.setattr(os, "access", readable_only)
    ended = simslm("simulate", scenario, "-o", "some/where")
    assert ended.code == 2
    assert "no permission" in ended.complaint
    assert asked[-1] == Path()


def test_rejected_requests_are_counted_not_refused(simslm, scenario):
    ended = simslm("simulate", scenario, "--json",
                   "--set", "workload.prompt_tokens={dist: uniform, low: 1000, high: 3000}")  # fmt: skip
    counts = json.loads(ended.out)["requests"]
    assert ended.code == 0
    assert counts["rejected"] > 0
    assert counts["arrived"] == counts["finished"] + counts["rejected"] == 30


def test_a_run_in_which_every_client_leaves_says_so(simslm, scenario, here):
    ended = simslm("simulate", scenario, "--set", "workload.timeout_s=1e-6",
                   "--set", "workload.output_tokens={dist: fixed, value: 5}")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "why:  100 % of the requests failed: their clients left before the last token" in ended.out
    assert "kept up" not in ended.out
    assert "`workload.timeout_s`" in ended.out
    assert names(here / "runs" / "small") == FILES


@pytest.mark.parametrize("there", ["", "some", "some/where"])
def test_a_run_that_fails_while_writing_leaves_what_was_there(simslm, scenario, here, monkeypatch, there):
    from simslm.metrics.files import RunWriter

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (here / there).mkdir(parents=True, exist_ok=True)
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(RunWriter, "finish", fail)
    ended = simslm("simulate", scenario, "-o", "some/where/deep")
    assert ended.code == 5
    assert "No space left on device" in ended.complaint
    assert sorted(here.rglob("*")) == before


@pytest.mark.slow
def test_intervals_are_said_and_may_be_left_out(simslm, scenario):
    sure = simslm("simulate", scenario, "-o", "sure")
    assert sure.code == 0
    assert "sure: " in sure.out
    for line in sure.out.splitlines():
        assert "95 %" not in line or "only: " in line
    assert "no intervals of other requests of the same kind: fewer than 100 requests" in " ".join(
        sure.out.split()
    )
    plain = simslm("simulate", scenario, "-o", "plain", "--no-intervals", "--json")
    assert json.loads(plain.out)["intervals"] == {
        "level": None,
        "of": "cost error only",
        "figures": {},
        "note": "the run was not repeated",
    }


@pytest.mark.slow
def test_the_page_warns_where_the_host_time_is_another_engines(simslm, scenario, here):
    """Named by its beginning; an engine's own host time, put in by a transform, is not another engine's."""
    own = "cost.transforms=[{host: {fixed_s: 0.001, per_seq_s: 0}}]"
    for sets, warned in (
        (["deployment.engine.name=vllm-0.6"], True),
        (["deployment.engine.name=vllm-0.6", own], False),
        (["deployment.engine.name=simslm-engine"], False),
        ([], False),
    ):
        options = [part for text in sets for part in ("--set", text)]
        assert simslm("simulate", scenario, "-o", "out", "--no-intervals", *options).code == 0
        page = (here / "out" / "report.html").read_text(encoding="utf-8")
        assert ("but vllm-0.6 is deployed" in page) == warned

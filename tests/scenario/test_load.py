"""Scenarios from YAML: what is accepted, and how faults are reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simslm.errors import ScenarioError
from simslm.scenario.load import load_scenario

GOOD = """\
schema_version: 1
name: small
model: opt-1.3b
device: h200
cost: {roofline: {}}
workload:
  num_requests: 10
  arrivals: {process: poisson, rate_rps: 8}
  prompt_tokens: {dist: fixed, value: 100}
  output_tokens: {dist: fixed, value: 10}
deployment:
  engine:
    max_num_seqs: 8
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, overrides=None) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path, overrides)
    return list(caught.value.problems)


def test_a_good_scenario_has_vllms_defaults(tmp_path):
    engine = load_scenario(write(tmp_path, GOOD)).deployment.engine
    assert engine.max_num_seqs == 8
    assert engine.block_size == 16
    assert engine.gpu_memory_utilization == 0.9
    assert engine.batching.policy == "chunked-prefill"


def test_json_is_yaml_and_a_mapping_works_too(tmp_path):
    scenario = load_scenario(write(tmp_path, GOOD))
    as_json = tmp_path / "scenario.json"
    as_json.write_text(json.dumps(scenario.model_dump(mode="json", exclude_none=True)))
    assert load_scenario(as_json).model_dump() == scenario.model_dump()
    assert load_scenario(json.loads(as_json.read_text())).model_dump() == scenario.model_dump()


def test_every_fault_is_reported_with_line_and_nearest_name(tmp_path):
    text = GOOD.replace("max_num_seqs", "max_num_seq").replace("rate_rps: 8", "rate_rps: -8")
    assert problems(write(tmp_path, text)) == [
        "scenario.yaml:8: workload.arrivals.rate_rps: input should be greater than 0, got -8",
        "scenario.yaml:13: deployment.engine.max_num_seq: unknown key (did you mean 'max_num_seqs'?)",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("name: small", "name: ''", 2, "at least 1 character"),
        ("max_num_seqs: 8", "max_num_seqs: eight", 13, "valid integer"),
        ("max_num_seqs: 8", "max_num_seqs: 0", 13, "greater than or equal to 1"),
        ("max_num_seqs: 8", "max_num_seqs: 4096", 12, "max_num_batched_tokens (2048) must be at least"),
        ("max_num_seqs: 8", "gpu_memory_utilization: .nan", 13, "finite number"),
        ("max_num_seqs: 8", "batching: {policy: chunked}", 13, "unknown policy 'chunked'"),
        ("process: poisson", "process: poison", 8, "did you mean 'poisson'"),
        ("process: poisson, ", "", 8, "names no"),
        ("model: opt-1.3b", "model: 5", 3, "valid string"),
        ("schema_version: 1", "schema_version: 2", 1, "should be 1"),
        ("value: 100", "value: 1.5", 9, "integer"),
        ("value: 100", "value: true", 9, "valid integer, got true"),
        ("max_num_seqs: 8", "max_num_seqs: '8'", 13, "valid integer, got '8'"),
        ("max_num_seqs: 8", "max_num_seqs: 8.0", 13, "valid integer, got 8.0"),
        ("max_num_seqs: 8", "prefix_caching: 1", 13, "valid boolean, got 1"),
        ("max_num_seqs: 8", "prefix_caching: 'yes'", 13, "valid boolean, got 'yes'"),
        ("max_num_seqs: 8", "batching: {policy: chunked-prefill, max_partial_prompts: true}", 13, "got true"),
        ("rate_rps: 8", 'rate_rps: "8"', 8, "valid number, got '8'"),
        ("rate_rps: 8", "rate_rps: false", 8, "valid number, got false"),
        ("schema_version: 1", "schema_version: true", 1, "expected a number, got true"),
        ("deployment:", "deployment:\n  tensor_parallel_size: true", 12, "expected a number, got true"),
        ("cost: {roofline: {}}", "cost: {}", 5, "either trace or roofline"),
    ],
)
def test_one_fault_at_a_time(tmp_path, old, new, line, words):
    found = problems(write(tmp_path, GOOD.replace(old, new)))
    assert len(found) == 1
    assert found[0].startswith(f"scenario.yaml:{line}: ")
    assert words in found[0]


@pytest.mark.parametrize("rate", ["8", "8.0", "8e0", "0.8e+1", "8000e-3"])
def test_a_number_may_be_written_in_every_way_of_yaml(tmp_path, rate):
    path = write(tmp_path, GOOD.replace("rate_rps: 8", f"rate_rps: {rate}"))
    for overrides in ((), (f"workload.arrivals.rate_rps={rate}",)):
        found = load_scenario(path, overrides).workload.arrivals.rate_rps
        assert (found, type(found)) == (8.0, float)


def test_overrides_are_as_strict_as_the_file(tmp_path):
    path = write(tmp_path, GOOD)
    assert load_scenario(path, ["deployment.engine.max_num_seqs=64"]).deployment.engine.max_num_seqs == 64
    assert problems(path, ["deployment.engine.max_num_seqs='64'"]) == [
        "--set: deployment.engine.max_num_seqs: input should be a valid integer, got '64'"
    ]
    assert problems(path, {"workload.num_requests": True}) == [
        "--set: workload.num_requests: input should be a valid integer, got true"
    ]


def test_numbers_from_python_may_be_numpys(tmp_path):
    path = write(tmp_path, GOOD)
    given = {"deployment.engine.max_num_seqs": np.int64(4), "workload.arrivals.rate_rps": np.float32(0.5)}
    scenario = load_scenario(path, given)
    assert scenario.deployment.engine.max_num_seqs == 4
    assert scenario.workload.arrivals.rate_rps == 0.5


def test_missing_sections_are_named(tmp_path):
    assert problems(write(tmp_path, "model: opt-125m\ndevice: cpu\n")) == [
        "scenario.yaml: cost: missing",
        "scenario.yaml: workload: missing",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("a: 1\na: 2\n", "not valid YAML"),
        ("- 1\n- 2\n", "a scenario is a mapping"),
        ("", "a scenario is a mapping"),
        ("a: !!python/object:os.system {}\n", "unknown key"),
    ],
)
def test_what_is_no_scenario_at_all(tmp_path, text, words):
    assert any(words in problem for problem in problems(write(tmp_path, text)))


def test_bytes_that_are_no_text_and_missing_files(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in problems(path)[0]
    assert "no such file" in problems(tmp_path / "nowhere.yaml")[0]


def test_overrides_reach_every_key_and_are_named_in_errors(tmp_path):
    path = write(tmp_path, GOOD)
    scenario = load_scenario(
        path,
        ["deployment.engine.max_num_seqs=64", "slo.ttft_s=0.5", "workload.arrivals={process: all-at-once}"],
    )
    assert scenario.deployment.engine.max_num_seqs == 64
    assert scenario.slo is not None
    assert scenario.slo.ttft_s == 0.5
    assert scenario.workload.arrivals.process == "all-at-once"
    assert problems(path, ["deployment.engine.max_num_seqs=-1"])[0].startswith("--set: ")
    assert "expected path=value" in problems(path, ["deployment"])[0]
    assert "is a value, not a section" in problems(path, ["name.first=x"])[0]


@pytest.mark.parametrize(
    "key", ["deployment.groups.1.engine.max_num_seqs", "deployment.groups[1].engine.max_num_seqs"]
)
def test_a_position_in_a_list_is_written_either_way(tmp_path, key: str):
    path = write(tmp_path, GOOD)
    groups = "deployment={num_devices: 2, groups: [{name: a, devices: [0]}, {name: b, devices: [1]}]}"
    scenario = load_scenario(path, [groups, f"{key}=7"])
    assert scenario.deployment.groups is not None
    assert [each.engine.max_num_seqs == 7 for each in scenario.deployment.groups] == [False, True]
    assert "is no position in a list of 2" in problems(path, [groups, f"{key.replace('1', '2')}=7"])[0]


REPLAY = "workload.replay={format: csv, path: requests.csv}"
GENERATED = ("num_requests", "duration_s", "arrivals", "prompt_tokens", "output_tokens", "prefixes")


def test_an_override_takes_the_place_of_its_alternatives(tmp_path):
    path = write(tmp_path, GOOD)
    traced = load_scenario(path, ["cost.trace=somewhere"]).cost
    assert (traced.trace, traced.roofline) == ("somewhere", None)
    back = load_scenario(path, ["cost.trace=somewhere", "cost.roofline.efficiency=0.5"]).cost
    assert back.trace is None
    assert back.roofline.efficiency.compute == 0.5
    replayed = load_scenario(path, [REPLAY]).workload
    assert replayed.replay.path == "requests.csv"
    assert all(getattr(replayed, name) is None for name in GENERATED)
    lengths = [f"workload.{name}={{dist: fixed, value: 3}}" for name in ("prompt_tokens", "output_tokens")]
    drawn = ["workload.arrivals={process: poisson, rate_rps: 1}", *lengths, "workload.num_requests=5"]
    assert load_scenario(path, [REPLAY, *drawn]).workload.replay is None


@pytest.mark.parametrize("dist", ["gamma", "weibull"])
def test_parameters_of_a_distribution_take_the_place_of_its_mean_and_p95(tmp_path, dist):
    path = write(tmp_path, GOOD)
    given = f"workload.prompt_tokens={{dist: {dist}, mean: 100, p95: 300, max: 400}}"
    own = ["workload.prompt_tokens.shape=2", "workload.prompt_tokens.scale=50"]
    found = load_scenario(path, [given, *own]).workload.prompt_tokens
    assert (found.mean, found.p95, found.shape, found.scale, found.max) == (None, None, 2, 50, 400)


def test_an_override_of_no_alternative_leaves_the_rest_alone(tmp_path):
    path = write(tmp_path, GOOD)
    assert load_scenario(path, ["cost.trace=null"]).cost.roofline is not None
    assert load_scenario(path, ["cost.transforms=[]"]).cost.roofline is not None
    (found,) = problems(path, [REPLAY, "workload.num_requests=5"])
    assert "replay.limit and replay.time_scale shorten and scale" in found


def test_overrides_reach_the_paths_to_explore(tmp_path):
    path = write(tmp_path, EVERY_SECTION)
    changes = ["search.space.deployment.replicas_per_device=[1, 2]", "search.space.seed=[1]",
               "search.objectives.ttft_s.p99=min"]  # fmt: skip
    search = load_scenario(path, changes).search
    assert search.space["deployment.replicas_per_device"] == (1, 2)
    assert search.space["deployment.engine.max_num_seqs"] == (32, 64, 128, 256)
    assert search.space["seed"] == (1,)
    assert search.objectives["ttft_s.p99"] == "min"
    assert problems(path, ["search.space.workload.num_requests=5"]) == [
        "--set: search.space.workload.num_requests: expected a list, got 5"
    ]


def test_relative_paths_start_at_the_scenarios_folder(tmp_path):
    assert load_scenario(write(tmp_path, GOOD)).base_dir == tmp_path


def test_the_scenario_in_a_manifest_starts_its_paths_where_the_run_did(tmp_path):
    scenario = load_scenario(write(tmp_path, GOOD))
    manifest = {"name": "small", "scenario": scenario.model_dump(mode="json"), "base_dir": "/some/where"}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for given in (path, manifest):
        again = load_scenario(given, ["seed=3"])
        assert again.base_dir == Path("/some/where")
        assert again.model_dump() == scenario.model_dump() | {"seed": 3}
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": -1'), encoding="utf-8")
    assert problems(path) == ["manifest.json:6: seed: input should be greater than or equal to 0, got -1"]


EVERY_SECTION = """\
schema_version: 1
name: quickstart
seed: 0
model: opt-1.3b
device: h200
dtype: bf16
max_model_len: null
cost: {trace: traces/h200/opt-1.3b-bf16}
workload:
  num_requests: 2000
  arrivals: {process: poisson, rate_rps: 8}
  prompt_tokens: {dist: lognormal, mean: 256, p95: 768}
  output_tokens: {dist: fixed, value: 128}
deployment:
  num_devices: 1
  replicas_per_device: 2
  sharing: mps
  tensor_parallel_size: 1
  router: {policy: round-robin}
  engine:
    batching: {policy: chunked-prefill}
    max_num_seqs: 256
    max_num_batched_tokens: 2048
    block_size: 16
    gpu_memory_utilization: 0.9
    num_gpu_blocks: null
    prefix_caching: false
    preemption: recompute
slo: {ttft_s: 0.5, tpot_s: 0.05, attainment: 0.9}
search:
  space: {deployment.replicas_per_device: [1, 2, 4], deployment.engine.max_num_seqs: [32, 64, 128, 256]}
  objectives: {throughput.output_tokens_per_s: max, itl_s.p50: min, energy.j_per_output_token: min}
  constraints: ["ttft_s.p99 <= 0.5"]
  capacity: {of: workload.arrivals.rate_rps}
  method: grid
"""


def test_every_section_of_the_format_is_accepted(tmp_path):
    scenario = load_scenario(write(tmp_path, EVERY_SECTION))
    assert scenario.deployment.replicas_per_device == 2
    assert scenario.search is not None
    assert scenario.search.space["deployment.replicas_per_device"] == (1, 2, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"deployment.sharing": "none"}, "sharing: none means one replica on each device"),
        ({"deployment.tensor_parallel_size": 2}, "set replicas_per_device to 1"),
        ({"deployment.tensor_parallel_size": 3}, "tensor_parallel_size"),
        ({"deployment.groups": [{"name": "a", "devices": [1]}]}, "device 1 does not exist"),
        (
            {"deployment.groups": [{"name": "a"}, {"name": "b", "tensor_parallel_size": 2}]},
            "cannot be divided",
        ),
        (
            {"deployment.engine.batching": "orca", "deployment.engine.prefix_caching": True},
            "a reservation is one piece of memory",
        ),
        ({"slo": {"attainment": 0.5}}, "at least one of"),
    ],
)
def test_sections_that_contradict_each_other(tmp_path, change, words):
    assert any(words in problem for problem in problems(write(tmp_path, EVERY_SECTION), change))

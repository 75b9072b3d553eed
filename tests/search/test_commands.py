"""What one does with a point: the command gives the same figures, and the servers have what was simulated."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli.conftest import here, simslm  # noqa: F401
from search.conftest import dig

from simslm.api import load_scenario
from simslm.search.commands import repository, serve_commands, simulate_command


def servers(script: str) -> list[tuple[dict[str, str], list[str]]]:
    """Each server's environment and its words after ``vllm serve``."""
    found = []
    for line in script.splitlines():
        if "vllm serve" not in line or line.startswith("#"):
            continue
        words = shlex.split(line.removesuffix(" &"))
        start = words.index("vllm")
        found.append((dict(word.split("=", 1) for word in words[:start]), words[start + 2 :]))
    return found


def flag(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def scenario_of(small: dict, **deployment: object):
    small["deployment"] = deployment
    return load_scenario(small)


def test_one_replica_is_one_command(small):
    engine = {
        "max_num_seqs": 48,
        "max_num_batched_tokens": 1024,
        "batching": "prefill-first",
        "num_gpu_blocks": 900,
    }
    script = serve_commands(scenario_of(small, engine=engine))
    assert script == (
        "CUDA_VISIBLE_DEVICES=0 vllm serve facebook/opt-1.3b --dtype bfloat16 --max-num-seqs 48 "
        "--max-num-batched-tokens 1024 --gpu-memory-utilization 0.9 --block-size 16 --num-gpu-blocks-override 900 "
        "--no-enable-chunked-prefill --no-enable-prefix-caching --scheduling-policy fcfs --port 8000"
    )


def test_speculation_is_a_flag_and_what_vllm_lacks_is_said(small):
    speculative = {"num_speculative_tokens": 4, "acceptance_rate": 0.6}
    scenario = scenario_of(small, engine={"speculative_config": {**speculative, "model": "opt-125m"}})
    script = serve_commands(scenario)
    ((_, words),) = servers(script)
    found = json.loads(flag(words, "--speculative-config"))
    assert found == {"model": "facebook/opt-125m", "num_speculative_tokens": 4}
    assert "#" not in script
    small["cost"] = {**small["cost"], "transforms": [{"weights": {"bits": 4}}]}
    script = serve_commands(
        scenario_of(small, engine={"speculative_config": {**speculative, "policy": "smartspec"}})
    )
    ((_, words),) = servers(script)
    assert json.loads(flag(words, "--speculative-config"))["method"] == "ngram"
    assert "# vLLM has no smartspec: it proposes num_speculative_tokens in every iteration" in script
    assert "# what was simulated is changed by weights" in script


def test_replicas_share_a_device_under_mps(small):
    script = serve_commands(scenario_of(small, num_devices=2, replicas_per_device=3, sharing="mps"))
    lines = script.splitlines()
    assert lines[0].startswith("export CUDA_MPS_PIPE_DIRECTORY=")
    assert lines[1] == "nvidia-cuda-mps-control -d"
    found = servers(script)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment, _ in found] == ["0"] * 3 + ["1"] * 3
    assert [flag(words, "--port") for _, words in found] == [str(8000 + i) for i in range(6)]
    assert [float(flag(words, "--gpu-memory-utilization")) for _, words in found] == [pytest.approx(0.3)] * 6
    assert all("--enable-chunked-prefill" in words for _, words in found)
    assert script.count("wait") == 1


def test_partitions_state_their_share_of_the_device(small):
    found = servers(serve_commands(scenario_of(small, replicas_per_device=4, sharing="sm-partition")))
    assert [environment["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] for environment, _ in found] == ["25"] * 4


def test_taking_turns_needs_no_mps(small):
    script = serve_commands(scenario_of(small, replicas_per_device=2, sharing="time-slice"))
    assert "MPS" not in script
    assert len(servers(script)) == 2


def test_groups_have_their_own_models_and_memory(small):
    groups = [
        {"name": "large", "engine": {"gpu_memory_utilization": 0.6}},
        {
            "name": "small",
            "model": "opt-125m",
            "cost": {"roofline": {}},
            "engine": {"gpu_memory_utilization": 0.2},
        },
    ]
    found = servers(serve_commands(scenario_of(small, sharing="mps", groups=groups)))
    assert [words[0] for _, words in found] == ["facebook/opt-1.3b", "facebook/opt-125m"]
    assert [flag(words, "--gpu-memory-utilization") for _, words in found] == ["0.6", "0.2"]


def test_a_replica_over_two_devices(small):
    found = servers(serve_commands(scenario_of(small, num_devices=4, tensor_parallel_size=2)))
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment, _ in found] == ["0,1", "2,3"]
    assert [flag(words, "--tensor-parallel-size") for _, words in found] == ["2", "2"]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"batching": "static"}, "# vLLM has no static batching"),
        ({"scheduling_policy": "shortest-prompt"}, "# vLLM has no shortest-prompt queue"),
        ({"preemption": "swap"}, "# swapping needs the V0 engine"),
        (
            {"preemption": "swap", "swapping": {"turns": True}},
            "# vLLM keeps finished turns on the host through",
        ),
    ],
)
def test_what_vllm_does_not_have_is_said(small, engine, words):
    assert words in serve_commands(scenario_of(small, engine=engine))


def test_every_model_of_the_catalogue_has_a_repository():
    from simslm.catalog.models import model_names

    for name in model_names():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository(name)), name
    assert repository("models/mine/config.json") == "models/mine"


def test_arguments_are_quoted_for_a_shell():
    line = simulate_command(["my file.yaml"], {"workload.prompt_tokens": {"dist": "fixed", "value": 5}})
    assert shlex.split(line) == [
        "simslm", "simulate", "my file.yaml", "--set", 'workload.prompt_tokens={"dist": "fixed", "value": 5}'
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_of_a_point_gives_its_figures(searched, here, simslm):  # noqa: F811
    searched["workload"]["arrivals"] = {"process": "poisson", "rate_rps": 60}
    searched["search"] |= {
        "space": {
            "deployment.engine.batching": ["static", {"policy": "prefill-first"}],
            "deployment.engine.max_num_seqs": [4, 16],
            "workload.prompt_tokens": [{"dist": "fixed", "value": 50}],
        },
        "capacity": {"of": "workload.arrivals.rate_rps"},
        "replications": 2,
    }
    Path("my search.yaml").write_text(json.dumps(searched), encoding="utf-8")
    ended = simslm("search", "my search.yaml", "-o", "out", "--jobs", "1", "--json", "--set", "seed=7")
    assert ended.code == 0, ended.err
    points = json.loads(ended.out)["points"]
    assert points
    for point in points:
        words = shlex.split(point["command"])[1:]
        again = simslm(*words, "-o", "again", "--json")
        assert again.code == 0, again.err
        (first, *_) = point["runs"]
        assert first["seed"] == 7
        summary = json.loads(again.out)
        for path in searched["search"]["objectives"]:
            assert dig(summary, path) == first["values"][path]
        Path("point.yaml").write_text(json.dumps(point["scenario"]), encoding="utf-8")
        from_scenario = json.loads(simslm("simulate", "point.yaml", "-o", "point", "--json").out)
        assert from_scenario == summary

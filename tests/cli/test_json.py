"""Every command that prints results prints them as JSON when asked to, and nothing else on stdout."""

from __future__ import annotations

import json
import shlex

import pytest
from cli.test_help import COMMANDS

pytestmark = pytest.mark.slow

RUNS = (
    "run,model,device,engine,prompt_tokens,output_tokens,num_requests,arrivals,max_num_seqs,batching,num_gpu_blocks,"
    "max_num_batched_tokens,output_tokens_per_s,tpot_mean_s\n"
    "b1,opt-125m,cpu,theirs 1,100,20,60,all-at-once,1,chunked-prefill,4000,512,60,0.016\n"
    "b4,opt-125m,cpu,theirs 1,100,20,60,all-at-once,4,chunked-prefill,4000,512,190,0.02\n"
    "b8,opt-125m,cpu,theirs 1,100,20,60,all-at-once,8,chunked-prefill,4000,512,300,0.026\n"
)

SPACE = "search={space: {deployment.engine.max_num_seqs: [4, 8]}, objectives: {tpot_s.p50: min}}"

INVOCATIONS = {
    "calibrate": "calibrate RUNS.csv --model opt-125m --device cpu --dtype fp32 -o calibrated",
    "check": "check small.yaml",
    "compare": "compare runs/a runs/b",
    "env": "env",
    "explain": "explain ttft_s --run runs/a",
    "init": "init new.yaml",
    "list": "list models",
    "plan": "plan small.yaml --rate 2 --device l4 --set model=opt-125m --set slo.attainment=0.5",
    "report": "report runs/a --timeline",
    "roofline": "roofline small.yaml",
    "search": f"search small.yaml --jobs 1 --set '{SPACE}'",
    "simulate": "simulate small.yaml",
    "traces check": "traces check traces/cpu/mine",
    "traces compare": "traces compare traces/cpu/mine traces/cpu/mine",
    "traces import": "traces import steps.csv --model opt-125m --device cpu --dtype fp32 --engine e -o again",
    "traces list": "traces list",
    "traces schema": "traces schema",
    "traces show": "traces show traces/cpu/mine",
    "validate recorded": "validate recorded RUNS.csv --trace traces/cpu/mine -o fidelity",
    "workload fit": "workload fit requests.csv -o preset.yaml",
    "workload make": "workload make small.yaml -o made.csv",
    "workload show": "workload show small.yaml",
}
DEVICES = {"profile", "validate live"}
"""Commands that measure this machine; their own tests look at what they print."""

OTHERWISE = {"schema"}
"""Prints nothing but JSON anyhow."""


def test_no_command_is_forgotten():
    assert {*INVOCATIONS, *DEVICES, *OTHERWISE} == set(COMMANDS)


@pytest.fixture
def everything(simslm, here, scenario, trace):
    """What the commands ask for."""
    (here / "RUNS.csv").write_text(RUNS, encoding="utf-8")
    rows = [
        "arrival_s,prompt_tokens,output_tokens",
        *(f"{0.1 * i},{20 + i % 7},{5 + i % 5}" for i in range(400)),
    ]
    (here / "requests.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name, seqs in (("a", 8), ("b", 2)):
        made = simslm(
            "simulate", scenario, "-o", f"runs/{name}", "--set", f"deployment.engine.max_num_seqs={seqs}"
        )
        assert made.code == 0, made.err


@pytest.mark.parametrize("words", INVOCATIONS)
def test_it_answers_in_json_and_nothing_else(simslm, everything, words):
    ended = simslm(*shlex.split(INVOCATIONS[words]), "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)

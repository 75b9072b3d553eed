"""A first scenario can be run as it is, says what its keys mean, and replaces nothing by accident."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys

import pytest

from simslm.scenario.load import load_scenario

PATIENCE_S = 60
"""For a terminal that says nothing any more."""

FLAGS = ("--model", "llama-3.2-1b", "--device", "l4", "--arrivals", "gamma:12:2", "--prompt-tokens", "300:900",
         "--output-tokens", "64", "--ttft-s", "0.25", "--tpot-s", "0.03", "--attainment", "0.99")  # fmt: skip


@pytest.mark.slow
def test_what_is_usual_passes_check_and_runs(simslm, here):
    made = simslm("init")
    assert (made.code, made.err) == (0, "")
    assert simslm("check", "scenario.yaml").code == 0
    assert simslm("simulate", "scenario.yaml", "--set", "workload.num_requests=20").code == 0
    assert "simslm check scenario.yaml" in made.out


def test_flags_are_what_the_scenario_says(simslm, here):
    assert simslm("init", "chat.yaml", *FLAGS, "--name", "my chat: v1").code == 0
    scenario = load_scenario("chat.yaml")
    assert (scenario.model, scenario.device, scenario.dtype, scenario.name) == (
        "llama-3.2-1b",
        "l4",
        "bf16",
        "my chat: v1",
    )
    resolved = scenario.model_dump(mode="json")
    assert resolved["workload"]["arrivals"] == {"process": "gamma", "rate_rps": 12.0, "cv": 2.0}
    prompt, output = resolved["workload"]["prompt_tokens"], resolved["workload"]["output_tokens"]
    assert (prompt["mean"], prompt["p95"]) == (300, 900)
    assert (output["dist"], output["value"]) == ("fixed", 64)
    assert resolved["slo"] | {"e2e_s": None} == {
        "ttft_s": 0.25,
        "tpot_s": 0.03,
        "e2e_s": None,
        "attainment": 0.99,
    }
    assert simslm("check", "chat.yaml").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("arrivals", ["poisson:0.5", "closed-loop:8", "all-at-once"])
@pytest.mark.parametrize("device", ["cpu", "h200", "l4"])
def test_every_traffic_and_device_gives_one_that_can_be_searched(simslm, here, arrivals, device):
    assert simslm("init", "--device", device, "--arrivals", arrivals).code == 0
    few = (
        "--set",
        "workload.num_requests=12",
        "--set",
        "search.space={deployment.engine.max_num_seqs: [32, 64]}",
    )
    ended = simslm("search", "scenario.yaml", *few, "--jobs", "1", "--json")
    assert ended.code in (0, 4), ended.err
    assert json.loads(ended.out)["counts"]["points"] == 2


def test_a_trace_of_the_model_is_used(simslm, here, trace):
    made = json.loads(simslm("init", "sub.yaml", "--model", "opt-125m", "--device", "cpu", "--json").out)
    assert "cost: {trace: traces/cpu/mine}" in made["text"]
    assert "imported on mine 1" in made["text"]
    assert load_scenario("sub.yaml").dtype == "fp32"


def test_paths_are_relative_to_the_file(simslm, here, trace):
    (here / "below").mkdir()
    assert simslm("init", "below/s.yaml", "--device", "cpu").code == 0
    assert "../traces/cpu/mine" in (here / "below" / "s.yaml").read_text(encoding="utf-8")
    assert simslm("check", "below/s.yaml").code == 0


def test_without_a_trace_it_says_that_nothing_was_measured(simslm, here):
    made = simslm("init", "--model", "qwen3-4b", "--device", "l40s")
    assert "not measured" in made.out
    text = (here / "scenario.yaml").read_text(encoding="utf-8")
    assert "cost: {roofline: {}}" in text
    assert "simslm profile --model qwen3-4b" in text


def test_every_key_that_is_not_plain_has_a_comment(simslm, here):
    simslm("init")
    lines = (here / "scenario.yaml").read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 120
    for key in (
        "model",
        "cost",
        "arrivals",
        "sharing",
        "batching",
        "max_num_seqs",
        "slo",
        "search",
        "objectives",
    ):
        (line,) = [line for line in lines if line.strip().startswith(f"{key}:")]
        assert "# " in line


def test_nothing_is_replaced_by_accident(simslm, here):
    (here / "scenario.yaml").write_text("mine\n", encoding="utf-8")
    ended = simslm("init")
    assert ended.code == 2
    assert "--force" in ended.complaint
    assert (here / "scenario.yaml").read_text(encoding="utf-8") == "mine\n"
    assert simslm("init", "--force").code == 0
    assert load_scenario("scenario.yaml").model == "opt-125m"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--model", "opt-125"), 2, "did you mean 'opt-125m'"),
        (("--device", "h20"), 2, "did you mean 'h200'"),
        (("--arrivals", "poison:8"), 2, "poisson:RPS"),
        (("--arrivals", "poisson:0"), 2, "rate_rps"),
        (("--prompt-tokens", "many"), 2, "MEAN:P95"),
        (("--prompt-tokens", "256:100"), 2, "p95"),
        (("--attainment", "90"), 2, "at most 1"),
        (("--ttft-s", "-1"), 2, "above 0"),
        (("--model", "llama-2-13b", "--device", "a10g"), 4, "memory"),
        (("--prompt-tokens", "100000"), 4, "not one request"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_and_nothing_written(simslm, here, flags, code, said):
    ended = simslm("init", *flags)
    assert ended.code == code
    assert said in ended.err
    assert not list(here.iterdir())


def typed(here, answers: str) -> tuple[int, str]:
    """Runs ``simslm init`` on a terminal of its own, where these lines are typed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from simslm.cli import main; main()", "init"]
    with subprocess.Popen(
        command, cwd=here, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        os.write(ours, answers.encode())
        shown = b""
        while select.select([ours], [], [], PATIENCE_S)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # Linux: the other end is closed
                break
        else:
            process.kill()
        os.close(ours)
        return process.wait(), shown.decode()


@pytest.mark.slow
def test_on_a_terminal_it_asks_again_until_the_answer_makes_sense(here):
    code, shown = typed(here, "opt-125\nopt-1.3b\nh200\npoisson:20\n\n\n0.2\n\n2\n0.95\n")
    assert code == 0, shown
    assert "did you mean 'opt-125m'" in shown
    assert "expected a share" in shown
    scenario = load_scenario(here / "scenario.yaml")
    assert (scenario.model, scenario.device) == ("opt-1.3b", "h200")
    assert scenario.slo is not None
    assert (scenario.slo.ttft_s, scenario.slo.tpot_s, scenario.slo.attainment) == (0.2, 0.05, 0.95)


def test_leaving_writes_nothing(here):
    code, shown = typed(here, "opt-1.3b\n\x04")
    assert code == 130
    assert "nothing is written" in shown
    assert not list(here.iterdir())

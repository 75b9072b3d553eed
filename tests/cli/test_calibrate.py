"""``simslm calibrate``: what it prints, writes, and ends with."""

from __future__ import annotations

import json

import pytest

HEAD = (
    "run,model,device,engine,prompt_tokens,output_tokens,num_requests,arrivals,max_num_seqs,batching,"
    "num_gpu_blocks,max_num_batched_tokens,output_tokens_per_s,tpot_mean_s,power_active_p50_w\n"
)
ROWS = "\n".join(
    f"b{batch},{model},h100-64gb,theirs 1,100,20,60,all-at-once,{batch},chunked-prefill,4000,512,{rate},{gap},{watts}"
    for batch, rate, gap, watts, model in (
        (1, 200, 0.004, 250, "opt-1.3b"),
        (8, 1400, 0.0045, 270, "opt-1.3b"),
        (32, 3500, 0.007, 300, "opt-1.3b"),
        (4, 700, 0.005, 260, "opt-2.7b"),
    )
)


@pytest.fixture
def calibrate(simslm, here):
    (here / "RUNS.csv").write_text(HEAD + ROWS + "\n")

    def run(*more: str):
        return simslm(
            "calibrate", "RUNS.csv", "--model", "opt-1.3b", "--device", "h100-64gb", "--dtype", "fp16", "-o", "mine",
            *more,
        )  # fmt: skip

    return run


def test_terms_errors_and_the_place_of_the_trace_are_printed(calibrate, simslm):
    ended = calibrate("--where", "model == 'opt-1.3b'")
    assert ended.code == 0
    for text in (
        "host_per_seq",
        "std error",
        "the 3 runs it was fitted to",
        "engine: theirs 1",
        "trace: mine",
    ):
        assert text in ended.out
    assert "hardly determined" in ended.err
    assert "combinations of the 10 terms" in ended.err
    shown = simslm("traces", "show", "mine")
    assert "calibrated" in shown.out
    assert simslm("traces", "check", "mine").code == 0


def test_json_has_the_same(calibrate):
    ended = calibrate("--where", "model == 'opt-1.3b'", "--json")
    values = json.loads(ended.out)
    terms = {row["term"]: row for row in values["terms"]}
    assert terms["host"]["unit"] == "s"
    assert terms["host"]["stderr"] > 0
    assert set(values["errors"]) == set(values["power_errors"]) == {"b1", "b8", "b32"}
    assert values["domain"]["decode_seqs"][1] == 32


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "model=opt-2.7b"), "is of model 'opt-2.7b'"),
        (("--where", "model == 'nothing'"), "holds for none"),
        (("--set", "model=opt-1.3b", "--offline", "none.csv"), "has no rows of opt-1.3b"),
        (("--set", "device=none.yaml"), "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_calibrated_is_said(calibrate, here, more, said):
    (here / "none.csv").write_text(
        "model,input_len,batch,decode_steps,prefill_s,decode_s\nopt-2.7b,10,1,10,0.01,0.1\n"
    )
    ended = calibrate(*more)
    assert ended.code == 2
    assert said in ended.err
    assert not (here / "mine").exists()


def test_runs_of_another_model_are_skipped_and_named(calibrate):
    ended = calibrate()
    assert ended.code == 0
    assert "the 3 runs it was fitted to" in ended.out
    assert "skipped: b4: RUNS.csv:5: run 'b4' is of model 'opt-2.7b', not 'opt-1.3b'" in ended.err


# ---- a bad fit ---------------------------------------------------------------------------------------------

SCENARIO = """\
schema_version: 1
name: on-it
model: opt-1.3b
device: h100-64gb
dtype: fp16
cost: {trace: mine}
workload:
  num_requests: 30
  arrivals: {process: poisson, rate_rps: 2}
  prompt_tokens: {dist: fixed, value: 100}
  output_tokens: {dist: fixed, value: 20}
slo: {ttft_s: 5, tpot_s: 1, attainment: 0.9}
search: {space: {deployment.engine.max_num_seqs: [8, 16]}, objectives: {throughput.output_tokens_per_s: max}}
"""


@pytest.fixture
def contradictory(simslm, here):
    """Two runs of which one is 20 times slower than the other lets it be."""
    rows = ROWS.splitlines()[:3]
    rows[2] = rows[2].replace("3500", "175").replace("0.007", "0.14")
    (here / "RUNS.csv").write_text(HEAD + "\n".join(rows) + "\n")
    (here / "on-it.yaml").write_text(SCENARIO)

    def run(*more: str):
        return simslm(
            "calibrate", "RUNS.csv", "--model", "opt-1.3b", "--device", "h100-64gb", "--dtype", "fp16", "-o", "mine",
            *more,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_bad_fit_is_an_answer_of_its_own(contradictory, here):
    ended = contradictory()
    assert ended.code == 1
    assert "of b32 by" in ended.err
    assert "no trace is written" in ended.err
    assert "trace: " not in ended.out
    assert "the 3 runs it was fitted to" in ended.out
    assert not (here / "mine").exists()
    assert json.loads(contradictory("--json").out)["trace"] is None
    assert contradictory("--max-residual", "100").code == 0


@pytest.mark.slow
def test_a_forced_trace_is_marked_wherever_it_is_used(contradictory, simslm, here):
    assert contradictory("--force").code == 0
    said = "the calibration misses its own runs by up to"
    checked = simslm("traces", "check", "mine")
    assert checked.code == 3
    assert said in checked.out
    assert said in simslm("check", "on-it.yaml").out
    simulated = simslm("simulate", "on-it.yaml", "-o", "run")
    assert said in simulated.out
    assert "SLO met" not in simulated.out
    assert "annot tell" in simulated.out
    assert said in json.loads((here / "run" / "summary.json").read_text())["cost"]["flags"][0]
    assert "Cannot tell" in (here / "run" / "report.html").read_text()
    found = simslm("search", "on-it.yaml", "-o", "found")
    assert found.code == 0
    assert said in json.loads((here / "found" / "frontier.json").read_text())["flags"][0]
    assert said in found.out + found.err
    validated = simslm("validate", "recorded", "RUNS.csv", "--trace", "mine", "-o", "valid")
    assert said in validated.err
    assert said in simslm("compare", "run", "run").out


@pytest.mark.slow
def test_a_device_may_be_written_inline_or_in_a_file(simslm, here):
    """The device of the table is a file, that of the option too, or its fields; scenarios name the same."""
    device = "{name: mine, like: h100-64gb, memory_bandwidth_bytes_per_s: 2.0e12}"
    (here / "mine.yaml").write_text(device)
    text = HEAD + "\n".join(ROWS.splitlines()[:3]) + "\n"
    (here / "RUNS.csv").write_text(text.replace("h100-64gb", "mine.yaml"))
    for option in ("mine.yaml", device):
        ended = simslm(
            "calibrate", "RUNS.csv", "--model", "facebook/opt-1.3b", "--device", option, "--dtype", "fp16", "-o", "t",
        )  # fmt: skip
        assert ended.code == 0, ended.err
    assert simslm("validate", "recorded", "RUNS.csv", "--trace", "t", "-o", "valid").code == 0
    for named in ("mine.yaml", device):
        scenario = SCENARIO.replace("device: h100-64gb", f"device: {named}").replace(
            "trace: mine", "trace: t"
        )
        (here / "on-it.yaml").write_text(scenario)
        assert "mine" in simslm("check", "on-it.yaml").out
        assert simslm("search", "on-it.yaml", "-o", "found").code == 0
    planned = simslm("plan", "on-it.yaml", "--rate", "1", "--device", "mine.yaml", "--device", "l4")
    assert planned.code == 0, planned.err
    assert "mine" in planned.out

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
        ((), "is of model 'opt-2.7b'"),
        (("--where", "model == 'nothing'"), "holds for none"),
        (("--offline", "none.csv"), "is of model"),
    ],
)
def test_what_cannot_be_calibrated_is_said(calibrate, here, more, said):
    (here / "none.csv").write_text(
        "model,input_len,batch,decode_steps,prefill_s,decode_s\nopt-1.3b,10,1,10,0.01,0.1\n"
    )
    ended = calibrate(*more)
    assert ended.code == 2
    assert said in ended.err
    assert not (here / "mine").exists()

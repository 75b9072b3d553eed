"""Public result files with known right answers, through the commands their users gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SERVER = (
    "--set",
    "max_num_seqs=256",
    "--set",
    "max_num_batched_tokens=2048",
    "--set",
    "batching=chunked-prefill",
)
MODEL = ("--set", "model=qwen2.5-0.5b", "--set", "device=l4")


@pytest.fixture
def models(cases) -> Path:
    return cases / "models"


@pytest.fixture
def recorded(simslm, here, models):
    """Validates a file on a trace that is calibrated from one of the cases."""
    small = str(models / "h15-instruct.json")
    made = simslm("calibrate", small, "--model", "qwen2.5-0.5b", "--device", "l4", *SERVER, "-o", "trace")
    assert made.code == 0

    def run(name: str):
        ended = simslm(
            "validate", "recorded", str(models / name), "--trace", "trace", *MODEL, *SERVER, "-o", "out"
        )
        assert ended.code == 0, ended.err
        return json.loads((here / "out" / "fidelity.json").read_text()), ended

    return run


@pytest.mark.slow
def test_closed_loops_with_a_mean_ttft_are_fitted(simslm, here, models):
    """h01: five throughputs within 5 %; their TTFT is used, or said not to be met."""
    ended = simslm(
        "calibrate", str(models / "h01-closed-loop"), "--model", "mistral-7b-v0.3", "--device", "rtx-4090", "--dtype",
        "bf16", *SERVER, "-o", "mine", "--json",
    )  # fmt: skip
    assert ended.code == 0
    values = json.loads(ended.out)
    assert len(values["errors"]) == 5
    assert all(abs(errors["output_tokens_per_s"]) < 0.05 for errors in values["errors"].values())
    assert any("misses the TTFT of its own runs" in flag for flag in values["flags"])
    assert values["skipped"] == []
    shown = simslm(
        "calibrate", str(models / "h01-closed-loop"), "--model", "mistral-7b-v0.3", "--device", "rtx-4090", "--dtype",
        "bf16", *SERVER, "-o", "again",
    )  # fmt: skip
    judged = {name for errors in values["errors"].values() for name in errors}
    assert judged - {"preemptions"} <= set(shown.out.split()), "the table has all that the warning is about"


def test_a_failed_run_of_a_folder_is_skipped(recorded):
    """h10."""
    values, ended = recorded("h10-folder")
    assert [row["run"].split()[0] for row in values["rows"]] == ["good"]
    (skipped,) = values["skipped"]
    assert skipped["run"] == "failed.json"
    assert "only 1 of 100 requests were completed" in skipped["reason"]
    assert "failed.json" in ended.err


def test_recorded_starts_are_replayed(recorded):
    """h11: three bursts of 20, 10 s apart, are no Poisson process of 2 requests/s."""
    values, _ = recorded("h11-start-times.json")
    (row,) = values["rows"]
    assert row["setting"]["arrivals"] == "recorded"
    assert row["simulated"]["ttft_p50_s"] > 3 * 0.024
    assert 20 < row["simulated"]["duration_s"] < 25


def test_a_measured_window_is_honoured(recorded):
    """h12: 17.9 requests/s of 128 tokens, as the report itself says."""
    values, ended = recorded("h12-guidellm-warmup.json")
    (row,) = values["rows"]
    assert row["measured"]["output_tokens_per_s"] == pytest.approx(17.9 * 128)
    assert row["simulated"]["duration_s"] == pytest.approx(12)
    assert "rampup_duration" in ended.err


@pytest.mark.slow
def test_lines_of_sglang_are_read(simslm, here, models):
    """h14."""
    ended = simslm(
        "calibrate", str(models / "h14-sglang.jsonl"), "--model", "qwen2.5-0.5b", "--device", "l4", *SERVER, "-o",
        "mine", "--json",
    )  # fmt: skip
    assert ended.code == 0
    (errors,) = json.loads(ended.out)["errors"].values()
    assert abs(errors["tpot_mean_s"]) < 0.05


def test_options_answer_what_a_file_does_not_say(simslm, here, models):
    """h15: no `--set model=` or `--set device=`; the instruct repository is the catalogue's model."""
    ended = simslm(
        "calibrate", str(models / "h15-instruct.json"), "--model", "Qwen/Qwen2.5-0.5B-Instruct", "--device", "l4",
        *SERVER, "-o", "mine",
    )  # fmt: skip
    assert ended.code == 0
    assert "engine: an unnamed engine (say it with --set engine=" in ended.out
    shown = json.loads(simslm("traces", "show", "mine", "--json").out)["provenance"]
    assert (shown["model"], shown["device"]) == ("qwen2.5-0.5b", "l4")

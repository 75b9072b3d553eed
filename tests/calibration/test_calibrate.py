"""Calibration finds the terms that made the runs, says how sure it is, and what it cannot know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration.conftest import DEVICE, DTYPE, MODEL, TRUE, answers

from simslm.api import prepare
from simslm.calibration.calibrate import calibrate, write_calibration
from simslm.calibration.evidence import evidence
from simslm.calibration.offline import Step, read_steps
from simslm.calibration.schedule import FEWEST_DRAWS, REQUESTS, schedule
from simslm.cost.load import load_cost
from simslm.errors import UsageError
from simslm.runs.replay import scenario_of
from simslm.scenario.cost import Cost

BATCHES = (1, 4, 16, 64, 128)


@pytest.fixture(scope="module")
def calibrated(runs):
    return calibrate(runs(BATCHES, 0.005), MODEL, DEVICE, DTYPE)


@pytest.mark.slow
@pytest.mark.parametrize("arrivals", ["all-at-once", "poisson:20"])
@pytest.mark.parametrize("batching", ["chunked-prefill", "prefill-first"])
def test_a_schedule_prices_a_run_as_the_simulator_does(runs, truth_cost, arrivals, batching):
    run = runs((8,), 0.0, arrivals=arrivals, batching=batching, max_num_batched_tokens=2048)[0]
    each = schedule(run, truth_cost, DTYPE)
    drawn = range(max(REQUESTS // 300, FEWEST_DRAWS) if run.drawn else 1)
    told = [answers(run, truth_cost, seed) for seed in drawn]
    found = each.metrics(truth_cost.evaluate(each.shapes).latency_s, truth_cost.terms["startup"])
    for name in ("itl_mean_s", "tpot_mean_s", "ttft_mean_s", "tpot_p50_s", "ttft_p50_s", "duration_s"):
        assert found[name] == pytest.approx(np.mean([each[name] for each in told]), rel=1e-9), name
    for name, within in (
        ("output_tokens_per_s", 1e-3),
        ("steady_output_tokens_per_s", 0.01),
        ("itl_p50_s", 0.01),
    ):
        assert found[name] == pytest.approx(np.mean([each[name] for each in told]), rel=within), name


@pytest.mark.slow
def test_the_true_terms_are_within_three_standard_errors(calibrated):
    stderr = calibrated.fit.stderr
    for name, true in TRUE.items():
        away = abs(np.log(calibrated.cost.terms[name] / true)) / (stderr[name] / calibrated.cost.terms[name])
        assert away < 3, name


def test_what_the_runs_tell_is_found_and_what_they_do_not_is_said(calibrated):
    for name, within in (("compute", 0.3), ("startup", 0.1), ("launch", 0.1)):
        assert calibrated.cost.terms[name] == pytest.approx(TRUE[name], rel=within)
    said = " ".join(calibrated.warnings)
    (vague,) = [warning for warning in calibrated.warnings if "hardly determined" in warning]
    assert "prefill_attention" in vague
    assert "launch" not in vague
    assert "combinations of the 10 terms" in said


def test_other_runs_are_predicted_within_the_interval(calibrated, truth_cost, runs):
    """Other lengths, another scheduler, batches between those calibrated on."""
    for run in runs((2, 32, 96), 0.0, prompt_tokens=90, output_tokens=160, batching="prefill-first",
                    max_num_batched_tokens=2048):  # fmt: skip
        each = schedule(run, calibrated.cost, DTYPE)
        latency = calibrated.cost.evaluate(each.shapes).latency_s
        found = each.metrics(latency, calibrated.cost.terms["startup"])
        assert found["output_tokens_per_s"] == pytest.approx(run.measured["output_tokens_per_s"], rel=0.03)
        halves = [
            (high.evaluate(each.shapes).latency_s - low.evaluate(each.shapes).latency_s) / 2
            for low, high in calibrated.cost.variants()
        ]
        error = np.sqrt(sum(half**2 for half in halves)) / latency
        true = truth_cost.evaluate(each.shapes).latency_s
        assert (np.abs(latency / true - 1) < 3.5 * error).all()


def test_the_trace_answers_as_the_calibration_did(calibrated, tmp_path, runs):
    write_calibration(tmp_path / "t", calibrated, DTYPE, "by hand")
    prepared = prepare(scenario_of(runs((8,), 0.0)[0], {"trace": str(tmp_path / "t")}, dtype=DTYPE))
    again = load_cost(
        Cost(trace=str(tmp_path / "t")), prepared.groups[0].architecture, prepared.device, DTYPE
    )
    assert again.engine == "known 1"
    assert again.source == "calibrated"
    shapes = schedule(runs((8,), 0.0)[0], calibrated.cost, DTYPE).shapes
    assert (again.evaluate(shapes).latency_s == calibrated.cost.evaluate(shapes).latency_s).all()
    assert again.evaluate(shapes).in_domain.all()


def test_power_terms_are_found_where_power_was_measured(runs, truth_cost):
    from simslm.calibration.power import fit_power
    from simslm.catalog.devices import load_device
    from simslm.catalog.models import load_model

    watts = {
        "idle_power": 110.0,
        "active_power": 90.0,
        "byte_energy": 8e-11,
        "kv_byte_energy": 1.1e-10,
        "flop_energy": 1.5e-12,
    }
    powered = truth_cost.with_terms(watts)
    measured = []
    for run in runs((1, 8, 64, 128), 0.0):
        each = schedule(run, powered, DTYPE)
        found = powered.evaluate(each.shapes)
        assert found.energy_j is not None
        order, _, end = each.timeline
        seconds = np.arange(0, end[-1], 1.0)
        energy = np.interp(seconds, end, np.cumsum(found.energy_j[order]))
        power = {"power_active_p50_w": float(np.median(np.diff(energy))), "power_idle_w": 110.0}
        measured.append(replace(each, measured=replace(run, measured={**run.measured, **power})))
    fitted = fit_power(measured, powered, load_model(MODEL), load_device(DEVICE), DTYPE)
    assert fitted is not None
    assert max(abs(error) for error in fitted.errors.values()) < 0.05
    assert fit_power([schedule(runs((8,), 0.0)[0], powered, DTYPE)], powered, load_model(MODEL), load_device(DEVICE),
                     DTYPE) is None  # fmt: skip


def test_one_run_leaves_nearly_everything_to_the_priors(runs):
    found = calibrate(runs((16,), 0.0), MODEL, DEVICE, DTYPE)
    (vague,) = [warning for warning in found.warnings if "hardly determined" in warning]
    assert vague.count(",") >= 6
    assert any("1 run is few" in warning for warning in found.warnings)
    assert found.power is None


@pytest.mark.slow
def test_terms_that_cannot_be_told_apart_are_named(runs, monkeypatch):
    """Without priors worth the name, one batch size cannot tell host time from a layer's."""
    from simslm.calibration import fit as module

    wide = {name: replace(prior, spread=30.0) for name, prior in module.PRIORS.items()}
    monkeypatch.setattr(module, "PRIORS", wide)
    found = calibrate(runs((8, 9), 0.0), MODEL, DEVICE, DTYPE)
    assert any(
        "cannot be told apart" in warning or "hardly determined" in warning for warning in found.warnings
    )


def test_speed_counts_once_and_contradictions_much(runs, truth_cost):
    run = runs((16,), 0.0)[0]
    each = schedule(run, truth_cost, DTYPE)
    told = evidence(replace(each, simulated={**each.simulated, "duration_s": 1000.0}))
    assert told is not None
    assert told.names == ("tpot_mean_s", "output_tokens_per_s", "ttft_mean_s")
    exact = run.measured
    slower = {
        name: value * (1 / 1.1 if name == "output_tokens_per_s" else 1.1) for name, value in exact.items()
    }
    speed, *others = told.residuals(slower)
    assert speed == pytest.approx(np.log(1.1) / 0.02)
    assert others == pytest.approx([0, 0], abs=1e-9)
    unlike = slower | {"output_tokens_per_s": exact["output_tokens_per_s"]}
    assert max(map(abs, told.residuals(unlike))) > 10 * abs(speed)
    assert evidence(replace(each, measured=replace(run, measured={"preemptions": 1.0}))) is None


@pytest.mark.slow
def test_offline_steps_are_evidence(runs, truth_cost, tmp_path):
    lines = ["model,input_len,output_len,batch,prefill_s,decode_s,decode_steps"]
    for batch in (1, 8, 64, 128):
        step = Step("", 161, batch, 100, 1.0, 1.0)
        prefill, decode = (
            float(truth_cost.evaluate(shapes).latency_s.sum()) for shapes in (step.prefills, step.decodes)
        )
        lines.append(f"{MODEL},161,101,{batch},{prefill},{decode if batch < 128 else ''},100")
    path = tmp_path / "steps.csv"
    path.write_text("\n".join([*lines, "other,1,1,1,1,1,1"]))
    steps = read_steps(path, MODEL)
    assert [step.decode_s is None for step in steps] == [False, False, False, True]
    assert all(abs(error) < 1e-9 for step in steps for error in step.log_errors(truth_cost).values())
    few = runs((4, 64), 0.0)
    without, given = (calibrate(few, MODEL, DEVICE, DTYPE, steps=some) for some in ((), steps))
    assert given.fit.stderr["launch"] < without.fit.stderr["launch"]
    assert given.cost.terms["launch"] == pytest.approx(TRUE["launch"], rel=0.2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,batch\n", "lacks the columns input_len"),
        ("model,input_len,batch,decode_steps,prefill_s,decode_s\nx,1,1,1,1,1\n", "has no rows of opt-1.3b"),
        (
            "model,input_len,batch,decode_steps,prefill_s,decode_s\nopt-1.3b,0,1,1,1,1\n",
            "steps.csv:2: input_len",
        ),
        (
            "model,input_len,batch,decode_steps,prefill_s,decode_s\nopt-1.3b,1,1,1,-1,1\n",
            "prefill_s: expected",
        ),
    ],
)
def test_wrong_offline_tables_are_refused(tmp_path, text, said):
    path = tmp_path / "steps.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_steps(path, MODEL)
    with pytest.raises(UsageError, match="cannot be read"):
        read_steps(tmp_path / "none.csv", MODEL)


UNUSABLE = [
    ({"replicas": 2, "sharing": "mps"}, "replicas == 1"),
    ({"model": "opt-125m"}, "is of model 'opt-125m'"),
    ({"device": "a10g"}, "is of device 'a10g'"),
    ({"prompt_tokens": 5000}, "cannot serve"),
    ({"workload": "chat"}, "lengths_file: is empty"),
]


@pytest.mark.parametrize(
    ("changed", "said"), [*UNUSABLE, ({"measured": {"preemptions": 1.0}}, "the runs have none of")]
)
def test_runs_that_cannot_be_used_are_refused_when_none_is_left(runs, changed, said):
    with pytest.raises(UsageError, match=said):
        calibrate([replace(run, **changed) for run in runs((2,), 0.0)], MODEL, DEVICE, DTYPE)


def test_runs_that_cannot_be_used_are_left_out_and_named(runs):
    good, *others = runs(range(8, 9 + len(UNUSABLE)), 0.0, num_requests=30)
    wrong = [replace(run, **changed) for run, (changed, _) in zip(others, UNUSABLE, strict=True)]
    found = calibrate([*wrong, good], MODEL, DEVICE, DTYPE)
    assert list(found.errors) == [good.run]
    reasons = {each.run: each.reason for each in found.skipped}
    assert set(reasons) == {run.run for run in wrong}
    for run, (_, said) in zip(wrong, UNUSABLE, strict=True):
        assert said in reasons[run.run]


def test_an_engine_is_what_the_runs_say(runs):
    first, second = runs((2, 4), 0.0, num_requests=30)
    with pytest.raises(UsageError, match="several engines"):
        calibrate([first, replace(second, engine="another")], MODEL, DEVICE, DTYPE)
    assert calibrate([first, replace(second, engine="")], MODEL, DEVICE, DTYPE).cost.engine == first.engine
    with pytest.raises(UsageError, match="no run"):
        calibrate([], MODEL, DEVICE, DTYPE)

"""Knee, batch advice, freed memory and joules: by hand on small curves, and on the measured study."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.runs.derived import (
    best_batch,
    curves,
    joules_per_output_token,
    knee,
    memory_freed,
    setting,
    throughput,
)
from simslm.runs.table import read_runs

CURVE = {
    1: {"total_tokens_per_s": 100.0, "itl_mean_s": 0.010, "tpot_mean_s": 0.010, "kv_peak": 0.01},
    32: {"total_tokens_per_s": 2000.0, "itl_mean_s": 0.016, "tpot_mean_s": 0.020, "kv_peak": 0.2},
    64: {"total_tokens_per_s": 2800.0, "itl_mean_s": 0.030, "tpot_mean_s": 0.039, "kv_peak": 0.4},
    128: {"total_tokens_per_s": 3000.0, "itl_mean_s": 0.033, "tpot_mean_s": 0.041, "kv_peak": 0.8},
}


def test_the_knee_is_the_smallest_batch_near_the_best():
    assert throughput(CURVE) == {1: 100.0, 32: 2000.0, 64: 2800.0, 128: 3000.0}
    assert knee(CURVE) == 64
    assert knee(CURVE | {128: {"total_tokens_per_s": 2801.0}}) == 64
    assert knee(CURVE | {256: {"total_tokens_per_s": 3200.0}}) == 128
    assert knee({8: {"itl_mean_s": 1.0}}) is None


@pytest.mark.parametrize(
    ("epsilon", "factor", "batch"),
    [
        (0.1, 2.0, 64),
        (0.1, 2.1, 128),
        (0.1, 1.0, 32),
        (0.25, 4.0, 64),
        (0.4375, 4.0, 32),
        (0.1, 0.5, None),
    ],
)
def test_the_best_batch_pays_off_and_is_fast_enough(epsilon, factor, batch):
    """At 64 the efficiency is exactly 0.4375, which is not above it."""
    assert best_batch(CURVE, epsilon, factor) == batch


def test_without_the_batches_it_is_measured_against_there_is_no_best():
    for missing in (1, 32):
        assert best_batch({batch: row for batch, row in CURVE.items() if batch != missing}, 0.1, 4) is None


def test_memory_is_freed_beyond_the_peak_of_the_best_batch_by_tpot():
    assert memory_freed(CURVE, 2, kv_bytes=40e9, device_bytes=80e9) == pytest.approx(0.6 * 0.5)
    assert memory_freed(CURVE, 4, kv_bytes=40e9, device_bytes=80e9) == pytest.approx(0.2 * 0.5)
    unknown = CURVE | {64: {name: value for name, value in CURVE[64].items() if name != "kv_peak"}}
    assert memory_freed(unknown, 2, kv_bytes=40e9, device_bytes=80e9) is None
    assert memory_freed({}, 2, kv_bytes=40e9, device_bytes=80e9) is None


def test_joules_per_output_token():
    assert joules_per_output_token({"power_active_p50_w": 300.0, "output_tokens_per_s": 1500.0}) == 0.2
    assert joules_per_output_token({"output_tokens_per_s": 1500.0}) is None
    assert joules_per_output_token({"power_active_p50_w": 300.0}) is None


def test_curves_are_of_one_setting_and_average_repeats(table):
    (run,) = read_runs(table({"output_tokens_per_s": "100", "max_num_seqs": "64"}))
    again = replace(run, run="again", measured={"output_tokens_per_s": 110.0, "kv_peak": 0.5})
    wider = replace(run, run="wider", max_num_seqs=128)
    other = replace(run, run="other", output_tokens=30)
    found = curves([wider, run, again, other])
    assert list(found) == [setting(run), setting(other)]
    assert list(found[setting(run)]) == [64, 128]
    assert found[setting(run)][64] == {"output_tokens_per_s": 105.0, "ttft_mean_s": 0.25, "kv_peak": 0.5}
    simulated = curves([run], lambda run: {"output_tokens_per_s": 7.0})
    assert simulated[setting(run)] == {64: {"output_tokens_per_s": 7.0}}


def test_means_of_drawn_lengths_do_not_part_a_curve(table):
    rows = (
        {"run": "a", "output_tokens": "281.3"},
        {"run": "b", "output_tokens": "282.2", "max_num_seqs": "16"},
    )
    drawn = ({"workload": "chat", "lengths_file": "lengths.csv"} | row for row in rows)
    assert len(curves(read_runs(table(*drawn)))) == 1
    assert len(curves(read_runs(table(*rows)))) == 2


def test_the_measured_study_has_the_figures_it_is_known_by(truth):
    """Knees lie at 128 or 256 by this definition; the advice grows with the latency that is allowed, and a fifth of
    the memory or more is free at it; a token of the smaller model costs about half as much."""
    runs = [run for run in read_runs(truth / "h100-vllm" / "runs.csv") if run.sm_clock_mhz == 1980]
    of_one = [run for run in runs if run.replicas == 1 and run.workload == "fixed"]
    long = {key: curve for key, curve in curves(of_one).items() if len(curve) >= 8}
    assert len(long) == 8
    for key, curve in long.items():
        assert knee(curve) in (128, 256)
        strict, loose = (best_batch(curve, 0.1, factor) for factor in (2, 4))
        if 1 not in curve:
            assert strict is loose is None
            continue
        assert strict in (64, 128)
        assert loose in (128, 256)
        assert strict is not None
        assert curve[strict]["itl_mean_s"] <= 2 * curve[32]["itl_mean_s"]
        model, device = load_model(str(key[0])), load_device(str(key[1]))
        blocks = next(run.num_gpu_blocks for run in of_one if run.model == key[0])
        kv_bytes = blocks * 16 * model.kv_bytes_per_token("fp16")
        freed = memory_freed(curve, 2, kv_bytes, device.memory_bytes)
        assert freed is not None
        assert 0.2 < freed < 0.75
        joules = joules_per_output_token(curve[64])
        assert joules is not None
        assert (0.06 < joules < 0.08) if key[0] == "opt-2.7b" else (0.13 < joules < 0.16)

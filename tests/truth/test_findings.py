"""The figures of the paper's findings by hand, on runs made up for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from truth.findings import (
    Evidence,
    Row,
    advice,
    advised,
    between,
    energy,
    factor,
    family_gains,
    freed,
    gaps,
    headline,
    joules_at,
    joules_beyond_knee,
    latency,
    near,
    of_best,
    pair,
    plateau,
    replicas,
    sm_idle,
    sweep,
)

from simslm.fidelity.comparison import Comparison
from simslm.runs.table import make_run

FIXED = {
    "model": "opt-2.7b",
    "device": "h100-64gb",
    "engine": "vllm-0.6.3-v0",
    "workload": "fixed",
    "prompt_tokens": "242",
    "output_tokens": "260",
    "num_requests": "2000",
    "arrivals": "all-at-once",
    "max_num_batched_tokens": "512",
    "batching": "chunked-prefill",
    "num_gpu_blocks": "10000",
}
CHAT = FIXED | {
    "workload": "sharegpt",
    "lengths_file": "lengths.csv",
    "max_num_batched_tokens": "2048",
    "batching": "prefill-first",
}
RATES = {1: 100.0, 32: 2000.0, 128: 2800.0, 256: 3000.0, 512: 3000.0}
TIMES = {1: 0.010, 32: 0.010, 128: 0.025, 256: 0.040, 512: 0.050}
PEAKS = {1: 0.01, 32: 0.1, 128: 0.4, 256: 0.8, 512: 1.0}


def compared(
    cells: dict[str, str], batch: int, theirs: dict[str, float], ours: dict[str, float], **more: str
):
    row = cells | {"run": f"{more} {batch} {theirs}", "max_num_seqs": str(batch)} | more
    run = replace(make_run(row, "runs.csv", Path()), measured=theirs)
    return Comparison(run, ours)


def figures(batch: int, scale: float = 1.0) -> dict[str, float]:
    return {
        "output_tokens_per_s": scale * RATES[batch] / 2,
        "total_tokens_per_s": scale * RATES[batch],
        "itl_mean_s": TIMES[batch],
        "tpot_mean_s": TIMES[batch],
        "kv_peak": PEAKS[batch],
        "power_active_p50_w": 150.0 + batch / 8,
        "sm_busy_pct": 95.0 - batch / 32,
    }


@pytest.fixture
def fixed() -> list[Comparison]:
    """A sweep in which simulation says a tenth more throughput than was measured, and all else exactly."""
    return [compared(FIXED, batch, figures(batch), figures(batch, 1.1)) for batch in RATES]


@pytest.fixture
def chats() -> list[Comparison]:
    """Replicas at known rates: measured, then simulated."""
    rates = [
        (1, 128, 4000.0, 4400.0),
        (1, 384, 5000.0, 5500.0),
        (1, 384, 5200.0, 5500.0),
        (1, 512, 5600.0, 6000.0),
        (2, 128, 5700.0, 5900.0),
        (2, 256, 6160.0, 6600.0),
    ]
    return [
        compared(
            CHAT,
            batch,
            {"output_tokens_per_s": theirs, "power_active_p50_w": 300.0 * count},
            {"output_tokens_per_s": ours, "power_active_p50_w": 330.0 * count},
            replicas=str(count),
            sharing="mps" if count > 1 else "none",
        )
        for count, batch, theirs, ours in rates
    ]


def named(rows: list[Row]) -> dict[str, Row]:
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_a_row_is_held_against_what_was_measured_else_against_what_was_published():
    row = Row("gain", "gain", 0.081, 0.12, published=0.128, bound=between(0.04, 0.17))
    assert row.reference == 0.081
    assert row.inside is True
    assert row.cells() == ("gain", "+12.8 %", "+8.1 %", "+12.0 %", "+3.9 points", "+4 to +17 %", "inside")
    assert replace(row, measured=None).cells()[2:5] == ("", "+12.0 %", "-0.8 points")
    assert replace(row, simulated=0.03).cells()[-1] == "outside"
    assert replace(row, simulated=0.171).inside is False
    assert replace(row, simulated=None).cells()[3:] == ("", "", "+4 to +17 %", "")
    assert replace(row, bound=None).cells()[-2:] == ("", "")


def test_near_is_a_distance_in_points_and_needs_something_to_be_near_to():
    bound = near(0.05)
    assert bound.words == "within 5 points"
    assert bound.holds(0.4505, 0.41)
    assert not bound.holds(0.4505, 0.40)
    assert not bound.holds(0.4505, 0.501)
    assert bound.holds(None, 0.4) is None


@pytest.mark.parametrize(
    ("kind", "measured", "simulated", "cells"),
    [
        ("batch", 256, 128, ("256", "128", "-128")),
        ("batch", 128, 128, ("128", "128", "0")),
        ("share", 0.65, 0.6, ("65.0 %", "60.0 %", "-5.0 points")),
        ("factor", 2.0, 2.1, ("× 2.00", "× 2.10", "+5.0 %")),
        ("rate", 5331.37, 6258.0, ("5,331", "6,258", "+17.4 %")),
        ("joules", 0.0617, 0.057, ("0.0617 J", "0.0570 J", "-7.6 %")),
    ],
)
def test_every_kind_of_figure_is_written_with_its_difference(kind, measured, simulated, cells):
    assert Row("figure", kind, measured, simulated).cells()[2:5] == cells


def test_figures_of_a_curve():
    curve = {batch: figures(batch) for batch in RATES}
    assert of_best(128)(curve) == pytest.approx(2800 / 3000)
    assert of_best(64)(curve) is None
    assert factor("itl_mean_s", 256)(curve) == pytest.approx(4)
    assert factor("itl_mean_s", 256)({256: figures(256)}) is None
    assert joules_at(32)(curve) == pytest.approx(154 / 1000)
    assert joules_at(64)(curve) is None
    assert joules_beyond_knee(curve) == pytest.approx((214 / 1500) / (166 / 1400) - 1)
    assert joules_beyond_knee({}) is None
    assert sm_idle(256)(curve) == pytest.approx(0.13)
    assert sm_idle(64)(curve) is None
    assert advised(curve) == 128
    blocks = dict.fromkeys(RATES, 10_000)
    kv_bytes = (
        10_000 * 16 * 2 * 32 * 2560 * 2
    )  # blocks, block size, keys and values, layers, hidden size, fp16
    assert freed("opt-2.7b", "h100-64gb", blocks)(curve) == pytest.approx(0.6 * kv_bytes / 68075231641)
    assert freed("opt-2.7b", "h100-64gb", blocks)({32: figures(32)}) is None


def test_a_table_is_preferred_to_scenarios_which_fill_in_without_measurements(fixed):
    posed = [Comparison(replace(each.run, measured={}), figures(each.run.max_num_seqs, 2)) for each in fixed]
    both = sweep(Evidence(fixed, posed), "opt-2.7b")
    assert both.measured[32]["total_tokens_per_s"] == 2000
    assert both.simulated[32]["total_tokens_per_s"] == pytest.approx(2200)
    alone = sweep(Evidence((), posed), "opt-2.7b")
    assert alone.measured == {}
    assert alone.simulated[32]["total_tokens_per_s"] == 4000
    assert alone.both(max) == (None, 512)
    assert sweep(Evidence(fixed, posed), "llama-2-7b").both(max) == (None, None)


def test_two_settings_are_no_curve(fixed):
    other = replace(fixed[0], run=replace(fixed[0].run, run="other", output_tokens=130))
    with pytest.raises(ValueError, match="2 settings are no curve"):
        pair(Evidence([*fixed, other], ()), model="opt-2.7b")


def test_the_findings_of_a_sweep(fixed):
    evidence = Evidence(fixed, ())
    found = named([*plateau(evidence), *latency(evidence), *energy(evidence), *gaps(evidence)])
    knee = found["opt-2.7b: knee, max_num_seqs"]
    assert (knee.measured, knee.simulated) == (128, 128)
    used = found["opt-2.7b: KV cache used at the knee, peak"]
    assert (used.measured, used.simulated) == (0.4, 0.4)
    bought = found["opt-2.7b: total tokens/s, batch 256 over 32"]
    assert (bought.measured, bought.simulated) == pytest.approx((1.5, 1.5))
    joules = found["opt-2.7b: J per output token, batch 32"]
    assert joules.measured == pytest.approx(0.154)
    assert joules.simulated == pytest.approx(0.14)
    assert found["opt-2.7b: SM idle, batch 256"].measured == pytest.approx(0.13)
    assert found["llama-2-7b: knee, max_num_seqs"].measured is None


def test_the_gain_over_batch_384_is_of_each_repeat_and_over_the_best_of_all_single_ones(chats):
    rows = named(headline(chats))
    first, second = (rows[f"2 × 128 over 1 × 384, repeat {index}"] for index in (1, 2))
    assert first.measured == pytest.approx(0.14)
    assert second.measured == pytest.approx(5700 / 5200 - 1)
    assert first.simulated == second.simulated == pytest.approx(5900 / 5500 - 1)
    assert first.inside is second.inside is True
    best = rows["2 × 128 over the best single replica"]
    assert best.measured == pytest.approx(5700 / 5600 - 1)
    assert best.simulated == pytest.approx(5900 / 6000 - 1)
    assert best.inside is None
    assert rows["2 × 256 over the best single replica"].simulated == pytest.approx(0.1)


def test_replicas_at_one_batch_and_their_joules(chats):
    rows = named(replicas(Evidence(chats, ())))
    assert rows["2 × 128 over 1 × 128"].measured == pytest.approx(5700 / 4000 - 1)
    assert rows["2 × 96 over 1 × 96"].measured is None
    assert rows["J per output token, 2 × 128"].measured == pytest.approx(600 / 5700)
    assert rows["J per output token, 1 × 384"].simulated == pytest.approx(330 / 5500)


def test_gains_of_a_family_are_between_the_best_of_each_number_of_replicas(chats):
    printed, two, four = family_gains(Evidence((), chats), ["opt-2.7b"])
    assert (printed.published, printed.simulated) == (0.338, None)
    assert two.simulated == pytest.approx(0.1)
    assert (two.measured, four.simulated) == (None, None)
    small = [replace(chats[0].run, model="opt-1.3b", max_num_seqs=768, run="one")]
    small.append(replace(chats[4].run, model="opt-1.3b", max_num_seqs=256, run="two"))
    rates = ({"output_tokens_per_s": rate} for rate in (8000.0, 10000.0))
    posed = [Comparison(run, ours) for run, ours in zip(small, rates, strict=True)]
    assert family_gains(Evidence((), posed), [])[0].simulated == pytest.approx(0.25)


def test_the_advice_says_what_decided_where_it_differs(fixed):
    slower = [
        replace(each, simulated={**each.simulated, "tpot_mean_s": each.simulated["tpot_mean_s"] * 1.3})
        if each.run.max_num_seqs == 128
        else each
        for each in fixed
    ]
    name = "opt-2.7b, 260 output tokens"
    same, other = (named(advice(Evidence(each, ()))) for each in (fixed, slower))
    assert (same[f"{name}: B_opt"].measured, same[f"{name}: B_opt"].simulated) == (128, 128)
    assert (other[f"{name}: B_opt"].measured, other[f"{name}: B_opt"].simulated) == (128, 32)
    decided = other[f"{name}: mean TPOT, batch 128 over 32, limit 3"]
    assert decided.measured == pytest.approx(2.5)
    assert decided.simulated == pytest.approx(3.25)
    assert f"{name}: mean TPOT, batch 128 over 32, limit 3" not in same
    printed = same["opt-2.7b, 390 output tokens: memory freed"]
    assert printed.published == 0.4505
    assert printed.inside is None

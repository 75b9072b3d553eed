"""What a trace check finds, and that it finds nothing in a good trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simslm.traces.check import check_trace
from simslm.traces.files import read_trace, write_trace
from simslm.traces.shapes import alone, shapes


@pytest.fixture
def findings(tmp_path, provenance, columns):
    """``findings(latency_s=…)`` checks a trace with some columns changed."""

    def check(provenance=provenance, **change):
        trace = write_trace(tmp_path / "trace", provenance=provenance, iterations={**columns, **change})
        return check_trace(trace)

    return check


def whats(findings) -> list[str]:
    return [f"{finding.severity}: {finding.what}" for finding in findings]


def test_a_good_trace_has_only_its_missing_energy(findings):
    assert whats(findings()) == ["note: no energy: no meter"]


def test_a_good_trace_with_energy_has_no_findings(findings, columns):
    assert findings(energy_j=columns["latency_s"] * 50, power_w=np.full(27, 50.0)) == []


def test_milliseconds(findings, columns):
    first = findings(latency_s=columns["latency_s"] * 1e3)[0]
    assert (first.severity, "looks like milliseconds" in first.what) == ("error", True)
    assert "decode_seqs=1 decode_ctx_tokens=16" in first.where


def test_faster_than_the_weights_can_be_read(findings, columns):
    found = findings(latency_s=columns["latency_s"] / 1e3, host_s=columns["host_s"] / 1e3)
    assert "less than reading the weights once" in found[0].what


def test_unknown_models_are_judged_by_size_alone(findings, provenance, columns):
    unknown = provenance | {"model": "nobody's"}
    assert whats(findings(provenance=unknown)) == ["note: no energy: no meter"]
    assert findings(provenance=unknown, latency_s=columns["latency_s"] * 1e3)[0].severity == "error"


def test_falling_medians(findings, columns):
    slow = np.where((columns["decode_seqs"] == 1) & (columns["decode_ctx_tokens"] == 64), 2.0, 1.0)
    found = findings(latency_s=columns["latency_s"] * slow)
    assert len(found) == 2
    assert "falls in 1 place where the work grows, by up to 39% while decode_seqs grows" in found[0].what
    assert "decode_seqs=1 decode_ctx_tokens=64 → decode_seqs=4 decode_ctx_tokens=256" in found[0].where


def test_falls_along_several_axes_are_one_finding_with_the_worst_place(findings, columns):
    slow = np.where((columns["decode_seqs"] == 1) & (columns["decode_ctx_tokens"] == 16), 9.0, 1.0)
    found = [each for each in findings(latency_s=columns["latency_s"] * slow) if "falls" in each.what]
    assert len(found) == 1
    assert "falls in 2 places where the work grows" in found[0].what
    assert "while mean_ctx grows" in found[0].what
    assert found[0].where.count("→") == 1


def test_noise(findings, columns):
    shaken = columns["latency_s"] * np.where(columns["repeat"] == 1, 1.3, 1.0)
    shaken = np.where(columns["decode_seqs"] == 4, shaken, columns["latency_s"])
    found = findings(latency_s=shaken)
    assert "3 of 9 shapes are noisy" in found[0].what
    assert "15%" in found[0].what
    assert found[0].where.count("decode_seqs=") == 1


def longer(columns, repeats=8):
    """The same shapes with more repeats, each written backwards, so that only ``repeat`` orders them."""
    first = columns["repeat"] == 0
    kept = {name: np.repeat(values[first], repeats) for name, values in columns.items()}
    return kept | {"repeat": np.tile(np.arange(repeats)[::-1], int(first.sum()))}


def drifting(columns, name, change):
    """A column that goes from its value to ``1 + change`` of it over the repeats."""
    return columns[name] * (1 + change * columns["repeat"] / columns["repeat"].max())


@pytest.mark.parametrize(("change", "words"), [(0.2, "rises by 11%"), (-0.2, "falls by 12%")])
def test_a_machine_that_becomes_slower_or_faster(findings, columns, change, words):
    """Eight repeats: the median of the later half against that of the earlier, 1.5 / 7 and 5.5 / 7 of the way."""
    many = longer(columns)
    assert not [each for each in findings(**many) if "earlier to the later" in each.what]
    found = [each for each in findings(**many | {"latency_s": drifting(many, "latency_s", change)})
             if "earlier to the later" in each.what]  # fmt: skip
    assert len(found) == 1
    assert found[0].what.startswith(
        f"latency {words} from the earlier to the later repeats, in the median over 9"
    )
    assert found[0].severity == "warning"


def test_a_clock_that_drifts(findings, columns):
    many = longer(columns)
    clock = np.full(len(many["repeat"]), 1980.0)
    assert findings(**many, sm_clock_mhz=clock) == findings(**many)
    throttled = clock * (1 - 0.3 * many["repeat"] / 7)
    found = [each.what for each in findings(**many, sm_clock_mhz=throttled)]
    assert any(what.startswith("the SM clock falls by 18% from the earlier to the later") for what in found)


def test_one_shape_that_changes_is_no_drift(findings, columns):
    many = longer(columns)
    slow = np.where(many["decode_seqs"] == 1, drifting(many, "latency_s", 0.5), many["latency_s"])
    assert not [
        each for each in findings(**many | {"latency_s": slow}) if "earlier to the later" in each.what
    ]


def test_three_repeats_tell_no_drift(columns, findings):
    rising = columns["latency_s"] * (1 + columns["repeat"])
    assert not [each for each in findings(latency_s=rising) if "earlier to the later" in each.what]


@pytest.mark.parametrize("name", ["opt-125m-bf16", "smollm2-135m-bf16"])
def test_the_shipped_traces_did_not_drift(name):
    trace = read_trace(Path(__file__).parents[2] / "traces" / "cpu" / name)
    assert not [each for each in check_trace(trace) if "earlier to the later" in each.what]


def test_few_repeats(tmp_path, provenance, columns):
    kept = columns["repeat"] < 2
    few = {name: values[kept] for name, values in columns.items()}
    found = check_trace(write_trace(tmp_path / "m", provenance=provenance, iterations=few))
    assert "9 of 9 shapes have fewer than 3 repeats, the fewest 2" in found[0].what


def test_missing_corner_and_missing_kinds(tmp_path, provenance, columns):
    def without(mask):
        kept = {name: values[~mask] for name, values in columns.items()}
        return whats(check_trace(write_trace(tmp_path / "m", provenance=provenance, iterations=kept)))

    decode, prefill = columns["decode_seqs"] > 0, columns["prefill_tokens"] > 0
    corner = (columns["decode_seqs"] == 4) & (columns["decode_ctx_tokens"] == 256)
    assert "note: the corner decode_seqs 4 with context per sequence 64 is not measured" in without(corner)[0]
    assert without(decode & prefill)[0] == "warning: no mixed iterations"
    assert without(decode & ~prefill)[0] == "error: no decode-only iterations"
    assert without(prefill & ~decode)[0] == "error: no prefill-only iterations"


def test_energy_against_power(findings, columns):
    found = findings(energy_j=columns["latency_s"] * 50e-3, power_w=np.full(27, 50.0))
    assert "energy and power × time disagree by up to 100% in 9 shapes" in found[0].what


def test_shapes_gather_repeats_of_one_replica(trace):
    gathered = shapes(alone(trace.iterations))
    assert len(gathered) == 9
    assert gathered.repeats.tolist() == [3] * 9
    assert gathered.decode_only.sum() == gathered.prefill_only.sum() == 4
    first = gathered.rows[0]
    assert gathered.median("latency_s")[0] == np.median(
        trace.iterations.column("latency_s").to_numpy()[first]
    )
    assert np.isnan(gathered.median("energy_j")).all()
    assert len(shapes(trace.iterations.slice(0, 0))) == 0


def test_many_outliers(findings, columns):
    far = np.zeros(27, dtype=int)
    assert whats(findings(outlier=far)) == ["note: no energy: no meter"]
    far[:2] = 1
    assert whats(findings(outlier=far))[0] == "warning: 7% of the calls are outliers of their shape"


def test_a_clock_that_was_held_down(findings):
    reasons = [""] * 24 + ["power cap", "power cap", "power brake"]
    found = whats(findings(throttle=reasons))[0]
    assert found == "warning: the clock was held down in 11% of the calls: power brake, power cap"
    assert whats(findings(throttle=[""] * 27)) == ["note: no energy: no meter"]


@pytest.mark.parametrize(("sensor", "said"), [(51.0, None), (40.0, "+25%"), (0.05, "+99900%"), (None, None)])
def test_the_energy_counter_against_the_power_sensor(tmp_path, provenance, columns, sensor, said):
    power = {
        "state": ["idle", "idle"],
        "power_w": [50.0, 50.0],
        "sampled_power_w": [sensor] * 2,
        "repeat": [0, 1],
    }
    energy = {"energy_j": columns["latency_s"] * 50, "power_w": np.full(27, 50.0)}
    trace = write_trace(tmp_path / "t", provenance=provenance, iterations=columns | energy, power=power)
    found = whats(check_trace(trace))
    expected = (
        [f"warning: the energy counter gives {said} of the power that the sensor shows"] if said else []
    )
    assert found == expected


def test_a_campaign_that_did_not_end(findings, provenance):
    found = whats(findings(provenance=provenance | {"unfinished": True}))
    assert "warning: its campaign did not end: 3 passes are whole" in found


def test_a_machine_that_was_busy_with_something_else(findings, provenance):
    found = whats(findings(provenance=provenance | {"other_load": 0.2}))
    assert found[0] == "warning: others had 20% of the processors' time while it was measured"
    assert len(findings(provenance=provenance | {"other_load": 0.01})) == 1


def test_throttling_is_said_by_visit(findings, columns):
    """Visits are numbered within each shape, whatever their numbers are."""
    visits = [5 * (i % 3) + i // 3 for i in range(27)]
    held = ["power cap" if i % 3 == 0 else "" for i in range(27)]
    found = whats(findings(throttle=held, visit=visits))
    assert any(what.endswith("power cap; by visit 1: 100%, 2: 0%, 3: 0%") for what in found)


@pytest.mark.parametrize(("factor", "said"), [(1.0, False), (1.02, False), (1.08, True)])
def test_short_visits_that_show_a_cooler_device_are_said(findings, columns, factor, said):
    long = np.arange(27) % 3 == 0
    latency = np.where(long, columns["latency_s"] * factor, columns["latency_s"])
    energy, power = ([value if each else None for value, each in zip(column, long, strict=True)]
                     for column in (np.ones(27), 1 / latency))  # fmt: skip
    options = {"latency_s": latency, "energy_j": energy, "power_w": power, "visit": np.arange(27) % 3}
    found = [what for what in whats(findings(**options)) if "visits that last longer" in what]
    assert bool(found) == said
    if said:
        assert "take 8% longer" in found[0]


def test_what_could_not_be_measured_is_said_once_for_each_reason(findings, provenance):
    provenance["not_measurable"] = [
        {"shape": "decode 1024×8", "why": "out of memory", "visits": 0},
        {"shape": "decode 1024×520", "why": "out of memory", "visits": 2},
    ]
    provenance["colocation_refused"] = {"mps ×2": "no daemon"}
    found = [what for what in whats(findings()) if "not measurable" in what]
    assert found == [
        "warning: not measurable: decode 1024×8 and 1 more (out of memory)",
        "warning: not measurable: mps ×2 (no daemon)",
    ]

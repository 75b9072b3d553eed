"""What a trace check finds, and that it finds nothing in a good trace."""

from __future__ import annotations

import numpy as np
import pytest

from simslm.traces.check import check_trace
from simslm.traces.files import write_trace
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

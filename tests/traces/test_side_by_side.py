"""Two traces on the same shapes: what is paired, and how sure a ratio is."""

import numpy as np
import pytest

from simslm.errors import UsageError
from simslm.traces.files import read_trace, write_trace
from simslm.traces.side_by_side import (
    Pair,
    differing_settings,
    mean_ratio,
    side_by_side,
)

IMPORTED = {"source": "imported", "model": "opt-125m", "dtype": "fp32", "device": "cpu", "date": "2026-01-01"}
DECODE, PREFILL, MIXED = (4, 80, 0, 0, 0), (0, 0, 1, 64, 16), (2, 16, 1, 32, 0)
COLUMNS = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")


def written(place, latencies, engine="one 1", replicas=1, **provenance):
    """A trace with the latencies of each shape."""
    rows = [(*shape, i, value) for shape, values in latencies.items() for i, value in enumerate(values)]
    columns = dict(zip((*COLUMNS, "repeat", "latency_s"), map(list, zip(*rows, strict=True)), strict=True))
    columns |= {"replicas": [replicas] * len(rows), "sharing": ["none"] * len(rows)}
    write_trace(place, provenance=IMPORTED | {"engine": engine} | provenance, iterations=columns)
    return read_trace(place)


def test_shapes_of_both_are_paired_with_their_medians(tmp_path):
    first = written(tmp_path / "a", {DECODE: [0.1, 0.2, 9.0], PREFILL: [0.4], (9, 9, 0, 0, 0): [1.0]})
    second = written(tmp_path / "b", {MIXED: [1.0], PREFILL: [0.1], DECODE: [0.3, 0.3, 0.4]}, "two 2")
    pairs = {pair.area: pair for pair in side_by_side(first, second)}
    assert set(pairs) == {"decode", "prefill"}
    assert pairs["decode"].label == "decode 4×20"
    assert pairs["prefill"].label == "prefill 1×64 after 16"
    assert pairs["decode"].latency_s == (0.2, 0.3)
    assert pairs["decode"].ratio == pytest.approx(1.5)
    assert pairs["decode"].tokens_per_s == (pytest.approx(20), pytest.approx(4 / 0.3))
    assert pairs["prefill"].tokens == 64
    assert pairs["prefill"].ratio == pytest.approx(0.25)
    assert pairs["prefill"].columns == dict(zip(COLUMNS, PREFILL, strict=True))
    assert mean_ratio(list(pairs.values())) == pytest.approx((1.5 * 0.25) ** 0.5)
    assert all(pair.interval is None for pair in pairs.values())


def test_mixed_iterations_are_an_area_of_their_own(tmp_path):
    (pair,) = side_by_side(*(written(tmp_path / name, {MIXED: [0.5]}) for name in "ab"))
    assert (pair.area, pair.tokens, pair.ratio) == ("mixed", 34, 1.0)
    assert pair.label == "decode 2×8 + prefill 1×32"


def test_the_mean_ratio_turns_round_with_the_traces():
    pairs = [Pair("", "decode", {}, 1, seconds, None) for seconds in ((1.0, 3.0), (2.0, 1.0), (5.0, 7.0))]
    turned = [Pair("", "decode", {}, 1, pair.latency_s[::-1], None) for pair in pairs]
    assert mean_ratio(pairs) == pytest.approx(1 / mean_ratio(turned))


def test_settings_that_differ_are_told(tmp_path):
    first = written(tmp_path / "a", {DECODE: [0.1]}, threads=2, attention="own", command="x")
    second = written(tmp_path / "b", {DECODE: [0.1]}, "two 2", threads=2, attention="sdpa", command="y")
    assert differing_settings(first, second) == {"engine": ("one 1", "two 2"), "attention": ("own", "sdpa")}


def test_replicas_that_shared_the_device_are_no_peers(tmp_path):
    first = written(tmp_path / "a", {DECODE: [0.1]})
    second = written(tmp_path / "b", {DECODE: [0.1]}, replicas=2)
    with pytest.raises(UsageError, match="no shape was measured in both.*--reach"):
        side_by_side(first, second)


def test_other_models_are_refused(tmp_path):
    first = written(tmp_path / "a", {DECODE: [0.1]})
    second = written(tmp_path / "b", {DECODE: [0.1]}, model="opt-350m")
    with pytest.raises(UsageError, match="of opt-125m, .* of opt-350m"):
        side_by_side(first, second)


def test_intervals_cover_the_true_ratio(tmp_path):
    """Over many pairs of skewed samples whose medians are 2 to 1, at least 95 % of the intervals hold the 2."""
    rng = np.random.default_rng(0)
    shapes = [(i + 1, i + 1, 0, 0, 0) for i in range(400)]
    first = written(tmp_path / "a", {shape: np.exp(rng.normal(0, 0.3, 15)) for shape in shapes})
    second = written(tmp_path / "b", {shape: 2 * np.exp(rng.normal(0, 0.3, 15)) for shape in shapes})
    pairs = side_by_side(first, second)
    held = np.mean([pair.interval[0] <= 2 <= pair.interval[1] for pair in pairs])
    assert held >= 0.95
    assert all(pair.interval[0] < pair.ratio < pair.interval[1] for pair in pairs)


def test_few_repeats_give_no_interval(tmp_path):
    few, enough = ({DECODE: [1.0 + 0.01 * i for i in range(count)]} for count in (6, 7))
    traces = {name: written(tmp_path / name, rows) for name, rows in (("few", few), ("enough", enough))}
    assert side_by_side(traces["few"], traces["enough"])[0].interval is None
    assert side_by_side(traces["enough"], traces["few"])[0].interval is None
    (pair,) = side_by_side(traces["enough"], traces["enough"])
    assert pair.interval == (pytest.approx(1 / 1.06), pytest.approx(1.06))

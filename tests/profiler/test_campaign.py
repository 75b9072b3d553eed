"""Campaigns at tiny size: complete traces, within the time allowed, and what is refused before anything is written."""

import itertools
import json
import time

import pytest
from tiny_campaigns import SHAPE, grid_of, journal_of, measure

from profiler import campaign as campaign_module
from profiler import memory, passes, specification
from profiler.campaign import Turns
from profiler.grid import Reach, Shape, measured_shapes
from simslm.catalog.devices import load_device
from simslm.cost.interpolation import MeasuredCost
from simslm.errors import InfeasibleError, UsageError
from simslm.traces.check import check_trace
from simslm.traces.files import holds_trace, read_trace
from simslm.traces.shapes import shapes

pytestmark = pytest.mark.usefixtures("quick_campaign")


def test_a_campaign_writes_a_whole_trace_and_leaves_no_journal(tmp_path, llama):
    seen = []
    path = measure(tmp_path, command="simslm profile", progress=lambda *args: seen.append(args))
    trace = read_trace(path)
    assert trace.heldout is not None
    assert trace.kernels is not None
    assert trace.power is None
    rows = trace.iterations.to_pandas()
    shapes = measured_shapes(llama, "cpu", "quick", 10**6, 16)
    assert {tuple(row) for row in rows[SHAPE].to_numpy()} == {tuple(s.columns().values()) for s in shapes}
    assert (rows.groupby(SHAPE).size() == 1 + 2 * 5).all()
    assert (rows.host_s < rows.latency_s).all()
    assert rows.energy_j.isna().all()
    ops = {"qkv", "attention_out", "mlp", "norm", "head", "sampler", "kv_write"}
    ops |= {"ceiling_matmul", "ceiling_copy", "ceiling_read"}
    assert set(trace.kernels.to_pandas().op) == ops | {"attention_decode", "attention_prefill"}
    assert not journal_of(tmp_path).exists()
    assert seen[-1] == (seen[-1][1], seen[-1][1], "done", 0.0)
    assert [done for done, *_ in seen] == list(range(len(seen)))
    assert all(done < total for done, total, *_ in seen[:-1])
    assert "unfinished" not in trace.provenance
    assert set(rows.outlier) <= {0, 1}


def test_a_model_with_windows_and_caps_is_measured_like_any_other(tmp_path, monkeypatch, make_tiny):
    monkeypatch.setattr(specification, "load_model", lambda name: make_tiny("gemma2"))
    trace = read_trace(measure(tmp_path, repeats=1))
    assert trace.iterations.to_pandas().decode_ctx_tokens.max() > 6
    assert not [finding for finding in check_trace(trace) if finding.severity == "error"]


@pytest.mark.parametrize("name", ["olmoe", "qwen3-moe"])
def test_a_mixture_of_experts_is_measured_like_any_other(tmp_path, make_tiny, name):
    model = make_tiny(name)
    trace = read_trace(measure(tmp_path, model=model, dtype="bf16", repeats=1, reach=Reach(4, 40, 16)))
    assert not [finding for finding in check_trace(trace) if finding.severity == "error"]
    assert {"router", "mlp"} <= set(trace.kernels.to_pandas().op)
    cost = MeasuredCost(trace, model, load_device("cpu"), "bf16")
    assert cost.evaluate(shapes(trace.iterations).work).in_domain.all()


def test_heldout_rows_are_apart_from_the_grid(tmp_path):
    trace = read_trace(measure(tmp_path, repeats=1))
    grid, heldout = trace.iterations.to_pandas(), trace.heldout.to_pandas()
    assert not set(map(tuple, grid[SHAPE].to_numpy())) & set(map(tuple, heldout[SHAPE].to_numpy()))


def test_provenance_tells_the_method_and_no_place(tmp_path):
    provenance = read_trace(measure(tmp_path)).provenance
    expected = {
        "source": "measured",
        "device": "cpu",
        "dtype": "fp32",
        "repeats": 3,
        "warmup": 1,
        "threads": 1,
    }
    assert expected.items() <= provenance.items()
    assert provenance["power_note"] == "no meter in this test"
    assert str(tmp_path) not in json.dumps(provenance)


def test_three_visits_do_when_the_time_for_more_is_over(tmp_path, monkeypatch):
    """The trace is finished, with operators, and says how many shapes came to be settled."""
    monkeypatch.setitem(campaign_module.ENOUGH_S, ("cpu", "quick"), 0.0)
    trace = read_trace(measure(tmp_path, repeats=8))
    assert "unfinished" not in trace.provenance
    assert trace.provenance["settled"].startswith("0 of ")
    assert trace.provenance["enough_s"] == 0.0
    assert set(trace.iterations.to_pandas().groupby(SHAPE).visit.nunique()) == {3}
    assert trace.kernels is not None
    assert not journal_of(tmp_path).exists()


def test_shapes_that_are_added_late_get_three_visits_too(tmp_path, monkeypatch):
    monkeypatch.setitem(campaign_module.ENOUGH_S, ("cpu", "quick"), 0.0)
    monkeypatch.setattr(passes, "refined", lambda latency_s, heldout, most: [Shape(3, 21)])
    trace = read_trace(measure(tmp_path, repeats=9))
    visits = trace.iterations.to_pandas().groupby(SHAPE).visit.nunique()
    assert (3, 63, 0, 0, 0) in visits.index
    assert set(visits) == {3}


def test_turns_are_taken_after_every_pass_and_do_not_count_as_measuring(tmp_path, monkeypatch):
    monkeypatch.setitem(campaign_module.ENOUGH_S, ("cpu", "quick"), 60.0)
    taken, real = [], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: real() + 100 * len(taken))

    def take(engine, passes, most):
        taken.append((engine.cache.num_blocks, passes, most, holds_trace(tmp_path / "trace")))

    trace = read_trace(measure(tmp_path, repeats=5, turns=Turns(take, num_blocks=5000, block_size=8)))
    assert taken == [(5000, passes, 5, True) for passes in range(1, 6)]
    assert trace.provenance["repeats"] == 5
    assert trace.provenance["block_size"] == 8


def test_time_allowed_ends_between_visits_and_whole_passes_count(tmp_path, monkeypatch):
    ticks = itertools.count(0.0, 1.0)
    with pytest.raises(InfeasibleError, match="first pass"):
        measure(tmp_path, budget_s=1e-9)
    assert journal_of(tmp_path).exists()
    monkeypatch.setattr(campaign_module.time, "perf_counter", lambda: next(ticks))
    path = measure(tmp_path, repeats=200, budget_s=6000.0)
    provenance = read_trace(path).provenance
    assert 1 <= provenance["repeats"] < 200
    assert provenance["unfinished"]
    assert journal_of(tmp_path).exists()


def test_settled_shapes_are_left_alone(tmp_path, monkeypatch, llama):
    monkeypatch.setattr(passes, "settled", lambda values: len(values) >= 6)
    trace = read_trace(measure(tmp_path, repeats=8))
    rows = trace.iterations.to_pandas()
    assert (rows.groupby(SHAPE).size() == 1 + 5).all()
    count = len(grid_of(llama))
    assert trace.provenance["settled"] == f"{count} of {count} shapes"


@pytest.mark.parametrize(
    ("device", "dtype", "grid", "message"),
    [
        ("cpu", "fp32", "quik", "did you mean 'quick'"),
        ("cpu", "int8", "quick", "does not compute in 'int8'"),
        ("gpu", "fp32", "quick", "neither cpu nor cuda"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, device, dtype, grid, message):
    with pytest.raises(UsageError, match=message):
        measure(tmp_path, device=device, dtype=dtype, grid=grid)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_fit_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda key: 1000)
    with pytest.raises(InfeasibleError, match="no shape of the grid fits"):
        measure(tmp_path)

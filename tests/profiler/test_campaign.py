"""Campaigns at tiny size: complete traces, nothing lost or measured twice when one is cut off."""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from profiler import campaign as campaign_module
from profiler import memory, passes, visits
from profiler.campaign import Turns, profile
from profiler.engines.own import OwnEngine
from profiler.grid import Reach, Shape, heldout_shapes, measured_shapes
from profiler.journal import Journal
from profiler.measure import energy
from profiler.measure.meters import NoMeter, ReplayMeter
from profiler.measure.timing import Timing, warm_up
from profiler.provenance import cpu_model, match_device, shown_command
from profiler.refinement import refined
from profiler.visits import Visits
from simslm.catalog.devices import load_device
from simslm.cost.interpolation import MeasuredCost
from simslm.errors import DeviceError, InfeasibleError, UsageError
from simslm.traces.check import check_trace
from simslm.traces.files import holds_trace, read_trace
from simslm.traces.shapes import shapes

TINY_LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 97,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}  # fmt: skip
SHAPE = ["decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens"]


pytestmark = pytest.mark.usefixtures("quick_campaign")


def measure(tmp_path, **options):
    options = {"repeats": 3, "threads": 1, "meter": NoMeter("no meter in this test")} | options
    return profile("tiny", "cpu", "fp32", "quick", tmp_path / "trace", **options)


def journal_of(tmp_path):
    return tmp_path / "trace.journal.partial"


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
    monkeypatch.setattr(campaign_module, "load_model", lambda name: make_tiny("gemma2"))
    trace = read_trace(measure(tmp_path, repeats=1))
    assert trace.iterations.to_pandas().decode_ctx_tokens.max() > 6
    assert not [finding for finding in check_trace(trace) if finding.severity == "error"]


@pytest.mark.parametrize("name", ["olmoe", "qwen3-moe"])
def test_a_mixture_of_experts_is_measured_like_any_other(tmp_path, make_tiny, name):
    model = make_tiny(name)
    options = {
        "repeats": 1,
        "threads": 1,
        "meter": NoMeter("no meter in this test"),
        "reach": Reach(4, 40, 16),
    }
    trace = read_trace(profile(model, "cpu", "bf16", "quick", tmp_path / "trace", **options))
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


def test_a_readable_meter_gives_energy_and_power(tmp_path):
    readings = itertools.count(0.0, 2.0)
    meter = ReplayMeter(readings, clock=1500.0, power=90.0, reasons="power cap")
    trace = read_trace(measure(tmp_path, repeats=1, meter=meter))
    rows = trace.iterations.to_pandas()
    states = trace.power.to_pandas()
    assert set(states.state) == {"idle", "decode", "prefill"}
    assert (states.power_w > 0).all()
    assert (states.sampled_power_w == 90.0).all()
    assert set(rows.throttle) == {"power cap"}
    assert (rows.energy_j == 2.0).all()  # one reading at each end of a single call
    assert (rows.power_w > 0).all()
    assert (rows.sm_clock_mhz == 1500.0).all()
    assert trace.provenance["power_note"] == ""


def test_energy_is_measured_in_the_first_visits_of_a_shape_only(tmp_path):
    """The other visits are as short as without a meter; medians of energy leave nulls out."""
    meter = ReplayMeter(itertools.count(0.0, 2.0), clock=1500.0, power=90.0, reasons="none")
    trace = read_trace(measure(tmp_path, repeats=4, meter=meter))
    rows = trace.iterations.to_pandas()
    with_energy = rows[rows.energy_j.notna()].groupby(SHAPE).visit.nunique()
    assert set(with_energy) == {3}
    assert len(with_energy) == len(rows.groupby(SHAPE))
    assert rows.groupby(SHAPE).visit.nunique().max() > 3
    assert rows.sm_clock_mhz.notna().all()
    assert np.isfinite(shapes(trace.iterations).median("energy_j")).all()


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


class Cut(BaseException):
    """A process killed at some moment."""


@pytest.mark.parametrize("after", [1, 17, 40, 75])
def test_a_cut_off_campaign_goes_on_where_it_stopped(tmp_path, monkeypatch, llama, after):
    visits = []
    original = Visits.iteration

    def visit(self, shape):
        if len(visits) == after:
            raise Cut
        visits.append(shape)
        return original(self, shape)

    monkeypatch.setattr(Visits, "iteration", visit)
    with pytest.raises(Cut):
        measure(tmp_path)
    assert holds_trace(tmp_path / "trace") == any(shape in grid_of(llama) for shape in visits)
    with journal_of(tmp_path).open("a") as sink:
        sink.write('["iteration", "half a li')
    first, after = len(visits), -1
    trace = read_trace(measure(tmp_path))
    assert "unfinished" not in trace.provenance
    total = trace.iterations.num_rows + trace.heldout.num_rows
    assert len(visits) == total
    assert first < total


def test_what_a_cut_off_campaign_had_is_a_trace_that_says_so(tmp_path, monkeypatch):
    original, visits = Visits.iteration, itertools.count()

    def visit(self, shape):
        if next(visits) == 90:
            raise KeyboardInterrupt
        return original(self, shape)

    monkeypatch.setattr(Visits, "iteration", visit)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    trace = read_trace(tmp_path / "trace")
    assert trace.provenance["unfinished"]
    assert trace.iterations.num_rows + trace.heldout.num_rows == 90
    assert any("did not end" in finding.what for finding in check_trace(trace))


def test_a_finished_trace_stays_until_the_next_one_is(tmp_path):
    path = measure(tmp_path, repeats=1)
    before = read_trace(path).content_hash
    with pytest.raises(InfeasibleError):
        measure(tmp_path, repeats=1, seed=1, budget_s=1e-9)
    assert read_trace(path).content_hash == before


def test_a_budget_does_not_replace_a_finished_trace_either(tmp_path, monkeypatch):
    path = measure(tmp_path, repeats=1)
    before = read_trace(path).content_hash
    ticks = itertools.count(0.0, 1.0)
    monkeypatch.setattr(campaign_module.time, "perf_counter", lambda: next(ticks))
    measure(tmp_path, repeats=200, seed=1, budget_s=6000.0)
    assert read_trace(path).content_hash == before
    assert journal_of(tmp_path).exists()


def test_rows_of_a_visit_share_its_number_and_its_energy(tmp_path, monkeypatch, llama):
    """Windows begin and end where the counter moves; of many calls some, evenly spaced, are rows."""

    class Fake:
        def time(self):
            clock.append(0.01)
            return Timing(0.01, 0.001)

    clock = [0.0]
    monkeypatch.setattr(campaign_module.time, "perf_counter", lambda: sum(clock))
    monkeypatch.setattr(OwnEngine, "stage", lambda self, shape, rng: Fake())
    monkeypatch.setattr(passes.Campaign, "_last_visits", lambda self: [])
    monkeypatch.setattr(energy, "_WATCH_S", 3600.0)
    readings = iter(lambda: 5.0 * (round(100 * sum(clock)) // 10), None)
    meter = ReplayMeter(readings, window_s=0.5, step_s=0.1)
    rows = read_trace(measure(tmp_path, repeats=2, meter=meter)).iterations.to_pandas()
    assert (rows.power_w - 50.0).abs().max() < 1e-6
    assert (rows.energy_j - 0.5).abs().max() < 1e-6
    assert (rows[rows.energy_j.notna()].groupby([*SHAPE, "visit"]).size() == 32).all()
    assert rows.visit.nunique() > 1


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


def test_the_grid_becomes_finer_where_it_bends_and_the_same_when_resumed(tmp_path, monkeypatch, llama):
    monkeypatch.setattr(passes, "refined", refined)

    def measured(path, repeats):
        return read_trace(measure(path, repeats=repeats)).iterations.to_pylist()

    stepped = {4: 5.0, 16: 1.0}

    def visit(self, shape):
        if next(visits) == stop:
            raise Cut
        latency_s = 1.0 + shape.decode_seqs + stepped.get(shape.decode_seqs, 0.0)
        return [
            {**shape.columns(), "sharing": "none", "replicas": 1, "latency_s": latency_s, "host_s": 0.1}
        ]  # fmt: skip

    monkeypatch.setattr(Visits, "iteration", visit)
    visits, stop = itertools.count(), -1
    assert {shape.decode_seqs for shape in map(tuple_shape, measured(tmp_path / "short", 3))} == {
        0,
        1,
        4,
        16,
        32,
    }
    visits = itertools.count()
    whole = measured(tmp_path / "whole", 8)
    visits, stop = itertools.count(), next(visits) - 5
    with pytest.raises(Cut):
        measured(tmp_path / "cut", 8)
    visits, stop = itertools.count(), -1
    assert measured(tmp_path / "cut", 8) == whole
    added = {shape.decode_seqs for shape in map(tuple_shape, whole)} - {0, 1, 4, 16, 32}
    assert 2 in added


def test_no_number_of_kills_loses_a_visit(tmp_path, llama):
    """Processes killed at random moments, ten every night; what each had written is in the trace of the last one."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY_LLAMA))
    command = [
        str(Path(sys.executable).with_name("simslm")),
        "profile",
        "--model",
        str(config),
        "--device",
        "cpu",
    ]
    command += ["--dtype", "fp32", "--threads", "1", "--repeats", "4", "-o", str(tmp_path / "trace")]
    rng, kept = random.Random(0), []
    for _ in range(10 if os.environ.get("SIMSLM_WHOLE") else 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = len(journal_lines(tmp_path)) + rng.randint(1, 60)
        while len(journal_lines(tmp_path)) < lines and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
        found = journal_lines(tmp_path)
        assert found[: len(kept)] == kept
        kept = found
    subprocess.run(command, check=True, capture_output=True)
    rows = [row for line in kept for row in line[3] if line[0] == "iteration"]
    measured = set(read_trace(tmp_path / "trace").iterations.column("latency_s").to_pylist())
    assert len(rows) > 100
    assert all(row["latency_s"] in measured for row in rows)


def journal_lines(tmp_path):
    """The whole lines of the journal after its header."""
    try:
        text = journal_of(tmp_path).read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()[1:]]


def tuple_shape(row):
    return Shape(row["decode_seqs"])


def grid_of(architecture):
    return measured_shapes(architecture, "cpu", "quick", 10**6, 16)


def test_another_campaigns_journal_is_not_continued(tmp_path):
    with pytest.raises(InfeasibleError):
        measure(tmp_path, budget_s=1e-9)
    with pytest.raises(UsageError, match="differs in seed"):
        measure(tmp_path, seed=1)


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
        profile("tiny", device, dtype, grid, tmp_path / "trace")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_fit_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda key: 1000)
    with pytest.raises(InfeasibleError, match="no shape of the grid fits"):
        measure(tmp_path)


@pytest.mark.parametrize(("kind", "grid"), list(itertools.product(("cpu", "cuda"), ("quick", "full"))))
def test_grids_cover_every_area_up_to_the_models_limit(make_tiny, kind, grid):
    model = make_tiny("opt", max_position_embeddings=2048)
    shapes = measured_shapes(model, kind, grid, 10**9, 16)
    assert len(shapes) == len(set(shapes))
    assert max(s.decode_ctx for s in shapes) == 2047
    assert all(s.prefill_ctx + s.prefill_new <= 2048 for s in shapes)
    assert any(s.prefill_ctx for s in shapes)
    assert any(s.prefill_seqs > 1 for s in shapes)
    batches = {s.decode_seqs for s in shapes}
    assert {s.decode_seqs for s in shapes if s.prefill_seqs} == batches
    assert not set(shapes) & set(heldout_shapes(model, 10**9, 16))
    small = measured_shapes(model, kind, grid, 100, 16)
    assert small
    assert all(s.blocks(16, 2048) <= 100 for s in small)


def test_enough_heldout_shapes_in_every_area(make_tiny):
    shapes = heldout_shapes(make_tiny("opt", max_position_embeddings=2048), 10**9, 16)
    decode = [s for s in shapes if not s.prefill_seqs]
    prefill = [s for s in shapes if not s.decode_seqs]
    mixed = [s for s in shapes if s.prefill_seqs and s.decode_seqs]
    assert min(len(decode), len(prefill), len(mixed)) >= 6
    assert len(shapes) >= 20


def test_a_shape_sums_tokens_over_its_sequences():
    shape = Shape(3, 100, 2, 50, 7)
    assert tuple(shape.columns().values()) == (3, 300, 2, 100, 14)
    assert shape.contexts(2048) == [50, 100, 150]
    assert shape.blocks(16, 2048) == 4 + 7 + 10 + 2 * 4


@pytest.mark.parametrize(
    "shape", [Shape(1, 520), Shape(2, 3), Shape(4, 8), Shape(32, 1032), Shape(1024, 8), Shape(7, 1500)]
)
def test_contexts_are_spread_around_their_mean_as_far_as_the_model_goes(shape):
    contexts = shape.contexts(2048)
    assert len(contexts) == shape.decode_seqs
    assert sum(contexts) == shape.columns()["decode_ctx_tokens"]
    assert min(contexts) >= shape.decode_ctx / 4
    assert max(contexts) <= min(2047, 1.75 * shape.decode_ctx)
    steps = {b - a for a, b in itertools.pairwise(contexts)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    assert Shape(shape.decode_seqs, 2047).contexts(2048) == [2047] * shape.decode_seqs


def test_a_journal_numbers_repeats_in_the_order_of_visits(tmp_path):
    journal = Journal(tmp_path / "journal", {"model": "tiny"})
    journal.add(("iteration", "a", 1), [{"latency_s": 3.0}])
    journal.add(("iteration", "a", 0), [{"latency_s": 1.0}, {"latency_s": 2.0}])
    journal.add(("iteration", "b", 0), [{"latency_s": 9.0}])
    again = Journal(tmp_path / "journal", {"model": "tiny"})
    found = [(row["latency_s"], row["repeat"], row["visit"]) for row in again.rows("iteration")]
    assert found == [(1.0, 0, 0), (2.0, 1, 0), (3.0, 2, 1), (9.0, 0, 0)]


def test_warm_up_lasts_until_durations_are_stationary():
    falling = [2.0**-i for i in range(8)] + [0.001] * 100
    times = iter(falling)
    assert warm_up(lambda: next(times)) == 8 + 2 * 5 - 2
    assert warm_up(lambda: 1.0, limit_s=0.0) == 0


def test_host_time_is_part_of_the_latency():
    assert Timing(latency_s=2.0, host_s=0.5)._asdict() == {"latency_s": 2.0, "host_s": 0.5}


@pytest.mark.parametrize(
    ("name", "gib", "entry"),
    [
        ("NVIDIA H200", 139.8, "h200"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 39.5, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80gb"),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx-4090"),
        ("NVIDIA RTX A6000", 47.5, "rtx-a6000"),
        ("NVIDIA L4", 22.2, "l4"),
        ("NVIDIA L40S", 44.4, "l40s"),
        ("NVIDIA Z9000", 10.0, "z9000"),
    ],
)
def test_gpus_are_known_by_model_and_memory(name, gib, entry):
    assert match_device(name, int(gib * 2**30)) == entry


def test_the_processor_is_named_from_cpuinfo():
    text = "processor\t: 0\nmodel name\t: Acme 9 Xyz\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"
    assert cpu_model(text) == "Acme 9 Xyz (avx2, avx512f, avx512_bf16)"


def test_commands_are_shown_without_absolute_paths():
    assert shown_command(["/opt/env/bin/simslm", "profile", "-o", "/data/x"]) == "simslm profile -o x"


def refusing(monkeypatch, refuses):
    """Has visits fail of which ``refuses(shape, number)`` is an error; the shapes that were visited."""
    original, visited = Visits.iteration, []

    def visit(self, shape):
        visited.append(shape)
        error = refuses(shape, len(visited))
        if error is not None:
            raise error
        return original(self, shape)

    monkeypatch.setattr(Visits, "iteration", visit)
    return visited


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
NO_KERNEL = RuntimeError("CUDA error: invalid configuration argument\nmore")
DEAD = RuntimeError("CUDA error: an illegal memory access was encountered\nmore")


@pytest.mark.parametrize(("error", "tried"), [(OUT_OF_MEMORY, 2), (NO_KERNEL, 1)])
def test_a_shape_that_fails_is_noted_and_the_others_are_measured(tmp_path, monkeypatch, llama, error, tried):
    bad = next(shape for shape in grid_of(llama) if shape.decode_seqs == 4 and not shape.prefill_seqs)
    visited = refusing(monkeypatch, lambda shape, number: error if shape == bad else None)
    trace = read_trace(measure(tmp_path))
    assert visited.count(bad) == tried  # out of memory is tried once more, with what was held back given free
    (noted,) = trace.provenance["not_measurable"]
    assert (noted["shape"], noted["visits"]) == (bad.label(), 0)
    assert str(error).splitlines()[0] in noted["why"]
    assert "unfinished" not in trace.provenance
    measured = {tuple(row) for row in trace.iterations.to_pandas()[SHAPE].to_numpy()}
    assert measured == {tuple(s.columns().values()) for s in grid_of(llama) if s != bad}
    assert any("not measurable" in finding.what for finding in check_trace(trace))


def test_memory_that_is_free_again_is_enough(tmp_path, monkeypatch, llama):
    visited = refusing(monkeypatch, lambda shape, number: OUT_OF_MEMORY if number == 7 else None)
    trace = read_trace(measure(tmp_path))
    assert trace.provenance["not_measurable"] == []
    assert len(visited) == trace.iterations.num_rows + trace.heldout.num_rows + 1


def test_a_dead_context_ends_the_process_and_what_was_measured_stays(tmp_path, monkeypatch, llama):
    """The next run tries the shape once more, and the one after it leaves it out."""
    bad = grid_of(llama)[0]
    visited = refusing(monkeypatch, lambda shape, number: DEAD if shape == bad else None)
    for attempt in (1, 2):
        with pytest.raises(DeviceError, match="run the same command again"):
            measure(tmp_path)
        assert visited.count(bad) == attempt
        assert journal_of(tmp_path).exists()
    trace = read_trace(measure(tmp_path))
    assert visited.count(bad) == 2
    assert len(visited) == trace.iterations.num_rows + trace.heldout.num_rows + 2
    assert [noted["shape"] for noted in trace.provenance["not_measurable"]] == [bad.label()]


def test_when_nothing_can_be_measured_that_is_the_answer(tmp_path, monkeypatch):
    refusing(monkeypatch, lambda shape, number: NO_KERNEL)
    with pytest.raises(
        DeviceError, match=r"no shape of the grid can be measured \(RuntimeError: CUDA error: invalid"
    ):
        measure(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_code_is_not_taken_for_one_of_the_device(tmp_path, monkeypatch):
    refusing(monkeypatch, lambda shape, number: TypeError("a bug"))
    with pytest.raises(TypeError, match="a bug"):
        measure(tmp_path)


def test_an_engine_that_does_not_open_is_an_error_of_the_device(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OUT_OF_MEMORY

    monkeypatch.setattr(OwnEngine, "open", refuse)
    with pytest.raises(DeviceError, match="opening tiny-llama-grouped-tied on cpu failed"):
        measure(tmp_path)


def test_operators_and_power_that_fail_cost_nothing_else(tmp_path, monkeypatch):
    def refuse(*_):
        raise NO_KERNEL

    monkeypatch.setattr(visits, "attention_operator", refuse)
    monkeypatch.setattr(visits, "measure_power", refuse)
    trace = read_trace(measure(tmp_path, repeats=1, meter=ReplayMeter(itertools.count(0.0, 2.0))))
    assert "mlp" in trace.kernels["op"].to_pylist()
    assert "attention_decode" not in trace.kernels["op"].to_pylist()
    assert trace.power is None
    noted = {each["shape"] for each in trace.provenance["not_measurable"]}
    assert "power states" in noted
    assert any(label.startswith("attention of decode") for label in noted)


def test_the_replica_alone_is_not_measured_again_when_its_company_was_cut_off(tmp_path, monkeypatch):
    visited = refusing(monkeypatch, lambda shape, number: None)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(campaign_module.Together, "measure", cut)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path, repeats=1, replicas=[1, 2])
    trace = read_trace(tmp_path / "trace")
    assert "unfinished" not in trace.provenance
    assert len(visited) == trace.iterations.num_rows + trace.heldout.num_rows

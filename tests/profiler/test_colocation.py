"""Replicas measured together at tiny size: processes and threads, rows that join a trace, MPS by a stand-in."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_campaigns
from support.synthetic import LinearCost

from profiler import colocation
from profiler.colocation import Together, check
from profiler.grid import Reach, Shape
from profiler.journal import Journal
from profiler.measure import window
from profiler.measure.meters import NoMeter, ReplayMeter
from simslm.cost.interference import contention
from simslm.cost.sharing import Demand, sharing
from simslm.errors import DeviceError, TraceError, UsageError
from simslm.traces.files import read_trace
from simslm.traces.shapes import shapes as by_shape
from simslm.traces.shapes import together

QUIET = NoMeter("no meter in this test")


@pytest.fixture(autouse=True)
def short_windows(monkeypatch, quick_campaign):
    monkeypatch.setattr(window, "WINDOW_S", 0.05)
    monkeypatch.setattr(window, "_MARGIN_S", 0.02)


def measure(tmp_path, **options):
    return tiny_campaigns.measure(tmp_path, **{"repeats": 1, "sharing": ["streams"]} | options)


def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "journal", {"test": 1})


def test_replicas_join_the_trace_of_one(tmp_path, llama):
    alone = read_trace(measure(tmp_path))
    trace = read_trace(measure(tmp_path, replicas=[2, 3]))
    rows = together(trace.iterations)
    assert rows is not None
    frame = rows.to_pandas()
    wanted = colocation.shapes(llama, "cpu")
    assert set(frame.groupby(["sharing", "replicas"]).groups) == {("streams", 2), ("streams", 3)}
    assert {*frame.decode_seqs} == {*frame.other_decode_seqs} == {shape.decode_seqs for shape in wanted}
    assert (frame.decode_ctx_tokens == frame.other_decode_ctx_tokens).all()
    assert (frame.latency_s > frame.host_s).all()
    assert frame.energy_j.isna().all()
    assert frame.sm_fraction.isna().all()
    own = trace.iterations.to_pandas()
    assert (
        own[own.replicas == 1].latency_s.to_numpy() == alone.iterations.to_pandas().latency_s.to_numpy()
    ).all()
    assert trace.heldout is not None
    assert trace.kernels is not None
    assert "in all replicas at once" in trace.provenance["colocation"]
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


def test_measured_again_they_are_replaced_and_others_stay(tmp_path):
    measure(tmp_path, replicas=[1, 2])
    before = together(read_trace(measure(tmp_path, replicas=[3])).iterations).to_pandas()
    after = together(read_trace(measure(tmp_path, replicas=[2])).iterations).to_pandas()
    assert {*before.replicas} == {*after.replicas} == {2, 3}
    kept = [frame[frame.replicas == 3].latency_s.tolist() for frame in (before, after)]
    assert kept[0] == kept[1]
    assert before[before.replicas == 2].latency_s.tolist() != after[after.replicas == 2].latency_s.tolist()


def test_a_campaign_of_one_alone_keeps_those_that_were_measured_together(tmp_path):
    """The replica alone is measured anew; its company, measured with the same settings, stays as it was."""
    before = read_trace(measure(tmp_path, replicas=[1, 2]))
    after = read_trace(measure(tmp_path))
    assert together(after.iterations).equals(together(before.iterations))
    assert after.provenance["colocation"] == before.provenance["colocation"]
    frames = [trace.iterations.to_pandas() for trace in (before, after)]
    alone = [frame[frame.replicas == 1].latency_s.tolist() for frame in frames]
    assert len(alone[0]) == len(alone[1])
    assert alone[0] != alone[1]


def test_those_measured_together_with_other_settings_are_not_written_over(tmp_path, monkeypatch):
    before = read_trace(measure(tmp_path, replicas=[1, 2]))
    monkeypatch.setattr("torch.__version__", "0.0")
    with pytest.raises(UsageError, match="holds streams ×2, measured with another torch"):
        measure(tmp_path)
    assert read_trace(tmp_path / "trace").content_hash == before.content_hash
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]
    after = read_trace(measure(tmp_path, replicas=[1, 2]))
    assert after.provenance["torch"] == "0.0"
    assert {*together(after.iterations)["replicas"].to_pylist()} == {2}


@pytest.fixture(autouse=True)
def one_context(monkeypatch):
    """Each shape takes its window, whatever the model."""
    monkeypatch.setitem(colocation.CONTEXTS, "cpu", (520,))


def test_what_is_measured_together_ends_where_the_grid_of_one_alone_does(llama, monkeypatch):
    monkeypatch.setitem(colocation.CONTEXTS, "cpu", (72, 520))
    reach = Reach(seqs=4, context=40, chunk=16)
    found = colocation.shapes(llama, "cpu", reach)
    assert [(shape.decode_seqs, shape.decode_ctx) for shape in found] == [(1, 39), (4, 39)]
    further = colocation.shapes(llama, "cpu", Reach(seqs=4, context=80, chunk=16))
    assert [(shape.decode_seqs, shape.decode_ctx) for shape in further] == [
        (1, 72),
        (1, 79),
        (4, 72),
        (4, 79),
    ]


def test_without_the_trace_of_one_there_is_nothing_to_join(tmp_path):
    with pytest.raises(TraceError):
        measure(tmp_path, replicas=[2])


@pytest.mark.parametrize("way", ["time-slice", "streams"])
def test_all_run_while_all_run(tmp_path, llama, way):
    """Every replica did some of it, and what is charged to an iteration is the window's energy over all of them."""
    meter = ReplayMeter([10.0, 16.0] * 2, clock=1400.0)
    common = Together(llama, "cpu", "fp32", [2], [way], 1, meter, repeats=1)
    rows = common.rows(journal(tmp_path))
    assert {row["sharing"] for row in rows} == {way}
    for shape in colocation.shapes(llama, "cpu"):
        mine = [row for row in rows if row.items() >= shape.columns().items()]
        (energy_j,) = {row["energy_j"] for row in mine}
        assert len(mine) >= 2
        assert len(mine) <= 6.0 / energy_j + 1
        assert {row["sm_clock_mhz"] for row in mine} == {1400.0}
        assert [row["repeat"] for row in mine] == list(range(len(mine)))


def test_what_is_measured_is_not_measured_again(tmp_path, llama):
    common = Together(llama, "cpu", "fp32", [2], ["streams"], 1, QUIET, repeats=2)
    seen = []
    first = Together(llama, "cpu", "fp32", [2], ["streams"], 1, QUIET, lambda *said: _stop(seen, *said), 2)
    with pytest.raises(KeyboardInterrupt):
        first.rows(journal(tmp_path))
    done = journal(tmp_path).entries
    assert len(done) == 1
    rows = common.rows(journal(tmp_path))
    finished = journal(tmp_path).entries
    assert len(finished) == 2 * len(colocation.shapes(llama, "cpu"))
    ((key, kept),) = done.items()
    assert finished[key] == kept
    assert len(rows) == sum(map(len, finished.values()))


def _stop(seen, done, total, what, left):
    seen.append(done)
    if done:
        raise KeyboardInterrupt


def test_a_replica_that_fails_says_why(tmp_path, monkeypatch):
    """The ways that can be had are measured, and the trace says what is missing."""
    measure(tmp_path)
    monkeypatch.setattr(colocation, "OwnEngine", lambda *_, **__: 1 / 0)
    with pytest.raises(DeviceError, match=r"streams ×2 was not measured.*a replica failed: division by zero"):
        measure(tmp_path, replicas=[2])
    provenance = read_trace(tmp_path / "trace").provenance
    assert provenance["colocation_refused"] == {"streams ×2": "a replica failed: division by zero"}


def test_a_way_that_cannot_be_had_does_not_cost_the_others(tmp_path, llama, monkeypatch):
    """A failure to start, and numbers that do not fit, are told at the end; nothing of the rest is lost."""
    measure(tmp_path)
    original = colocation.running

    def running(way, makers, *rest):
        if way == "time-slice":
            raise DeviceError("not today", remedy="come back tomorrow")
        return original(way, makers, *rest)

    monkeypatch.setattr(colocation, "running", running)
    room = {2: 10**6, 3: 0}
    monkeypatch.setattr(colocation, "affordable_blocks", lambda *_, replicas: room[replicas])
    said = r"time-slice ×2 was not measured, nor were time-slice ×3, streams ×3; the trace holds the rest \(not today"
    with pytest.raises(DeviceError, match=said) as ended:
        measure(tmp_path, replicas=[2, 3], sharing=["time-slice", "streams"])
    assert ended.value.remedy == "come back tomorrow"
    trace = read_trace(tmp_path / "trace")
    assert {*together(trace.iterations)["replicas"].to_pylist()} == {2}
    assert set(trace.provenance["colocation_refused"]) == {"time-slice ×2", "time-slice ×3", "streams ×3"}
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


def test_a_shape_that_replicas_fail_at_is_left_out_and_they_start_anew(tmp_path, llama, monkeypatch):
    original, running, started = window.Stage, colocation.running, []
    monkeypatch.setattr(colocation, "running", lambda *given: started.append(given) or running(*given))

    def stage(engine, shape, rng):
        if shape.decode_seqs == 1:
            raise RuntimeError("CUDA out of memory, or so")
        return original(engine, shape, rng)

    monkeypatch.setattr(window, "Stage", stage)
    common = Together(llama, "cpu", "fp32", [2], ["streams"], 1, QUIET, repeats=3)
    kept = journal(tmp_path)
    rows = common.rows(kept)
    assert {row["decode_seqs"] for row in rows} == {8}
    assert len({row["visit"] for row in rows}) == 3
    assert [key[1] for key in kept.entries if key[0] == "refused"] == ["streams ×2, decode 1×95"]
    assert len(started) == 2
    assert not common.missed


@pytest.mark.parametrize(
    ("device", "replicas", "ways", "said"),
    [
        ("cpu", [2], ["mps"], "mps needs an NVIDIA GPU"),
        ("cpu", [2], ["green-contexts"], "green-contexts needs an NVIDIA GPU"),
        ("cpu", [2], ["stream"], "did you mean 'streams'"),
        ("cpu", [0], ["streams"], "from 1 to 64"),
        ("cpu", [], ["streams"], "from 1 to 64"),
    ],
)
def test_what_cannot_be_measured_is_refused(device, replicas, ways, said):
    with pytest.raises(UsageError, match=said):
        check(device, replicas, ways)


def test_iterations_count_by_their_part_in_the_window():
    table = np.array([[0.0, 2.0, 0.1], [2.0, 2.0, 0.1], [4.0, 2.0, 0.1]])
    assert window._overlap(table, 1.0, 5.0) == 2.0
    assert window._within(table, 1.0, 5.0).tolist() == [[2.0, 2.0, 0.1]]


def test_cost_models_learn_from_such_rows(tmp_path, llama):
    """Replicas that each take three times as long as alone are in each other's way by more than their demands say."""
    trace = read_trace(measure(tmp_path, replicas=[1, 2]))
    rows = together(trace.iterations)
    alone = by_shape(rows)
    cost = LinearCost(float(np.median(alone.median("latency_s"))) / 3, 0.0, 0.0, 0.0, 0.0)
    factor = contention(rows, cost, lambda shape, device_s: Demand(0.1, 0.1), sharing("streams", 2))
    assert factor is not None
    assert factor > 1.5


def test_longer_contexts_than_the_model_s_are_not_asked_for(llama):
    assert all(
        shape.decode_ctx < llama.max_position_embeddings for shape in colocation.shapes(llama, "cuda:0")
    )
    assert all(isinstance(shape, Shape) for shape in colocation.shapes(llama, "cpu"))

"""Shapes that the device refuses are noted, the others are measured; a dead context ends the process only."""

import itertools

import pytest
import torch
from tiny_campaigns import SHAPE, grid_of, journal_of, measure, refusing

from profiler import visits
from profiler.engines.own import OwnEngine
from profiler.measure.meters import ReplayMeter
from simslm.errors import DeviceError
from simslm.traces.check import check_trace
from simslm.traces.files import read_trace

pytestmark = pytest.mark.usefixtures("quick_campaign")


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

"""Host time is what it is said to be: on a device in virtual time, where launches and kernels take known times."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import virtual_device
from support.synthetic import Lists
from virtual_device import StandIn

from profiler.grid import Shape
from profiler.measure import window
from profiler.measure.meters import NoMeter
from profiler.measure.window import run_window
from profiler.replicas import running
from profiler.serving.live import LiveEngine
from profiler.serving.replica import Limits
from profiler.serving.stage import Stage, served_alike
from profiler.serving.together import LiveReplicas
from simslm.cost.interference import cycle_s
from simslm.cost.sharing import Demand, TimeSlice

SHAPE = Shape(4, 20)
CASES = {
    "launches longer than kernels": {"kernels": 20, "fixed_s": 200e-6},
    "kernels longer than launches": {"kernels": 20, "fixed_s": 2e-3},
    "recorded": {"kernels": 20, "fixed_s": 200e-6, "recorded": 64},
}


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(window, "WINDOW_S", 0.02)
    monkeypatch.setattr(window, "_MARGIN_S", 0.01)
    return virtual_device.activate(monkeypatch)


@pytest.fixture
def long(make_tiny):
    """A model with room for the requests."""
    return make_tiny("llama-grouped-tied", max_position_embeddings=2048)


@pytest.mark.parametrize("case", CASES)
def test_alone_it_is_all_in_which_no_kernel_runs(device, llama, case):
    engine = StandIn(device, llama, **CASES[case])
    timing = Stage(engine, SHAPE, np.random.default_rng(0), engine.kernels).time()
    assert timing.host_s == pytest.approx(engine.host_s(4))
    assert timing.device_s == pytest.approx(engine.kernels_s(4))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [2, 3])
def test_together_it_is_what_one_alone_has_and_the_rest_is_competed_for(device, llama, case, count):
    """Neither the wait for kernels of others nor the launch gaps of one's own go to the wrong side."""
    engine = StandIn(device, llama, **CASES[case])
    with running("time-slice", [lambda: StandIn(device, llama, **CASES[case])] * count, "cpu", 1) as workers:
        found = run_window(workers, SHAPE, NoMeter("none"))
    alone_s = engine.host_s(4) + engine.kernels_s(4)
    for calls in found.calls:
        _, latency_s, host_s = calls.T
        assert len(calls) > 3
        assert host_s == pytest.approx(engine.host_s(4))
        assert (latency_s > alone_s - 1e-9).all()
        full_s = count * engine.kernels_s(4)  # kernels of all, one after the other
        assert latency_s.mean() == pytest.approx(max(alone_s, full_s), rel=0.05)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_simulator_takes_such_rows_as_what_they_are(device, llama, count):
    """Where kernels of all fill the device, iterations take as long as the simulator's network says, no longer."""
    made = partial(StandIn, device, llama, kernels=20, fixed_s=4e-3)
    engine = made()
    with running("time-slice", [made] * count, "cpu", 1) as workers:
        calls = np.concatenate(run_window(workers, SHAPE, NoMeter("none")).calls)
    _, latency_s, host_s = calls.T
    host, device_s = host_s.mean(), engine.kernels_s(4)
    expected = cycle_s(host, device_s, Demand(1.0, 1.0), count, TimeSlice())
    assert latency_s.mean() == pytest.approx(expected, rel=0.02)


REQUESTS = {"recorded": 64, "fixed_s": 200e-6, "token_s": 1e-6, "kernels": 20}


def asked(count):
    rng = np.random.default_rng(1)
    columns = vars(Lists.of(3e-3 * np.arange(count), rng.integers(2, 500, count), rng.integers(2, 12, count)))
    return columns | {"replica": np.arange(count) % 2}


def tokens_of(iterations):
    return iterations["decode_seqs"] + iterations["prefill_tokens"]


def test_served_alone_it_is_all_in_which_no_kernel_runs(device, long):
    """Recorded iterations exactly, and most others: their gaps are a straight line here, within the tokens measured."""
    engine = StandIn(device, long, **REQUESTS)
    live = LiveEngine(engine, meter=NoMeter("none"))
    for _ in range(2):
        served = live.serve(asked(40), Limits(8, 300), served_alike()).iterations
        expected = np.array([engine.host_s(tokens) for tokens in tokens_of(served)])
        recorded = tokens_of(served) <= 64
        assert 0 < recorded.sum() < len(recorded)
        assert served["host_s"][recorded] == pytest.approx(expected[recorded])
        errors = np.abs(served["host_s"] - expected) / served["duration_s"]
        assert np.median(errors) < 1e-9
        assert errors.max() < 0.1


@pytest.mark.parametrize(
    ("error", "kept"), [("CUDA out of memory", True), ("an illegal memory access", False)]
)
def test_what_was_served_is_kept_where_gaps_cannot_be_measured(device, long, monkeypatch, error, kept):
    def refuse(self, kernels):
        raise RuntimeError(error)

    engine = StandIn(device, long, **REQUESTS)
    live = LiveEngine(engine, meter=NoMeter("none"))
    monkeypatch.setattr(Stage, "launch_gaps_s", refuse)
    if not kept:
        with pytest.raises(RuntimeError, match=error):
            live.serve(asked(4), Limits(8, 300), served_alike())
        return
    served = live.serve(asked(4), Limits(8, 300), served_alike())
    assert np.isnan(served.iterations["host_s"]).all()
    assert np.isfinite(served.requests["finish_s"]).all()


def test_served_together_waiting_for_each_other_is_no_host_time(device, long, monkeypatch):
    monkeypatch.setattr(LiveEngine, "describe", lambda self: {"warmup": 0})
    heavy = REQUESTS | {"fixed_s": 3e-3}
    engine = StandIn(device, long, **heavy)

    def make():
        return LiveEngine(StandIn(device, long, **heavy), meter=NoMeter("none"))

    with running("time-slice", [make] * 2, "cpu", 1) as workers:
        served = LiveReplicas(workers, "time-slice", NoMeter("none")).serve(
            asked(40), Limits(8, 300), served_alike()
        )
    rows = served.iterations
    expected = np.array([engine.host_s(tokens) for tokens in tokens_of(rows)])
    assert rows["host_s"] == pytest.approx(expected, rel=0.01)
    waited = rows["duration_s"] - expected - np.array([engine.kernels_s(n) for n in tokens_of(rows)])
    assert (waited > -1e-9).all()
    assert waited.max() > 2e-3
    assert set(rows["replica"]) == {0, 1}

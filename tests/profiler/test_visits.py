"""What a visit measures with an energy meter: energy and power in the first visits, and rows that share them."""

import itertools

import numpy as np
import pytest
from tiny_campaigns import SHAPE, measure

from profiler import campaign as campaign_module
from profiler import passes
from profiler.engines.own import OwnEngine
from profiler.measure import energy
from profiler.measure.meters import ReplayMeter
from profiler.measure.timing import Timing
from simslm.traces.files import read_trace
from simslm.traces.shapes import shapes

pytestmark = pytest.mark.usefixtures("quick_campaign")


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


def test_rows_of_a_visit_share_its_number_and_its_energy(tmp_path, monkeypatch, llama):
    """Windows begin and end where the counter moves; of many calls some, evenly spaced, are rows."""

    class Fake:
        def time(self):
            clock.append(0.01)
            return Timing(0.01, 0.001)

    clock = [0.0]
    monkeypatch.setattr(campaign_module.time, "perf_counter", lambda: sum(clock))
    monkeypatch.setattr(OwnEngine, "stage", lambda self, shape, rng: Fake())
    monkeypatch.setattr(passes.Passes, "_last_visits", lambda self: [])
    monkeypatch.setattr(energy, "_WATCH_S", 3600.0)
    readings = iter(lambda: 5.0 * (round(100 * sum(clock)) // 10), None)
    meter = ReplayMeter(readings, window_s=0.5, step_s=0.1)
    rows = read_trace(measure(tmp_path, repeats=2, meter=meter)).iterations.to_pandas()
    assert (rows.power_w - 50.0).abs().max() < 1e-6
    assert (rows.energy_j - 0.5).abs().max() < 1e-6
    assert (rows[rows.energy_j.notna()].groupby([*SHAPE, "visit"]).size() == 32).all()
    assert rows.visit.nunique() > 1

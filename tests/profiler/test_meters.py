"""Meters: counters in joules whatever their own unit, and a reason where there is none."""

import itertools
import time
import types

import pytest
import torch

from profiler.measure import meters
from profiler.measure.energy import moves
from profiler.measure.meters import IntegratedPower, NoMeter, NvmlMeter, RaplMeter, ReplayMeter, open_meter
from profiler.measure.power import mean_power, measure_power
from simslm.errors import DeviceError


class NVMLError(Exception):
    pass


def fake_nvml(readings_mj, clock=1980, bits=0):
    """The few calls of ``pynvml`` that are used, with recorded readings."""
    left = list(readings_mj)

    def total(handle):
        if not left:
            raise NVMLError("Not Supported")
        assert handle == "handle of GPU-3"
        return left.pop(0)

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: f"handle of {uuid}",
        nvmlDeviceGetTotalEnergyConsumption=total,
        nvmlDeviceGetClockInfo=lambda handle, kind: clock if kind == 1 else 0,
        nvmlDeviceGetPowerUsage=lambda handle: 321_000,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: bits,
    )


def rapl(tmp_path, readings):
    for i, value in enumerate(readings):
        zone = tmp_path / f"intel-rapl:{i}"
        zone.mkdir(exist_ok=True)
        (zone / "max_energy_range_uj").write_text("1000000\n")
        (zone / "energy_uj").write_text(f"{value}\n")


def test_nvml_counts_millijoules_and_reads_the_sm_clock():
    meter = NvmlMeter("GPU-3", fake_nvml([0, 1500, 4000]))
    assert meter.energy_j() == 1.5
    assert meter.energy_j() == 4.0
    assert meter.energy_j() is None
    assert meter.clock_mhz() == 1980.0
    assert (meter.note, meter.remark) == ("", "")


READINGS = {
    "energy counter": ("nvmlDeviceGetTotalEnergyConsumption", "energy_j"),
    "SM clock": ("nvmlDeviceGetClockInfo", "clock_mhz"),
    "power sensor": ("nvmlDeviceGetPowerUsage", "power_w"),
    "reasons of throttling": ("nvmlDeviceGetCurrentClocksThrottleReasons", "throttle"),
}


@pytest.mark.parametrize("lacking", list(READINGS))
@pytest.mark.parametrize("kind", ["refused", "not in the library"])
def test_what_one_driver_refuses_costs_nothing_else(lacking, kind):
    nvml = fake_nvml([1000, 2000])

    def refuse(*_):
        raise NVMLError("Not Supported")

    function, reading = READINGS[lacking]
    setattr(nvml, function, refuse) if kind == "refused" else delattr(nvml, function)
    meter = NvmlMeter("GPU-3", nvml)
    found = {name: getattr(meter, name)() for _, name in READINGS.values()}
    assert {name for name, value in found.items() if value is None} == {reading}
    assert lacking in (meter.note or meter.remark)
    assert bool(meter.note) == (lacking == "energy counter")


def test_power_is_integrated_where_the_counter_cannot_be_read(monkeypatch):
    """WSL, virtual GPUs: the sensor, the clock and what holds it down are kept, and the trace says how."""
    monkeypatch.setattr(meters, "_pynvml", lambda: fake_nvml([], bits=4))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="3"))
    meter = open_meter(torch.device("cuda", 0))
    assert isinstance(meter, IntegratedPower)
    assert (meter.clock_mhz(), meter.throttle(), meter.power_w()) == (1980.0, "power cap", 321.0)
    assert meter.note == ""
    assert "integral of the power sensor" in meter.remark
    assert "Not Supported" in meter.remark
    with moves(meter) as seen:
        time.sleep(0.3)
    found = seen.energy()
    assert found is not None
    assert found.joules > 0  # how near to 321 W they come depends on how busy the machine is


def test_without_counter_and_sensor_there_is_no_energy_but_a_clock(monkeypatch):
    nvml = fake_nvml([])
    del nvml.nvmlDeviceGetPowerUsage
    monkeypatch.setattr(meters, "_pynvml", lambda: nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="3"))
    meter = open_meter(torch.device("cuda", 0))
    assert meter.note == "NVML cannot read the energy counter (Not Supported)"
    assert meter.remark == "NVML cannot read: power sensor"
    assert meter.clock_mhz() == 1980.0
    assert meter.window_s == 0.0


@pytest.mark.parametrize(
    ("bits", "words"), [(0, ""), (1, ""), (4, "power cap"), (0x44, "power cap+hardware thermal slowdown")]
)
def test_nvml_says_what_holds_the_clock_down(bits, words):
    meter = NvmlMeter("GPU-3", fake_nvml([0], bits=bits))
    assert meter.throttle() == words
    assert meter.power_w() == 321.0


def test_power_is_measured_twice():
    meter = ReplayMeter(itertools.count(0.0, 5.0), clock=1500.0, power=40.0)
    row = measure_power(meter, lambda: time.sleep(0.01), 0.0, 0.05)
    assert row is not None
    assert row["sampled_power_w"] == 40.0
    assert row["power_w"] > 0


def test_power_that_cannot_be_read_is_no_row():
    meter = NvmlMeter("GPU-3", fake_nvml([0, 1000]))
    assert measure_power(meter, lambda: time.sleep(0.01), 0.0, 0.05) is None


def test_samples_are_integrated_over_their_time():
    assert mean_power([(0.0, 10.0), (1.0, 10.0), (2.0, 20.0)]) == 12.5
    assert mean_power([(3.0, 7.0)]) == 7.0
    assert mean_power([]) is None


def test_rapl_sums_packages_and_survives_wrapping(tmp_path):
    rapl(tmp_path, [900_000, 100])
    meter = RaplMeter(tmp_path)
    rapl(tmp_path, [950_000, 100])
    assert meter.energy_j() == pytest.approx(0.05)
    rapl(tmp_path, [50_000, 600])
    assert meter.energy_j() == pytest.approx(0.05 + 0.1 + 0.0005)


def test_a_machine_without_rapl_says_so(tmp_path):
    with pytest.raises(DeviceError, match="no RAPL counters"):
        RaplMeter(tmp_path / "nothing")


def test_the_reason_becomes_the_note(monkeypatch):
    def refuse():
        raise DeviceError("no counter today")

    monkeypatch.setattr(meters, "RaplMeter", refuse)
    meter = open_meter(torch.device("cpu"))
    assert isinstance(meter, NoMeter)
    assert meter.note == "no counter today"
    assert meter.energy_j() is None
    assert meter.clock_mhz() is None


def test_a_replay_ends_with_its_recording():
    meter = ReplayMeter([1.0, 2.5])
    assert [meter.energy_j(), meter.energy_j()] == [1.0, 2.5]
    with pytest.raises(DeviceError, match="used up"):
        meter.energy_j()

"""Kernels timed behind other work, on a device that is simulated: a queue, launches that take time, events."""

import time
from types import SimpleNamespace

import pytest
import torch

from profiler.engine.tiles import Fitting, shallower
from profiler.measure import timing
from profiler.measure.kernel_clock import KernelClock
from profiler.measure.timing import Timing
from simslm.errors import DeviceError

LAUNCH_S, KERNEL_S, FILLER_S = 40e-6, 7e-6, 60e-6


class Device:
    """Works through a queue while its host goes on; both have a time of their own."""

    def __init__(self):
        self.host = self.done = 0.0

    def launch(self, seconds):
        self.host += LAUNCH_S
        self.done = max(self.done, self.host) + seconds

    def synchronize(self):
        self.host = max(self.host, self.done)


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        self._at = max(stream.done, stream.host)
        self._device = stream

    def synchronize(self):
        self._device.synchronize()

    def elapsed_time(self, other):
        return 1e3 * (other._at - self._at)


@pytest.fixture
def device(monkeypatch):
    made = Device()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: made)
    monkeypatch.setattr(time, "perf_counter", lambda: made.host)
    return made


@pytest.mark.parametrize("kernels", [1, 10, 300])
def test_launches_are_not_in_the_time_of_kernels(device, kernels):
    """Run alone, each kernel would wait for its launch, which takes six times as long as it."""

    def work():
        for _ in range(kernels):
            device.launch(KERNEL_S)

    clock = KernelClock(CPU, lambda: device.launch(FILLER_S))
    assert clock.seconds(work) == pytest.approx(kernels * KERNEL_S)
    device.synchronize()
    alone = device.host
    work()
    assert device.done - alone > 5 * clock.seconds(work)


CPU = torch.device("cpu")


def test_host_time_is_what_kernels_leave():
    assert Timing(0.005, 0.001).with_kernels(0.003) == (0.005, pytest.approx(0.002))
    assert Timing(0.005, 0.001).with_kernels(0.006) == (0.005, 0.0)


@pytest.mark.parametrize(("latency_s", "repeats"), [(0.001, 5), (0.05, 3), (0.5, 1)])
def test_long_iterations_are_repeated_less(monkeypatch, latency_s, repeats):
    asked = []
    clock = SimpleNamespace(seconds=lambda launch, repeats: asked.append(repeats) or launch())
    monkeypatch.setattr(timing, "KernelClock", lambda device: clock)
    engine = SimpleNamespace(device=CPU, prepare=lambda batch: batch, run=len)
    assert timing.KernelTimes(engine).of([1, 2], latency_s) == 2
    assert asked == [repeats]


class TooLargeError(Exception):
    pass


def test_launches_fall_back_to_what_fits_and_stay_there():
    fitting, tried = Fitting((TooLargeError,)), []

    def run(options):
        tried.append(options["BLOCK_K"])
        if options["BLOCK_K"] > 64:
            raise TooLargeError("out of resource: shared memory")

    options = [{"BLOCK_K": depth} for depth in (256, 128, 64, 32)]
    for _ in range(2):
        fitting.launch("one", options, run)
    assert tried == [256, 128, 64, 64]
    with pytest.raises(DeviceError, match=r"does not fit on this GPU.*shared memory"):
        fitting.launch("other", options[:2], run)


def test_products_become_shallower():
    found = shallower({"BLOCK_K": 128, "num_stages": 3})
    assert [(each["num_stages"], each["BLOCK_K"]) for each in found] == [
        (3, 128),
        (2, 128),
        (1, 128),
        (1, 64),
        (1, 32),
    ]

"""A stand-in of ``torch.cuda`` and NVML: what a campaign does on a GPU, on CPU tensors and in wall time.

It shows that every line of the CUDA paths runs, in the right order and with arguments that exist; not that a kernel
compiles, a graph replays, or what anything takes. :func:`activate` changes the process it is called in for good, so it
is called in one of its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined

import torch
import torch._dynamo  # while torch.cuda is as it was
import torch.distributed.tensor
from torch.overrides import TorchFunctionMode

POWER_W = 500.0
STEP_S = 0.005
_CPU = torch.device("cpu")


class NVMLError(Exception):
    """As of ``pynvml``."""


@dataclass
class Device:
    """What the device does, and what was asked of it.

    Attributes:
        calls: how often each of its functions was called.
        refuse: called with the name of an NVML function before it answers; raises where it does not.
    """

    calls: Counter[str] = field(default_factory=Counter)
    refuse: Callable[[str], None] = lambda name: None


class _OnCpu(TorchFunctionMode):
    """Tensors of CUDA lie on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        kwargs = {name: _placed(value) for name, value in kwargs.items() if name != "pin_memory"}
        return func(*map(_placed, args), **kwargs)


def _placed(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return _CPU
    return _CPU if isinstance(value, str) and value.startswith("cuda") else value


class _Stream:
    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = device

    def wait_stream(self, other: _Stream) -> None:
        del other

    def synchronize(self) -> None: ...


def activate(device: Device, memory: tuple[int, int] = (2**29, 2**31)) -> None:
    """Has this process find one H200, with so much memory free and in all."""
    main = _Stream()

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing
            self.at_s = 0.0

        def record(self, stream: Any = None) -> None:
            del stream
            device.calls["event"] += 1
            self.at_s = time.perf_counter()

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: Event) -> float:
            return 1e3 * (other.at_s - self.at_s)

    class CUDAGraph:
        def replay(self) -> None:
            device.calls["replay"] += 1

    @contextlib.contextmanager
    def graph(graph: CUDAGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"):
        assert isinstance(graph, CUDAGraph)
        assert pool is not None
        assert stream is not None
        device.calls["capture"] += 1
        yield

    properties = SimpleNamespace(
        name="NVIDIA H200", total_memory=150119844413, multi_processor_count=132, uuid="abc", L2_cache_size=2**20,
        major=9, minor=0, shared_memory_per_block_optin=232448,
    )  # fmt: skip
    functions: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "set_device": lambda number: None,
        "Stream": _Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "graph": graph,
        "graph_pool_handle": lambda: (0, 1),
        "current_stream": lambda device=None: main,
        "default_stream": lambda device=None: main,
        "stream": lambda stream: contextlib.nullcontext(),
        "synchronize": lambda device=None: None,
        "mem_get_info": lambda device=None: memory,
        "empty_cache": lambda: None,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (9, 0),
    }
    for name, function in functions.items():
        setattr(torch.cuda, name, function)
    torch.version.cuda = "13.0"
    generator = torch.Generator
    torch.Generator = lambda device="cpu": generator(device="cpu")  # type: ignore[misc, assignment]
    _OnCpu().__enter__()
    _replace_profiler(device)


def _replace_profiler(device: Device) -> None:
    """What the profiler holds of NVML and of graphs, and how long and large its measurements are."""
    import profiler.engine.engine as engine
    from profiler import passes, visits
    from profiler.measure import ceilings, kernel_clock, meters, operators, window

    class Recorder(operators.CudaRecorder):
        """A recording that computes when it is replayed."""

        def __call__(self, iteration: Callable[[], Any]) -> Callable[[], Any]:
            replay = super().__call__(iteration)
            return lambda: (replay(), iteration())[1]

    nvml, seconds = _nvml(device), kernel_clock.KernelClock.seconds
    replace(engine, CudaRecorder=Recorder)
    replace(operators, CudaRecorder=Recorder, operator_tokens=lambda architecture: (1, 2))
    replace(meters, _pynvml=lambda: nvml)
    replace(meters.NvmlMeter, window_s=0.02, step_s=STEP_S)
    replace(kernel_clock.KernelClock, seconds=lambda self, launch, repeats=1: seconds(self, launch, 1))
    replace(kernel_clock, _MOST_FILLERS=2)  # 2000 would go before slow, interpreted launches
    replace(ceilings, _SIDE={"cpu": 32, "cuda": 64}, _STREAM_BYTES={"cpu": 4096, "cuda": 2**16})
    replace(visits, operator_tokens=lambda architecture: (1, 2), VISIT_S=dict.fromkeys(visits.VISIT_S, 0.0))
    replace(visits, warm_up=lambda call: call(), _IDLE_SETTLE_S=0.02, _SETTLE_S=0.02, _POWER_S=0.02)
    replace(window, WINDOW_S=0.02, _MARGIN_S=0.02)
    replace(passes, _SAVED_EVERY_S=0.5)


def replace(owner: Any, **values: Any) -> None:
    """Gives names of a module or class other values, for good.

    Raises:
        AttributeError: there is no such name, so that what it stood for would stay as it is, unnoticed.
    """
    for name, value in values.items():
        getattr(owner, name)
        setattr(owner, name, value)


def _nvml(device: Device) -> SimpleNamespace:
    start_s = time.perf_counter()

    def energy_mj(handle: str) -> int:
        del handle
        return int(1e3 * POWER_W * STEP_S * ((time.perf_counter() - start_s) // STEP_S))

    answers: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetTotalEnergyConsumption": energy_mj,
        "nvmlDeviceGetClockInfo": lambda handle, kind: 1980,
        "nvmlDeviceGetPowerUsage": lambda handle: int(1e3 * POWER_W),
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0,
    }

    def asked(name: str) -> Callable[..., Any]:
        def answer(*given: Any) -> Any:
            device.calls[name] += 1
            device.refuse(name)
            return answers[name](*given)

        return answer

    return SimpleNamespace(NVMLError=NVMLError, NVML_CLOCK_SM=1, **{name: asked(name) for name in answers})

"""Nothing in an iteration waits for the device but the reading of its tokens, and one copy takes it there."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.engine.graphs import rerun
from profiler.engine.sampler import Sampling
from profiler.engine.staging import staged
from profiler.engine.tables import BlockTables

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "lift_fresh", "masked_select", "unique")
"""Operators that read a device's results on the host, or build a tensor of Python's numbers."""


class Watch(TorchDispatchMode):
    """Notes the operators that would make a host wait for its device, and the copies between two devices."""

    def __init__(self):
        super().__init__()
        self.waits, self.copies = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name.startswith(WAITING):
            self.waits.append(name)
        if name == "_to_copy" and torch.device(kwargs.get("device") or args[0].device) != args[0].device:
            self.copies.append(name)
        if name == "copy_" and args[0].device != args[1].device:
            self.copies.append(name)
        return func(*args, **kwargs)


def build(architecture, **options):
    return Engine(architecture, **{"dtype": "fp32", "num_blocks": 40, "block_size": 4, **options})


def taken_apart(method):
    """A method of the engine without inference mode, under which compound operators are not shown in their parts."""
    return method.__func__.__wrapped__


def mixed():
    free = np.random.default_rng(0).permutation(40)
    sizes = [(5, 3), (1, 17), (1, 2), (12, 0)]
    tables = np.split(free, np.cumsum([-(-(new + cached) // 4) for new, cached in sizes]))
    return [
        Chunk(list(range(new)), cached, table) for (new, cached), table in zip(sizes, tables, strict=False)
    ]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.9)])
def test_an_iteration_reads_nothing_back(architecture, attention, sampling):
    engine = build(architecture, attention=attention, sampling=sampling)
    rows = engine.prepare(mixed())
    with Watch() as watch:
        tokens = taken_apart(engine.run)(engine, rows)
    assert not watch.waits + watch.copies
    with watch:
        assert int(tokens[0]) == engine.consume(tokens)[0]
    assert watch.waits == ["_local_scalar_dense"]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_batch_goes_to_the_device_in_one_copy(make_tiny, attention, name):
    if attention == "tiled":
        pytest.skip("made for processors, which copy nothing")
    engine = build(make_tiny(name), attention=attention)
    engine.device = torch.device("meta")
    if attention == "paged":
        engine.attention.tables = BlockTables(24, engine.device)
    decodes = [Chunk([1], cached, np.arange(5)) for cached in (3, 9, 17)]
    with Watch() as watch:
        engine.prepare(decodes)
    assert len(watch.copies) == 1
    assert not watch.waits


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_a_replayed_iteration_reads_nothing_back(llama):
    engine = build(llama, attention="paged", recorder=rerun)
    rows = engine.prepare([Chunk([1], cached, np.arange(5)) for cached in (3, 9, 17)])
    with Watch() as watch:
        taken_apart(engine.run)(engine, rows)
    assert engine.graphs.sizes == [4]
    assert not watch.waits + watch.copies


def test_arrays_arrive_in_order():
    fields = [np.arange(3), np.arange(6).reshape(2, 3), np.array([7])]
    found = staged(fields, torch.device("cpu"))
    assert [field.tolist() for field in found] == [[0, 1, 2], [0, 1, 2, 3, 4, 5], [7]]

import gc
import importlib.util
import os
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from profiler import passes, specification, visits
from profiler.measure import ceilings, operators

sys.path += [
    str(Path(__file__).parents[1]),
    str(Path(__file__).parent),
]  # scripts beside this file need them too
from support.fractions import Pair, fraction
from tiny_models import TINY, tiny

torch.set_num_threads(
    1
)  # tests run side by side, and threads of one that wait for each other slow all of them

NO_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

LARGE = 12
"""Cases from which on ``make test`` runs a fraction of a test's product of parameters."""


def pytest_collection_modifyitems(config, items):
    """Of the large products of families, attentions and shapes a fraction is run, unless all are asked for.

    Of tests of the kernels alone every pair of parameters comes; of tests over families every value comes in each
    test, and cases are chosen so that the tests of a file meet as many pairs as they can.
    """
    named = any("[" in argument for argument in config.invocation_params.args if isinstance(argument, str))
    if named or os.environ.get("SIMSLM_WHOLE"):
        return
    by_test = defaultdict(list)
    for item in items:
        if item.path.parent == Path(__file__).parent and hasattr(item, "callspec"):
            by_test[item.path, item.originalname].append(item)
    met: dict[Path, set[Pair]] = defaultdict(set)
    dropped = set()
    for (path, _), cases in by_test.items():
        values = [values_of(case) for case in cases]
        if len(cases) < LARGE or min(map(len, values)) < 2:
            continue
        over_families = "architecture" in cases[0].callspec.params
        kept = set(fraction(values, met[path], pairwise=not over_families))
        dropped |= {id(case) for i, case in enumerate(cases) if i not in kept}
    if dropped:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in dropped])
        items[:] = [item for item in items if id(item) not in dropped]


def pytest_collection_finish():
    """Campaigns collect garbage before they look at memory: not among the half million objects of imports."""
    gc.collect()
    gc.freeze()


def values_of(item):
    """The values of a case's parameters."""
    return frozenset((name, repr(value)) for name, value in item.callspec.params.items())


@pytest.fixture(params=list(TINY))
def architecture(request):
    return tiny(request.param)


@pytest.fixture(params=["tiled", "fused", pytest.param("paged", marks=NO_TRITON)])
def attention(request):
    return request.param


@pytest.fixture
def llama():
    return tiny("llama-grouped-tied")


@pytest.fixture
def families():
    return list(TINY)


@pytest.fixture
def make_tiny():
    return tiny


@pytest.fixture(scope="session")
def reference():
    """The dense float64 forward pass."""
    spec = importlib.util.spec_from_file_location(
        "dense_reference", Path(__file__).with_name("dense_reference.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quick_campaign(monkeypatch, llama):
    """Campaigns of a model of two tiny layers: no warm-up, waiting or long visits; grid, passes and visits as stated,
    however busy the machine is."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(specification, "load_model", lambda name: llama)
    monkeypatch.setattr(visits, "warm_up", lambda call: call())
    for name in ("_IDLE_SETTLE_S", "_SETTLE_S", "_POWER_S"):
        monkeypatch.setattr(visits, name, 0.0)
    monkeypatch.setattr(visits, "VISIT_S", {"cpu": 0.0, "cuda": 0.0})
    monkeypatch.setattr(passes, "_PASS_S", float("inf"))
    monkeypatch.setattr(operators, "CacheEviction", lambda device: lambda: None)
    monkeypatch.setattr(ceilings, "_SIDE", {"cpu": 32})
    monkeypatch.setattr(ceilings, "_STREAM_BYTES", {"cpu": 2**12})
    monkeypatch.setattr(passes, "refined", lambda *_: [])
    monkeypatch.setattr(passes, "settled", lambda values: False)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # some 300 in a campaign, and no power fails here
    yield
    torch.set_num_threads(threads)

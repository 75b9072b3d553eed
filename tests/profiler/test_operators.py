"""The work that is stated of attention operators, against the simulator's count and one that walks every query."""

import numpy as np
import pytest

from profiler.engine.batch import Chunk
from profiler.engine.engine import Engine
from profiler.measure.operators import attention_operator
from simslm.catalog.work import IterationShape, equal_prompts, work

NAMES = ("llama-grouped-tied", "gemma2", "mistral", "qwen2-windowed")


def stated(architecture, seqs, new, cached):
    """FLOPs and bytes in fp32 of all layers, less those of reading queries and writing what comes of them."""
    engine = Engine(architecture, dtype="fp32", num_blocks=120, block_size=4)
    batch = [Chunk([1] * new, cached, np.arange(24) + 24 * i) for i in range(seqs)]
    operator = attention_operator(engine, batch, "attention")
    operator.run()
    queries = 2 * seqs * new * architecture.query_size * 4
    return operator.flops * operator.calls, (operator.bytes - queries) * operator.calls


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context", [2, 50])
def test_decodes_are_counted_as_the_simulator_does(make_tiny, name, context):
    architecture = make_tiny(name)
    counted = work(architecture, "fp32", IterationShape(3, 3 * context))
    written = 3 * architecture.kv_bytes_per_token("fp32")
    assert stated(architecture, 3, 1, context) == pytest.approx(
        (counted.decode_flops, counted.decode_bytes - written)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("new", "cached"), [(4, 0), (20, 0), (7, 30)])
def test_prompts_visit_what_their_windows_leave(make_tiny, name, new, cached):
    a = make_tiny(name)
    visited = [
        {(i, j) for i in range(cached, cached + new) for j in range(i + 1) if i - j < (window or i + 1)}
        for window in a.windows()
    ]
    flops = 2 * sum(4 * a.query_size * len(pairs) for pairs in visited)
    kv = 2 * sum(2 * a.kv_size * 4 * len({j for _, j in pairs}) for pairs in visited)
    assert stated(a, 2, new, cached) == pytest.approx((flops, kv))
    most = work(a, "fp32", equal_prompts(0, 0, 2, 2 * new, 2 * cached))
    assert flops <= most.prefill_flops

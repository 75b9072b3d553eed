"""The operators of an iteration, one by one: what each costs against its shape, with its work.

Every call loops over all layers and is divided by their number, so that weights come from memory as in a real
iteration, not from a cache that the previous call warmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from profiler.engine.batch import Chunk
from profiler.engine.between import Where
from profiler.engine.engine import Engine, torch_dtype
from profiler.engine.experts import Experts, Routes
from profiler.engine.graphs import CudaRecorder
from profiler.engine.sampler import sample
from profiler.engine.transformer import Block, Rows, Transformer
from profiler.measure.caches import CacheEviction
from profiler.measure.kernel_clock import KernelClock
from profiler.measure.timing import time_call
from simslm.catalog.architecture import Architecture
from simslm.catalog.experts import Routing
from simslm.units import DTYPE_BYTES


class Operator(NamedTuple):
    """One operator at one shape.

    Attributes:
        op: its name in ``kernels.parquet``.
        tokens, seqs, ctx_tokens: its shape.
        flops, bytes: the work of one call, from the architecture; of an attention neither the masked half nor what
            lies before a window is counted, as the device need not do it.
        calls: how many calls ``run`` makes.
        run: makes them.
    """

    op: str
    tokens: int
    seqs: int
    ctx_tokens: int
    flops: float
    bytes: float
    calls: int
    run: Callable[[], Any]


class OperatorClock:
    """Times operators on cold caches: on CUDA by :class:`KernelClock`, as recordings; on a CPU by wall time.

    Args:
        device: they run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._evict = CacheEviction(device)
        self._clock = KernelClock(device, self._evict) if device.type == "cuda" else None
        self._recorder = CudaRecorder(device) if device.type == "cuda" else None

    def row(self, operator: Operator) -> dict[str, Any]:
        """One row of ``kernels.parquet``, but for ``repeat``."""
        operator.run()
        row = operator._asdict()
        del row["calls"], row["run"]
        return row | {"latency_s": self._seconds(operator) / operator.calls}

    def _seconds(self, operator: Operator) -> float:
        if self._clock is not None and self._recorder is not None:
            return self._clock.seconds(self._recorder(operator.run))
        self._evict()
        return time_call(operator.run, self._device)


def dense_operators(engine: Engine, tokens: int) -> Iterator[Operator]:
    """Projections, MLP, norm, head and sampler for ``tokens`` rows (the last two: as many sequences).

    The norm comes with the addition to the residual stream before it, as in an iteration.
    In place of the MLP a mixture of experts has ``router``, which chooses, and ``mlp``, the experts that were chosen.
    """
    a, model = engine.architecture, engine.model
    kind = torch_dtype(engine.dtype)
    hidden = torch.randn(tokens, a.hidden_size, dtype=kind, device=engine.device)
    mixed = torch.randn(tokens, a.query_size, dtype=kind, device=engine.device)
    logits = torch.randn(tokens, a.vocab_size, dtype=kind, device=engine.device)
    qkv = a.hidden_size * (a.query_size + 2 * a.kv_size)
    size = DTYPE_BYTES[engine.dtype]
    layer = DTYPE_BYTES[engine.quantization or engine.dtype]

    def matrix(
        op: str, weights: int, traffic: int, run: Callable[[], object], calls: int, weight: int = layer
    ) -> Operator:
        moved = weight * weights + size * tokens * traffic
        return Operator(op, tokens, tokens, 0, 2.0 * tokens * weights, moved, calls, run)

    def layers(call: Callable[[Block], object]) -> Callable[[], object]:
        return lambda: _each_layer(model, call)

    n = a.num_layers
    narrow = a.hidden_size + a.query_size
    yield matrix("qkv", qkv, narrow + 2 * a.kv_size, layers(lambda b: b.qkv(hidden)), n)
    yield matrix("attention_out", a.hidden_size * a.query_size, narrow, layers(lambda b: b.out(mixed)), n)
    if a.num_experts > 1:
        yield from _expert_operators(engine, hidden)
    else:
        mlp = a.expert_parameters()
        yield matrix("mlp", mlp, _mlp_traffic(a), layers(lambda b: b.mlp(hidden)), n)
    norm_bytes = size * (4 * tokens + 1) * a.hidden_size
    norm_flops = 5.0 * tokens * a.hidden_size
    stream = torch.randn_like(hidden)

    def norm(block: Block) -> object:
        return block.norm1.add(stream, hidden)

    yield Operator("norm", tokens, tokens, 0, norm_flops, norm_bytes, n, layers(norm))
    head = a.vocab_size * a.embedding_size
    yield matrix("head", head, a.hidden_size + a.vocab_size, lambda: model.head(hidden), 1, size)
    vocabulary = tokens * a.vocab_size
    yield Operator("sampler", tokens, tokens, 0, vocabulary, size * vocabulary, 1, lambda: sample(logits))


def _expert_operators(engine: Engine, hidden: Tensor) -> Iterator[Operator]:
    """The router and the experts of random rows. Bytes count the experts that so many tokens are expected to pass."""
    a, tokens, n = engine.architecture, len(hidden), engine.architecture.num_layers
    mixtures = [block.mlp for block in engine.model.blocks if isinstance(block.mlp, Experts)]
    size, weight = DTYPE_BYTES[engine.dtype], DTYPE_BYTES[engine.quantization or engine.dtype]

    def route() -> list[Routes]:
        return [mixture.route(hidden) for mixture in mixtures]

    def run() -> list[Tensor]:
        return [mixture.run(hidden, chosen) for mixture, chosen in zip(mixtures, routes, strict=True)]

    routes, router = route(), a.hidden_size * a.num_experts
    moved = size * (router + tokens * (a.hidden_size + a.num_experts))
    yield Operator("router", tokens, tokens, 0, 2.0 * tokens * router, moved, n, route)
    expert, assignments = a.expert_parameters(), tokens * a.num_experts_per_tok
    passed = float(Routing(a.num_experts, a.num_experts_per_tok).share(tokens)) * a.num_experts
    moved = weight * passed * expert + size * assignments * _mlp_traffic(a)
    yield Operator("mlp", tokens, tokens, 0, 2.0 * assignments * expert, moved, n, run)


def _mlp_traffic(a: Architecture) -> int:
    """Elements that a row's way through an MLP reads and writes beside the weights."""
    return 2 * (a.hidden_size + (2 if a.gated_mlp else 1) * a.intermediate_size)


def attention_operator(engine: Engine, batch: list[Chunk], op: str) -> Operator:
    """Attention of a batch over the paged cache."""
    a = engine.architecture
    rows = engine.lay_out(batch)
    queries = torch.randn(
        len(rows.tokens), a.query_size, dtype=torch_dtype(engine.dtype), device=engine.device
    )
    lengths = [(len(chunk.tokens), chunk.cached) for chunk in batch]
    pairs, keys = map(sum, zip(*(_seen(a, new, cached) for new, cached in lengths), strict=True))
    read = 2 * (keys * a.kv_size + len(queries) * a.query_size)
    return Operator(
        op,
        len(queries),
        len(batch),
        sum(cached for _, cached in lengths),
        4.0 * pairs * a.query_size,
        read * DTYPE_BYTES[engine.dtype],
        a.num_layers,
        lambda: _attend_all(engine, queries, rows),
    )


def _seen(a: Architecture, new: int, cached: int) -> tuple[float, float]:
    """(query, key) pairs and keys of one chunk, in the mean over the layers, windowed ones with what they see."""
    windows = [window or cached + new for window in a.windows()]
    by_query = cached + 1 + np.arange(new)
    pairs = [int(np.minimum(by_query, window).sum()) for window in windows]
    keys = [min(cached, window - 1) + new for window in windows]
    return fmean(pairs), fmean(keys)


def write_operator(engine: Engine, batch: list[Chunk]) -> Operator:
    """Writing a batch's new keys and values into the paged cache, with queries and keys rotated where they are."""
    a, steps = engine.architecture, engine.model.steps
    rows = engine.lay_out(batch)
    where = Where(rows.slots, rows.positions, steps.rotation(rows.positions))
    shape = (len(rows.tokens), a.query_size + 2 * a.kv_size)
    new = torch.randn(shape, dtype=torch_dtype(engine.dtype), device=engine.device)
    moved = 2 * (2 * a.kv_size + (a.query_size if a.positions == "rotary" else 0))

    def run() -> None:
        for layer, block in enumerate(engine.model.blocks):
            steps.place(layer, new, block.head_norms, where)

    traffic = len(new) * moved * DTYPE_BYTES[engine.dtype]
    return Operator("kv_write", len(new), len(batch), 0, 0.0, traffic, a.num_layers, run)


def _each_layer(model: Transformer, call: Callable[[Block], object]) -> None:
    for block in model.blocks:
        call(block)


def _attend_all(engine: Engine, queries: Tensor, rows: Rows) -> None:
    for layer in range(engine.architecture.num_layers):
        engine.attention.attend(layer, queries, rows.spans)


def operator_tokens(architecture: Architecture) -> tuple[int, ...]:
    """Row counts that dense operators are measured at."""
    counts = (1, 2, 4, 8, 16, 32, 128, 512, 2048)
    return tuple(count for count in counts if count <= max(architecture.max_position_embeddings, 32))

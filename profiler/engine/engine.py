"""An engine: weights, cache and attention of one model on one device, and its iterations.

An iteration is three stages, which :mod:`profiler.measure.timing` times: :meth:`Engine.prepare` lays
the batch out (host), :meth:`Engine.run` is the forward pass and the sampler (device), and
:meth:`Engine.consume` brings the sampled tokens back (host).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from profiler.engine.attention import Attention, FusedAttention, TiledAttention
from profiler.engine.batch import Chunk
from profiler.engine.between import FusedSteps, TorchSteps
from profiler.engine.cache import BLOCK_SIZE, BlockPool, PagedCache
from profiler.engine.experts import GroupedExperts, SeparateExperts, check_experts
from profiler.engine.graphs import CudaRecorder, IterationGraphs, PaddedRows, Recorder, ReplayableAttention
from profiler.engine.quantized import check_quantization, quantized_linear
from profiler.engine.sampler import GREEDY, Sampling, sample
from profiler.engine.staging import staged
from profiler.engine.support import kernels_lack
from profiler.engine.transformer import Rows, Transformer
from profiler.engine.weights import DTYPES, RandomWeights, check_supported, linear
from simslm.catalog.architecture import Architecture
from simslm.errors import DeviceError, UsageError, nearest

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_PRIMITIVES = str(1 << 16)
"""Matrix products that oneDNN keeps ready, one for every shape. It takes milliseconds to make one, and it keeps 1024 by
default: fewer than serving meets, so that it would make the same ones again and again."""


class Engine:
    """Runs iterations of one model.

    Args:
        architecture: of a supported family.
        dtype: ``fp32``, ``bf16`` or ``fp16``.
        device: ``cpu`` or ``cuda:N``.
        num_blocks: KV blocks.
        block_size: tokens per block.
        attention: ``tiled``, ``fused`` or ``paged``; by default the fastest that is there for the device. With
            ``paged``, all else that has a kernel in Triton runs as one; without, experts run one by one, as the host
            reads the routing.
        weights: by name, instead of random ones.
        quantization: ``int8`` or ``fp8`` weights of the layers, as vLLM calls it; None keeps them in ``dtype``.
        sampling: how tokens are chosen.
        enforce_eager: no CUDA graphs, as vLLM calls it.
        recorder: records small iterations where paged attention can be had; by default a CUDA graph's on CUDA.
        seed: of weights and cache.

    Attributes:
        graphs: the recorded iterations; None where all run eagerly.

    Raises:
        UsageError: for a family, a data type or a quantization the engine does not have.
        DeviceError: for a device that is not there, cannot read such weights, or is a GPU on which kernels that are
            needed cannot be compiled.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        dtype: str = "bf16",
        device: str = "cpu",
        num_blocks: int,
        block_size: int = BLOCK_SIZE,
        attention: str | None = None,
        weights: dict[str, Tensor] | None = None,
        quantization: str | None = None,
        sampling: Sampling = GREEDY,
        enforce_eager: bool = False,
        recorder: Recorder | None = None,
        seed: int = 0,
    ) -> None:
        check_supported(architecture)
        self.architecture, self.dtype, self.device = architecture, dtype, open_device(device)
        check_quantization(quantization, self.device)
        self.quantization = quantization
        number, kind = torch_dtype(dtype), attention or _fastest(self.device)
        _check_kernels(kind, architecture.num_experts > 1, quantization, self.device)
        if architecture.num_experts > 1:
            check_experts(kind, self.device)
        self.pool = BlockPool(num_blocks)
        self.cache = PagedCache(
            architecture, num_blocks, block_size=block_size, dtype=number, device=self.device
        )
        self.attention = _attention(kind, architecture, self.cache)
        held = dict(weights) if weights else RandomWeights(architecture, number, self.device, seed)
        layer = partial(quantized_linear, kind=quantization) if quantization else linear
        grouped = partial(GroupedExperts, quantization=quantization)
        experts = grouped if kind == "paged" else partial(SeparateExperts, layer=layer)
        steps = FusedSteps if kind == "paged" else TorchSteps
        self.model = Transformer(architecture, held, self.cache, self.attention, layer, experts, steps)
        if recorder is None and self.device.type == "cuda":
            recorder = CudaRecorder(self.device)
        self.graphs: IterationGraphs | None = None
        if recorder is not None and isinstance(self.attention, ReplayableAttention) and not enforce_eager:
            longest = architecture.max_position_embeddings
            self.graphs = IterationGraphs(self._step, self.attention, self.cache, longest, recorder)
        self._sampling = sampling
        self._generator = torch.Generator(device=self.device).manual_seed(seed)

    def iterate(self, batch: Sequence[Chunk]) -> list[int]:
        """One iteration: the next token of every chunk, in the order given."""
        return self.consume(self.run(self.prepare(batch)))

    def prepare(self, batch: Sequence[Chunk]) -> Rows | PaddedRows:
        """Lay the batch out and move it to the device, in one copy that nothing here waits for."""
        if self.graphs is not None and (size := self.graphs.size(batch)) is not None:
            return self.graphs.prepare(batch, size)
        return self.lay_out(batch)

    def lay_out(self, batch: Sequence[Chunk]) -> Rows:
        """The same without padding to a recorded size."""
        layout = self.attention.lay_out(batch)
        tokens, positions, slots, last_rows, *tables = staged(layout.fields(), self.device)
        return Rows(tokens, positions, slots, last_rows, self.attention.plan(layout, positions, tables))

    @torch.inference_mode()
    def run(self, rows: Rows | PaddedRows) -> Tensor:
        """Forward pass and sampler; the tokens, still on the device."""
        if isinstance(rows, PaddedRows):
            assert self.graphs is not None
            found = self.graphs.run(rows)
        else:
            found = self._step(rows)
        if self._sampling.temperature == 0:
            return found
        return sample(found, self._sampling, self._generator)

    def _step(self, rows: Rows) -> Tensor:
        """The part of an iteration that can be recorded: greedy tokens, or the logits that others are drawn from."""
        logits = self.model.forward(rows)
        return logits if self._sampling.temperature else sample(logits)

    @torch.inference_mode()
    def logits(self, batch: Sequence[Chunk]) -> Tensor:
        """Logits of every chunk's last token, ``(len(batch), vocab_size)``."""
        return self.model.forward(self.lay_out(batch))

    def consume(self, tokens: Tensor) -> list[int]:
        """The sampled tokens on the host; waits for the device."""
        return tokens.tolist()


def _attention(kind: str, architecture: Architecture, cache: PagedCache) -> Attention:
    if kind == "paged":
        from profiler.engine.paged import PagedAttention  # needs Triton

        return PagedAttention(architecture, cache)
    return {"tiled": TiledAttention, "fused": FusedAttention}[kind](architecture, cache)


def _fastest(device: torch.device) -> str:
    if device.type == "cpu":
        return "tiled"
    return "fused" if kernels_lack(device) else "paged"


def _check_kernels(kind: str, experts: bool, quantization: str | None, device: torch.device) -> None:
    """Refuses what needs kernels on a GPU that cannot have them.

    Raises:
        DeviceError: saying what they lack.
    """
    if device.type != "cuda":
        return
    needs = {
        "paged attention": kind == "paged",
        "weights of eight bits": bool(quantization),
        "experts": experts,
    }
    wanted = [name for name, needed in needs.items() if needed]
    if wanted and (lack := kernels_lack(device)):
        raise DeviceError(
            f"{' and '.join(wanted)} need kernels on {device}: {lack}",
            remedy="install what is missing, or profile a dense model without --quantization",
        )


def torch_dtype(name: str) -> torch.dtype:
    """The data type a scenario's name stands for.

    Raises:
        UsageError: for one the engine does not compute in.
    """
    if name in DTYPES:
        return DTYPES[name]
    raise UsageError(
        f"the measured engine does not compute in {name!r}{nearest(name, list(DTYPES))}",
        remedy=f"use one of {', '.join(DTYPES)}",
    )


def pin_threads(count: int | None = None) -> None:
    """Has torch compute with so many CPU threads from here on; by default with as many as it does now."""
    torch.set_num_threads(count or torch.get_num_threads())


def threads_each(replicas: int) -> int:
    """CPU threads of each of so many replicas that share those of torch."""
    return max(1, torch.get_num_threads() // replicas)


def open_device(name: str) -> torch.device:
    """The device of that name, made ready for steady timing.

    Raises:
        DeviceError: when it is not there.
        UsageError: when it is neither ``cpu`` nor ``cuda:N``.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise UsageError(f"device {name!r} is neither cpu nor cuda:N", remedy="use --device cpu or cuda:0")
    if kind == "cpu":
        _keep_freed_memory()
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES)
        return torch.device("cpu")
    number = int(index or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name} is not there: this torch sees {torch.cuda.device_count()} CUDA devices",
            remedy="check the driver with `nvidia-smi` and the build with `simslm env`, or use --device cpu",
        )
    torch.cuda.set_device(number)  # kernels of Triton run on the thread's own device
    return torch.device("cuda", number)


def release_freed_memory(device: str) -> None:
    """Gives the memory that earlier engines held back to the system, so that free memory reads right."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed memory, where glibc is.

    By default it maps every large tensor afresh and unmaps it when freed; the page faults cost more than the
    computation on it and come and go with the allocator's state, which no trace should depend on.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

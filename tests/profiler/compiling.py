"""Compiles the engine's Triton kernels for GPUs that are not there, as the engine would choose and launch them.

``python tests/profiler/compiling.py 90 prompts:llama-3.1-8b:bf16 between:phi-2:fp16`` compiles for compute capability
9.0 what parts of models launch in a data type; see :func:`covers` for the parts. A kernel that takes more shared memory
than a block of such a GPU has is refused, as the driver would, so that the engine falls back to smaller tiles. Without
``TRITON_INTERPRET``; ptxas comes with Triton.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.errors import OutOfResources
from triton.runtime.jit import JITFunction

SHARED = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 120: 101_376}
"""Bytes of shared memory that a block can have (CUDA C++ Programming Guide, table of compute capabilities)."""

PROCESSORS = {80: 108, 86: 84, 89: 58, 90: 132, 120: 170}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PRODUCTS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
FP8_CAPABILITY = 89
SLIM = 64
"""Width of the heads whose attention compiles fast in fp32 too."""


class Absent:
    """A driver of a GPU that is not there."""

    def __init__(self, capability):
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=0):
        return 0

    def get_current_target(self):
        return self._target


class Compiler:
    """Takes the place of launches: compiles, and refuses what is too large.

    Attributes:
        kernels: bytes of shared memory of each kernel that fits, by its name and hash.
        refused: how many did not.
    """

    def __init__(self, capability):
        self.kernels, self.refused, self._room = {}, 0, SHARED[capability]
        driver.set_active(Absent(capability))
        launch = JITFunction.run

        def run(function, *args, grid, warmup, **options):
            kernel = launch(function, *args, grid=grid, warmup=True, **options)
            if kernel.metadata.shared > self._room:
                self.refused += 1
                raise OutOfResources(kernel.metadata.shared, self._room, "shared memory")
            self.kernels[kernel.name, kernel.hash] = kernel.metadata.shared
            return kernel

        JITFunction.run = run


class Model:
    """One model on a GPU that is not there, its tensors without memory.

    Args:
        capability: of the GPU.
        name: in the catalogue.
        dtype: by its name.
    """

    def __init__(self, capability: int, name: str, dtype: str) -> None:
        from profiler.engine import kernels, paged
        from simslm.catalog.models import load_model

        paged.product_type = kernels.product_type = lambda like: PRODUCTS[like.dtype]
        self.capability, self.architecture, self._kind = capability, load_model(name), TYPES[dtype]
        a = self.architecture
        layer = self.meta(1024, 16, a.num_kv_heads, a.head_dim)
        layers = [layer] * a.num_layers
        self._cache = SimpleNamespace(keys=layers, values=layers, block_size=16)

    def meta(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype or self._kind, device="meta")

    def compile(self, part: str, *details: str) -> None:
        """What one part launches, see :func:`covers`."""
        getattr(self, f"_{part}")(*details)

    def _decodes(self) -> None:
        """One sequence: its context is split."""
        from profiler.engine.batch import Chunk

        self._attend([Chunk([1], 520, np.arange(33))])

    def _prompts(self) -> None:
        """A long prompt, and so many decoding sequences that none is split."""
        from profiler.engine.batch import Chunk

        decode, prompt = (
            Chunk([1], 520, np.arange(33)),
            Chunk(np.zeros(2048, dtype=np.int64), 0, np.arange(128)),
        )
        self._attend([*[decode] * 256, prompt])

    def _attend(self, batch: list) -> None:
        """In a layer of every window."""
        from profiler.engine.paged import PagedAttention

        a, options = (
            self.architecture,
            {"processors": PROCESSORS[self.capability], "shared": SHARED[self.capability]},
        )
        attention = PagedAttention(a, self._cache, **options)
        layout = attention.lay_out(batch)
        tables = [torch.from_numpy(field.reshape(-1)).to("meta") for field in layout.tables]
        plan = attention.plan(layout, self.meta(1), tables)
        for i in {window: i for i, window in enumerate(a.windows())}.values():
            attention.attend(i, self.meta(len(layout.tokens), a.query_size), plan)

    def _between(self) -> None:
        """All that lies between products and attention."""
        from profiler.engine import between

        a, meta, rows = self.architecture, self.meta, 3
        turned = a.positions == "rotary"
        rotary = meta(2, a.max_position_embeddings, a.rotary_dim // 2) if turned else None
        steps = between.FusedSteps(a, self._cache, rotary)
        places = (meta(rows, dtype=torch.int64), meta(rows, dtype=torch.int64), None)
        widths = (a.query_size, a.kv_size) if a.qk_norm_across_heads else (a.head_dim, a.head_dim)
        norms = between.HeadNorms(*(meta(width) for width in widths)) if a.qk_norm else None
        steps.place(0, meta(rows, a.query_size + 2 * a.kv_size), norms, between.Where(*places))
        norm = steps.norm(meta(a.hidden_size), meta(a.hidden_size) if a.norm == "layernorm" else None)
        norm(meta(rows, a.hidden_size))
        norm.add(meta(rows, a.hidden_size), meta(rows, a.hidden_size))
        if a.num_experts == 1 and a.gated_mlp:
            steps.gate()(meta(rows, 2 * a.intermediate_size))

    def _experts(self, tokens: str, quantization: str) -> None:
        """A mixture, whose experts have few, some or many rows each."""
        from profiler.engine.experts import GroupedExperts

        a, meta = self.architecture, self.meta
        up = meta(a.num_experts, 2 * a.intermediate_size, a.hidden_size)
        down = meta(a.num_experts, a.hidden_size, a.intermediate_size)
        kind = None if quantization == "plain" else quantization
        mixture = GroupedExperts(a, meta(a.num_experts, a.hidden_size), up, down, quantization=kind)
        mixture(meta(int(tokens), a.hidden_size))

    def _quantized(self, rows: str, quantization: str) -> None:
        """Some rows times a matrix of eight bits: one of a layer for one row, a large one for more."""
        from profiler.engine.quantized import QUANTIZATIONS, Quantized, multiply_in_place

        depth = self.architecture.hidden_size
        outputs = depth if rows == "1" else 7 * 4096
        matrix = self.meta(outputs, depth, dtype=QUANTIZATIONS[quantization])
        multiply_in_place(
            self.meta(int(rows), depth), Quantized(matrix, self.meta(outputs)), self.meta(outputs)
        )


def variants(name: str) -> Iterator[tuple[str, dict[str, object]]]:
    """The cases of a model, as ``part:model:dtype:…``, and what makes the kernels of each differ."""
    from simslm.catalog.models import load_model

    a = load_model(name)
    heads = {"heads": a.head_dim, "group": a.num_heads // a.num_kv_heads}
    heads |= {
        "windows": tuple(sorted({bool(window) for window in a.windows()})),
        "cap": bool(a.attention_softcap),
    }
    steps = {"turned": (a.positions, a.rotary_dim == a.head_dim), "norm": (a.norm, a.norm_offset)}
    steps |= {"qk_norm": (a.qk_norm, a.qk_norm_across_heads), "gate": (a.gated_mlp, a.activation)}
    for dtype in TYPES:
        for part in ("prompts", "decodes"):
            yield f"{part}:{name}:{dtype}", {"part": part, "dtype": dtype} | heads
        yield f"between:{name}:{dtype}", {"part": "between", "dtype": dtype} | steps
        for rows, kind in product((1, 64), ("int8", "fp8")):
            case = {"part": "quantized", "rows": rows, "kind": kind, "dtype": dtype}
            yield f"quantized:{name}:{dtype}:{rows}:{kind}", case
        for tokens, kind in product((1, 512, 2048), ("plain", "int8", "fp8") if a.num_experts > 1 else ()):
            case = {"part": "experts", "rows": tokens, "kind": kind, "dtype": dtype}
            yield f"experts:{name}:{dtype}:{tokens}:{kind}", case


def covers(targets: tuple[int, ...], names: tuple[str, ...]) -> dict[int, list[str]]:
    """For every target cases in which all pairs come of what makes the kernels of a part differ, targets included.

    The parts are attention of ``prompts`` and of ``decodes``, what lies ``between``, ``experts``, and products of
    ``quantized`` weights. Of decodes every value comes once, as their tiles are the small ones of prompts, but that
    contexts are split. fp32 is left out where it takes long to compile: with heads wider than 64, in decodes and in
    mixtures, and of eight bits but for one target. Its products are not on matrix units.
    """
    sys.path.append(str(Path(__file__).parents[1]))
    from support.fractions import fraction

    parts: dict[object, list[tuple[int, str, dict[str, object]]]] = {}
    for target, name in product(targets, names):
        for case, features in variants(name):
            if _compiles_soon(target, features) and (
                features.get("kind") != "fp8" or target >= FP8_CAPABILITY
            ):
                parts.setdefault(features["part"], []).append((target, case, features))
    found: dict[int, list[str]] = {target: [] for target in targets}
    for part, cases in parts.items():
        values = [
            frozenset((key, repr(value)) for key, value in ({"target": target} | features).items())
            for target, _, features in cases
        ]
        for i in fraction(values, set(), pairwise=part != "decodes"):
            found[cases[i][0]].append(cases[i][1])
    return found


def _compiles_soon(target: int, features: dict[str, object]) -> bool:
    if features["dtype"] != "fp32":
        return True
    soon = {
        "prompts": features.get("heads") == SLIM,
        "between": True,
        "quantized": target == FP8_CAPABILITY,
    }
    return soon.get(str(features["part"]), False)


def every(target: int, names: tuple[str, ...]) -> list[str]:
    """All cases of a target."""
    cases = [case for name in names for case, _ in variants(name)]
    return [case for case in cases if target >= FP8_CAPABILITY or not case.endswith(":fp8")]


def main(capability: int, cases: list[str]) -> bool:
    """Compiles, and says how that went; whether anything failed."""
    compiler, failures = Compiler(capability), []
    for case in cases:
        try:
            part, name, dtype, *details = case.split(":")
            Model(capability, name, dtype).compile(part, *details)
        except Exception as error:
            root = error
            while root.__cause__ is not None:
                root = root.__cause__
            last = (str(root).splitlines() or [""])[-1]
            failures.append(f"{case}: {type(root).__name__}: {last}")
    largest = max(compiler.kernels.values(), default=0)
    sys.stdout.write(
        f"sm_{capability}: {len(compiler.kernels)} kernels, the largest with {largest:,} bytes of shared memory, "
        f"{compiler.refused} too large and replaced, {len(failures)} failures\n"
    )
    sys.stdout.writelines(f"  {line}\n" for line in failures)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

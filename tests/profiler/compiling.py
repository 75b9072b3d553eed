"""Compiles the engine's Triton kernels for GPUs that are not there, as the engine would choose and launch them.

``python tests/profiler/compiling.py 90 llama-3.1-8b:bf16 qwen2.5-0.5b:fp16`` compiles for compute capability 9.0 what
models launch in a data type. A kernel that takes more shared memory than a block of such a GPU has is refused, as the
driver would, so that the engine falls back to smaller tiles. Without ``TRITON_INTERPRET``; ptxas comes with Triton.
"""

import sys
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


def compile_model(capability, name, dtype):
    """What one model launches: prompts, few and many decodes, and all that lies between products and attention."""
    from profiler.engine import between, kernels, paged
    from profiler.engine.batch import Chunk
    from simslm.catalog.models import load_model

    paged.product_type = kernels.product_type = lambda like: PRODUCTS[like.dtype]
    a, kind = load_model(name), TYPES[dtype]

    def meta(*shape, dtype=kind):
        return torch.empty(shape, dtype=dtype, device="meta")

    layer = meta(1024, 16, a.num_kv_heads, a.head_dim)
    cache = SimpleNamespace(keys=[layer] * a.num_layers, values=[layer] * a.num_layers, block_size=16)
    options = {"processors": PROCESSORS[capability], "shared": SHARED[capability]}
    attention = paged.PagedAttention(a, cache, **options)
    layers = {window: i for i, window in enumerate(a.windows())}.values()
    decodes, prompt = (
        [Chunk([1], 520, np.arange(33))],
        Chunk(np.zeros(2048, dtype=np.int64), 0, np.arange(128)),
    )
    for batch in (decodes, [*decodes * 256, prompt]):
        layout = attention.lay_out(batch)
        tables = [torch.from_numpy(field.reshape(-1)).to("meta") for field in layout.tables]
        plan = attention.plan(layout, meta(1), tables)
        for i in layers:
            attention.attend(i, meta(len(layout.tokens), a.query_size), plan)

    rotary = meta(2, a.max_position_embeddings, a.rotary_dim // 2) if a.positions == "rotary" else None
    steps, rows = between.FusedSteps(a, cache, rotary), 3
    places = (meta(rows, dtype=torch.int64), meta(rows, dtype=torch.int64), None)
    across = a.qk_norm_across_heads
    widths = (a.query_size, a.kv_size) if across else (a.head_dim, a.head_dim)
    norms = between.HeadNorms(*(meta(width) for width in widths)) if a.qk_norm else None
    steps.place(0, meta(rows, a.query_size + 2 * a.kv_size), norms, between.Where(*places))
    norm = steps.norm(meta(a.hidden_size), meta(a.hidden_size) if a.norm == "layernorm" else None)
    norm(meta(rows, a.hidden_size))
    norm.add(meta(rows, a.hidden_size), meta(rows, a.hidden_size))
    if a.num_experts > 1:
        compile_experts(capability, a, meta)
    elif a.gated_mlp:
        steps.gate()(meta(rows, 2 * a.intermediate_size))
    compile_quantized(capability, a, meta)


def compile_experts(capability, a, meta):
    """Few, some and many rows of an expert, plain and in eight bits."""
    from profiler.engine.experts import GroupedExperts

    up = meta(a.num_experts, 2 * a.intermediate_size, a.hidden_size)
    down = meta(a.num_experts, a.hidden_size, a.intermediate_size)
    for quantization in (None, "int8", "fp8")[: 2 + (capability >= FP8_CAPABILITY)]:
        mixture = GroupedExperts(a, meta(a.num_experts, a.hidden_size), up, down, quantization=quantization)
        for tokens in (1, 512, 2048):
            mixture(meta(tokens, a.hidden_size))


def compile_quantized(capability, a, meta):
    """One row and the most rows that read eight bits, of a small and a large matrix."""
    from profiler.engine.quantized import QUANTIZATIONS, Quantized, multiply_in_place

    for kind in ("int8", "fp8")[: 1 + (capability >= FP8_CAPABILITY)]:
        for rows, outputs in ((1, a.hidden_size), (64, 7 * 4096)):
            matrix = meta(outputs, a.hidden_size, dtype=QUANTIZATIONS[kind])
            multiply_in_place(meta(rows, a.hidden_size), Quantized(matrix, meta(outputs)), meta(outputs))


def main(capability, cases):
    compiler, failures = Compiler(capability), []
    for case in cases:
        try:
            compile_model(capability, *case.split(":"))
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

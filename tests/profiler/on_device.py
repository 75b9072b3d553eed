"""The engine on a device against the engine on a CPU with plain attention: the first thing to run on a GPU.

``python tests/profiler/on_device.py cuda:0`` compiles the kernels for tiny families and for heads as wide as real ones,
for few and for many rows, records graphs, and says how far the logits are from those on the CPU. On ``cpu`` the kernels
are interpreted, which rehearses this script.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda:0"
os.environ["TRITON_INTERPRET"] = "1" if DEVICE == "cpu" else "0"  # read when a kernel is defined
sys.path.insert(0, str(Path(__file__).parent))

from conftest import TINY, tiny  # noqa: E402

from profiler.engine.batch import Chunk  # noqa: E402
from profiler.engine.engine import Engine, torch_dtype  # noqa: E402
from profiler.engine.graphs import rerun  # noqa: E402
from profiler.engine.quantized import quantize  # noqa: E402
from profiler.engine.weights import random_weights  # noqa: E402

ARCHITECTURES = {name: tiny(name) for name in TINY} | {
    f"llama, heads of {width}": tiny("llama-grouped-tied", head_dim=width, max_position_embeddings=2048)
    for width in (64, 80, 128)
}
ARCHITECTURES["gemma2, heads of 256"] = tiny("gemma2", head_dim=256, sliding_window=40)
ARCHITECTURES["olmoe, wider"] = tiny(
    "olmoe", hidden_size=256, intermediate_size=160, num_experts=32, num_experts_per_tok=8
)
TOLERANCES = {"fp32": 2e-4, "bf16": 0.06, "fp16": 0.02}
MATRICES = ("q", "k", "v", "out", "gate", "up", "down", "experts_gate_up", "experts_down")
ORDER = np.random.default_rng(1).permutation(60)
BATCH = [
    Chunk([5, 17, 3, 88, 41, 9, 60], 3, ORDER[:3]),
    Chunk([7], 40, ORDER[3:14]),
    Chunk([(7 * i) % 97 for i in range(60)], 5, ORDER[14:31]),
    Chunk([1], 0, ORDER[31:32]),
]
DECODES = [
    Chunk([token], cached, ORDER[18 * i : 18 * i + 18])
    for i, (token, cached) in enumerate([(3, 9), (4, 60), (5, 0)])
]


def rounded(weights, kind):
    """Those of the layers' matrices as quantisation leaves them."""
    layers = [name for name in weights if name.startswith("layers.") and not name.endswith(".bias")]
    matrices = [name for name in layers if name.removesuffix(".weight").split(".")[-1] in MATRICES]
    return weights | {name: quantize(weights[name], kind).dequantized() for name in matrices}


def error(architecture, dtype, quantization=None):
    """Largest difference of the logits, as a share of the largest logit.

    In half precision all experts are passed: where two are nearly as good, rounding decides, and nothing is near.
    """
    if dtype != "fp32":
        architecture = replace(architecture, num_experts_per_tok=architecture.num_experts)
    weights = random_weights(architecture, torch_dtype(dtype))
    there = {name: weight.to(DEVICE) for name, weight in weights.items()}
    expected = rounded(weights, quantization) if quantization else weights
    common = {"dtype": dtype, "num_blocks": 60, "block_size": 4}
    plain = Engine(architecture, weights=expected, **common)
    engine = Engine(
        architecture, device=DEVICE, attention="paged", weights=there, quantization=quantization, **common
    )
    for mine, other in zip(
        (engine.cache.keys, engine.cache.values), (plain.cache.keys, plain.cache.values), strict=True
    ):
        for layer, source in zip(mine, other, strict=True):
            layer.copy_(source)
    return max(distance(engine.logits(batch), plain.logits(batch)) for batch in (BATCH, BATCH[1::2]))


def distance(found, expected):
    found, expected = found.cpu().double(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max())


def graphs_agree(architecture, quantization=None):
    """Whether replayed decodes choose the tokens of eager ones, at two sets of lengths, one size after another."""
    options = {"dtype": "fp32", "device": DEVICE, "num_blocks": 60, "block_size": 4, "attention": "paged"}
    options["quantization"] = quantization
    graphed = Engine(architecture, recorder=rerun if DEVICE == "cpu" else None, **options)
    eager = Engine(architecture, enforce_eager=True, **options)
    batches = (DECODES[:1], DECODES, DECODES[::-1], DECODES[:2], DECODES * 9, DECODES, DECODES[:1])
    same = all(graphed.iterate(batch) == eager.iterate(batch) for batch in batches)
    return same and graphed.graphs.sizes == [1, 2, 4, 32]


def main():
    failed = False
    for name, architecture in ARCHITECTURES.items():
        cases = [("fp32", None), ("bf16", None), ("fp16", None), ("fp32", "int8")]
        for dtype, quantization in cases + [("bf16", "fp8")] * (DEVICE != "cpu"):
            found = error(architecture, dtype, quantization)
            failed |= not found <= TOLERANCES[dtype]
            sys.stdout.write(f"{name:20} {dtype} {quantization or '':5} {found:.1e}\n")
        for quantization in (None, "int8"):
            agree = graphs_agree(architecture, quantization)
            failed |= not agree
            sys.stdout.write(f"{name:20} graphs {quantization or ''} {'as eager' if agree else 'DIFFER'}\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()

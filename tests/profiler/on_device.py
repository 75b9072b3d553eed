"""The engine on a device against the engine on a CPU with plain attention: the first thing to run on a GPU.

``python tests/profiler/on_device.py cuda:0`` compiles the kernels for tiny families and for heads as wide as real ones,
for few and for many rows, records graphs, and says how far the logits are from those on the CPU. Names after the
device choose cases (``opt 'llama, heads of 128'``) or single checks of them (``opt/graphs``); ``--list`` prints all.
Checks are run by several processes side by side, one for each core, so that kernels compile in parallel; a check that
fails, or takes its process with it, leaves the others alone. On ``cpu`` the kernels are interpreted, which rehearses
this script.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda:0"
os.environ["TRITON_INTERPRET"] = "1" if DEVICE == "cpu" else "0"  # read when a kernel is defined
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import side_by_side  # noqa: E402
from tiny_models import TINY, tiny  # noqa: E402

WIDE = 128
WORKER, LIST = "--worker", "--list"
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


def batches():
    """Prompts beside decodes, and such as have small tiles only."""
    from profiler.engine.batch import Chunk

    batch = [
        Chunk([5, 17, 3, 88, 41, 9, 60], 3, ORDER[:3]),
        Chunk([7], 40, ORDER[3:14]),
        Chunk([(7 * i) % 97 for i in range(60)], 5, ORDER[14:31]),
        Chunk([1], 0, ORDER[31:32]),
    ]
    return batch, batch[1::2]


def decodes():
    from profiler.engine.batch import Chunk

    lengths = enumerate([(3, 9), (4, 60), (5, 0)])
    return [Chunk([token], cached, ORDER[18 * i : 18 * i + 18]) for i, (token, cached) in lengths]


def rounded(weights, kind):
    """Those of the layers' matrices as quantisation leaves them."""
    from profiler.engine.quantized import quantize

    layers = [name for name in weights if name.startswith("layers.") and not name.endswith(".bias")]
    matrices = [name for name in layers if name.removesuffix(".weight").split(".")[-1] in MATRICES]
    return weights | {name: quantize(weights[name], kind).dequantized() for name in matrices}


def error(architecture, dtype, quantization=None):
    """Largest difference of the logits, as a share of the largest logit.

    In half precision all experts are passed: where two are nearly as good, rounding decides, and nothing is near.
    """
    from profiler.engine.engine import Engine, torch_dtype
    from profiler.engine.weights import random_weights

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
    return max(distance(engine.logits(batch), plain.logits(batch)) for batch in batches())


def distance(found, expected):
    found, expected = found.cpu().double(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max())


def graphs_agree(architecture, quantization=None):
    """Whether replayed iterations choose the tokens of eager ones, at two sets of lengths, one size after another."""
    from profiler.engine.engine import Engine
    from profiler.engine.graphs import rerun

    dtype = "bf16" if architecture.head_dim >= WIDE else "fp32"
    options = {"dtype": dtype, "device": DEVICE, "num_blocks": 60, "block_size": 4, "attention": "paged"}
    options["quantization"] = quantization
    graphed = Engine(architecture, recorder=rerun if DEVICE == "cpu" else None, **options)
    eager = Engine(architecture, enforce_eager=True, **options)
    some, (mixed, _) = decodes(), batches()
    tried = (some[:1], some, some[::-1], mixed, some[:2], some * 9, some, mixed[:2], some[:1])
    same = all(graphed.iterate(batch) == eager.iterate(batch) for batch in tried)
    return same and graphed.graphs.sizes == [1, 2, 4, 32] and len(graphed.graphs.mixed_sizes) == 2


def checks(names):
    """Name and check of all that is to be done; fp32 not of wide heads, whose products take minutes to compile."""
    for name in names:
        wide = ARCHITECTURES[name].head_dim >= WIDE
        for check in ("bf16", "fp16", "fp32", "fp32 int8", "bf16 fp8", "graphs", "graphs int8"):
            if not (wide and check.startswith("fp32")) and not (DEVICE == "cpu" and "fp8" in check):
                yield name, check


def run(name, check):
    """What one check found, in words, and whether it is as it should be."""
    kind, _, quantization = check.partition(" ")
    if kind == "graphs":
        agree = graphs_agree(ARCHITECTURES[name], quantization or None)
        return "as eager" if agree else "DIFFER", agree
    found = error(ARCHITECTURES[name], kind, quantization or None)
    return f"{found:.1e}", found <= TOLERANCES[kind]


def chosen(names):
    """The checks of cases, or single ones: ``opt``, ``opt/graphs``.

    Raises:
        SystemExit: there is no such case or check.
    """
    cases, found = {}, []
    for name, check in checks(ARCHITECTURES):
        cases.setdefault(name, []).append(check)
    for each in names or cases:
        name, _, check = each.partition("/")
        if name not in cases or (check and check not in cases[name]):
            known = ", ".join(map(repr, cases.get(name, cases)))
            sys.exit(f"no case {each!r}; there are {known}")
        found += [(name, way) for way in cases[name] if check in ("", way)]
    return found


def work():
    """A worker."""
    import torch

    torch.set_num_threads(1)
    side_by_side.answer(run, (lambda: None) if DEVICE == "cpu" else torch.cuda.synchronize)


def main(names):
    if names == [LIST]:
        sys.stdout.writelines(f"{name}/{check}\n" for name, check in checks(ARCHITECTURES))
        return
    worker = [sys.executable, __file__, DEVICE, WORKER]
    sys.exit(side_by_side.run_all(chosen(names), worker, os.cpu_count() or 1) > 0)


if __name__ == "__main__":
    if WORKER in sys.argv:
        work()
    else:
        main(sys.argv[2:])

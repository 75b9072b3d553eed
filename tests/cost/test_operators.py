"""The roofline by operator, against the published table and against the cost model's own work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.catalog.work import IterationShape, equal_prompts, work
from simslm.cost.operators import OperatorTable
from simslm.transforms.lserve import LServe
from simslm.transforms.weights import Weights
from simslm.transforms.xquant import XQuant

A6000 = load_device("rtx-a6000")

# LLM-Viewer, arXiv:2402.16363, Table 1: Llama-2-7B in fp16 on an RTX A6000, batch 1, 2048 tokens. Operations, bytes,
# operations per byte, operations per second and bound, as the authors' code prints them: its formulas
# (hahnyuan/LLM-Viewer, model_analyzer.py, hardware_params.py) by hand, for the paper's table could not be read.
PREFILL = """
q_proj    69G  67M  1024 155T compute
k_proj    69G  67M  1024 155T compute
v_proj    69G  67M  1024 155T compute
o_proj    69G  67M  1024 155T compute
gate_proj 185G 152M 1215 155T compute
up_proj   185G 152M 1215 155T compute
down_proj 185G 152M 1215 155T compute
qk_matmul 34G  302M 114  87T  memory
sv_matmul 34G  302M 114  87T  memory
softmax   671M 537M 1.25 960G memory
norm      59M  34M  1.75 1T   memory
add       8M   34M  0.25 192G memory
"""
DECODE = """
q_proj    34M  34M  1    768G memory
k_proj    34M  34M  1    768G memory
v_proj    34M  34M  1    768G memory
o_proj    34M  34M  1    768G memory
gate_proj 90M  90M  1    768G memory
up_proj   90M  90M  1    768G memory
down_proj 90M  90M  1    768G memory
qk_matmul 17M  17M  0.99 762G memory
sv_matmul 17M  17M  0.99 762G memory
softmax   328K 262K 1.25 960G memory
norm      29K  16K  1.75 1T   memory
add       4K   16K  0.25 192G memory
"""


def printed(value: float, text: str) -> bool:
    """Whether a value is what was printed, to one unit of the last digit."""
    number = text.rstrip("KMGT")
    unit = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[text[len(number) :]]
    digits = len(number.partition(".")[2])
    return abs(value / unit - float(number)) <= 10.0**-digits


@pytest.mark.parametrize(("phase", "published"), [("prefill", PREFILL), ("decode", DECODE)])
def test_the_published_table(phase, published):
    """Every line of the table to its printed digits; a decoding token attends to 2048, itself included."""
    table = OperatorTable(load_model("llama-2-7b"), A6000, "fp16", attention="eager")
    found = table.prefill(1, 2048) if phase == "prefill" else table.decode(1, 2047)
    by_name = {each.name: each for each in found}
    for line in published.split("\n")[1:-1]:
        name, flops, moved, intensity, speed, bound = line.split()
        each = by_name[name]
        assert printed(each.flops, flops), line
        assert printed(each.bytes, moved), line
        assert printed(each.intensity, intensity), line
        assert printed(each.flops_per_s, speed), line
        assert each.bound == bound, line


def test_one_matrix_product_by_hand():
    """Llama-2-7B, one prompt of 2048 tokens through a projection of 4096 by 4096."""
    table = OperatorTable(load_model("llama-2-7b"), A6000, "fp16")
    (found,) = [each for each in table.prefill(1, 2048) if each.name == "q_proj"]
    assert found.calls == 32
    assert found.flops == 2 * 2048 * 4096 * 4096
    assert found.weight_bytes == 2 * 4096 * 4096
    assert found.activation_bytes == 2 * 2 * 2048 * 4096
    assert found.seconds == pytest.approx(found.flops / 154.8e12)
    assert table.ridge == pytest.approx(154.8e12 / 768e9)


MODELS = ("llama-2-7b", "opt-1.3b", "opt-350m", "llama-3.2-1b", "phi-2", "gemma-2-2b", "qwen3-30b-a3b")
HEAD = ("lm_head", "project_out")


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 300),
    st.integers(0, 9000),
    st.integers(0, 3),
    st.integers(1, 9000),
)
def test_operators_add_up_to_the_work_of_the_cost_model(model, seqs, context, prompts, tokens):
    """The same operations; the same weights and keys and values, but for norms and biases (and what OPT adds)."""
    architecture = load_model(model)
    shape = (
        equal_prompts(0, 0, prompts, prompts * tokens, 0) if prompts else IterationShape(seqs, seqs * context)
    )
    found, wanted = OperatorTable(architecture, A6000, "bf16").of(shape), work(architecture, "bf16", shape)
    linear = [each for each in found if each.weight_bytes and each.name not in HEAD]
    vectors = 2 * architecture.num_layers * architecture.layer_vector_parameters()
    assert sum(each.calls * each.flops for each in linear) == pytest.approx(wanted.linear_flops)
    assert sum(each.calls * each.weight_bytes for each in linear) == pytest.approx(
        wanted.linear_bytes - vectors
    )
    attention = sum(each.calls * each.flops for each in found if each.name.endswith("attention"))
    assert attention == pytest.approx(wanted.decode_flops + wanted.prefill_flops)
    caches = sum(each.calls * each.kv_bytes for each in found)
    assert caches == pytest.approx(wanted.decode_bytes + wanted.prefill_bytes)
    assert sum(each.flops for each in found if each.name in HEAD) == wanted.head_flops


def test_transforms_change_operators():
    model = load_model("llama-2-7b")

    def by_name(*transforms):
        table = OperatorTable(model, A6000, "fp16", transforms=transforms)
        return {each.name: each for each in table.decode(4, 8000)}

    plain, few = by_name(), by_name(Weights(bits=4, group_size=None, dequantize_ops=0))
    assert plain["up_proj"].weight_bytes == pytest.approx(4 * few["up_proj"].weight_bytes, rel=1e-3)
    assert plain["lm_head"] == few["lm_head"]
    read = by_name(LServe(streaming_share=1.0))["attention"]
    assert read.kv_bytes == pytest.approx(plain["attention"].kv_bytes * 385 / 8001)
    again = by_name(XQuant(group_size=None))["attention"]
    assert again.kv_bytes == pytest.approx(plain["attention"].kv_bytes / 8)
    assert again.bound == "compute"
    assert by_name(XQuant(group_size=None))["k_proj"].kv_bytes == plain["k_proj"].kv_bytes / 8

"""Random weights for an architecture, by plain names, and linear layers packed for the device.

Weights are never zeros: processors and memories spend less on zeros than on data, in time and in power.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from simslm.catalog.architecture import Architecture
from simslm.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Data types the engine computes in, by their names in scenarios."""

SUPPORTED_FAMILIES = ("opt", "llama", "qwen2", "qwen3", "qwen3_moe", "olmoe", "phi", "gemma2")

_EMBEDDING_STD = 0.05
_NORM_STD = 0.1
_BIAS_STD = 0.02
_PACKED_ROWS = 128
_SEEDS_EACH = 1 << 20


def check_supported(architecture: Architecture) -> None:
    """Refuse an architecture whose forward pass the engine does not have.

    Raises:
        UsageError: naming the families it has.
    """
    lacks = list(_missing_parts(architecture))
    if lacks:
        raise UsageError(
            f"the measured engine has no {' and no '.join(lacks)}",
            where=f"model {architecture.name}",
            remedy=f"profile a model of one of the families {', '.join(SUPPORTED_FAMILIES)}",
        )


def _missing_parts(a: Architecture) -> Iterator[str]:
    if a.family not in SUPPORTED_FAMILIES:
        yield f"{a.family} block"
    if a.num_experts > 1 and (a.mlp_bias or not a.gated_mlp or a.activation != "silu"):
        yield "experts but those gated by SiLU, without bias"
    if a.sliding_window and sum(1 for window in a.windows() if window) not in (0, a.sliding_window_layers):
        yield f"{a.sliding_window_layers} windowed layers of {a.num_layers}"
    if a.qk_norm and a.norm != "rmsnorm":
        yield "layernorm of queries and keys"
    if a.norm_offset and (a.norm != "rmsnorm" or a.qk_norm):
        yield "such norm by one plus a weight"
    if a.post_norms and (a.parallel_block or not a.norm_first):
        yield "second norms in such a block"


def weight_shapes(architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight, in a fixed order; matrices are ``(out, in)``, stacks of
    them ``(count, out, in)``."""
    a = architecture
    yield "embedding", (a.vocab_size, a.embedding_size)
    if a.positions == "learned":
        yield "positions", (a.max_position_embeddings + a.position_offset, a.hidden_size)
    if a.embedding_size != a.hidden_size:
        yield "project_in", (a.hidden_size, a.embedding_size)
        yield "project_out", (a.embedding_size, a.hidden_size)
    for layer in range(a.num_layers):
        for name, shape in _layer_shapes(a):
            yield f"layers.{layer}.{name}", shape
    if a.final_norm:
        yield from _norm_shapes("final_norm", a)
    if not a.tied_embeddings:
        yield "head.weight", (a.vocab_size, a.embedding_size)
    if a.lm_head_bias:
        yield "head.bias", (a.vocab_size,)


class RandomWeights:
    """Every weight by name, made when it is taken, so that while a model loads little is there beside it.

    Weights are normal, with a spread that keeps activations near one. Matrices have a standard deviation of
    ``fan_in ** -0.5``, norms multiply by around one, and embeddings are small, scaled or not, so that what the layers
    add decides the next token. Those of mixtures of experts outweigh what all layers add: attention by random weights
    adds about the same to all tokens of a prompt, and a router would send them all to the experts of one.

    Args:
        architecture: of a supported family.
        dtype: of the weights.
        device: where they are made.
        seed: of all of them; each has a seed of its own, so that their order does not matter.
    """

    def __init__(
        self,
        architecture: Architecture,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self._architecture, self._dtype, self._device, self._seed = architecture, dtype, device, seed
        self._shapes = dict(weight_shapes(architecture))
        self._numbers = {name: number for number, name in enumerate(self._shapes)}

    def pop(self, name: str, *default: Tensor | None) -> Any:
        """Makes a weight, and forgets it; the default where the architecture has none of that name, or had it taken.

        Raises:
            KeyError: there is no default either.
        """
        if default and name not in self._shapes:
            return default[0]
        shape = self._shapes.pop(name)
        generator = torch.Generator(device=self._device)
        generator.manual_seed(self._seed * _SEEDS_EACH + self._numbers[name])
        values = torch.empty(shape, dtype=self._dtype, device=self._device)
        mean, std = _spread(self._architecture, name, shape)
        return values.normal_(mean, std, generator=generator)


Weights = dict[str, Tensor] | RandomWeights
"""Weights by name, each taken once."""


def random_weights(
    architecture: Architecture, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0
) -> dict[str, Tensor]:
    """All weights of :class:`RandomWeights`."""
    weights = RandomWeights(architecture, dtype, device, seed)
    return {name: weights.pop(name) for name, _ in weight_shapes(architecture)}


def _layer_shapes(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm_shapes("norm1", a)
    for name, width in (("q", a.query_size), ("k", a.kv_size), ("v", a.kv_size)):
        yield from _linear_shapes(name, width, a.hidden_size, a.qkv_bias)
    if a.qk_norm:
        yield "q_norm.weight", (a.query_size if a.qk_norm_across_heads else a.head_dim,)
        yield "k_norm.weight", (a.kv_size if a.qk_norm_across_heads else a.head_dim,)
    yield from _linear_shapes("out", a.hidden_size, a.query_size, a.attention_out_bias)
    if not a.parallel_block:
        yield from _norm_shapes("norm2", a)
    if a.post_norms:
        yield from _norm_shapes("post_norm1", a)
        yield from _norm_shapes("post_norm2", a)
    yield from _expert_shapes(a) if a.num_experts > 1 else _mlp_shapes(a)


def _expert_shapes(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The router, and the experts' matrices in stacks, as ``transformers`` has them: gates before up-projections."""
    yield "router.weight", (a.num_experts, a.hidden_size)
    yield "experts_gate_up", (a.num_experts, 2 * a.intermediate_size, a.hidden_size)
    yield "experts_down", (a.num_experts, a.hidden_size, a.intermediate_size)


def _mlp_shapes(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    if a.gated_mlp:
        yield from _linear_shapes("gate", a.intermediate_size, a.hidden_size, a.mlp_bias)
    yield from _linear_shapes("up", a.intermediate_size, a.hidden_size, a.mlp_bias)
    yield from _linear_shapes("down", a.hidden_size, a.intermediate_size, a.mlp_bias)


def _linear_shapes(name: str, rows: int, columns: int, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _norm_shapes(name: str, a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (a.hidden_size,)
    if a.norm == "layernorm":
        yield f"{name}.bias", (a.hidden_size,)


def _spread(a: Architecture, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of one weight."""
    if name == "embedding" and a.num_experts > 1:
        return 0.0, a.num_layers**0.5
    if name in ("embedding", "positions"):
        return 0.0, _EMBEDDING_STD * (a.hidden_size**-0.5 if a.scale_embeddings else 1.0)
    if name.endswith(".bias"):
        return 0.0, _BIAS_STD
    if len(shape) == 1:
        return 0.0 if a.norm_offset else 1.0, _NORM_STD
    return 0.0, shape[-1] ** -0.5


Linear = Callable[[Tensor], Tensor]
"""Activations ``(tokens, in)`` to ``(tokens, out)``."""

MakeLinear = Callable[[Tensor, Tensor | None], Linear]
"""A matrix ``(out, in)`` and perhaps a bias to a linear layer."""


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The fastest linear layer torch has here for a weight ``(out, in)`` that never changes.

    On a CPU the weight is reordered once into oneDNN's blocked layout: a batch of one then reads it at the
    memory's speed, where the plain layer reaches a third of it. Devices without that use the plain layer.
    """
    packed = _packed(weight)
    if packed is None:
        return lambda x: functional.linear(x, weight, bias)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _packed(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's blocked layout, or None where this torch or this device has no such thing."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    probe = torch.ones(2, weight.shape[1], dtype=weight.dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)
        found = torch.ops.mkldnn._linear_pointwise(probe, packed, None, "none", [], "")
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    expected = functional.linear(probe, weight)
    return packed if torch.allclose(found.float(), expected.float(), rtol=0.05, atol=0.05) else None

"""What a decoder-only transformer is made of, and what follows from it alone: parameters, weights, KV cache.

Every count is exact arithmetic on the architecture; the tests hold it to the published parameter counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from simslm.errors import ScenarioError, UsageError, nearest
from simslm.units import DTYPE_BYTES

LARGEST = 1_000_000_000
"""No dimension of a model is larger."""

Family = Literal["opt", "llama", "qwen2", "qwen3", "phi", "gemma2", "qwen3_moe", "olmoe"]
FAMILIES: tuple[str, ...] = get_args(Family)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder-only transformer, by its dimensions and the variants of its blocks.

    Attributes:
        name: catalogue name, or what the configuration calls itself.
        family: the block layout; mistral-like models are ``llama``.
        num_layers: transformer blocks.
        hidden_size: width of the residual stream.
        num_heads: query heads.
        num_kv_heads: key and value heads; fewer than ``num_heads`` is grouped-query attention.
        head_dim: width of one head.
        intermediate_size: width of the MLP, or of each expert's.
        num_experts: MLPs of each block, of which a router chooses for every token; 1 = a plain MLP, no router.
        num_experts_per_tok: how many of them a token passes.
        norm_topk_prob: whether the shares of a token's experts are scaled to sum to one (Qwen3-MoE, not OLMoE).
        vocab_size: rows of the embedding table.
        max_position_embeddings: longest context, in tokens.
        norm: kind of every normalisation layer; a layernorm has weight and bias, an rmsnorm weight only.
        norm_eps: the normalisation's epsilon.
        norm_offset: whether an rmsnorm multiplies by one plus its weight (Gemma 2).
        norm_first: whether blocks normalise their input (True) or their output (OPT-350M).
        positions: learned table or rotary embedding.
        position_offset: rows of the learned table before position 0 (OPT has 2).
        rope_theta: base of the rotary frequencies.
        rotary_dim: dimensions of each head that rotate; 0 with learned positions.
        gated_mlp: whether the MLP has a gate beside its up-projection.
        activation: of the MLP; ``gelu`` is the tanh approximation, which Phi and Gemma use.
        tied_embeddings: whether the output head is the embedding table.
        qkv_bias, attention_out_bias, mlp_bias, lm_head_bias: which projections have a bias.
        qk_norm: whether each query and key head is normalised (Qwen3; an rmsnorm of ``head_dim``).
        qk_norm_across_heads: whether that is one norm over all heads together (OLMoE).
        parallel_block: attention and MLP read the same normalised input (Phi): one norm per block.
        embedding_size: width of the embedding table; where it differs from ``hidden_size`` a bias-free
            projection leads in and another out (OPT-350M).
        final_norm: whether the last block is followed by a normalisation.
        post_norms: whether attention's and the MLP's outputs are normalised too (Gemma 2: 4 norms per block).
        scale_embeddings: whether embeddings are multiplied by ``sqrt(hidden_size)`` (Gemma 2).
        query_pre_attn_scalar: what scores are divided by the square root of: ``head_dim``, but in Gemma 2 27B.
        sliding_window: tokens a windowed layer looks back, the query's own included; None without windows.
        sliding_window_layers: how many layers are windowed; :meth:`windows` says which.
        attention_softcap, logit_softcap: tanh caps on attention scores and logits (Gemma 2); None without.
    """

    name: str
    family: Family
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    norm_topk_prob: bool
    vocab_size: int
    max_position_embeddings: int
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float
    norm_offset: bool
    norm_first: bool
    positions: Literal["learned", "rotary"]
    position_offset: int
    rope_theta: float
    rotary_dim: int
    gated_mlp: bool
    activation: Literal["relu", "silu", "gelu"]
    tied_embeddings: bool
    qkv_bias: bool
    attention_out_bias: bool
    mlp_bias: bool
    lm_head_bias: bool
    qk_norm: bool
    qk_norm_across_heads: bool
    parallel_block: bool
    embedding_size: int
    final_norm: bool
    post_norms: bool
    scale_embeddings: bool
    query_pre_attn_scalar: int
    sliding_window: int | None
    sliding_window_layers: int
    attention_softcap: float | None
    logit_softcap: float | None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ScenarioError(f"{name}: expected a whole number of at least 1, found {value!r}")
        for name, kind in get_type_hints(Architecture).items():
            _check_kind(name, kind, getattr(self, name))
        if self.num_heads % self.num_kv_heads:
            raise ScenarioError(
                f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise ScenarioError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) is more than num_experts ({self.num_experts})"
            )

    @property
    def query_size(self) -> int:
        """Width of all query heads together; ``hidden_size`` in most models, but not in all."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together (values are as wide)."""
        return self.num_kv_heads * self.head_dim

    def windows(self) -> tuple[int | None, ...]:
        """How many tokens each layer looks back; None where it sees all, as long as contexts may be.

        Gemma 2 windows every other layer from the first on, other families the last ones: Mistral all of them, Qwen2
        and Qwen3 those from ``max_window_layers`` on (``layer_types`` in ``configuration_*.py`` of ``transformers``).
        """
        layers = range(self.num_layers)
        windowed = layers[::2] if self.family == "gemma2" else layers[::-1]
        windowed = windowed[: self.sliding_window_layers]
        window = self.sliding_window or LARGEST
        hides = window < self.max_position_embeddings
        return tuple(window if hides and layer in windowed else None for layer in layers)

    def expert_parameters(self) -> int:
        """Elements of the weight matrices of one expert of one block; of the MLP where there is one."""
        return (3 if self.gated_mlp else 2) * self.hidden_size * self.intermediate_size

    def layer_matrix_parameters(self) -> int:
        """Elements of one block's weight matrices: attention projections, router, and MLP or all experts."""
        return self._common_matrix_parameters() + self.num_experts * self.expert_parameters()

    def layer_active_parameters(self) -> int:
        """Elements of one block's weight matrices that a token is multiplied with: those of its experts only."""
        return self._common_matrix_parameters() + self.num_experts_per_tok * self.expert_parameters()

    def layer_vector_parameters(self) -> int:
        """Elements of one block's biases and normalisation weights."""
        up_projections = 2 if self.gated_mlp else 1
        total = (self.query_size + 2 * self.kv_size) * self.qkv_bias
        total += self.hidden_size * self.attention_out_bias
        mlp_biases = up_projections * self.intermediate_size + self.hidden_size
        total += self.num_experts * mlp_biases * self.mlp_bias
        norms = 1 if self.parallel_block else 4 if self.post_norms else 2
        normalised = self.query_size + self.kv_size if self.qk_norm_across_heads else 2 * self.head_dim
        return total + norms * self._norm_parameters() + normalised * self.qk_norm

    def embedding_parameters(self) -> int:
        """Elements of the token table, the learned positions and the projection into the residual stream."""
        positions = (self.max_position_embeddings + self.position_offset) * self.hidden_size
        return (
            self.vocab_size * self.embedding_size
            + positions * (self.positions == "learned")
            + self._projection_parameters()
        )

    def head_parameters(self) -> int:
        """Elements read to turn hidden states into logits, whether or not they are the embedding table's."""
        return self.vocab_size * (self.embedding_size + self.lm_head_bias) + self._projection_parameters()

    def parameters(self) -> int:
        """Every parameter, a tied table counted once."""
        layers = self.num_layers * (self.layer_matrix_parameters() + self.layer_vector_parameters())
        tied = self.vocab_size * self.embedding_size * self.tied_embeddings
        final_norm = self._norm_parameters() * self.final_norm
        return self.embedding_parameters() + layers + final_norm + self.head_parameters() - tied

    def active_parameters(self) -> int:
        """Every parameter but those of the experts that a token does not pass."""
        idle = self.num_experts - self.num_experts_per_tok
        return self.parameters() - self.num_layers * idle * self.expert_parameters()

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of all weights in one data type."""
        return self.parameters() * element_bytes(dtype)

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes one token holds in the KV cache: a key and a value per layer and KV head.

        Windowed layers count in full: a paged cache without per-layer block tables keeps their old blocks.
        """
        return 2 * self.num_layers * self.kv_size * element_bytes(dtype)

    def _common_matrix_parameters(self) -> int:
        """One block's attention projections and router, which every token is multiplied with."""
        attention = self.hidden_size * (2 * self.query_size + 2 * self.kv_size)
        return attention + self.hidden_size * self.num_experts * (self.num_experts > 1)

    def _norm_parameters(self) -> int:
        return self.hidden_size * (2 if self.norm == "layernorm" else 1)

    def _projection_parameters(self) -> int:
        """One of the projections between a narrower embedding and the residual stream."""
        return self.embedding_size * self.hidden_size * (self.embedding_size != self.hidden_size)


def _check_kind(name: str, kind: Any, value: Any) -> None:
    """A value is of its field's kind, and a number neither below 0 nor beyond all measure."""
    choices = get_args(kind)
    literal = all(isinstance(choice, str) for choice in choices) and choices
    if literal:
        sound, expected = value in choices, f"one of {', '.join(choices)}"
    else:
        kinds = choices or (kind,)
        sound = type(value) in ((*kinds, int) if float in kinds else kinds)
        sound = sound and (isinstance(value, str | None) or 0 <= value <= LARGEST)
        expected = {str: "a name", bool: "true or false"}.get(kinds[0], f"a number up to {LARGEST:,}")
    if not sound:
        raise ScenarioError(f"{name}: expected {expected}, found {value!r}")


_COUNTS = (
    "num_layers",
    "hidden_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "num_experts",
    "num_experts_per_tok",
    "vocab_size",
    "max_position_embeddings",
    "embedding_size",
    "query_pre_attn_scalar",
)
FIELD_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Architecture))


def element_bytes(dtype: str) -> int:
    """Bytes of one element of a data type.

    Raises:
        UsageError: for a type that is not in :data:`simslm.units.DTYPE_BYTES`.
    """
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        known = ", ".join(DTYPE_BYTES)
        raise UsageError(
            f"unknown dtype {dtype!r}{nearest(dtype, list(DTYPE_BYTES))}", remedy=f"use one of {known}"
        ) from None

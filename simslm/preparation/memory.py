"""How many KV blocks a replica gets: its share of the device's memory, less weights, activations and overhead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simslm.catalog.architecture import Architecture, element_bytes
from simslm.catalog.devices import Device
from simslm.errors import InfeasibleError
from simslm.transforms.registry import Footprint
from simslm.units import GIB, bytes_

SAMPLER_BYTES_PER_LOGIT = 38
"""Peak bytes per (sequence, vocabulary entry) of logits, softmax, sort and indices: the block counts that vLLM
0.6.3 printed for ``max_num_seqs`` 256 and 512 (Recasens et al. 2025, raw results) differ by 37.9 (OPT-2.7B) and
38.9 (Llama-2-7B)."""

PROCESS_BYTES = int(0.12 * GIB)
"""What else a replica holds: the remainder of the same block counts, 0.11 to 0.12 GiB for both models."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a replica's memory on one device is divided, in bytes, and the KV blocks that remain.

    Attributes:
        share: the replica's part of the device's memory.
        weights: of the model, and of its draft.
        windows: held by sequences beside their blocks, see :class:`~simslm.transforms.registry.Footprint`.
        activations: peak of one iteration, see :func:`activation_bytes`.
        process: overhead, see :data:`PROCESS_BYTES`.
        block: one KV block.
        num_gpu_blocks: KV blocks, as stated by the user or as many as fit.
        fitting_blocks: KV blocks that fit.
    """

    share: int
    weights: int
    windows: int
    activations: int
    process: int
    block: int
    num_gpu_blocks: int
    fitting_blocks: int


def activation_bytes(
    architecture: Architecture, dtype: str, *, max_num_seqs: int, max_num_batched_tokens: int
) -> int:
    """Peak activations of one iteration: the widest layer for all its tokens, or the sampler, whichever is more.

    Per token ``(3 or 2) * intermediate + 4 * hidden`` elements (gate, up and product, or the two of a plain MLP;
    residual, input, norm and output): vLLM 0.6.3's block counts at 512 and 2048 batched tokens give 98,304 bytes
    a token for Llama-2-7B (here 98,816) and 61,440 for OPT-2.7B (here 61,440). A token of a mixture of experts has
    the intermediate elements of each expert it passes.
    """
    inner = (3 if architecture.gated_mlp else 2) * architecture.intermediate_size
    wide = architecture.num_experts_per_tok * inner + 4 * architecture.hidden_size
    layer = max_num_batched_tokens * wide * element_bytes(dtype)
    sampler = max_num_seqs * architecture.vocab_size * SAMPLER_BYTES_PER_LOGIT
    return max(layer, sampler)


def plan_memory(
    architecture: Architecture,
    device: Device,
    dtype: str,
    *,
    gpu_memory_utilization: float,
    replicas_per_device: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    block_size: int,
    num_gpu_blocks: int | None,
    tensor_parallel_size: int = 1,
    held: Footprint | None = None,
    partners: Sequence[tuple[int, int]] = (),
) -> MemoryPlan:
    """Divides a device's memory among weights, activations, overhead and KV blocks.

    What every sequence holds beside its tokens is set aside for ``max_num_seqs`` sequences. A replica that spans
    devices has its part of the weights and of every KV block on each; activations are on all of them, counted whole.

    Args:
        architecture, device, dtype: what is served where.
        gpu_memory_utilization: the part of the device's memory that its replicas may use, in (0, 1].
        replicas_per_device: that divide this part equally.
        max_num_seqs, max_num_batched_tokens: limits of an iteration.
        block_size: tokens in a KV block.
        num_gpu_blocks: as the user stated; None = as many as fit.
        tensor_parallel_size: devices that the replica spans.
        held: bytes of weights and KV cache; None = those of the architecture in ``dtype``.
        partners: ``(max_num_seqs, max_num_batched_tokens)`` of each further replica on the same weights and the same
            KV blocks, which adds its activations and overhead.

    Raises:
        InfeasibleError: weights and activations leave no room for a single KV block, or a stated
            ``num_gpu_blocks`` does not fit beside the weights even with all of the device's memory.
    """
    share = int(device.memory_bytes * gpu_memory_utilization / replicas_per_device)
    held = held or Footprint(architecture.weight_bytes(dtype), architecture.kv_bytes_per_token(dtype))
    weights = held.weight_bytes // tensor_parallel_size
    limits = ((max_num_seqs, max_num_batched_tokens), *partners)
    windows = held.kv_bytes_per_seq * sum(seqs for seqs, _ in limits) // tensor_parallel_size
    activations = sum(
        activation_bytes(architecture, dtype, max_num_seqs=seqs, max_num_batched_tokens=tokens)
        for seqs, tokens in limits
    )
    process = PROCESS_BYTES * len(limits)
    block = max(held.kv_bytes_per_token * block_size // tensor_parallel_size, 1)
    room = share - weights - windows - activations - process
    fitting = max(room // block, 0)
    most = max((device.memory_bytes // replicas_per_device - weights - windows) // block, 0)
    if (num_gpu_blocks or 0) > most or (num_gpu_blocks is None and fitting < 1):
        wanted = f"{num_gpu_blocks:,} KV blocks of {bytes_(block)}" if num_gpu_blocks else "one KV block"
        raise InfeasibleError(
            f"{architecture.name} in {dtype} does not fit: weights {bytes_(weights)}, "
            + (f"windows of {max_num_seqs} sequences {bytes_(windows)}, " if windows else "")
            + "activations "
            f"{bytes_(activations)} and {bytes_(process)} of overhead leave "
            f"room for {fitting:,} KV blocks of the "
            f"{bytes_(share)} each replica has on {device.name}, but {wanted} must fit",
            remedy="use fewer replicas, a larger device or gpu_memory_utilization, smaller batch limits, or "
            "fewer num_gpu_blocks",
        )
    return MemoryPlan(
        share, weights, windows, activations, process, block, num_gpu_blocks or fitting, fitting
    )

"""What one replica is set to: its limits and its policies."""

from __future__ import annotations

from dataclasses import dataclass

from simslm.policies.plan import BatchingPolicy
from simslm.policies.queueing import QueueOrder
from simslm.policies.route import Admission


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The limits of one replica, under vLLM's names where it has them.

    Attributes:
        watermark_blocks: kept free when admitting.
        prefix_caching: blocks of finished prompts are kept and shared.
        swap_blocks: blocks of host memory that preempted sequences can be swapped to; 0 = they are recomputed.
        swap_s_per_block: time to move one block between device and host.
        late_output: outputs are looked at while the next iteration runs, so that a sequence keeps its slot, its
            blocks and its row for one iteration after its last token.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_gpu_blocks: int
    block_size: int
    watermark_blocks: int
    prefix_caching: bool = False
    swap_blocks: int = 0
    swap_s_per_block: float = 0.0
    late_output: bool = False


@dataclass(frozen=True, slots=True)
class Policies:
    """The choices a replica leaves to others; made fresh for every replica."""

    batching: BatchingPolicy
    order: QueueOrder
    admission: Admission

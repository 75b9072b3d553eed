"""What one replica is set to: its limits and its policies."""

from __future__ import annotations

from dataclasses import dataclass

from simslm.policies.plan import BatchingPolicy
from simslm.policies.preemption import PreemptionPolicy
from simslm.policies.priorities import PriorityPattern
from simslm.policies.queueing import QueueOrder
from simslm.policies.route import Admission
from simslm.policies.speculation import SpeculationPolicy
from simslm.sim.parts.acceptance import Acceptance


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The limits of one replica, under vLLM's names where it has them.

    Attributes:
        watermark_blocks: kept free when admitting.
        prefix_caching: blocks of finished prompts are kept and shared.
        swap_blocks: blocks of host memory that preempted sequences can be swapped to; 0 = they are recomputed.
        swap_s_per_block: time to move one block between device and host.
        late_output: outputs are looked at while the next iteration runs, so that a sequence keeps its slot, its
            blocks and its row for one iteration after its last token.
        sm_fraction: part of the device's multiprocessors that it may use, in (0, 1]; None = an equal one.
        transfer_s_per_block: time for one block to come from a prefill replica with blocks of its own.
        swap_s_per_call: fixed time of each copy call of a swap.
        swap_group_blocks: blocks of a sequence that one call copies.
        swap_overlap: others run while a sequence is swapped for a more urgent one, and while one comes back.
        swap_turns: what a finished turn has computed stays on the host for the next turn of its session.
        swap_reuse: the copy on the host is kept while a sequence is back, and what it holds is not copied again.
        kept_tokens: most tokens that a sequence keeps in the KV cache, at least 1; None = all of them.
        spare_block: the last running sequence needs a free block although it has room in its own, see
            :meth:`~simslm.sim.state.blocks.BlockPool.needed`.
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
    sm_fraction: float | None = None
    transfer_s_per_block: float = 0.0
    kept_tokens: int | None = None
    swap_s_per_call: float = 0.0
    swap_group_blocks: int = 1
    swap_overlap: bool = False
    swap_reuse: bool = False
    swap_turns: bool = False
    spare_block: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The choices a replica leaves to others, and how it speculates, if it does; made fresh for every replica.

    Attributes:
        preemption: whose blocks are taken when they are short; None = those of the sequence admitted last.
        priorities: how priorities change; with it, sequences make place for more urgent ones as ``preemption`` says.
    """

    batching: BatchingPolicy
    order: QueueOrder
    admission: Admission
    speculation: Speculation | None = None
    preemption: PreemptionPolicy | None = None
    priorities: PriorityPattern | None = None


@dataclass(frozen=True, slots=True)
class Speculation:
    """Speculative decoding of a replica.

    Attributes:
        policy: how many tokens are proposed.
        num_speculative_tokens: the most for each sequence, fewer than there are tokens in a KV block.
        acceptance: which of them are right.
    """

    policy: SpeculationPolicy
    num_speculative_tokens: int
    acceptance: Acceptance

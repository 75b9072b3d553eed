"""How preempted sequences and finished turns move to the host and back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Swapping(BaseModel):
    """How KV blocks are swapped; only under ``preemption: swap``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    copy_s: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="fixed time of one copy call, s; a call copies keys or values of one layer of a block group",
    )
    group_blocks: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="blocks that one call copies; vLLM's lie anywhere (1), FastSwitch's side by side",
    )
    overlap: bool = Field(
        default=False,
        description="others run while a sequence is swapped for a more urgent one, and while one comes back; false: "
        "all wait",
    )
    reuse: bool = Field(
        default=False,
        description="keep the copy on the host while a sequence is back, and copy only what is new the next time",
    )
    turns: bool = Field(
        default=False,
        description="keep what a finished turn has computed on the host, for the next turn of its session; the oldest "
        "turn makes room in swap_space",
    )

"""Another engine's host time."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from simslm.catalog.work import IterationShape
from simslm.transforms.registry import TimeTransform, transform


@transform("host")
class HostTime(TimeTransform):
    """Host time of your own engine in place of the measured one: a fixed part, and a part for every sequence."""

    fixed_s: float = Field(ge=0, le=1e3, description="host time of an iteration, in seconds")
    per_seq_s: float = Field(ge=0, le=1e3, description="host time for each sequence in it, in seconds")

    def words(self) -> str:
        return f"host time {self.fixed_s:g} s + {self.per_seq_s:g} s per sequence"

    def host_s(self, shape: IterationShape, host_s: Any) -> Any:
        """``fixed + per_seq · (decoding sequences + prompts)``, in place of the measured host time."""
        return self.fixed_s + self.per_seq_s * (shape.decode_seqs + shape.prefill_seqs)

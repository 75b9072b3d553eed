"""Attention to the first tokens and a window of the last: nothing else is kept."""

from __future__ import annotations

from pydantic import Field

from simslm.transforms.registry import Served, Transform, transform


@transform("lm_infinite")
class LMInfinite(Transform):
    """Every token attends to the first few and to a window, which is all that is kept (LM-Infinite, arXiv:2308.16137).

    Of a sequence of ``c`` tokens the KV cache keeps ``min(c, global + local)`` (section 4: the mask shaped like a
    lambda, and a limit on distances); a decoding token reads those, and the ``i``-th token of a prompt attends to
    ``min(i, global + local)``. So KV blocks and decode iterations stop growing there, exactly for each sequence, and a
    prompt costs in proportion to its length. Costs are those of the fewer keys: a measured trace is asked about shapes
    that it has measured. Models with rotary positions then serve contexts longer than they have positions for.
    """

    global_tokens: int = Field(default=10, ge=0, description="first tokens of a sequence that are kept")
    local_tokens: int = Field(default=4096, ge=1, description="most recent tokens that are kept")

    def neutral(self, served: Served) -> bool:
        """It leaves costs as they are: the shapes that are asked for are smaller."""
        del served
        return True

    @property
    def kept_tokens(self) -> int:
        return self.global_tokens + self.local_tokens

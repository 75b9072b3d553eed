"""The same number of proposed tokens in every iteration."""

from __future__ import annotations

from simslm.policies.registry import PolicyOptions, policy
from simslm.policies.speculation import SpeculationView


@policy("speculation", "fixed")
class Fixed:
    """As many as ``num_speculative_tokens`` in every iteration (Leviathan et al., arXiv:2211.17192; vLLM's way)."""

    def __init__(self, options: PolicyOptions) -> None:
        del options

    def tokens(self, view: SpeculationView) -> int:
        return view.most_drafts

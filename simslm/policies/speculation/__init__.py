"""Speculation policies: how many tokens are proposed for each decoding sequence in the next iteration.

A policy is a class with one method, ``tokens(view) -> int``, asked before each iteration that only decodes. It sees
the batch, what became of earlier proposals, and what an iteration takes with so many of them.
"""

from __future__ import annotations

from typing import Protocol


class SpeculationView(Protocol):
    """What a policy may know.

    Attributes:
        decoding: sequences that decode, at least 1.
        most_drafts: most tokens that may be proposed for each of them: ``num_speculative_tokens``, or what the
            token budget leaves.
        accepted: proposed tokens that were accepted, of all iterations so far.
        rejected: proposals of which a token was rejected, of all iterations so far; what follows it was not looked at.
    """

    @property
    def decoding(self) -> int: ...
    @property
    def most_drafts(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def rejected(self) -> int: ...

    def latency_s(self, drafts: int) -> float:
        """Seconds of the next iteration if ``drafts`` tokens are proposed for each sequence."""
        ...


class SpeculationPolicy(Protocol):
    """Chooses how far to speculate."""

    def tokens(self, view: SpeculationView) -> int:
        """Tokens to propose for each decoding sequence, from 0 to ``view.most_drafts``."""
        ...

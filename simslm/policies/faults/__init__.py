"""Fault policies: when replicas of a group fail, and how long each is down.

A policy is a class with one method, ``faults(replicas)``, which yields faults in order of time. A fault takes effect
when the iteration under way ends. What the replica had computed is lost; its requests go to other replicas, which
prefill their prompts and the tokens that were out already, or fail, as ``requests`` says. A replica that does not
serve at that moment cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from pydantic import Field

from simslm.policies.registry import PolicyOptions


class FaultOptions(PolicyOptions):
    """What every fault policy has."""

    requests: Literal["recompute", "fail"] = Field(
        default="recompute",
        description="what becomes of the requests of a replica that fails: computed again elsewhere, or failed",
    )


class Fault(NamedTuple):
    """A replica fails.

    Attributes:
        at_s: when, seconds.
        replica: which of the group's, from 0.
        down_s: for how long, restart included, seconds.
    """

    at_s: float
    replica: int
    down_s: float


class FaultPolicy(Protocol):
    """Says when replicas fail."""

    def faults(self, replicas: int) -> Iterator[Fault]:
        """The faults of so many replicas, in order of time; there may be no end of them."""
        ...

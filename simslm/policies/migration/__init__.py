"""Migration policies: which requests go on at another replica of their group.

A policy is a class with one method, ``moves(seen) -> orders``, asked every ``every_s`` seconds. A request that decodes
is moved live (Llumnix, arXiv:2406.03243, §4.2): its KV blocks are copied while it goes on, then those that it has
filled meanwhile, and it stands still for the copy of the last block only. A request that waits is simply sent to the
other replica. An order that cannot be carried out, because the request has finished or there is no room, is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pydantic import Field

from simslm.policies.fleet import GroupView
from simslm.policies.registry import PolicyOptions


class MigrationOptions(PolicyOptions):
    """What every migration policy has."""

    every_s: float = Field(default=1.0, gt=0, le=1e6, description="seconds between two looks")


class Transfer(NamedTuple):
    """An order: a request goes on at another replica; replicas by their numbers."""

    request_id: int
    source: int
    target: int


class MigrationPolicy(Protocol):
    """Says which requests move."""

    def moves(self, seen: GroupView) -> Sequence[Transfer]:
        """The orders; each names a request of :attr:`MemberView.requests` of its source, and a target that serves."""
        ...

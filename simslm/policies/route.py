"""What a routing policy sees of an arriving request and of the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ArrivingRequest(Protocol):
    """An arriving request; its true output length is not known to a router."""

    @property
    def request_id(self) -> int: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...


class ReplicaLoad(Protocol):
    """How busy a replica is: ``outstanding`` counts its requests that are waiting or running."""

    @property
    def outstanding(self) -> int: ...


class Router(Protocol):
    def choose(self, request: ArrivingRequest, replicas: Sequence[ReplicaLoad]) -> int:
        """The index of the replica that serves ``request``."""
        ...

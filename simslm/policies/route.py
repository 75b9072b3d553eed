"""What routing and admission policies see of an arriving request and of the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ArrivingRequest(Protocol):
    """An arriving request; its true output length is not known to a policy.

    Attributes:
        units: hashes of its prompt's prefix, empty when they are not known.
        session_id: the conversation it belongs to, -1 for none.
    """

    @property
    def request_id(self) -> int: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def session_id(self) -> int: ...
    @property
    def units(self) -> Sequence[int]: ...


class ReplicaLoad(Protocol):
    """How busy a replica is.

    Attributes:
        outstanding: its requests, waiting or running.
        queued: those of them that wait.
        kv_utilization: share of its KV blocks in use.
    """

    @property
    def outstanding(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def kv_utilization(self) -> float: ...
    def cached_units(self, request: ArrivingRequest) -> int:
        """How many leading units of the request's prompt the replica's prefix cache holds."""
        ...


class ServingReplica(ReplicaLoad, Protocol):
    """A replica among those that serve, which may be others for the next request.

    Attributes:
        index: its number, for as long as the run lasts.
    """

    @property
    def index(self) -> int: ...


class Router(Protocol):
    """Chooses among the replicas of a group.

    Attributes:
        looks_at_replicas: its choice depends on what the replicas do; else on how many there are, on the request and on
            those before it, so that all choices can be made ahead.
    """

    looks_at_replicas: bool

    def choose(self, request: ArrivingRequest, replicas: Sequence[ServingReplica]) -> int:
        """The index of the replica that serves ``request``."""
        ...


class Admission(Protocol):
    def admits(self, request: ArrivingRequest, replica: ReplicaLoad) -> bool:
        """Whether ``replica`` lets ``request`` in; a pure function of what it sees."""
        ...

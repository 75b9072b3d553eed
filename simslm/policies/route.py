"""What routing, admission, gateway and group-routing policies see of an arriving request and of the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ArrivingRequest(Protocol):
    """An arriving request; its true output length is not known to a policy.

    Attributes:
        arrival_s: when it arrives here; a request that was escalated arrives again.
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


class RoutedRequest(ArrivingRequest, Protocol):
    """The same with its place in a program and its deadline: what gateways and routers see.

    Attributes:
        unit_tokens: tokens that each of its ``units`` stands for, the last perhaps for fewer; equal hashes mean equal
            prompts up to there.
        program: the program it belongs to, -1 for none.
        stage: requests on the longest way from its program's start to it, 0 for the first.
        deadline_s: when its last token is due: its first arrival plus the ``e2e_s`` of its SLO or its client's
            patience, whichever ends first; inf without either.
    """

    @property
    def unit_tokens(self) -> int: ...
    @property
    def program(self) -> int: ...
    @property
    def stage(self) -> int: ...
    @property
    def deadline_s(self) -> float: ...


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


class ReplicaOutlook(ReplicaLoad, Protocol):
    """The same with what there is still to do, and how long that may take. What is not asked for is not computed.

    Attributes:
        index: its number, for as long as the run lasts; those that serve may be others for the next request.
        free_blocks: KV blocks that prompts may take now.
        pending_prefill_tokens: prompt tokens still to be computed: of the queue, and of prompts that are partly in the
            cache, the chunk under way included. What a prefix cache may spare is not taken off.
    """

    @property
    def index(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def pending_prefill_tokens(self) -> int: ...
    def ttft_estimate_s(self, request: ArrivingRequest) -> float:
        """Seconds to the request's first token, by the replica's own cost model.

        The pending prompt tokens and the request's prompt are computed in iterations of ``max_num_batched_tokens``,
        each beside the sequences that decode now: ``n`` full iterations and one with the rest. It is an estimate from
        below: slots and KV blocks count as free, and other replicas of the device as idle. 0 on a replica that
        prefills nothing.
        """
        ...

    def tpot_estimate_s(self, request: ArrivingRequest) -> float:
        """Seconds between two tokens of the request, by the replica's own cost model.

        One iteration that decodes all sequences of the replica and the request, with all their prompts and the tokens
        generated so far in the cache; where they are more than ``max_num_seqs``, as many of them, of the mean length.
        """
        ...


class Router(Protocol):
    """Chooses among the replicas of a group.

    Attributes:
        looks_at_replicas: its choice depends on what the replicas do; else on how many there are, on the request and on
            those before it, so that all choices can be made ahead.
    """

    looks_at_replicas: bool

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaOutlook]) -> int:
        """The index of the replica that serves ``request``."""
        ...


class Admission(Protocol):
    def admits(self, request: ArrivingRequest, replica: ReplicaLoad) -> bool:
        """Whether ``replica`` lets ``request`` in; a pure function of what it sees."""
        ...

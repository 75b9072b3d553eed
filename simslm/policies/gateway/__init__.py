"""Gateway policies: what answers a request before it is routed to a group of replicas.

A gateway stands before all groups; it is not the engine's front end. A policy is a class with two methods:
``answer(request)``, asked of every request that arrives, and ``finished(request, at_s)``, told of every request that
replicas have served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from simslm.policies.route import RoutedRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """How a gateway answers. The answer is as long as the workload says of the request.

    Attributes:
        latency_s: from the request's arrival to the first token, s.
        tokens_per_s: pace of the others; None = all of them come with the first.
    """

    latency_s: float
    tokens_per_s: float | None = None


class GatewayPolicy(Protocol):
    """Answers some requests itself.

    Attributes:
        needs_units: it can answer only where the workload says which prompts are equal (``request.units``).
    """

    needs_units: bool

    def answer(self, request: RoutedRequest) -> Answer | None:
        """The answer to a request that arrives now, at ``request.arrival_s``; None = a group of replicas serves it."""
        ...

    def finished(self, request: RoutedRequest, at_s: float) -> None:
        """A request that replicas served has its last token now; what the gateway answered itself is not told."""
        ...

"""What policies see, and nothing else: frozen stand-ins, and a window through which the real thing is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from hypothesis import strategies as st

from simslm.policies.gateway import Answer
from simslm.policies.group_routing import GroupAnswer, GroupLoad
from simslm.policies.plan import Plan, Prompt, ReplicaView
from simslm.policies.route import ArrivingRequest, ReplicaLoad, ReplicaOutlook, RoutedRequest
from simslm.policies.speculation import SpeculationView
from simslm.sim.engine import Policies


@dataclass(frozen=True, slots=True)
class SeenPrompt:
    """A :class:`Prompt`."""

    request_id: int
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    priority: int
    remaining: int
    blocks: int
    uncached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SeenReplica:
    """A :class:`ReplicaView`."""

    waiting: tuple[SeenPrompt, ...]
    partial: tuple[SeenPrompt, ...]
    decoding: int
    free_blocks: int
    decode_blocks: int
    watermark_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A :class:`RoutedRequest`."""

    request_id: int
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    priority: int
    session_id: int
    units: tuple[int, ...]
    unit_tokens: int = 16
    program: int = -1
    stage: int = 0
    deadline_s: float = inf


@dataclass(frozen=True, slots=True)
class SeenLoad:
    """A :class:`ReplicaOutlook`."""

    outstanding: int
    queued: int
    kv_utilization: float
    cached: int = field(default=0)
    free_blocks: int = 100
    pending_prefill_tokens: int = 0
    index: int = 0

    def ttft_estimate_s(self, request: ArrivingRequest) -> float:
        return 1e-4 * (self.pending_prefill_tokens + request.prompt_tokens)

    def tpot_estimate_s(self, request: ArrivingRequest) -> float:
        return 1e-3 * (self.outstanding + 1)

    def cached_units(self, request: ArrivingRequest) -> int:
        return min(self.cached, len(request.units))


@dataclass(frozen=True, slots=True)
class SeenGroup:
    """A :class:`GroupLoad`."""

    number: int
    name: str
    share: float
    replicas: tuple[Any, ...]


@st.composite
def prompts(draw: st.DrawFn, request_id: int, longest: int) -> SeenPrompt:
    tokens = draw(st.integers(1, longest))
    uncached = draw(st.integers(1, tokens))
    return SeenPrompt(
        request_id,
        draw(st.floats(0, 10)),
        tokens,
        draw(st.integers(1, 100)),
        draw(st.integers(-1, 2)),
        draw(st.integers(1, uncached)),
        draw(st.integers(0, 20)),
        uncached,
    )


@st.composite
def replica_views(draw: st.DrawFn, *, whole_prompts: bool) -> SeenReplica:
    """A replica between two iterations; where prompts are never split, none is partly prefilled."""
    budget = draw(st.integers(1, 60))
    seqs = draw(st.integers(1, min(budget, 12)))
    decoding = draw(st.integers(0, seqs))
    partial = 0 if whole_prompts else draw(st.integers(0, seqs - decoding))
    waiting = draw(st.integers(0, 6))
    longest = budget if whole_prompts else 100
    seen = [draw(prompts(i, longest)) for i in range(partial + waiting)]
    return SeenReplica(
        tuple(seen[partial:]),
        tuple(seen[:partial]),
        decoding,
        draw(st.integers(0, 60)),
        draw(st.integers(0, decoding)),
        draw(st.integers(0, 5)),
        seqs,
        budget,
    )


@st.composite
def arriving(draw: st.DrawFn) -> SeenRequest:
    units = tuple(range(draw(st.integers(0, 5))))
    return SeenRequest(
        draw(st.integers(0, 99)), 0.0, draw(st.integers(1, 99)), 10, 0, draw(st.integers(-1, 4)), units
    )


loads = st.builds(
    SeenLoad, st.integers(0, 200), st.integers(0, 100), st.floats(0, 1), st.integers(0, 5)
)  # fmt: skip


def members(protocol: type) -> frozenset[str]:
    """The names a protocol promises, with those it is a part of."""
    return frozenset(name for each in protocol.__mro__ for name in vars(each) if not name.startswith("_"))


class Shown:
    """Something real, of which only what its protocol promises can be read and nothing can be set."""

    __slots__ = ("_names", "_real")

    def __init__(self, real: Any, protocol: type) -> None:
        object.__setattr__(self, "_real", real)
        object.__setattr__(self, "_names", members(protocol))

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(f"{name} is not shown to policies")
        value = getattr(self._real, name)
        if name == "replicas":
            return [Shown(replica, ReplicaOutlook) for replica in value]
        if name == "waiting":
            return (Shown(prompt, Prompt) for prompt in value)
        return [Shown(prompt, Prompt) for prompt in value] if name == "partial" else value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} is not a policy's to set")


@dataclass
class Windowed:
    """The policies of one replica, each behind a window; the engine sees no difference."""

    policies: Policies

    def __post_init__(self) -> None:
        batching = self.policies.batching
        self.whole_prompts = batching.whole_prompts
        self.reserves_output = batching.reserves_output
        self.holds_batch = batching.holds_batch
        self.returns_batch = batching.returns_batch
        self.by_layers = batching.by_layers
        self.urgent_first = self.policies.order.urgent_first

    def plan(self, view: ReplicaView) -> Plan:
        plan = self.policies.batching.plan(Shown(view, ReplicaView))  # type: ignore[arg-type]
        plan.chunks = [(prompt._real, tokens) for prompt, tokens in plan.chunks]  # type: ignore[attr-defined]
        return plan

    def key(self, prompt: Prompt) -> Any:
        return self.policies.order.key(Shown(prompt, Prompt))  # type: ignore[arg-type]

    def admits(self, request: ArrivingRequest, replica: ReplicaLoad) -> bool:
        return self.policies.admission.admits(Shown(request, ArrivingRequest), Shown(replica, ReplicaLoad))  # type: ignore[arg-type]

    def tokens(self, view: SpeculationView) -> int:
        assert self.policies.speculation is not None
        return self.policies.speculation.policy.tokens(Shown(view, SpeculationView))  # type: ignore[arg-type]

    def as_policies(self) -> Policies:
        speculation, preemption = self.policies.speculation, self.policies.preemption
        return Policies(
            batching=self,
            order=self,
            admission=self,
            speculation=None if speculation is None else replace(speculation, policy=self),
            preemption=None if preemption is None else WindowedPreemption(preemption),
            priorities=self.policies.priorities,
        )


@dataclass
class WindowedPreemption:
    """A preemption policy behind a window."""

    policy: Any

    def victim(self, running: Sequence[Prompt]) -> int:
        return self.policy.victim([Shown(prompt, Prompt) for prompt in running])

    def yields(self, running: Prompt, waiting: Prompt) -> bool:
        return self.policy.yields(Shown(running, Prompt), Shown(waiting, Prompt))


@dataclass
class WindowedGateway:
    """A gateway policy behind a window."""

    gateway: Any

    def answer(self, request: RoutedRequest) -> Answer | None:
        return self.gateway.answer(Shown(request, RoutedRequest))

    def finished(self, request: RoutedRequest, at_s: float) -> None:
        self.gateway.finished(Shown(request, RoutedRequest), at_s)


@dataclass
class WindowedGroupRouter:
    """A group-routing policy behind a window."""

    router: Any

    @property
    def escalates(self) -> bool:
        return self.router.escalates

    @property
    def verdict_s(self) -> float:
        return self.router.verdict_s

    def begin(self, groups: Sequence[GroupLoad]) -> Any:
        return self.router.begin(self._shown(groups))

    def choose(self, request: RoutedRequest, groups: Sequence[GroupLoad]) -> int:
        return self.router.choose(Shown(request, RoutedRequest), self._shown(groups))

    def escalate(
        self, request: RoutedRequest, answer: GroupAnswer, groups: Sequence[GroupLoad]
    ) -> int | None:
        return self.router.escalate(Shown(request, RoutedRequest), answer, self._shown(groups))

    def _shown(self, groups: Sequence[GroupLoad]) -> list[Any]:
        return [Shown(group, GroupLoad) for group in groups]


@dataclass
class WindowedRouter:
    """A router behind a window."""

    router: Any

    @property
    def looks_at_replicas(self) -> bool:
        return self.router.looks_at_replicas

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaOutlook]) -> int:
        return self.router.choose(
            Shown(request, RoutedRequest), [Shown(replica, ReplicaOutlook) for replica in replicas]
        )

"""Small stand-ins for tests of the simulator: a closed-form cost and a workload given as lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import simslm.policies  # noqa: F401  (fills the register)
from simslm.catalog.work import IterationShape
from simslm.cost.model import Costs, DecodeLine
from simslm.cost.sharing import Demand, sharing
from simslm.policies.registry import lookup
from simslm.sim.deployment import Deployment, Group
from simslm.sim.engine import EngineConfig, Policies


@dataclass
class LinearCost:
    """``fixed + per_seq B + per_context S + per_token n + per_pair pairs`` seconds, a third of it host time;
    drafted tokens count among the ``n``.

    With ``watts`` set, an iteration draws that power, and an idle device a fifth of it.
    """

    fixed: float = 3e-3
    per_seq: float = 3e-5
    per_context: float = 2e-8
    per_token: float = 2e-5
    per_pair: float = 1e-9
    watts: float | None = 300.0
    source: str = "measured"
    engine: str = "closed form"
    power_note: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    demand: None = None
    colocated: None = None

    @property
    def idle_w(self) -> float | None:
        return None if self.watts is None else self.watts / 5

    def decode(self, decode_seqs: int) -> DecodeLine:
        return DecodeLine((0.0,), (self.fixed + self.per_seq * decode_seqs,), (self.per_context,))

    def latency_s(self, shape: IterationShape) -> Any:
        decode = self.fixed + self.per_seq * shape.decode_seqs + self.per_context * shape.decode_ctx_tokens
        tokens = shape.prefill_tokens + shape.draft_tokens
        return decode + self.per_token * tokens + self.per_pair * shape.prefill_pairs

    def host_s(self, shape: IterationShape) -> Any:
        return self.latency_s(shape) / 3

    def evaluate(self, shapes: IterationShape) -> Costs:
        latency = self.latency_s(shapes)
        energy = None if self.watts is None else latency * self.watts
        return Costs(latency, latency / 3, energy, np.ones(len(latency), dtype=bool))

    def variants(self) -> tuple[()]:
        return ()


@dataclass
class Loop:
    """Closed-loop clients."""

    concurrency: int
    think_time_s: float = 0.0
    until_s: float | None = None
    paced: bool = False


@dataclass
class Lists:
    """A workload given as lists."""

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    max_tokens: np.ndarray
    closed_loop: Loop | None = None
    priority: np.ndarray | None = None
    session_id: np.ndarray | None = None
    units: list[tuple[int, ...]] | None = None
    unit_tokens: int = 0
    patience_s: np.ndarray | None = None
    context_units: Any = None
    programs: Any = None

    @classmethod
    def of(cls, arrival_s: Any, prompt: Any, output: Any, loop: Loop | None = None, **more: Any) -> Lists:
        count = len(arrival_s)
        prompts = np.broadcast_to(np.asarray(prompt, dtype=np.int64), count).copy()
        outputs = np.broadcast_to(np.asarray(output, dtype=np.int64), count).copy()
        return cls(np.asarray(arrival_s, dtype=float), prompts, outputs, outputs.copy(), loop, **more)


@dataclass(frozen=True)
class FixedDemand:
    """Every device phase asks for the same share of the device."""

    compute: float = 0.3
    memory: float = 0.7

    def __call__(self, shape: IterationShape, device_s: float) -> Demand:
        return Demand(self.compute, self.memory)


def deployment(
    *,
    batching: str = "chunked-prefill",
    router: str = "round-robin",
    queueing: str = "fcfs",
    admission: Any = None,
    replicas: int = 1,
    replicas_per_device: int = 1,
    sharing_name: str = "mps",
    cost: Any = None,
    max_num_seqs: int = 64,
    max_num_batched_tokens: int = 2048,
    num_gpu_blocks: int = 4096,
    block_size: int = 16,
    watermark: float = 0.01,
    max_model_len: int = 4096,
    **engine: Any,
) -> Deployment:
    """A deployment of registered policies on a closed-form cost."""
    limits = EngineConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_gpu_blocks=num_gpu_blocks,
        block_size=block_size,
        watermark_blocks=int(watermark * num_gpu_blocks),
        **engine,
    )

    def policies() -> Policies:
        return Policies(
            batching=_made("batching", batching),
            order=_made("queueing", queueing),
            admission=admission or _made("admission", "open"),
        )

    group = Group(
        name="test",
        engine=limits,
        devices=tuple(i // replicas_per_device for i in range(replicas)),
        cost=cost or LinearCost(),
        demand=FixedDemand(),  # type: ignore[arg-type]
        policies=policies,
        router=lambda: _made("routing", router),
        max_model_len=max_model_len,
    )
    return Deployment(groups=(group,), sharing=lambda count: sharing(sharing_name, count))


def _made(kind: str, name: str) -> Any:
    entry = lookup(kind, name)
    resources = {"stream": np.random.default_rng(0)} if entry.needs_stream else {}
    return entry.cls(entry.options(), **resources)

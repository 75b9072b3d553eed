"""Replicas of one model with everything looked up: architecture, costs, memory, devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device
from simslm.catalog.work import pairs_within
from simslm.cost.load import load_cost
from simslm.cost.model import CostModel
from simslm.errors import ScenarioError
from simslm.preparation.control import Levels, costs_at, levels_of
from simslm.preparation.draft import beside, drafted
from simslm.preparation.found import Found
from simslm.preparation.memory import MemoryPlan, plan_memory
from simslm.preparation.named import architecture_of, key_of
from simslm.preparation.place import placed
from simslm.scenario.cost import Cost
from simslm.scenario.portions import partners, pool_of
from simslm.scenario.schema import GroupSpec, Replicas, Scenario
from simslm.transforms.registry import Footprint, Served, Transform, footprint, kept_tokens
from simslm.transforms.weights import quantized


@dataclass(frozen=True)
class PreparedGroup:
    """Replicas of one model with everything looked up.

    Attributes:
        name: the group's, or the scenario's where there are no groups.
        spec: the group as the user wrote it.
        architecture: of its model.
        cost: of the iterations of a replica alone on its device.
        transforms: the changes to its costs and its memory that the scenario states, in order.
        held: the memory of weights and KV cache, in bytes, after the transforms.
        memory: how a replica's memory is divided.
        max_model_len: longest prompt + output, tokens.
        devices: of each replica the device, or the first of those it spans.
        clocks: what each clock that the devices may run at does to iterations; empty where clocks do not change.
    """

    name: str
    spec: Replicas
    architecture: Architecture
    cost: CostModel
    transforms: tuple[Transform, ...]
    held: Footprint
    memory: MemoryPlan
    max_model_len: int
    devices: tuple[int, ...]
    clocks: Levels = ()

    @property
    def levels(self) -> tuple[CostModel, ...]:
        """The cost at each clock, the highest first; empty where clocks do not change."""
        return costs_at(self.cost, self.clocks)

    @property
    def changes(self) -> tuple[Transform, ...]:
        """All changes to the work of its data type: quantised weights of its trace, then the transforms."""
        return (*quantized(self.cost.provenance), *self.transforms)

    def held_tokens(self, tokens: float) -> float:
        """Tokens that a sequence of so many keeps in the KV cache."""
        kept = kept_tokens(self.transforms)
        return tokens if kept is None else min(tokens, kept)

    def prompt_pairs(self, tokens: float) -> float:
        """(Query, key) pairs of the attention of a whole prompt."""
        kept = kept_tokens(self.transforms)
        return pairs_within(0, tokens, tokens if kept is None else kept)

    def batch(self, tokens: float, requests: int) -> int:
        """Sequences of so many tokens that decode together under full load, by slots, KV blocks and requests."""
        engine = self.spec.engine
        room = self.memory.num_gpu_blocks * engine.block_size
        return max(1, min(engine.max_num_seqs, int(room / max(self.held_tokens(tokens), 1)), requests))


class _Asked(NamedTuple):
    """What a group serves: its own where it states it, else the scenario's."""

    model: str | dict[str, Any]
    cost: Cost
    max_model_len: int | None
    devices: tuple[int, ...]
    tensor_parallel_size: int


def prepare_group(
    scenario: Scenario, spec: Replicas, device: Device, utilization: float, found: Found
) -> PreparedGroup:
    """Looks up what a group serves, and divides the memory of its device.

    Args:
        scenario: that the group is of.
        spec: the group, or the scenario's deployment where there are no groups.
        device: that it runs on.
        utilization: its part of the device's memory, a fraction.
        found: what was looked up for others like it.

    Raises:
        SimslmError: something named does not exist, does not fit or cannot be read.
    """
    asked = _asked(scenario, spec)
    with placed(scenario, "model"):
        architecture = architecture_of(asked.model, scenario, found)
    _check_length(scenario, asked, architecture)
    with placed(scenario, "cost"):
        cost = _cost(scenario, asked, architecture, device, found)
    measured = quantized(cost.provenance)
    held = footprint(Served(architecture, scenario.dtype), (*measured, *asked.cost.changes))
    speculative, draft = spec.engine.speculative_config, None
    if speculative is not None and speculative.model is not None:
        with placed(scenario, "deployment"):
            draft = architecture_of(speculative.model, scenario, found)
        held = beside(held, draft, scenario.dtype)
    with placed(scenario, "model"):
        memory = _memory(scenario, spec, architecture, device, utilization, held)
    if speculative is not None and draft is not None:
        with placed(scenario, "cost"):
            cost = drafted(cost, speculative, draft, device, scenario)
    with placed(scenario, "deployment", "power"):
        clocks = levels_of(scenario, spec)
    return PreparedGroup(
        name=spec.name if isinstance(spec, GroupSpec) else scenario.name,
        spec=spec,
        architecture=architecture,
        cost=cost,
        transforms=asked.cost.changes,
        held=held,
        memory=memory,
        max_model_len=asked.max_model_len or architecture.max_position_embeddings,
        devices=tuple(number for number in asked.devices for _ in range(spec.replicas_per_device)),
        clocks=clocks,
    )


def _asked(scenario: Scenario, spec: Replicas) -> _Asked:
    model, cost, longest, devices = scenario.model, scenario.cost, scenario.max_model_len, None
    if isinstance(spec, GroupSpec):
        model, cost = spec.model or model, spec.cost or cost
        longest, devices = spec.max_model_len or longest, spec.devices
    devices, split = devices or tuple(range(scenario.deployment.num_devices)), spec.tensor_parallel_size
    return _Asked(model, cost, longest, tuple(devices[::split]), split)


def _cost(
    scenario: Scenario, asked: _Asked, architecture: Architecture, device: Device, found: Found
) -> CostModel:
    """The costs of a group's model, without its draft."""
    dtype, base_dir, split = scenario.dtype, scenario.base_dir, asked.tensor_parallel_size
    return found.get(
        "cost",
        (asked.cost.model_dump_json(), key_of(asked.model), key_of(scenario.device), dtype, base_dir, split),
        lambda: load_cost(asked.cost, architecture, device, dtype, base_dir, split),
    )


def _check_length(scenario: Scenario, asked: _Asked, architecture: Architecture) -> None:
    """Checks ``max_model_len`` against the model's positions; a bounded KV cache with rotary positions has no limit.

    Raises:
        ScenarioError: it is longer.
    """
    positions = architecture.max_position_embeddings
    endless = kept_tokens(asked.cost.changes) is not None and architecture.positions == "rotary"
    if (asked.max_model_len or 0) > positions and not endless:
        raise ScenarioError(
            f"max_model_len is {asked.max_model_len}, but {architecture.name} has {positions} positions",
            where=scenario.where("max_model_len"),
        )


def _memory(
    scenario: Scenario,
    spec: Replicas,
    architecture: Architecture,
    device: Device,
    utilization: float,
    held: Footprint,
) -> MemoryPlan:
    engine = spec.engine
    return plan_memory(
        architecture,
        device,
        scenario.dtype,
        gpu_memory_utilization=utilization,
        replicas_per_device=1 if pool_of(spec) is not None else spec.replicas_per_device,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        block_size=engine.block_size,
        num_gpu_blocks=engine.num_gpu_blocks,
        tensor_parallel_size=spec.tensor_parallel_size,
        held=held,
        partners=partners(scenario, spec),
    )

"""A scenario with everything it names looked up: ready to run, or to be explained before running."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from simslm.catalog.architecture import Architecture
from simslm.catalog.devices import Device, device_file, load_device
from simslm.catalog.models import architecture_from_mapping, load_model, model_file
from simslm.catalog.prices import device_price
from simslm.catalog.work import pairs_within
from simslm.cost.interference import Contended, contention
from simslm.cost.load import load_cost
from simslm.cost.model import CostModel
from simslm.cost.sharing import DemandModel, Sharing, sharing
from simslm.drafts import acceptance, beside, drafted, speculation
from simslm.errors import ScenarioError, SimslmError
from simslm.lookups import Found
from simslm.metrics.classes import Classes
from simslm.metrics.economics import Tariff
from simslm.metrics.ledger import Priced
from simslm.policies.registry import create
from simslm.scenario.portions import partners, pool_of, utilizations
from simslm.scenario.roles import decode_group
from simslm.scenario.schema import GroupSpec, Replicas, Scenario, preempting
from simslm.sim.engine import EngineConfig, Policies
from simslm.sim.memory import MemoryPlan, plan_memory
from simslm.sim.world import Deployment, Group
from simslm.transforms.registry import Footprint, Served, Transform, footprint, kept_tokens
from simslm.transforms.weights import quantized
from simslm.units import GIB
from simslm.workload import supply_of
from simslm.workload.requests import RequestArrays
from simslm.workload.streams import stream
from simslm.workload.supply import RequestStream


@dataclass(frozen=True)
class PreparedGroup:
    """Replicas of one model with everything looked up.

    Attributes:
        name: the group's, or the scenario's where there are no groups.
        spec: as the user wrote it.
        architecture: of its model.
        cost: what an iteration takes a replica that has the device to itself.
        transforms: what is changed about its costs and its memory.
        held: the memory that weights and KV cache take.
        memory: where a replica's memory goes.
        max_model_len: longest prompt + output, tokens.
        devices: the (first) device of each replica.
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

    @property
    def changes(self) -> tuple[Transform, ...]:
        """What differs from the work of its data type: weights its trace was measured with, then the transforms."""
        return (*quantized(self.cost.provenance), *self.transforms)

    def held_tokens(self, tokens: float) -> float:
        """What a sequence of so many tokens keeps of them in the KV cache."""
        kept = kept_tokens(self.transforms)
        return tokens if kept is None else min(tokens, kept)

    def prompt_pairs(self, tokens: float) -> float:
        """(Query, key) pairs of the attention of a whole prompt."""
        kept = kept_tokens(self.transforms)
        return pairs_within(0, tokens, tokens if kept is None else kept)

    def batch(self, tokens: float, requests: int) -> int:
        """Sequences of so many tokens that decode together when there is always work: slots, KV blocks or requests."""
        engine = self.spec.engine
        room = self.memory.num_gpu_blocks * engine.block_size
        return max(1, min(engine.max_num_seqs, int(room / max(self.held_tokens(tokens), 1)), requests))


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything it names looked up: ready to run, or to be explained before running.

    Attributes:
        scenario: as the user wrote it.
        device: that it runs on.
        groups: of replicas, at least one.
        workload: drawn or replayed; in pieces where it is too long to hold.
        files: the SHA-256 of each file that was read beside traces, by its path in the scenario.
        tariff: what things cost; None where the scenario does not ask.
        central: what this is a variant of; None for what the scenario says.
    """

    scenario: Scenario
    device: Device
    groups: tuple[PreparedGroup, ...]
    workload: RequestArrays | RequestStream
    files: dict[str, str]
    tariff: Tariff | None = None
    central: Prepared | None = None

    @cached_property
    def requests(self) -> RequestArrays:
        """The workload as a whole, however long."""
        return self.workload.whole() if isinstance(self.workload, RequestStream) else self.workload

    @property
    def classes(self) -> Classes | None:
        """The class of each request, with its SLO, or the scenario's where it has none."""
        requests, stated = self.workload, self.scenario.workload.classes
        if requests.class_of is None or stated is None:
            return None
        slos = (stated[name].slo or self.scenario.slo for name in requests.classes)
        bounds = tuple({} if slo is None else slo.bounds() for slo in slos)
        return Classes(requests.classes, requests.class_of, bounds)

    @property
    def tenants(self) -> Counter[int]:
        """Replicas on each device."""
        return Counter(device for group in self.groups for device in group.devices)

    @property
    def unused_devices(self) -> int:
        """Devices on which no replica runs."""
        used = {
            device + part
            for group in self.groups
            for device in group.devices
            for part in range(group.spec.tensor_parallel_size)
        }
        return self.scenario.deployment.num_devices - len(used)

    @property
    def priced(self) -> list[Priced]:
        """What the metrics need of each replica."""
        tenants = self.tenants
        return [
            Priced(
                group.cost,
                tenants[device],
                group.memory.num_gpu_blocks,
                group.spec.engine.speculative_config is not None,
                preempting(group.spec.engine),
            )
            for group in self.groups
            for device in group.devices
        ]

    def variants(self) -> Iterator[tuple[Prepared, Prepared]]:
        """The same with lower and with higher costs, in each direction in which the costs of a model are uncertain.

        Groups whose costs come from the same trace vary together, whatever is put around it.
        """
        origins = [group.cost.provenance.get("content_hash", id(group.cost)) for group in self.groups]
        for origin in dict.fromkeys(origins):
            mine = [i for i, each in enumerate(origins) if each == origin]
            for pairs in zip(*(self.groups[i].cost.variants() for i in mine), strict=True):
                low, high = (dict(zip(mine, costs, strict=True)) for costs in zip(*pairs, strict=True))
                yield self._with(low), self._with(high)

    def _with(self, costs: Mapping[int, CostModel]) -> Prepared:
        """The same with other costs for some groups; how replicas get along stays as it is."""
        groups = tuple(replace(group, cost=costs.get(i, group.cost)) for i, group in enumerate(self.groups))
        return replace(self, groups=groups, central=self)

    def deployment(self) -> Deployment:
        """What the simulator needs of it."""
        asked, slo = self.scenario.deployment, self.scenario.slo
        return Deployment(
            groups=tuple(self._group(group) for group in self.groups),
            sharing=self.sharing if asked.sharing != "none" else None,
            group_of=self._group_of(),
            partition=lambda: create("partition", asked.partition, partial(stream, self.scenario.seed)),
            ttft_slo_s=slo.ttft_s if slo else None,
            tpot_slo_s=slo.tpot_s if slo else None,
        )

    def sharing(self, count: int) -> Sharing:
        """How ``count`` replicas get along on a device: as measured where a trace tells, else as modelled."""
        if self.central is not None:
            return self.central.sharing(count)
        modelled = sharing(self.scenario.deployment.sharing, count)
        known = [factor for group in self.groups if (factor := self._contention(group, modelled)) is not None]
        return Contended(modelled, max(known)) if known else modelled

    def _contention(self, group: PreparedGroup, modelled: Sharing) -> float | None:
        rows = group.cost.colocated
        return None if rows is None else contention(rows, group.cost, self._demand(group), modelled)

    def _demand(self, group: PreparedGroup) -> DemandModel:
        """What a replica's iterations ask of a shared device, as its cost model knows it, else by the roofline."""
        known = getattr(group.cost, "demand", None)
        return known or DemandModel(
            group.architecture, self.device, self.scenario.dtype, transforms=group.changes
        )

    def _group(self, group: PreparedGroup) -> Group:
        engine, memory, spec = group.spec.engine, group.memory, group.spec
        swap = int(engine.swap_space * GIB / memory.block) if engine.preemption == "swap" else 0
        limits = EngineConfig(
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            num_gpu_blocks=memory.num_gpu_blocks,
            block_size=engine.block_size,
            watermark_blocks=int(engine.watermark * memory.num_gpu_blocks),
            prefix_caching=engine.prefix_caching,
            swap_blocks=swap,
            swap_s_per_block=memory.block / self.device.host_link_bytes_per_s,
            late_output=not engine.disable_async_output_proc,
            sm_fraction=getattr(spec, "sm_fraction", None),
            transfer_s_per_block=memory.block / self.device.peer_link_bytes_per_s,
            kept_tokens=kept_tokens(group.transforms),
            swap_s_per_call=2 * group.architecture.num_layers * engine.swapping.copy_s,
            swap_group_blocks=engine.swapping.group_blocks,
            swap_overlap=engine.swapping.overlap,
            swap_reuse=engine.swapping.reuse,
            swap_turns=engine.swapping.turns,
            spare_block=engine.spare_block,
        )

        def draws(purpose: str) -> np.random.Generator:
            return stream(self.scenario.seed, f"{purpose} {group.name}")

        preempts = engine.preempts.policy != "youngest"
        asked = engine.speculative_config
        foreseen = None if asked is None else acceptance(asked, self.workload, self.scenario.seed)

        def policies() -> Policies:
            return Policies(
                batching=create("batching", engine.batching, draws),
                order=create("queueing", engine.scheduling_policy, draws),
                admission=create("admission", engine.admission, draws),
                speculation=None if asked is None or foreseen is None else speculation(asked, foreseen),
                preemption=create("preemption", engine.preempts, draws)
                if engine.switches or preempts
                else None,
                priorities=create("priorities", engine.priorities, draws) if engine.urgent else None,
            )

        grouped = isinstance(spec, GroupSpec)
        return Group(
            name=group.name,
            engine=limits,
            devices=group.devices,
            cost=group.cost,
            demand=self._demand(group),
            policies=policies,
            router=lambda: create("routing", spec.router, draws),
            max_model_len=group.max_model_len,
            role=spec.role if grouped else "both",
            decode_group=decode_group(self.scenario.deployment.groups or (), spec) if grouped else None,
            kv_pool=pool_of(spec),
        )

    def _group_of(self) -> np.ndarray | None:
        """Each request's group, drawn by the groups' shares, one for a whole program; None where all go to the first.

        No request arrives at a decode group.
        """
        specs = [group.spec for group in self.groups if isinstance(group.spec, GroupSpec)]
        shares = np.array([0.0 if spec.role == "decode" else spec.share for spec in specs])
        if not shares[1:].any():
            return None
        workload, draws = self.workload, stream(self.scenario.seed, "groups")
        ends = np.cumsum(shares / shares.sum())[:-1]
        if isinstance(workload, RequestStream):
            groups = np.empty(len(workload), dtype=np.uint16)
            for begin in range(0, len(groups), workload.most):
                part = groups[begin : begin + workload.most]
                part[:] = np.searchsorted(ends, draws.random(len(part)), side="right")
            return groups
        programs = workload.programs
        count = len(workload if programs is None else programs.start_s)
        groups = np.searchsorted(ends, draws.random(count), side="right")
        return groups if programs is None else groups[programs.program_of]


def prepare(scenario: Scenario, found: Found | None = None) -> Prepared:
    """Looks up models, device, traces and workload.

    Args:
        scenario: from :func:`load_scenario`.
        found: what was looked up for others like it.

    Raises:
        SimslmError: something named does not exist, does not fit or cannot be read.
    """
    found = found or Found()
    with _placed(scenario, "device"):
        named = scenario.device
        device = found.get(
            "device",
            (_key(named), scenario.base_dir),
            lambda: load_device(named, scenario.base_dir),
        )
    specs: tuple[Replicas, ...] = scenario.deployment.groups or (scenario.deployment,)
    parts = utilizations(scenario, specs)
    groups = tuple(
        _prepare_group(scenario, spec, device, part, found) for spec, part in zip(specs, parts, strict=True)
    )
    longest = max(group.max_model_len for group in groups)
    workload, base_dir = scenario.workload, scenario.base_dir
    requests = found.get(
        "requests",
        (workload.model_dump_json(), scenario.seed, longest, base_dir),
        lambda: supply_of(workload, scenario.seed, longest, base_dir),
    )
    for spec in specs:
        if spec.engine.speculative_config is not None:
            with _placed(scenario, "deployment"):
                acceptance(spec.engine.speculative_config, requests, scenario.seed)
    tariff = _tariff(scenario, device, found)
    return Prepared(scenario, device, groups, requests, _files(scenario, found), tariff)


def _tariff(scenario: Scenario, device: Device, found: Found) -> Tariff | None:
    """What a scenario's devices and electricity cost, with the assumptions in words."""
    asked = scenario.economics
    if asked is None:
        return None
    usd = asked.usd_per_device_hour
    words = [] if usd is None else [f"${usd:g} per device-hour (stated)"]
    if usd is None:
        table = None if asked.prices is None else scenario.base_dir / asked.prices
        with _placed(scenario, "economics"):
            price = found.get("price", (device.name, table), lambda: device_price(device.name, table))
        usd = None if price is None else price.usd_per_device_hour
        words += [] if price is None else [price.words]
    if asked.usd_per_kwh is not None:
        words.append(f"${asked.usd_per_kwh:g} per kWh")
    if asked.g_co2_per_kwh is not None:
        words.append(f"{asked.g_co2_per_kwh:g} g CO2 per kWh")
    return Tariff(
        device.name,
        scenario.deployment.num_devices,
        usd,
        asked.usd_per_kwh,
        asked.g_co2_per_kwh,
        "; ".join(words),
    )


def _key(named: str | dict[str, Any]) -> str:
    """A name or an inline definition as a text that tells it from others."""
    return named if isinstance(named, str) else json.dumps(named)


def _files(scenario: Scenario, found: Found) -> dict[str, str]:
    """The SHA-256 of each file the scenario names beside traces; all of them have been read."""
    models = (scenario.model, *(group.model for group in scenario.deployment.groups or ()))
    paths = {name: model_file(name, scenario.base_dir) for name in models if isinstance(name, str)}
    if isinstance(scenario.device, str):
        paths[scenario.device] = device_file(scenario.device, scenario.base_dir)
    prices = scenario.economics.prices if scenario.economics is not None else None
    named = (*scenario.workload.files, *([prices] if prices is not None else []))
    paths |= {name: scenario.base_dir / name for name in named}
    return {
        name: found.get("file", (path,), partial(_sha256, path))
        for name, path in paths.items()
        if path is not None
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _placed(scenario: Scenario, *keys: str) -> Iterator[None]:
    """Errors inside say which line of the scenario names what they are about."""
    try:
        yield
    except SimslmError as error:
        place = scenario.where(*keys)
        if not place:
            raise
        raise type(error)(str(error), where=place) from None


def _prepare_group(
    scenario: Scenario, spec: Replicas, device: Device, utilization: float, found: Found
) -> PreparedGroup:
    model, cost, longest, numbers = scenario.model, scenario.cost, scenario.max_model_len, None
    if isinstance(spec, GroupSpec):
        model, cost = spec.model or model, spec.cost or cost
        longest, numbers = spec.max_model_len or longest, spec.devices
    with _placed(scenario, "model"):
        architecture = _architecture(model, scenario, found)
    own = architecture.max_position_embeddings
    windowed = kept_tokens(cost.changes) is not None
    if (longest or 0) > own and not (windowed and architecture.positions == "rotary"):
        raise ScenarioError(
            f"max_model_len is {longest}, but {architecture.name} has {own} positions",
            where=scenario.where("max_model_len"),
        )
    split, engine, pooled = spec.tensor_parallel_size, spec.engine, pool_of(spec) is not None
    with _placed(scenario, "cost"):
        named = (_key(model), _key(scenario.device), scenario.dtype, scenario.base_dir, split)
        model_cost = found.get(
            "cost",
            (cost.model_dump_json(), *named),
            lambda: load_cost(cost, architecture, device, scenario.dtype, scenario.base_dir, split),
        )
    measured = quantized(model_cost.provenance)
    held = footprint(Served(architecture, scenario.dtype), (*measured, *cost.changes))
    asked, draft = engine.speculative_config, None
    if asked is not None and asked.model is not None:
        with _placed(scenario, "deployment"):
            draft = _architecture(asked.model, scenario, found)
        held = beside(held, draft, scenario.dtype)
    with _placed(scenario, "model"):
        memory = plan_memory(
            architecture,
            device,
            scenario.dtype,
            gpu_memory_utilization=utilization,
            replicas_per_device=1 if pooled else spec.replicas_per_device,
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            block_size=engine.block_size,
            num_gpu_blocks=engine.num_gpu_blocks,
            tensor_parallel_size=split,
            held=held,
            partners=partners(scenario, spec),
        )
    if asked is not None and draft is not None:
        with _placed(scenario, "cost"):
            model_cost = drafted(model_cost, asked, draft, device, scenario)
    numbers = (numbers or tuple(range(scenario.deployment.num_devices)))[::split]
    return PreparedGroup(
        spec.name if isinstance(spec, GroupSpec) else scenario.name,
        spec,
        architecture,
        model_cost,
        cost.changes,
        held,
        memory,
        longest or own,
        tuple(number for number in numbers for _ in range(spec.replicas_per_device)),
    )


def _architecture(model: str | dict[str, Any], scenario: Scenario, found: Found) -> Architecture:
    return found.get(
        "model",
        (_key(model), scenario.base_dir),
        lambda: (
            load_model(model, scenario.base_dir)
            if isinstance(model, str)
            else architecture_from_mapping(model)
        ),
    )

"""A scenario with everything it names looked up: ready to run, or to be explained before running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from simslm.catalog.devices import Device
from simslm.cost.model import CostModel
from simslm.cost.sharing import Sharing
from simslm.errors import ScenarioError
from simslm.metrics.books import Basis
from simslm.metrics.classes import Classes
from simslm.metrics.economics import Tariff
from simslm.metrics.ledger import Priced
from simslm.metrics.programs import ProgramColumns
from simslm.metrics.steady import Rule
from simslm.policies.registry import lookup
from simslm.preparation.deployment import deployed
from simslm.preparation.draft import acceptance
from simslm.preparation.found import Found
from simslm.preparation.groups import PreparedGroup, prepare_group
from simslm.preparation.named import device_of, digests
from simslm.preparation.place import placed
from simslm.preparation.sharing import sharing_of
from simslm.preparation.tariff import tariff_of
from simslm.scenario.metrics import Metrics
from simslm.scenario.portions import utilizations
from simslm.scenario.schema import Replicas, Scenario, preempting
from simslm.sim.deployment import Deployment
from simslm.workload import supply_of
from simslm.workload.requests import RequestArrays
from simslm.workload.supply import RequestStream


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
        central: the scenario as stated, for a variant of its costs, see :meth:`variants`; None where this is it.
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
        """The whole workload in memory, however long."""
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
                (*group.levels, group.cost)[0],
                tenants[device],
                group.memory.num_gpu_blocks,
                group.spec.engine.speculative_config is not None,
                preempting(group.spec.engine),
                group.levels,
                device,
                group.spec.tensor_parallel_size,
            )
            for group in self.groups
            for device in group.devices
        ]

    @property
    def basis(self) -> Basis:
        """What the figures of a run of it are based on."""
        scenario, workload = self.scenario, self.workload
        streamed = isinstance(workload, RequestStream)
        return Basis(
            name=scenario.name,
            replicas=self.priced,
            requests=None if streamed else len(workload),
            slo=scenario.slo.bounds() if scenario.slo else {},
            classes=self.classes,
            programs=None if streamed else _programs(workload),
            unused_devices=self.unused_devices,
            rule=None if scenario.metrics is None else _rule(scenario.metrics),
            gateway=scenario.deployment.gateway is not None,
            group_routing=scenario.deployment.group_router is not None,
            escalates=lookup("group-routing", scenario.deployment.group_routing.policy).cls.escalates,
        )

    def variants(self) -> Iterator[tuple[Prepared, Prepared]]:
        """Pairs of the same scenario with lower and higher costs, one for each uncertain direction of a cost model.

        Groups with costs from the same trace vary together, whatever transforms each has.
        """
        origins = [group.cost.provenance.get("content_hash", id(group.cost)) for group in self.groups]
        for origin in dict.fromkeys(origins):
            mine = [i for i, each in enumerate(origins) if each == origin]
            for pairs in zip(*(self.groups[i].cost.variants() for i in mine), strict=True):
                low, high = (dict(zip(mine, costs, strict=True)) for costs in zip(*pairs, strict=True))
                yield self._with(low), self._with(high)

    def _with(self, costs: Mapping[int, CostModel]) -> Prepared:
        """The same with other costs for some groups, by number; the interference between replicas stays as it is."""
        groups = tuple(replace(group, cost=costs.get(i, group.cost)) for i, group in enumerate(self.groups))
        return replace(self, groups=groups, central=self)

    def deployment(self) -> Deployment:
        """The deployment as the simulator takes it; each call makes one."""
        return deployed(self.scenario, self.device, self.groups, self.workload, self.sharing)

    def sharing(self, count: int) -> Sharing:
        """The speeds of ``count`` replicas on one device; a variant has those of the scenario as stated."""
        if self.central is not None:
            return self.central.sharing(count)
        scenario = self.scenario
        return sharing_of(scenario.deployment.sharing, count, self.groups, self.device, scenario.dtype)


def prepare(scenario: Scenario, found: Found | None = None) -> Prepared:
    """Looks up models, device, traces and workload.

    Args:
        scenario: from :func:`load_scenario`.
        found: what was looked up for others like it.

    Raises:
        SimslmError: something named does not exist, does not fit or cannot be read.
    """
    found = found or Found()
    device = device_of(scenario, found)
    specs: tuple[Replicas, ...] = scenario.deployment.groups or (scenario.deployment,)
    parts = utilizations(scenario, specs)
    groups = tuple(
        prepare_group(scenario, spec, device, part, found) for spec, part in zip(specs, parts, strict=True)
    )
    workload = _workload(scenario, max(group.max_model_len for group in groups), found)
    for spec in specs:
        if spec.engine.speculative_config is not None:
            with placed(scenario, "deployment"):
                acceptance(spec.engine.speculative_config, workload, scenario.seed)
    _check_gateway(scenario, workload)
    tariff = tariff_of(scenario, device, found)
    return Prepared(scenario, device, groups, workload, digests(scenario, found), tariff)


def _workload(scenario: Scenario, longest: int, found: Found) -> RequestArrays | RequestStream:
    """The requests, drawn or replayed; ``longest`` is the prompt and output that any group can take, in tokens."""
    asked, seed, base_dir = scenario.workload, scenario.seed, scenario.base_dir
    return found.get(
        "requests",
        (asked.model_dump_json(), seed, longest, base_dir),
        lambda: supply_of(asked, seed, longest, base_dir),
    )


def _check_gateway(scenario: Scenario, workload: RequestArrays | RequestStream) -> None:
    """A gateway that goes by what prompts are made of is told.

    Raises:
        ScenarioError: the workload does not say which prompts are equal.
    """
    asked = scenario.deployment.gateway
    if asked is None or not lookup("gateway", asked.policy).cls.needs_units:
        return
    first = next(workload.pieces()) if isinstance(workload, RequestStream) else workload
    if first.units is None:
        raise ScenarioError(
            f"{asked.policy} finds equal prompts by their prefix hashes, and this workload has none: no hit",
            where=scenario.where("deployment", "gateway"),
            remedy="replay a trace with prefix hashes (mooncake), or state workload.prefixes or workload.programs; or "
            "leave the gateway out",
        )


def _programs(requests: RequestArrays) -> ProgramColumns | None:
    """The programs of the requests, where the workload describes any; None where each request is one by itself."""
    found = requests.programs
    if found is None or not found.described:
        return None
    return ProgramColumns(found.program_of, found.stage, found.parents, found.parent_ends)


def _rule(metrics: Metrics) -> Rule:
    """Which requests count, as a scenario says."""
    return Rule(
        warmup_requests=metrics.warmup_requests or 0,
        warmup_s=metrics.warmup_s or 0.0,
        cooldown_requests=metrics.cooldown_requests or 0,
        cooldown_s=metrics.cooldown_s or 0.0,
        steady=metrics.steady is not None,
    )

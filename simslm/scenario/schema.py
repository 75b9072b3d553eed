"""What a user writes: the scenario, as pydantic models with units and limits on every key."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from simslm.policies.registry import choice, chosen, lookup
from simslm.scenario.classes import Traffic
from simslm.scenario.control import check_control, check_power
from simslm.scenario.cost import Cost
from simslm.scenario.metrics import Metrics
from simslm.scenario.roles import check_roles
from simslm.scenario.search import Search
from simslm.scenario.slo import Slo
from simslm.scenario.speculation import Speculative
from simslm.scenario.swapping import Swapping

Dtype = Literal["fp32", "bf16", "fp16"]


def _no_truth(value: Any) -> Any:
    """``true`` is no number, though Python finds it equal to 1, and so among the numbers of a ``Literal``."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


def _default(kind: str, name: str, description: str) -> Any:
    return Field(
        default_factory=partial(choice, kind, name),
        description=f"{description}; `simslm list policies` shows the choice",
    )


if TYPE_CHECKING:
    Admission = Batching = Faults = Gateway = GroupRouting = Migration = Partition = Power = Preemption = Any
    Priorities = Queueing = Routing = Scaling = Any
else:
    Admission = chosen("admission")
    Batching = chosen("batching")
    Faults = chosen("faults")
    Gateway = chosen("gateway")
    GroupRouting = chosen("group-routing")
    Migration = chosen("migration")
    Partition = chosen("partition")
    Power = chosen("power")
    Preemption = chosen("preemption")
    Priorities = chosen("priorities")
    Queueing = chosen("queueing")
    Routing = chosen("routing")
    Scaling = chosen("scaling")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Engine(Section):
    """One replica's limits; the options of vLLM keep vLLM's names."""

    name: str | None = Field(
        default=None,
        min_length=1,
        description="the engine that is deployed, e.g. vllm-0.6.3: a report warns where its host time is another's",
    )
    batching: Batching = _default("batching", "chunked-prefill", "which sequences run in the next iteration")
    scheduling_policy: Queueing = _default("queueing", "fcfs", "order of the waiting queue")
    admission: Admission = _default("admission", "open", "which requests are let in")
    max_num_seqs: int = Field(default=256, ge=1, description="most sequences that run at once")
    max_num_batched_tokens: int = Field(default=2048, ge=1, description="most tokens of one iteration")
    block_size: int = Field(default=16, ge=1, le=4096, description="tokens in one KV block")
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="share of the device's memory, divided by its replicas"
    )
    num_gpu_blocks: int | None = Field(
        default=None,
        ge=1,
        description="KV blocks per replica; null = computed from weights, activations and memory",
    )
    watermark: float = Field(
        default=0.01, ge=0, lt=1, description="share of the KV blocks kept free when admitting (vLLM: 0.01)"
    )
    prefix_caching: bool = Field(
        default=False, description="keep the blocks of finished prompts and share them with equal prefixes"
    )
    preemption: Literal["recompute", "swap"] = Field(
        default="recompute",
        description="what becomes of a sequence whose blocks others need: prefilled again, or moved to the host",
    )
    preemption_policy: Preemption | None = Field(
        default=None,
        description="which request is preempted; null = least-urgent under scheduling_policy: priority, else youngest, "
        "as in vLLM V1; `simslm list policies` shows the choice",
    )
    priorities: Priorities = _default(
        "priorities", "fixed", "how priorities change while requests are served (scheduling_policy: priority)"
    )
    swapping: Swapping = Field(default=Swapping(), description="how blocks move under preemption: swap")
    disable_async_output_proc: bool = Field(
        default=True,
        description="false: outputs are looked at while the next iteration runs, as vLLM's V0 engine does since 0.6.0; "
        "a sequence then keeps its slot for one iteration after its last token (static batching keeps it anyway)",
    )
    spare_block: bool = Field(
        default=False,
        description="true: where several sequences run, the last needs a free KV block though it has room in its own, "
        "as in vLLM's V0 engine (can_append_slots), so that preemption starts earlier",
    )
    swap_space: float = Field(
        default=4.0, ge=0, le=1e6, description="host memory for swapped sequences, GiB per replica (vLLM: 4)"
    )
    speculative_config: Speculative | None = Field(
        default=None, description="speculative decoding; null = one token for each sequence and iteration"
    )

    @model_validator(mode="after")
    def _budget_holds_batch(self) -> Engine:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}): every running sequence decodes one token an iteration"
            )
        return self

    @property
    def preempts(self) -> Any:
        """The policy of preemption, stated or not; a choice of the register."""
        if self.preemption_policy is not None:
            return self.preemption_policy
        name = "least-urgent" if self.scheduling_policy.policy == "priority" else "youngest"
        return choice("preemption", name)

    @property
    def urgent(self) -> bool:
        """Whether sequences make place for more urgent ones, or priorities change."""
        displaces = lookup("preemption", self.preempts.policy).cls.displaces
        return displaces or self.priorities.policy != "fixed"

    @property
    def switches(self) -> bool:
        """Whether sequences make place for others, or are swapped, in another way than vLLM's."""
        swapping = self.swapping
        return self.urgent or swapping.overlap or swapping.reuse or swapping.turns

    @model_validator(mode="after")
    def _priorities_are_gone_by(self) -> Engine:
        order = self.scheduling_policy.policy
        if self.priorities.policy != "fixed" and order != "priority":
            raise ValueError(
                f"priorities {self.priorities.policy} change what a {order} queue does not go by, so requests would be "
                "preempted and admitted again in turn: set scheduling_policy: priority, or leave priorities out"
            )
        return self

    @model_validator(mode="after")
    def _swapping_fits(self) -> Engine:
        if self.swapping != Swapping() and self.preemption != "swap":
            raise ValueError("swapping needs preemption: swap")
        return self

    @model_validator(mode="after")
    def _speculation_fits(self) -> Engine:
        if self.speculative_config is None:
            return self
        most = self.speculative_config.num_speculative_tokens
        if most >= self.block_size:
            raise ValueError(
                f"num_speculative_tokens ({most}) must be less than block_size ({self.block_size}): an iteration "
                "takes at most one KV block for a sequence"
            )
        return self


def preempting(engine: Engine) -> str:
    """The settings that decide which request is preempted and when it comes back, in words."""
    said = {
        "preemption_policy": engine.preempts.policy,
        "scheduling_policy": engine.scheduling_policy.policy,
        "priorities": engine.priorities.policy,
        "preemption": engine.preemption,
        "batching": engine.batching.policy,
    }
    return ", ".join(f"{key}: {name}" for key, name in said.items())


class Replicas(Section):
    """Replicas of one model: where they run, and how requests reach them."""

    replicas_per_device: int = Field(default=1, ge=1, le=64, description="replicas on each device")
    tensor_parallel_size: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_no_truth)] = Field(
        default=1, description="devices one replica spans"
    )
    router: Routing = _default("routing", "round-robin", "which replica an arriving request goes to")
    engine: Engine = Field(default_factory=Engine, description="limits of each replica")
    scaling: Scaling | None = Field(
        default=None,
        description="how replicas start and stop during the run, e.g. {policy: horizontal, target: 32}; null = all of "
        "them serve all the time",
    )
    migration: Migration | None = Field(
        default=None, description="which requests move between the replicas, e.g. freeness; null = none"
    )
    faults: Faults | None = Field(
        default=None,
        description="when replicas fail, e.g. {policy: exponential, mtbf_s: 3600, mttr_s: 120}; null = never",
    )
    when_none_serves: Literal["wait", "reject"] = Field(
        default="wait",
        description="what becomes of requests while no replica serves: they wait until one does, or are rejected",
    )

    @model_validator(mode="after")
    def _whole_devices(self) -> Self:
        if self.tensor_parallel_size > 1 and self.replicas_per_device > 1:
            raise ValueError("a replica that spans devices has them to itself: set replicas_per_device to 1")
        return self


class GroupSpec(Replicas):
    """One of several groups of replicas, perhaps of another model, perhaps on the devices of others."""

    name: str = Field(min_length=1, description="for reports")
    share: float = Field(
        default=1.0, gt=0, description="its share of the requests, relative to the other groups"
    )
    model: str | dict[str, Any] | None = Field(default=None, description="null = the scenario's")
    cost: Cost | None = Field(default=None, description="null = the scenario's")
    max_model_len: int | None = Field(default=None, ge=2, description="null = the model's own")
    devices: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, min_length=1, description="numbers of its devices; null = all"
    )
    role: Literal["both", "prefill", "decode"] = Field(
        default="both",
        description="phases it runs: what a prefill group has prefilled goes on in a decode group, to which no request "
        "comes by itself",
    )
    decode_group: str | None = Field(
        default=None,
        min_length=1,
        description="where a prefill group hands over to; null = the only decode group",
    )
    kv_pool: str | None = Field(
        default=None,
        min_length=1,
        description="prefill and decode groups that name the same have, on each device, one copy of the weights and "
        "one pool of KV blocks: nothing is copied between them; null = each replica has its own",
    )
    sm_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="part of the multiprocessors that each of its replicas may use under sharing: sm-partition; parts "
        "may be more than 1 together; null = an equal one",
    )


class Deployment(Replicas):
    """What serves: devices, and replicas on them, of one model or in groups."""

    num_devices: int = Field(default=1, ge=1, le=4096, description="devices")
    sharing: Literal["none", "mps", "time-slice", "streams", "sm-partition"] = Field(
        default="none", description="how replicas share a device; none needs one replica on each"
    )
    groups: tuple[GroupSpec, ...] | None = Field(
        default=None, min_length=1, description="groups of replicas, in place of the keys above"
    )
    gateway: Gateway | None = Field(
        default=None,
        description="what may answer a request before a group of replicas does (not the engine's front end); null = "
        "nothing; `simslm list policies` shows the choice",
    )
    group_router: GroupRouting | None = Field(
        default=None,
        description="which group a request goes to, and whether its answer is good enough; null = shares, drawn by the "
        "groups' share; `simslm list policies` shows the choice",
    )
    partition: Partition = _default(
        "partition", "static", "how the split of a device between prefill and decode replicas moves"
    )

    power: Power | None = Field(
        default=None,
        description="at which clocks the devices run, e.g. {policy: budget, budget_w: 2000}; it needs a trace with "
        "power against clocks; null = at the clock of the trace",
    )

    @model_validator(mode="after")
    def _devices_agree(self) -> Self:
        tenants, spanned = [0] * self.num_devices, set[int]()
        for group in self.groups or (self,):
            devices = getattr(group, "devices", None) or tuple(range(self.num_devices))
            if max(devices) >= self.num_devices:
                raise ValueError(f"device {max(devices)} does not exist: num_devices is {self.num_devices}")
            if len(devices) % group.tensor_parallel_size:
                raise ValueError(
                    f"{len(devices)} devices cannot be divided into replicas of "
                    f"tensor_parallel_size {group.tensor_parallel_size}"
                )
            for device in devices:
                tenants[device] += group.replicas_per_device
            if group.tensor_parallel_size > 1:
                spanned.update(devices)
        if max(tenants) > 1 and self.sharing == "none":
            raise ValueError(
                f"sharing: none means one replica on each device, but {max(tenants)} would share one; "
                "choose mps, time-slice, streams or sm-partition"
            )
        if any(tenants[device] > 1 for device in spanned):
            raise ValueError("replicas that span devices cannot share them")
        return self

    @model_validator(mode="after")
    def _control_agrees(self) -> Self:
        check_control(self)
        return self

    @model_validator(mode="after")
    def _phases_agree(self) -> Self:
        groups = self.groups or ()
        check_roles(groups)
        if self.sharing != "sm-partition":
            for group in groups:
                if group.sm_fraction is not None:
                    raise ValueError(f"group {group.name!r}: sm_fraction needs sharing: sm-partition")
            if self.partition.policy != "static":
                raise ValueError(f"partition {self.partition.policy} needs sharing: sm-partition")
        if self.partition.policy != "static" and all(group.role == "both" for group in groups):
            raise ValueError(f"partition {self.partition.policy} needs groups of role prefill and decode")
        return self

    @property
    def group_routing(self) -> Any:
        """The policy that chooses among groups, stated or not; a choice of the register."""
        stated = self.group_router
        return choice("group-routing", "shares") if stated is None else stated

    @model_validator(mode="after")
    def _groups_to_choose_among(self) -> Self:
        if self.group_router is None:
            return self
        asked = [group for group in self.groups or () if group.role != "decode"]
        if len(asked) < 2:
            raise ValueError(
                "group_router: chooses among groups, and requests can go to one only; state at least two under "
                "deployment.groups to which requests come, or leave it out"
            )
        if self.group_router.policy != "shares":
            for group in asked:
                if "share" in group.model_fields_set:
                    raise ValueError(
                        f"group {group.name!r}: share is what group_router: shares goes by, not "
                        f"{self.group_router.policy}; leave one of them out"
                    )
        return self


class Economics(Section):
    """What devices and electricity cost and emit; what is not stated is unknown, and so is what follows from it."""

    usd_per_device_hour: float | None = Field(
        default=None, ge=0, le=1e6, description="of one device; null = as the price table has it"
    )
    prices: str | None = Field(
        default=None,
        min_length=1,
        description="file of a price table; null = the one of simslm, see its sources",
    )
    usd_per_kwh: float | None = Field(
        default=None,
        ge=0,
        le=1e3,
        description="electricity paid beside the devices; null = it is in their price",
    )
    g_co2_per_kwh: float | None = Field(
        default=None, ge=0, le=1e5, description="what the electricity emits, g CO2-equivalent; null = unknown"
    )

    @model_validator(mode="after")
    def _one_price(self) -> Economics:
        if self.usd_per_device_hour is not None and self.prices is not None:
            raise ValueError("either usd_per_device_hour or a table of prices, not both")
        return self


class Scenario(Section):
    """A whole question: which model, on what, serving which traffic, how."""

    schema_version: Annotated[Literal[1], BeforeValidator(_no_truth)] = Field(
        default=1, description="version of this format"
    )
    name: str = Field(
        default="scenario", min_length=1, max_length=200, description="names the run's directory"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="every random stream is derived from it")
    model: str | dict[str, Any] = Field(
        description="catalogue name, path of a Hugging Face config.json, or an inline architecture"
    )
    device: str | dict[str, Any] = Field(description="catalogue name or an inline device")
    dtype: Dtype = Field(default="bf16", description="data type of weights and KV cache")
    max_model_len: int | None = Field(
        default=None, ge=2, description="longest prompt + output; null = the model's own"
    )
    cost: Cost = Field(description="where latencies and energies come from")
    workload: Traffic = Field(description="what arrives, and when")
    deployment: Deployment = Field(default_factory=Deployment)
    slo: Slo | None = Field(default=None, description="what a good answer is")
    metrics: Metrics | None = Field(
        default=None, description="what to leave out of the figures at both ends of a run; null = nothing"
    )
    economics: Economics | None = Field(
        default=None,
        description="what tokens cost and emit; null = not asked. {} takes the price table of simslm",
    )
    search: Search | None = Field(default=None, description="what to explore around it")

    @model_validator(mode="after")
    def _something_counts(self) -> Scenario:
        sent = self.workload.num_requests
        if self.metrics is not None and sent is not None and self.metrics.requests >= sent:
            raise ValueError(
                f"metrics leaves out {self.metrics.requests:,} requests, and workload.num_requests is {sent:,}: leave "
                "out fewer, or send more"
            )
        return self

    @model_validator(mode="after")
    def _clocks_were_measured(self) -> Scenario:
        check_power(self)
        return self

    @model_validator(mode="after")
    def _partition_has_bounds(self) -> Scenario:
        partition, slo = self.deployment.partition.policy, self.slo
        if lookup("partition", partition).cls.needs_slo and (
            slo is None or slo.ttft_s is None or slo.tpot_s is None
        ):
            raise ValueError(
                f"deployment.partition: {partition} goes by slo.ttft_s and slo.tpot_s; state both"
            )
        return self

    _base_dir: Path = PrivateAttr(default=Path("."))
    _where: Callable[[tuple[Any, ...]], str] | None = PrivateAttr(default=None)

    @property
    def base_dir(self) -> Path:
        """Where relative paths in the scenario start: the folder of its file."""
        return self._base_dir

    def where(self, *keys: Any) -> str:
        """The file and line of a key, for errors that only a look at what it names can find."""
        return self._where(keys) if self._where else ""

    def read_from(self, directory: Path, where: Callable[[tuple[Any, ...]], str]) -> Scenario:
        """The same scenario, knowing the folder its relative paths start in and where each key stands."""
        copy = self.model_copy()
        copy._base_dir = directory
        copy._where = where
        return copy

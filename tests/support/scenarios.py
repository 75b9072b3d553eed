"""Random scenarios over everything the simulator can do: every policy with its options, every mechanism."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from hypothesis import strategies as st

import simslm.policies  # noqa: F401  (fills the register)
from simslm.cost.sharing import sharing
from simslm.policies.faults import FaultOptions
from simslm.policies.migration import MigrationOptions
from simslm.policies.power import PowerOptions
from simslm.policies.registry import Registered, lookup, registered
from simslm.policies.scaling import ScalingOptions
from simslm.sim.deployment import Deployment, Group
from simslm.sim.engine import EngineConfig, Policies, Speculation
from simslm.sim.parts.acceptance import Acceptance
from support.control import CONTROL, controlled
from support.synthetic import FixedDemand, LinearCost, Lists, Loop

SHARINGS = ("mps", "time-slice", "streams", "sm-partition")


def examples(usual: int) -> int:
    """How many random scenarios a test draws: ``SIMSLM_EXAMPLES`` where set (5000 every night), else the usual, times
    ``SIMSLM_SCALE`` where set (0.5 in ``make test``, 0.05 in ``make quick``)."""
    return int(os.environ.get("SIMSLM_EXAMPLES", max(1, usual * float(os.environ.get("SIMSLM_SCALE", 1)))))


@dataclass(frozen=True)
class Choice:
    """A registered policy and the options it is made with."""

    kind: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, seed: int = 0) -> Any:
        """A fresh instance, with a stream of its own if it draws."""
        entry = lookup(self.kind, self.name)
        resources = {"stream": np.random.default_rng(seed)} if entry.needs_stream else {}
        return entry.cls(entry.options(**self.options), **resources)


@st.composite
def policies(draw: st.DrawFn, kind: str, name: str | None = None) -> Choice:
    """Any policy of a kind, or the one named, with its default options or others within their bounds."""
    entry = lookup(kind, name) if name else draw(st.sampled_from(registered(kind)))
    return Choice(kind, entry.name, draw(options(entry)) if draw(st.booleans()) else {})


def options(entry: Registered) -> st.SearchStrategy[dict[str, Any]]:
    """Values for every option of a policy, small ones where no upper bound is stated."""
    return st.fixed_dictionaries(
        {
            name: SMALL[name] if name in SMALL else _values(option.annotation, option.metadata)
            for name, option in entry.options.model_fields.items()
            if name not in COMMON.get(entry.kind, ())
        }
    )


COMMON = {
    "scaling": ScalingOptions.model_fields,
    "migration": MigrationOptions.model_fields,
    "faults": FaultOptions.model_fields,
    "power": PowerOptions.model_fields,
}
"""By kind, the options that are the control plane's, which :func:`~support.control.controlled` draws."""

SMALL = {
    "at": st.lists(
        st.fixed_dictionaries(
            {"at_s": st.floats(0, 2), "replica": st.integers(0, 3), "down_s": st.floats(1e-3, 1)}
        ),
        max_size=6,
    ),
    "mtbf_s": st.floats(0.05, 1),
    "mttr_s": st.floats(1e-3, 1),
    "stabilization_s": st.floats(0, 1),
    "target": st.floats(0.1, 8),
    "budget_w": st.floats(60, 2000),
}
"""Values at which something happens in a short run, of options that may be as large as one likes."""


def _values(annotation: Any, bounds: list[Any]) -> st.SearchStrategy[Any]:
    stated = {
        side: value
        for bound in bounds
        for side in ("ge", "gt", "le", "lt")
        if (value := getattr(bound, side, None)) is not None
    }
    low = stated.get("ge", stated.get("gt", 0))
    high = stated.get("le", stated.get("lt", low + 8))
    known: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
        bool: st.booleans,
        int: lambda: st.integers(low + ("gt" in stated), high - ("lt" in stated)),
        float: lambda: st.floats(low, high, exclude_min="gt" in stated, exclude_max="lt" in stated),
        type(None): st.none,
    }
    if annotation in known:
        return known[annotation]()
    parts = get_args(annotation)
    if get_origin(annotation) is tuple:
        return st.lists(_values(*_annotated(parts[0])), min_size=1, max_size=3).map(tuple)
    if all(part in known for part in parts):
        return st.one_of(*(known[part]() for part in parts))
    return st.sampled_from(parts)


def _annotated(annotation: Any) -> tuple[Any, list[Any]]:
    """A type and the bounds on its values, where it states some."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *stated = get_args(annotation)
    return kind, [bound for each in stated for bound in getattr(each, "metadata", [each])]


@st.composite
def workloads(draw: st.DrawFn) -> Lists:
    """Up to 40 requests, open or closed loop, perhaps with classes, sessions, shared prefixes, impatient clients."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 40))
    rate = draw(st.sampled_from([0.5, 10.0, 100.0, 2000.0]))
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    if draw(st.booleans()):
        arrivals = np.round(arrivals, draw(st.integers(0, 2)))
    loop = Loop(draw(st.integers(1, 12)), draw(st.sampled_from([0.0, 0.25]))) if draw(st.booleans()) else None
    longest = draw(st.sampled_from([3, 60, 200]))
    prompts, outputs = rng.integers(1, longest + 1, (2, count))
    if draw(st.booleans()):
        prompts[:] = prompts[0]
    requests = Lists.of(arrivals, prompts, outputs, loop)
    if draw(st.booleans()):
        requests.max_tokens = outputs + rng.integers(0, 20, count)
    if draw(st.booleans()):
        requests.priority = rng.integers(0, 3, count)
    if draw(st.booleans()):
        requests.session_id = rng.integers(-1, 5, count)
    if draw(st.booleans()):
        _share_prefixes(requests, draw(st.sampled_from([5, 16, 32])), rng)
    if draw(st.booleans()):
        patience = rng.exponential(draw(st.sampled_from([0.02, 1.0])), count)
        requests.patience_s = np.where(rng.random(count) < 0.5, patience, np.inf)
    return requests


def _share_prefixes(requests: Lists, unit_tokens: int, rng: np.random.Generator) -> None:
    """Prompts begin with full units of one of three documents and go on by themselves; some are copies of others."""
    requests.unit_tokens, requests.units = unit_tokens, []
    for i in range(len(requests.prompt_tokens)):
        if i and rng.random() < 0.5:
            other = int(rng.integers(i))
            requests.prompt_tokens[i] = requests.prompt_tokens[other]
            requests.units.append(requests.units[other])
            continue
        tokens = int(requests.prompt_tokens[i])
        document, common = int(rng.integers(3)), int(rng.integers(tokens // unit_tokens + 1))
        own = range(common, -(-tokens // unit_tokens))
        requests.units.append(
            (*(1000 * document + j for j in range(common)), *(10**6 + 1000 * i + j for j in own))
        )


@st.composite
def deployments(draw: st.DrawFn, requests: Lists, **named: str) -> Deployment:
    """One to three groups on one to four devices, of which several replicas share each, often short of KV blocks.

    Args:
        requests: the workload to be served.
        named: by kind, policies that are not left to chance.
    """
    batching = draw(policies("batching", named.get("batching")))
    longest = int((requests.prompt_tokens + requests.max_tokens).max())
    block_size = draw(st.sampled_from([1, 4, 16]))
    least = draw(st.sampled_from([1, longest // block_size + 2]))
    num_gpu_blocks = draw(st.integers(least, longest // block_size + 8))
    limits = EngineConfig(
        max_num_seqs=draw(st.integers(1, 24)),
        max_num_batched_tokens=draw(st.sampled_from([24, 64, 512])),
        num_gpu_blocks=num_gpu_blocks,
        block_size=block_size,
        watermark_blocks=int(draw(st.sampled_from([0.0, 0.01, 0.2])) * num_gpu_blocks),
        prefix_caching=not lookup("batching", batching.name).cls.reserves_output and draw(st.booleans()),
        swap_blocks=draw(st.sampled_from([0, 5, 500])),
        swap_s_per_block=draw(st.sampled_from([0.0, 1e-4])),
        late_output=draw(st.booleans()),
        spare_block=not lookup("batching", batching.name).cls.reserves_output and draw(st.booleans()),
    )
    made = {kind: draw(policies(kind, named.get(kind))) for kind in ("queueing", "admission", "routing")}

    def each() -> Policies:
        return Policies(
            batching=batching.make(), order=made["queueing"].make(), admission=made["admission"].make()
        )

    per_device = draw(st.integers(1, 3))
    groups = tuple(
        Group(
            name=f"group {number}",
            engine=limits,
            devices=tuple(i // per_device for i in range(draw(st.integers(1, 4)))),
            cost=draw(st.sampled_from([LinearCost(), LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0)])),
            demand=FixedDemand(draw(st.sampled_from([0.1, 0.6])), draw(st.sampled_from([0.2, 0.7]))),  # type: ignore[arg-type]
            policies=each,
            router=made["routing"].make,
            max_model_len=draw(st.sampled_from([4096, max(longest // 2, 2)])),
            share=draw(st.sampled_from([1.0, 0.3])),
        )
        for number in range(draw(st.integers(2 if "group-routing" in named else 1, 3)))
    )
    way = draw(st.sampled_from(SHARINGS))
    wanted = "group-routing" in named
    router = (
        draw(policies("group-routing", named.get("group-routing"))) if wanted or len(groups) > 1 else None
    )
    gateway = (
        draw(policies("gateway", named.get("gateway"))) if "gateway" in named or draw(st.booleans()) else None
    )
    bound = draw(st.sampled_from([None, 0.5]))
    return Deployment(
        groups=groups,
        sharing=lambda count: sharing(way, count),
        group_router=None if router is None else router.make,
        gateway=None if gateway is None else gateway.make,
        e2e_slo_s=bound,
    )


@st.composite
def phased(draw: st.DrawFn, served: Deployment, **named: str) -> Deployment:
    """The same with prefill and decode replicas: on one device and its KV blocks, or each with blocks of its own;
    perhaps beside a group that runs both phases."""
    group, shared = served.groups[0], draw(st.booleans())
    places = [tuple(range(draw(st.integers(1, 2)))) * draw(st.integers(1, 2)) for _ in range(2)]
    if shared:
        places[1] = places[0]
    transfer_s = draw(st.sampled_from([0.0, 1e-3]))
    groups = []
    for number, role in enumerate(("prefill", "decode")):
        part = draw(st.sampled_from([None, 0.2, 0.7, 1.0]))
        limits = replace(group.engine, sm_fraction=part, transfer_s_per_block=transfer_s)
        apart = 0 if shared or draw(st.booleans()) else 10 * number
        groups.append(
            replace(
                group,
                name=role,
                engine=limits,
                devices=tuple(sorted(place + apart for place in places[number])),
                role=role,
                decode_group=1 if role == "prefill" else None,
                kv_pool="both" if shared else None,
            )
        )
    router = None
    if draw(st.booleans()):
        groups.append(replace(group, name="whole", devices=(90,)))
        router = draw(policies("group-routing")).make
    partition = draw(policies("partition", named.get("partition")))
    return replace(
        served,
        groups=tuple(groups),
        group_router=router,
        partition=partition.make,
        ttft_slo_s=0.05,
        tpot_slo_s=6e-3,
    )


@st.composite
def speculating(draw: st.DrawFn, served: Deployment, requests: Lists, **named: str) -> Deployment:
    """The same with up to six proposed tokens for every decoding sequence, verified at once."""
    chosen = draw(policies("speculation", named.get("speculation")))
    most = draw(st.integers(1, 6))
    rates = np.random.default_rng(draw(st.integers(0, 99))).random(len(requests.prompt_tokens))
    foreseen = Acceptance(rates * draw(st.sampled_from([0.0, 0.5, 0.99])), 0)

    def speculative(group: Group) -> Group:
        limits = replace(group.engine, block_size=16, late_output=False, spare_block=False)
        return replace(
            group,
            engine=limits,
            policies=lambda: replace(
                group.policies(), speculation=Speculation(chosen.make(), most, foreseen)
            ),
        )

    return replace(served, groups=tuple(speculative(group) for group in served.groups))


@st.composite
def windowed(draw: st.DrawFn, served: Deployment) -> Deployment:
    """The same where a sequence keeps only so many tokens."""
    kept = draw(st.sampled_from([1, 5, 16, 17, 40, 100]))
    groups = (
        replace(
            group, engine=replace(group.engine, kept_tokens=kept, prefix_caching=False, spare_block=False)
        )
        for group in served.groups
    )
    return replace(served, groups=tuple(groups))


@st.composite
def switching(draw: st.DrawFn, served: Deployment, *, turns: bool = False, **named: str) -> Deployment:
    """The same with sequences that make place for others, and swapping in groups, overlapped, reusing copies.

    Args:
        turns: finished turns stay on the host, and prefixes on no device.
    """
    chosen = {kind: draw(policies(kind, named.get(kind))) for kind in ("preemption", "priorities")}
    swap = {
        "swap_blocks": draw(st.sampled_from([0, 5, 30, 500])),
        "swap_s_per_block": draw(st.sampled_from([0.0, 1e-4, 3e-3])),
        "swap_s_per_call": draw(st.sampled_from([0.0, 1e-3])),
        "swap_group_blocks": draw(st.integers(1, 4)),
        "swap_overlap": draw(st.booleans()),
        "swap_reuse": draw(st.booleans()),
        "swap_turns": turns,
    }

    def switched(group: Group) -> Group:
        def made() -> Policies:
            return replace(group.policies(), **{kind: choice.make() for kind, choice in chosen.items()})

        caching = group.engine.prefix_caching and not turns
        return replace(group, engine=replace(group.engine, prefix_caching=caching, **swap), policies=made)

    return replace(served, groups=tuple(switched(group) for group in served.groups))


WAYS_OF = {
    **dict.fromkeys(CONTROL, "controlled"),
    "partition": "phased",
    "speculation": "speculating",
    "preemption": "switching",
    "priorities": "switching",
}
"""By kind, the scenarios that its policies take part in."""

DRAWN = {"batching", "queueing", "admission", "routing", "gateway", "group-routing", *WAYS_OF}
"""The kinds of policies that random scenarios draw."""


@st.composite
def _controlled(draw: st.DrawFn, served: Deployment, **named: str) -> Deployment:
    """The same under a control plane, its policies those of the register."""
    kinds = {*draw(st.sets(st.sampled_from(CONTROL))), *(kind for kind in CONTROL if kind in named)}
    if any(group.policies().batching.holds_batch for group in served.groups):
        kinds -= {"migration"}
    chosen = {kind: draw(policies(kind, named.get(kind))).make for kind in sorted(kinds)}
    return draw(controlled(served, kinds, **chosen))


@st.composite
def scenarios(draw: st.DrawFn, **named: str) -> tuple[Lists, Deployment]:
    """A random workload and what serves it, with the policies named by kind or any.

    Raises:
        LookupError: no scenario here has policies of a named kind, so none of them would be tried.
    """
    if unknown := named.keys() - DRAWN:
        raise LookupError(
            f"teach tests/support/scenarios.py to draw policies of kind {', '.join(sorted(unknown))}"
        )
    requests = draw(workloads())
    served = draw(deployments(requests, **named))
    wanted = [way for kind, way in WAYS_OF.items() if kind in named]
    if "group-routing" in named:
        wanted.append("plain")
    way = wanted[0] if wanted else draw(st.sampled_from(["plain", "plain", "windowed", *WAYS_OF.values()]))
    if way == "windowed":
        return requests, draw(windowed(served))
    if way == "controlled":
        return requests, draw(_controlled(served, **named))
    if way == "plain" or any(group.policies().batching.reserves_output for group in served.groups):
        return requests, served
    if way == "phased":
        return requests, draw(phased(served, **named))
    if way == "switching":
        return requests, draw(switching(served, **named))
    return requests, draw(speculating(served, requests, **named))

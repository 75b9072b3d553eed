"""Any set of mechanisms that exclude each other nowhere, on any workload, with any policies and any sharing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from simslm.mechanisms import MECHANISMS, conflicts
from simslm.policies.registry import registered
from simslm.sim.deployment import Deployment, Group
from simslm.sim.engine import Policies, Speculation
from simslm.sim.parts.acceptance import Acceptance
from support.control import CONTROL, controlled
from support.programs import program_workloads
from support.scenarios import deployments, phased, policies, workloads
from support.synthetic import Lists


def whole(mix: Iterable[str]) -> frozenset[str]:
    """A mix and what it implies: a batch held to its end reserves its blocks."""
    return frozenset({*mix, "reservation"} if "held-batch" in mix else mix)


@st.composite
def mixes(draw: st.DrawFn, always: Iterable[str] = ()) -> frozenset[str]:
    """Some mechanisms that go together, those of ``always`` among them."""
    always = whole(always)
    wanted = whole({*always, *draw(st.sets(st.sampled_from(sorted(MECHANISMS))))})
    while clashing := conflicts(wanted):
        one, other, _ = clashing[0]
        gone = draw(st.sampled_from(sorted({one, other} - always)))
        wanted -= {gone, "held-batch"} if gone == "reservation" else {gone}
    return wanted


@st.composite
def combinations(draw: st.DrawFn, mix: frozenset[str]) -> tuple[Lists, Deployment]:
    """A workload, and replicas with the mechanisms of a mix and no others."""
    requests = draw(program_workloads() if "turns" in mix or draw(st.booleans()) else workloads())
    served = draw(deployments(requests, batching=draw(st.sampled_from(_batchings(mix)))))
    switches = {
        "prefix_caching": "prefix-caching" in mix,
        "late_output": "late-output" in mix,
        "spare_block": "spare-block" in mix,
        "kept_tokens": draw(st.sampled_from([1, 5, 16, 17, 40, 100])) if "bounded-kv" in mix else None,
        **draw(_swapping(mix)),
    }
    if "speculation" in mix:
        switches["block_size"] = 16
    groups = [replace(group, engine=replace(group.engine, **switches)) for group in served.groups]
    chosen = draw(_choices(mix, len(requests.prompt_tokens)))
    served = replace(served, groups=tuple(_with(group, chosen) for group in groups))
    served = draw(phased(served)) if "roles" in mix else served
    orders = mix & {*CONTROL}
    return requests, draw(controlled(served, orders)) if orders else served


def _batchings(mix: frozenset[str]) -> list[str]:
    """The batching policies that hold and reserve as a mix says."""
    return [
        entry.name
        for entry in registered("batching")
        if entry.cls.holds_batch == ("held-batch" in mix)
        and entry.cls.reserves_output == ("reservation" in mix)
    ]


@st.composite
def _swapping(draw: st.DrawFn, mix: frozenset[str]) -> dict[str, Any]:
    if not mix & {"swap", "turns"}:
        return {"swap_blocks": 0}
    return {
        "swap_blocks": draw(st.sampled_from([5, 30, 500])),
        "swap_s_per_block": draw(st.sampled_from([0.0, 1e-4, 3e-3])),
        "swap_s_per_call": draw(st.sampled_from([0.0, 1e-3])),
        "swap_group_blocks": draw(st.integers(1, 4)),
        "swap_overlap": draw(st.booleans()),
        "swap_reuse": draw(st.booleans()),
        "swap_turns": "turns" in mix,
    }


@st.composite
def _choices(draw: st.DrawFn, mix: frozenset[str], count: int) -> dict[str, Any]:
    """What is made anew for every replica, by field of :class:`Policies`."""
    made: dict[str, Any] = {}
    if "speculation" in mix:
        speculate, most = draw(policies("speculation")), draw(st.integers(1, 6))
        rates = np.random.default_rng(draw(st.integers(0, 99))).random(count)
        foreseen = Acceptance(rates * draw(st.sampled_from([0.0, 0.5, 0.99])), 0)
        made["speculation"] = lambda: Speculation(speculate.make(), most, foreseen)
    if "urgency" in mix or draw(st.booleans()):
        made["preemption"] = draw(policies("preemption")).make
    if "urgency" in mix:
        made["priorities"] = draw(policies("priorities")).make
    return made


def _with(group: Group, chosen: dict[str, Any]) -> Group:
    def made() -> Policies:
        return replace(group.policies(), **{name: make() for name, make in chosen.items()})

    return replace(group, policies=made)

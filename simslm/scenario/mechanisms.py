"""Which mechanisms a scenario asks for, where, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Iterator

from simslm.mechanisms import MECHANISMS, conflicts
from simslm.policies.registry import lookup
from simslm.scenario.cost import Cost
from simslm.scenario.schema import GroupSpec, Replicas, Scenario
from simslm.transforms.registry import kept_tokens

Keys = tuple[str | int, ...]


def clashes(scenario: Scenario) -> Iterator[tuple[Keys, str]]:
    """What does not go together in a scenario: the place of one of the two, and why."""
    groups = scenario.deployment.groups
    for number, spec in enumerate(groups or (scenario.deployment,)):
        at: Keys = ("deployment", "groups", number) if groups else ("deployment",)
        asked = dict(_asked(spec, _cost(scenario, spec), at))
        if scenario.deployment.power is not None:
            asked["power"] = ("deployment", "power")
        for one, other, why in conflicts(asked):
            yield asked[one], f"{MECHANISMS[one]} does not go with {MECHANISMS[other]}: {why}; leave one out"
    yield from _windows(scenario)


def _asked(spec: Replicas, cost: Cost, at: Keys) -> Iterator[tuple[str, Keys]]:
    """The mechanisms that a group asks for, each with the key that does."""
    engine = spec.engine
    batching = lookup("batching", engine.batching.policy).cls
    own_cost = isinstance(spec, GroupSpec) and spec.cost is not None
    urgency = "priorities" if engine.priorities.policy != "fixed" else "preemption_policy"
    keys: dict[str, tuple[bool, Keys]] = {
        "roles": (isinstance(spec, GroupSpec) and spec.role != "both", (*at, "role")),
        "bounded-kv": (kept_tokens(cost.changes) is not None, (*at, "cost") if own_cost else ("cost",)),
        "speculation": (engine.speculative_config is not None, (*at, "engine", "speculative_config")),
        "urgency": (engine.urgent, (*at, "engine", urgency)),
        "swap": (engine.preemption == "swap", (*at, "engine", "preemption")),
        "turns": (engine.swapping.turns, (*at, "engine", "swapping", "turns")),
        "prefix-caching": (engine.prefix_caching, (*at, "engine", "prefix_caching")),
        "late-output": (
            not engine.disable_async_output_proc and not batching.holds_batch,
            (*at, "engine", "disable_async_output_proc"),
        ),
        "spare-block": (engine.spare_block, (*at, "engine", "spare_block")),
        "reservation": (batching.reserves_output, (*at, "engine", "batching")),
        "held-batch": (batching.holds_batch, (*at, "engine", "batching")),
        "scaling": (spec.scaling is not None, (*at, "scaling")),
        "migration": (spec.migration is not None, (*at, "migration")),
        "faults": (spec.faults is not None, (*at, "faults")),
    }
    yield from ((name, place) for name, (wanted, place) in keys.items() if wanted)
    assert {*keys, "power"} == MECHANISMS.keys()


def _cost(scenario: Scenario, spec: Replicas) -> Cost:
    return (spec.cost if isinstance(spec, GroupSpec) else None) or scenario.cost


def _windows(scenario: Scenario) -> Iterator[tuple[Keys, str]]:
    """A sequence keeps as many tokens where it decodes as where it was prefilled."""
    groups = scenario.deployment.groups or ()
    kept = {group.name: kept_tokens(_cost(scenario, group).changes) for group in groups}
    decode = [group.name for group in groups if group.role == "decode"]
    for number, group in enumerate(groups):
        if group.role != "prefill":
            continue
        target = group.decode_group or decode[0]
        if kept[target] != kept[group.name]:
            yield (
                ("deployment", "groups", number),
                f"groups {group.name!r} and {target!r}: KV blocks change hands; state the same lm_infinite",
            )

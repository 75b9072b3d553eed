"""``simslm check``: what a scenario means, before running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simslm.api import Prepared, load_scenario, prepare
from simslm.cli import screen
from simslm.cli.expectation import Expectation, expectations, facts, never_fit
from simslm.cli.simulate import overrides
from simslm.errors import ScenarioError
from simslm.traces.files import flags_of
from simslm.units import bytes_, number, seconds


def check(path: Path, sets: list[str], seed: int | None, as_json: bool) -> None:
    """Validates a scenario and prints memory, KV blocks, coverage and expected load.

    Raises:
        ScenarioError: it is wrong, or not one of its requests can be served.
    """
    prepared = prepare(load_scenario(path, overrides(sets, seed)))
    expected = expectations(prepared)
    if not expected:
        raise ScenarioError(
            f"none of the {len(prepared.requests)} requests can be served: each is longer than max_model_len, the "
            "KV cache or an unsplit prompt's token budget allows",
            where=prepared.scenario.where("workload") or prepared.scenario.name,
            remedy="shorten the requests, or choose a model or device with more room",
        )
    if as_json:
        screen.show_json(_summary(prepared, expected) | {"groups": [facts(one) for one in expected]})
    else:
        _show(path, prepared, expected)


def _summary(prepared: Prepared, expected: list[Expectation]) -> dict[str, Any]:
    """What concerns all groups: the first to be overloaded bounds them all. Rates count rejected requests too."""
    requests = prepared.requests
    offered = requests.arrival_rate_rps
    served = [max(one.requests - one.never_fit, 1) for one in expected]
    capacity = min(
        one.capacity_rps * len(requests) / count for one, count in zip(expected, served, strict=True)
    )
    return {
        "name": prepared.scenario.name,
        "device": prepared.device.name,
        "requests": len(requests),
        "dropped": dict(requests.dropped),
        "never_fit": never_fit(prepared),
        "offered_rps": offered,
        "estimated_capacity_rps": capacity,
        "expected_load": None if offered is None else offered / capacity,
    }


def _show(path: Path, prepared: Prepared, expected: list[Expectation]) -> None:
    requests, summary = prepared.requests, _summary(prepared, expected)
    print(f"{path} is a valid scenario.")
    print()
    lines = [("requests", f"{len(requests):,}, {requests.source}")]
    lines += [("dropped", f"{count:,} rows: {reason}") for reason, count in requests.dropped.items()]
    lines += [("note", text) for text in requests.notes]
    lines += _before_the_groups(prepared)
    if summary["never_fit"]:
        lines += [("never fit", f"{summary['never_fit']:,} requests are too long and will be rejected")]
    about = "at most" if max(prepared.tenants.values()) > 1 else "about"
    capacity = number(summary["estimated_capacity_rps"])
    lines += [
        (
            "throughput limit",
            f"{about} {capacity} requests/s with every slot busy, by hand and without regard to latency; `simslm plan` "
            "and `simslm search` simulate the capacity within an SLO",
        ),
        ("expected load", _load(summary["offered_rps"], summary["expected_load"])),
    ]
    screen.show_facts(lines)
    for one in expected:
        print()
        if len(prepared.groups) > 1:
            assumed = ", if groups take them in proportion to their capacity" if one.assumed else ""
            print(f"{one.group.name}: {one.requests:,} requests{assumed}")
        _show_group(prepared, one)


def _before_the_groups(prepared: Prepared) -> list[tuple[str, str]]:
    """What stands before the groups of replicas, where the scenario states it."""
    asked = prepared.scenario.deployment
    lines = []
    if asked.gateway is not None:
        lines.append(("gateway", f"{asked.gateway.policy}; what it answers is not taken off the load below"))
    if asked.group_router is not None:
        lines.append(("groups", f"chosen by {asked.group_router.policy}"))
    return lines


def _show_group(prepared: Prepared, one: Expectation) -> None:
    group, memory = one.group, one.group.memory
    model, values = group.architecture, facts(one)
    screen.show_facts(
        [
            (
                "model",
                f"{model.name}, {model.parameters() / 1e9:.3f} B parameters, {prepared.scenario.dtype}",
            ),
            ("device", f"{prepared.device.name}, {_replicas(one)}"),
            (
                "weights",
                f"{bytes_(memory.weights)}, and {bytes_(memory.activations)} of activations at the peak"
                + (
                    f"; {bytes_(memory.windows)} set aside for windows of attention" if memory.windows else ""
                ),
            ),
            (
                "KV cache",
                f"{memory.num_gpu_blocks:,} blocks of {bytes_(memory.block)} = {values['kv_tokens']:,} tokens",
            ),
            ("lengths", f"mean {number(one.prompt)} prompt and {number(one.output)} output tokens"),
            ("largest batch", f"{one.batch:,} sequences, {seconds(one.decode_s)} per iteration"),
            ("costs", _source(one)),
            ("energy", values["energy"]),
        ]
    )
    for flag in flags_of(group.cost.provenance):
        screen.show_text("  warning:", flag)
    if group.cost.source != "roofline":
        print()
        print("inside the measured domain:")
        answers = {True: "yes", False: "no: extrapolated with the roofline"}
        screen.show_facts([(name, answers[inside]) for name, inside in one.in_domain.items()])


def _replicas(one: Expectation) -> str:
    count, memory = len(one.group.devices), bytes_(one.group.memory.share)
    return f"1 replica with {memory}" if count == 1 else f"{count} replicas with {memory} each"


def _load(offered_rps: float | None, load: float | None) -> str:
    if offered_rps is None or load is None:
        return "requests do not arrive at a rate"
    verdict = "more than it can serve" if load > 1 else "within the throughput limit"
    return f"{load:.0%} ({number(offered_rps)} requests/s offered): {verdict}"


def _source(one: Expectation) -> str:
    cost = one.group.cost
    return "roofline, not measured" if cost.source == "roofline" else f"{cost.source} on {cost.engine}"

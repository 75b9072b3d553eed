"""``simslm roofline``: the operators of a scenario's model on its device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simslm.api import load_scenario, prepare
from simslm.cli import screen
from simslm.cli.simulate import overrides
from simslm.cost.operators import Attention
from simslm.preparation.groups import PreparedGroup
from simslm.preparation.operators import DeviceRoofline, Phase, device_roofline
from simslm.units import bytes_, flops, number, seconds

COLUMNS = ("operator", "calls", "FLOP", "bytes", "FLOP/byte", "bound", "a call", "all", "share")


def roofline(
    path: Path,
    batch: int | None,
    context: int | None,
    prompt: int | None,
    attention: Attention,
    sets: list[str],
    seed: int | None,
    as_json: bool,
) -> None:
    """Prints the operators of each group, or all of it as JSON."""
    prepared = prepare(load_scenario(path, overrides(sets, seed)))
    found = [
        (
            group,
            device_roofline(
                prepared, group, batch=batch, context=context, prompt=prompt, attention=attention
            ),
        )
        for group in prepared.groups
    ]
    if as_json:
        screen.show_json([_facts(group, each) | {"device": prepared.device.name} for group, each in found])
        return
    for group, each in found:
        _show(group, each, prepared.device.name, prepared.scenario.dtype)


def _facts(group: PreparedGroup, found: DeviceRoofline) -> dict[str, Any]:
    return {"name": group.name, "model": group.architecture.name, **found.facts()}


def _show(group: PreparedGroup, found: DeviceRoofline, device: str, dtype: str) -> None:
    reached = found.efficiency
    changes = ", ".join(each.words() for each in group.transforms)
    screen.show_facts(
        [
            ("model", f"{group.architecture.name}, {dtype}" + (f"; {changes}" if changes else "")),
            (
                "device",
                f"{device}: {flops(found.flops_per_s)}/s and {bytes_(found.bytes_per_s)}/s reached "
                f"({reached.compute:.0%} and {reached.bandwidth:.0%} of its peaks)",
            ),
            ("ridge", f"{number(found.ridge)} FLOP/byte: memory bounds below it, compute above"),
        ]
    )
    for phase in found.phases:
        print()
        print(_title(phase))
        screen.show_table(COLUMNS, [_row(phase, i) for i in range(len(phase.operators))], left=(0, 5))
    print()


def _title(phase: Phase) -> str:
    tokens = number(phase.tokens)
    what = f"1 prompt of {tokens} tokens"
    if phase.name == "decode":
        what = f"{phase.seqs} sequence{'s' * (phase.seqs > 1)} with {tokens} tokens each in the cache"
    return f"{phase.name}: {what}, {seconds(phase.seconds)} on the device"


def _row(phase: Phase, i: int) -> tuple[Any, ...]:
    each = phase.operators[i]
    whole = each.calls * each.seconds
    return (
        each.name,
        each.calls,
        flops(each.flops),
        bytes_(each.bytes),
        number(each.intensity),
        each.bound,
        seconds(each.seconds),
        seconds(whole),
        f"{whole / phase.seconds:.1%}",
    )

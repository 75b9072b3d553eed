"""``simslm plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simslm.cli import screen
from simslm.cli.simulation import overrides
from simslm.units import number, seconds


def plan(
    path: Path,
    rate: float,
    devices: list[str],
    traces: Path,
    sets: list[str],
    seed: int | None,
    as_json: bool,
) -> None:
    """Plans and prints what each kind of device comes to.

    Raises:
        InfeasibleError: no kind of device serves the rate within the SLO.
    """
    from simslm.api import load_scenario
    from simslm.cost.load import flagged
    from simslm.search.fleet import Planner, infeasible, kinds

    scenario = load_scenario(path, overrides(sets, seed))
    screen.warn(flagged(scenario))
    with screen.progress("planning") as update:
        planner = Planner(
            scenario,
            rate,
            progress=update,
            again=(str(path), *(word for text in overrides(sets, seed) for word in ("--set", text))),
        )
        found = planner.plan(kinds(scenario, devices, traces))
    if as_json:
        screen.show_json(found)
    elif found["recommended"] is not None:
        _show(found)
    if found["recommended"] is None:
        raise infeasible(found)


def _show(found: dict[str, Any]) -> None:
    able = [option for option in found["options"] if option["feasible"]]
    best = able[0]
    print(
        f"{number(found['rate_rps'])} requests/s: {best['devices']} × {best['device']}, {_setup(best)}; "
        f"{number(100 * best['attainment'])} % of requests meet the SLO "
        f"({number(100 * found['slo']['attainment'])} % asked)"
    )
    print()
    columns = (
        "device",
        "devices",
        "each serves",
        "TTFT p99",
        "TPOT p99",
        "headroom",
        "$/h",
        "$/M output tokens",
    )
    rows = [
        (
            option["device"],
            str(option["devices"]),
            f"{number(option['capacity_rps']['value'])}/s",
            seconds(option["ttft_p99_s"]),
            seconds(option["tpot_p99_s"]),
            _headroom(option["headroom"]),
            number(option["usd_per_hour"]),
            number(option["usd_per_million_output_tokens"]),
            number(option["j_per_output_token"]),
            _source(option),
            _setup(option),
        )
        for option in able
    ]
    screen.show_table((*columns, "J/output token", "from", "set up"), rows, left=(0, 9, 10))
    print()
    ranked = (
        "dollars per hour"
        if found["ranked_by"] == "usd_per_hour"
        else "number of devices (a price is missing)"
    )
    print(f"by {ranked}; headroom: how much more than that rate so many devices serve, as simulated")
    for option in able:
        assumed = option["assumptions"] or "no price is known"
        inside = number(100 * option["in_domain_time"])
        measured = (
            ""
            if option["source"] == "roofline"
            else f"; {inside} % of busy time inside what its trace covers"
        )
        print(f"{option['device']}: {assumed}{measured}")
    for option in found["options"]:
        if not option["feasible"]:
            screen.note(f"{option['device']}: does not serve it: {option['reason']}")
    print()
    print(f"simulate it: {best['command']}")
    print("serve it:")
    print(best["vllm"])


def _setup(option: dict[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in option["setup"].items())


def _headroom(headroom: dict[str, Any]) -> str:
    value, missed = headroom["value"], headroom["missed"]
    if missed is None:
        return f"over {number(100 * value)} %"
    return f"{number(100 * value)} %" if value else f"under {number(100 * missed)} %"


def _source(option: dict[str, Any]) -> str:
    return (
        "roofline, not measured"
        if option["source"] == "roofline"
        else f"{option['source']}, {option['engine']}"
    )

"""``simslm plan``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simslm.cli import screen
from simslm.cli.simulate import overrides
from simslm.units import number, seconds


def plan(
    path: Path,
    rates: list[float],
    devices: list[str],
    traces: Path,
    sets: list[str],
    seed: int | None,
    as_json: bool,
) -> None:
    """Plans and prints what each kind of device comes to, at each rate.

    Raises:
        InfeasibleError: no kind of device serves one of the rates within the SLO.
    """
    from simslm.api import load_scenario
    from simslm.cost.load import flagged
    from simslm.search.plan import Planner, infeasible, kinds

    scenario = load_scenario(path, overrides(sets, seed))
    screen.warn(flagged(scenario))
    with screen.progress("planning") as update:
        planner = Planner(
            scenario,
            progress=update,
            again=(str(path), *(word for text in overrides(sets, seed) for word in ("--set", text))),
        )
        plans = planner.plans(kinds(scenario, devices, traces), list(dict.fromkeys(rates)))
    if as_json:
        screen.show_json(
            plans[0] if len(plans) == 1 else {"schema_version": 1, "name": plans[0]["name"], "plans": plans}
        )
    else:
        _show([found for found in plans if found["recommended"] is not None])
    without = [found for found in plans if found["recommended"] is None]
    if without:
        raise infeasible(without)


def _show(plans: Sequence[dict[str, Any]]) -> None:
    if not plans:
        return
    for found in plans:
        print(_answer(found))
    print()
    _show_table(plans)
    print()
    _show_rules(plans)
    for found in plans:
        for option in found["options"]:
            if not option["feasible"]:
                screen.note(
                    f"{option['device']} does not serve {number(found['rate_rps'])} requests/s: {option['reason']}"
                )
    for found in plans:
        best = found["options"][0]
        print()
        of = f" the {number(found['rate_rps'])} requests/s" if len(plans) > 1 else " it"
        print(f"simulate{of}: {best['command']}")
        print(f"serve{of}:")
        print(best["vllm"])


def _answer(found: dict[str, Any]) -> str:
    """``20 requests/s: choose 2 × l4, max_num_seqs 64; 97.3 % of requests meet the SLO (90 % asked)``."""
    best = found["options"][0]
    lost = sum(best["lost"].values())
    turned = f"; {number(100 * lost)} % are rejected or fail" if lost else ""
    return (
        f"{number(found['rate_rps'])} requests/s: choose {best['devices']} × {best['device']}, {_setup(best)}; "
        f"{number(100 * best['attainment'])} % of requests meet the SLO "
        f"({number(100 * found['slo']['attainment'])} % asked){turned}"
    )


def _show_table(plans: Sequence[dict[str, Any]]) -> None:
    several = len(plans) > 1
    columns = (
        *(("requests/s",) if several else ()),
        "device",
        "devices",
        "each serves",
        "TTFT p99",
        "TPOT p99",
        "headroom",
        "$/h",
        "$/M output tokens",
        "J/output token",
        "costs from",
        "set up",
    )
    rows = [
        (
            *((number(found["rate_rps"]),) if several else ()),
            option["device"],
            str(option["devices"]),
            _capacity(option["capacity_rps"]),
            _latency(option, "ttft_p99_s"),
            _latency(option, "tpot_p99_s"),
            _headroom(option["headroom"]),
            number(option["usd_per_hour"]),
            number(option["usd_per_million_output_tokens"]),
            number(option["j_per_output_token"]),
            _source(option),
            _setup(option),
        )
        for found in plans
        for option in found["options"]
        if option["feasible"]
    ]
    device = int(several)
    screen.show_table(columns, rows, left=(device, len(columns) - 2, len(columns) - 1))


def _show_rules(plans: Sequence[dict[str, Any]]) -> None:
    """What the columns mean, and what each device's figures rest on."""
    ranked = {found["ranked_by"] for found in plans}
    order = "dollars per hour" if ranked == {"usd_per_hour"} else "number of devices (a price is missing)"
    print(f"order:       by {order}")
    print(
        "each serves: the highest rate at which one device meets the SLO, as search.capacity finds it: the mean over "
        f"{plans[0]['options'][0]['capacity_rps']['seeds']} seeds and its 95 % interval; a larger "
        "workload.num_requests narrows it"
    )
    print("headroom:    how much more than the rate so many devices serve within the SLO")
    known = {}
    for found in plans:
        for option in found["options"]:
            if option["feasible"]:
                known.setdefault(option["device"], []).append(option)
    for device, options in known.items():
        assumed = options[0]["assumptions"] or "no price is known"
        inside = min(option["in_domain_time"] for option in options)
        measured = (
            ""
            if options[0]["source"] == "roofline"
            else f"; {number(100 * inside)} % of busy time inside what its trace covers"
        )
        print(f"{device}: {assumed}{measured}")


def _setup(option: dict[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in option["setup"].items())


def _capacity(rate: dict[str, Any]) -> str:
    low, high = rate["interval"]
    around = f" ± {number((high - low) / 2)}" if high > low else ""
    return f"{number(rate['value'])}{around}/s"


def _latency(option: dict[str, Any], name: str) -> str:
    """A latency of all requests that arrive; ``none`` where too many of them are missed."""
    if option[name] is None and any(option["lost"].values()):
        return "none"
    return seconds(option[name])


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

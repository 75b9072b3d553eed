"""The answer of a run in one sentence and a few figures: SLO met or not, throughput, latency, energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.metrics.definitions import BY_KEY
from simslm.report.facts import offered_of
from simslm.report.objective import class_objectives, slo_state, stated_bounds, target, within
from simslm.report.tables import RunTables, dig, figure_of
from simslm.report.wording import attained, count, share
from simslm.units import number, seconds


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        state: ``met | missed | unstated | empty``.
        word: what the page prints largest.
        sentence: the whole answer.
    """

    state: str
    word: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure: a name, the figure with its unit, and what stands below it."""

    name: str
    figure: str
    unit: str
    note: str


@dataclass(frozen=True, slots=True)
class SloRow:
    """One stated bound, how many arrived requests kept it, and whether that is enough."""

    name: str
    bound: str
    kept: str
    enough: bool | None


def verdict(run: RunTables) -> Verdict:
    """The answer of a run; the SLO is met when the attainment reaches the share the scenario asks for."""
    finished = figure_of(run.summary, "requests.finished") or 0
    if not finished:
        return Verdict("empty", "Nothing finished", f"No request finished: {_counts(run.summary)}.")
    state = slo_state(run)
    rates = f"at {_performance(run.summary)}{_energy(run.summary)}."
    rest = " ".join(text for text in (rates, _lost(run.summary), counted(run), offered(run)) if text)
    if state == "unstated":
        return Verdict(state, "No SLO stated", f"{_counts(run.summary)}, {rest}")
    return Verdict(state, f"SLO {state}", f"{_kept(run)}, {rest}")


def _kept(run: RunTables) -> str:
    """How many requests kept the bounds, and how many were to; of each class that has bounds of its own."""
    if classes := class_objectives(run):
        return ", ".join(
            f"{attained(reached)} of {name} kept its bounds ({share(asked)} asked)"
            for name, reached, asked in classes
        )
    bounds = " and ".join(
        f"{BY_KEY[key].name} ≤ {seconds(bound)}" for key, bound in stated_bounds(run).items()
    )
    counts = figure_of(run.summary, "counted.requests")
    of = count(figure_of(run.summary, "requests.arrived") if counts is None else counts)
    reached, asked = figure_of(run.summary, "slo.attainment") or 0.0, target(run) or 1.0
    return f"{attained(reached)} of {of} requests kept {bounds} ({share(asked)} asked)"


def counted(run: RunTables) -> str:
    """What the figures leave out, and by which rule; empty where they leave out nothing."""
    found = dig(run.summary, "counted")
    if found is None:
        return ""
    auto = dig(run.scenario, "metrics.steady") == "auto"
    if auto and not found["steady"]:
        return (
            "MSER-5 found no steady state (its cut would be beyond half of the run, or the run is too short): all "
            "requests count."
        )
    before, after = found["warmup_requests"], found["cooldown_requests"]
    parts = [f"the first {count(before)}"] if before else []
    parts += [f"the last {count(after)}"] if after else []
    if not parts:
        return "MSER-5 left nothing out." if auto else ""
    rule = ", by MSER-5" if auto else ""
    arrived = count(figure_of(run.summary, "requests.arrived"))
    return (
        f"Left out: {' and '.join(parts)} of {arrived} requests{rule}; rates are of the time from "
        f"{seconds(found['begin_s'])} to {seconds(found['end_s'])}."
    )


def offered(run: RunTables) -> str:
    """The rate at which requests came, where it is noticeably another than the scenario states."""
    found = offered_of(run)
    if found is None or not found.differs:
        return ""
    return (
        f"{number(found.rps)} requests/s were offered, not the {number(found.asked_rps)} asked for: the mean rate of "
        f"{count(found.arrived)} random arrivals is left to chance."
    )


def _counts(summary: Mapping[str, Any]) -> str:
    parts = [f"{count(figure_of(summary, 'requests.arrived'))} requests arrived"]
    for name in ("finished", "rejected", "failed", "unfinished"):
        number_of = figure_of(summary, f"requests.{name}") or 0
        if number_of or name == "finished":
            parts.append(f"{count(number_of)} {name}")
    return ", ".join(parts)


def _lost(summary: Mapping[str, Any]) -> str:
    """The requests that count as misses because they never finished, and which part of those that arrived they are."""
    arrived = figure_of(summary, "requests.arrived") or 1
    numbers = {name: figure_of(summary, f"requests.{name}") for name in ("rejected", "failed", "unfinished")}
    parts = [
        f"{count(number_of)} {name} ({share(number_of / arrived)})"
        for name, number_of in numbers.items()
        if number_of
    ]
    if not parts:
        return ""
    return f"Counted as misses: {', '.join(parts)}; the latencies are of the requests that got so far."


def _performance(summary: Mapping[str, Any]) -> str:
    rate = f"{number(figure_of(summary, 'throughput.output_tokens_per_s'))} output tokens/s"
    tails = [
        f"{BY_KEY[key].name} p99 {seconds(figure_of(summary, f'{key}.p99'))}"
        for key in ("ttft_s", "tpot_s")
        if figure_of(summary, f"{key}.p99") is not None
    ]
    return ", ".join([rate, *tails])


def _energy(summary: Mapping[str, Any]) -> str:
    joules = figure_of(summary, "energy.j_per_output_token")
    return " and unknown energy" if joules is None else f" and {number(joules)} J per output token"


def populations(run: RunTables) -> str:
    """How many requests each latency is taken over; empty where it is all that count."""
    counts = figure_of(run.summary, "counted.requests")
    of = figure_of(run.summary, "requests.arrived") if counts is None else counts
    got = {key: figure_of(run.summary, f"population.{key}") for key in BY_KEY if key != "itl_s"}
    if of is None or all(number_of in (of, None) for key, number_of in got.items() if key != "tpot_s"):
        return ""
    parts = [f"{BY_KEY[key].name} {count(number_of)}" for key, number_of in got.items()]
    return f"Taken over those of {count(of)} requests that got so far: {', '.join(parts)}."


def apart(run: RunTables) -> bool:
    """Whether prefill and decode run on different replicas."""
    groups = dig(run.scenario, "deployment.groups", [])
    return any(group.get("role", "both") != "both" for group in groups)


def slo_rows(run: RunTables) -> list[SloRow]:
    """The stated bounds one by one, then all together against the share asked for."""
    counts, asked = run.requests["counted"], target(run)
    if asked is None or not counts.any():
        return []
    rows = []
    for key, bound in stated_bounds(run).items():
        kept = float(within(run, key, bound)[counts].mean())
        rows.append(SloRow(BY_KEY[key].name, f"≤ {seconds(bound)}", attained(kept), kept >= asked))
    reached = figure_of(run.summary, "slo.attainment")
    if reached is not None and rows:
        rows.append(SloRow("All together", f"{share(asked)} asked", attained(reached), reached >= asked))
    return rows


def tiles(run: RunTables) -> list[Tile]:
    """The figures a reader looks for first."""
    summary = run.summary
    found = [
        _attainment_tile(run),
        _throughput_tile(summary),
        *_latency_tiles(summary),
        _energy_tile(summary),
        _cost_tile(summary),
    ]
    return [tile for tile in found if tile is not None]


def _attainment_tile(run: RunTables) -> Tile | None:
    reached, asked = figure_of(run.summary, "slo.attainment"), target(run)
    if reached is None or asked is None:
        return None
    figure, unit = attained(reached).split(" ")
    goodput = number(figure_of(run.summary, "slo.goodput_rps"))
    return Tile("SLO attainment", figure, unit, f"{share(asked)} asked · goodput {goodput} requests/s")


def _throughput_tile(summary: Mapping[str, Any]) -> Tile:
    rate = number(figure_of(summary, "throughput.output_tokens_per_s"))
    note = f"{number(figure_of(summary, 'throughput.requests_per_s'))} requests/s"
    return Tile("Output throughput", rate, "tokens/s", note)


def _latency_tiles(summary: Mapping[str, Any]) -> list[Tile]:
    found = []
    for key in ("ttft_s", "tpot_s"):
        figure, _, unit = seconds(figure_of(summary, f"{key}.p99")).rpartition(" ")
        note = f"median {seconds(figure_of(summary, f'{key}.p50'))}{_over(summary, key)}"
        found.append(Tile(f"{BY_KEY[key].name} p99", figure, unit, note))
    return found


def _over(summary: Mapping[str, Any], key: str) -> str:
    """How many requests a latency is over, where some were lost."""
    lost = sum(figure_of(summary, f"requests.{name}") or 0 for name in ("rejected", "failed", "unfinished"))
    got = figure_of(summary, f"population.{key}")
    return f" · over {count(got)} requests" if lost and got is not None else ""


def _energy_tile(summary: Mapping[str, Any]) -> Tile:
    joules = figure_of(summary, "energy.j_per_output_token")
    if joules is None:
        return Tile(
            "Energy per output token",
            "unknown",
            "",
            str(dig(summary, "energy.note", "the trace has no power")),
        )
    watts = figure_of(summary, "energy.mean_power_w")
    return Tile("Energy per output token", number(joules), "J", f"mean power {number(watts)} W")


def _cost_tile(summary: Mapping[str, Any]) -> Tile | None:
    """The tile of cost, where the scenario states prices."""
    usd = figure_of(summary, "economics.usd_per_million_output_tokens")
    if usd is None:
        return None
    return Tile(
        "Cost", f"${number(usd)}", "per million output tokens", str(dig(summary, "economics.assumptions", ""))
    )

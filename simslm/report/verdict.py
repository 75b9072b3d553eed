"""The answer of a run in one sentence and a few figures: SLO met or not, throughput, latency, energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simslm.metrics.definitions import BY_KEY
from simslm.report.objective import class_objectives, stated_bounds, within
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
    reached, asked = figure_of(run.summary, "slo.attainment"), target(run)
    rates = f"{_performance(run.summary)}{_energy(run.summary)}."
    if classes := class_objectives(run):
        return _by_class(classes, f"at {rates}{_lost(run.summary)}")
    if reached is None or asked is None or not stated_bounds(run):
        return Verdict("unstated", "No SLO stated", f"{_counts(run.summary)}, at {rates}")
    state, word = ("met", "SLO met") if reached >= asked else ("missed", "SLO missed")
    bounds = " and ".join(
        f"{BY_KEY[key].name} ≤ {seconds(bound)}" for key, bound in stated_bounds(run).items()
    )
    kept = (
        f"{attained(reached)} of {count(figure_of(run.summary, 'requests.arrived'))} requests kept {bounds}"
    )
    return Verdict(state, word, f"{kept} ({share(asked)} asked), at {rates}{_lost(run.summary)}")


def _by_class(classes: list[tuple[str, float, float]], rest: str) -> Verdict:
    """The SLO is met when each class reaches the share asked of it."""
    missed = [name for name, reached, asked in classes if reached < asked]
    state, word = ("missed", "SLO missed") if missed else ("met", "SLO met")
    kept = ", ".join(
        f"{attained(reached)} of {name} kept its bounds ({share(asked)} asked)"
        for name, reached, asked in classes
    )
    return Verdict(state, word, f"{kept}, {rest}")


def target(run: RunTables) -> float | None:
    """The share of arrived requests that must meet the SLO; all of them when only bounds are stated."""
    return figure_of(run.scenario, "slo.attainment") or (1.0 if stated_bounds(run) else None)


def _counts(summary: Mapping[str, Any]) -> str:
    parts = [f"{count(figure_of(summary, 'requests.arrived'))} requests arrived"]
    for name in ("finished", "rejected", "failed", "unfinished"):
        number_of = figure_of(summary, f"requests.{name}") or 0
        if number_of or name == "finished":
            parts.append(f"{count(number_of)} {name}")
    return ", ".join(parts)


def _lost(summary: Mapping[str, Any]) -> str:
    """The requests that count as misses because they never finished."""
    numbers = {name: figure_of(summary, f"requests.{name}") for name in ("rejected", "failed", "unfinished")}
    parts = [f"{count(number_of)} {name}" for name, number_of in numbers.items() if number_of]
    return f" Counted as misses: {', '.join(parts)}." if parts else ""


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


def slo_rows(run: RunTables) -> list[SloRow]:
    """The stated bounds one by one, then all together against the share asked for."""
    arrived, asked = len(run.requests["finished"]), target(run)
    if asked is None or not arrived:
        return []
    rows = []
    for key, bound in stated_bounds(run).items():
        kept = float(within(run, key, bound).mean())
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
        figure, _, unit = seconds(figure_of(summary, f"{key}.p99")).partition(" ")
        note = f"median {seconds(figure_of(summary, f'{key}.p50'))}"
        found.append(Tile(f"{BY_KEY[key].name} p99", figure, unit, note))
    return found


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
    """Where the scenario says what things cost."""
    usd = figure_of(summary, "economics.usd_per_million_output_tokens")
    if usd is None:
        return None
    return Tile(
        "Cost", f"${number(usd)}", "per million output tokens", str(dig(summary, "economics.assumptions", ""))
    )

"""``simslm simulate``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.failure import InterruptError
from simslm.cli.interruption import held_back
from simslm.units import number, seconds

if TYPE_CHECKING:
    from simslm.metrics.metric import Metric
    from simslm.report.tables import RunTables
    from simslm.scenario.schema import Scenario
    from simslm.sim.world import Progress, Underway

LONGEST_NAME = 120
"""Bytes of a scenario's name that its directory's name keeps; file systems take 255."""

EVERY_S = 1.0
"""Between two looks at the goodput so far."""


def simulate(
    path: Path,
    output: Path | None,
    sets: list[str],
    seed: int | None,
    as_json: bool,
    with_intervals: bool,
    with_timeline: bool,
) -> None:
    """Runs, writes the run's directory with its report, and prints the answer."""
    from simslm import api
    from simslm.metrics.files import RunWriter
    from simslm.report import write_report
    from simslm.timeline import write_timeline

    scenario = api.load_scenario(path, overrides(sets, seed))
    directory = free_place(output or Path("runs") / directory_name(scenario.name))
    with held_back() as interruption, RunWriter(directory) as writer:
        with screen.progress("simulating") as update:
            result = api.simulate(
                scenario,
                progress=_feed(update, scenario),
                command=command(path, sets, seed),
                sink=writer,
                on_start=interruption.stopping,
                with_intervals=with_intervals,
            )
        interruption.writing = True
        with screen.working("writing the files and the page"):
            writer.finish(result)
            page = write_report([directory])
            timeline = write_timeline(directory) if with_timeline else None
    if as_json:
        screen.show_json(result.summary)
    else:
        _show(directory, result.summary, page)
        if timeline is not None:
            print(f"timeline: {timeline}")
    if result.log.interrupted:
        left = result.summary["requests"]["unfinished"]
        raise InterruptError(f"interrupted: {directory} holds what had happened by then, {left:,} unfinished")


def overrides(sets: list[str], seed: int | None) -> list[str]:
    return sets if seed is None else [*sets, f"seed={seed}"]


def command(path: Path, sets: list[str], seed: int | None) -> str:
    """The command line that runs the same again."""
    words = ["simslm", "simulate", str(path)]
    for text in sets:
        words += ["--set", text]
    if seed is not None:
        words += ["--seed", str(seed)]
    return shlex.join(words).encode(errors="backslashreplace").decode()


def directory_name(name: str) -> str:
    """The scenario's name as a directory name."""
    plain = re.sub(r"[^\w.-]+", "-", name).encode()[:LONGEST_NAME].decode(errors="ignore")
    return plain.strip(".-") or "scenario"


def _feed(update: screen.Update | None, scenario: Scenario) -> Progress | None:
    """What moves the bar, if there is one: requests done, simulated time, goodput so far, or which repetition runs."""
    if update is None:
        return None
    from simslm.metrics.underway import goodput_rps

    bounds = scenario.slo.bounds() if scenario.slo and scenario.workload.classes is None else None
    told = -EVERY_S
    goodput = ""

    def tell(underway: Underway) -> None:
        nonlocal told, goodput
        if underway.repeat:
            update(underway.done, underway.total, f"requests, repeated for the intervals ({underway.repeat})")
            return
        if bounds is not None and monotonic() - told > EVERY_S:
            told, rate = monotonic(), goodput_rps(underway, bounds)
            goodput = f", goodput {number(rate)}/s"
        update(underway.done, underway.total, f"requests, {seconds(underway.time_s)} simulated{goodput}")

    return tell


def _show(directory: Path, summary: dict[str, Any], page: Path) -> None:
    from simslm.metrics.definitions import APART, LATENCIES
    from simslm.metrics.metric import STATISTICS
    from simslm.report.bound import bound
    from simslm.report.certainty import certainty
    from simslm.report.division import divisions
    from simslm.report.doubt import doubted
    from simslm.report.facts import facts
    from simslm.report.fleet import control_plane
    from simslm.report.moves import between_phases
    from simslm.report.tables import read_drawn
    from simslm.report.verdict import apart, populations, verdict

    run = read_drawn(directory)
    answer = doubted(run, verdict(run))
    screen.show_text(f"{answer.word}:", answer.sentence)
    for flag in summary["cost"].get("flags", ()):
        screen.show_text("warning:", flag)
    print()
    rows = [
        [metric.name, *(seconds(summary[metric.key][name]) for name in STATISTICS)] for metric in LATENCIES
    ]
    screen.show_defined(("", *STATISTICS), rows, [metric.stated for metric in LATENCIES])
    if said := populations(run):
        screen.show_text(" ", said)
    if apart(run):
        screen.show_text(" ", APART)
    print()
    if figures := [*_offered(run), *_figures(summary)]:
        screen.show_defined(("", ""), [each[:2] for each in figures], [each[2] for each in figures])
        print()
    for each in (*divisions(run), *control_plane(run), *between_phases(run)):
        print(each.title)
        screen.show_table(each.columns, each.rows)
        for sentence in each.sentences:
            screen.show_text(" ", sentence)
        for name, meaning in each.definitions:
            screen.show_text(f"  {name}:", meaning)
        print()
    why = bound(facts(run))
    screen.show_text("why: ", " ".join(why.sentences))
    if run.excerpt is not None:
        screen.show_text("     ", f"{run.excerpt.words} The reason is theirs.")
    if why.knobs:
        screen.show_text("try: ", why.knobs[0])
    cost, inside = summary["cost"], summary["coverage"]["in_domain_time"]
    if cost["source"] == "roofline":
        print("from: roofline, not measured")
    else:
        print(
            f"from: {cost['source']} on {cost['engine']}; {number(100 * inside)} % of busy time inside what it covers"
        )
    for i, sure in enumerate(certainty(summary)):
        screen.show_text("     " if i else "sure:", sure)
    print(f"page: {page}")


def _offered(run: RunTables) -> list[tuple[str, str, str]]:
    """How fast requests came, where that does not depend on how they are served."""
    from simslm.report.facts import offered_of

    found = offered_of(run)
    if found is None:
        return []
    asked = f"; {number(found.asked_rps)} requests/s asked for" if found.asked_rps is not None else ""
    words = f"arrived requests − 1, over the time from the first arrival to the last{asked}"
    return [("Offered", f"{number(found.rps)} requests/s", words)]


def _figures(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures that are known beside the latencies: name, value and definition."""
    from simslm.metrics.definitions import ATTAINMENT, CARBON, COST, ENERGY, GOODPUT
    from simslm.report.wording import attained

    found: list[tuple[Metric, str]] = []
    slo, energy = summary["slo"], summary["energy"]
    if slo["attainment"] is not None:
        found.append((ATTAINMENT, attained(slo["attainment"])))
        found.append((GOODPUT, f"{number(slo['goodput_rps'])} requests/s"))
    if energy["total_j"] is not None:
        found.append((ENERGY, ENERGY.show(energy["total_j"])))
    economics = summary["economics"]
    usd, grams = (economics[f"{name}_per_million_output_tokens"] for name in ("usd", "g_co2"))
    if usd is not None:
        found.append((COST, f"${number(usd)} per million output tokens"))
    if grams is not None:
        found.append((CARBON, f"{number(grams)} g CO2 per million output tokens"))
    return [(metric.name, text, metric.stated) for metric, text in found]

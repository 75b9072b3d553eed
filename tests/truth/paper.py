# ruff: noqa: T201 (a program prints)
"""Reproduces the findings of the paper this project implements, and of its follow-up: theirs, ours, the difference.

    PYTHONPATH=tests python -m truth.paper RUNS.csv -o reports/paper

Simulates every point of ``scenarios/paper`` and, where the table of the follow-up's runs is there, each of its runs as
it was run on the shipped calibrated traces. Writes ``paper.md`` and ``paper.html``. Without the table what was measured
stays empty, and the page says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from truth import findings
from truth.findings import Evidence, Row, chosen
from truth.posed import Posed, posed

from simslm.errors import SimslmError
from simslm.fidelity.comparison import Comparison
from simslm.fidelity.recorded import read_sources, validate
from simslm.metrics.whole import write_whole
from simslm.report.curves import Series, against_figure, bars_figure, bars_legend, batch_figure, legend
from simslm.report.figures import Figure
from simslm.report.findings import FindingsView, Section, render
from simslm.report.page import Plot
from simslm.runs.derived import Curve, joules_per_output_token, knee
from simslm.runs.table import MeasuredRun, read_runs
from simslm.units import number

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios" / "paper"
TRACES = {model: ROOT / "traces" / "h100-64gb" / f"{model}-fp16" for model in findings.MEASURED_MODELS}
FAMILY = ("opt-125m", "opt-350m", "opt-1.3b", "opt-2.7b", "opt-6.7b", "llama-2-7b", "llama-2-13b")
REPLICATED = ("opt-1.3b", "opt-2.7b", "llama-2-7b")
HEAD = ("figure", "published", "measured", "simulated", "difference", "bound", "")
TITLE = "The paper, reproduced"

Value = Callable[[Curve, int], float]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="RUNS.csv of the follow-up's runs; may be missing")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the pages, without their suffix")
    parser.add_argument("--jobs", type=int, default=2, help="processes that simulate")
    options = parser.parse_args()
    print("simulating the points of scenarios/paper", file=sys.stderr)
    found = posed(sorted(SCENARIOS.glob("*.yaml")), options.jobs)
    recorded: tuple[Comparison, ...] = ()
    if options.table.is_file():
        print(f"simulating the runs of {options.table.name}", file=sys.stderr)
        recorded = as_they_were_run(read_runs(options.table), options.jobs)
    page = view(found, recorded)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".md", markdown(page)), (".html", render(page))):
        target = options.output.with_suffix(suffix)
        write_whole(target, lambda path, text=text: path.write_text(text, encoding="utf-8", newline="\n"))
        print(target)
    return 0


def as_they_were_run(runs: Sequence[MeasuredRun], jobs: int) -> tuple[Comparison, ...]:
    """Every run of the table at its highest clock, on the shipped traces.

    Raises:
        SimslmError: one of them cannot be simulated.
    """
    highest = max((run.sm_clock_mhz for run in runs if run.sm_clock_mhz is not None), default=None)
    mine = [run for run in runs if run.model in TRACES and run.sm_clock_mhz in (None, highest)]
    found = validate(mine, read_sources(list(TRACES.values())), jobs=jobs)
    if found.skipped:
        raise SimslmError(f"run {found.skipped[0].run!r} was not simulated: {found.skipped[0].reason}")
    return found.comparisons


# ---- the page -------------------------------------------------------------------------------------------------


def view(found: Sequence[Posed], recorded: Sequence[Comparison]) -> FindingsView:
    """Everything there is to say and to draw."""
    evidence = Evidence(recorded, [each for one in found for each in one.comparisons])
    sections = [
        _plateau(evidence, found),
        _latency(evidence),
        _energy(evidence),
        _gaps(evidence),
        _replicas(evidence),
        _family_gains(evidence, found),
        _advice(evidence),
    ]
    notes = [] if recorded else ["No table of measured runs was found: what was measured is left empty."]
    return FindingsView(
        title=TITLE,
        setup=("NVIDIA H100 64 GB", "vLLM 0.6.3", "fp16", "2,000 requests at once"),
        sentence=sentence([*findings.replicas(evidence), *findings.advice(evidence)]),
        sources=_sources(found),
        notes=notes,
        sections=sections,
    )


def sentence(rows: Sequence[Row]) -> str:
    """How many of the bounds hold, and which do not."""
    judged = [row for row in rows if row.inside is not None]
    outside = [row for row in judged if not row.inside]
    words = f"{len(judged) - len(outside)} of {len(judged)} figures with a bound lie inside it."
    if not outside:
        return words
    return f"{words} Outside: {'; '.join(f'{row.name} ({row.cells()[3]})' for row in outside)}."


def _sources(found: Sequence[Posed]) -> list[tuple[str, str]]:
    by_source: dict[str, dict[str, None]] = {}
    for each in found:
        models = by_source.setdefault(each.source, {})
        models |= dict.fromkeys(comparison.run.model for comparison in each.comparisons)
    return [(source, ", ".join(models)) for source, models in sorted(by_source.items())]


def _source_of(found: Sequence[Posed], model: str) -> str:
    return next(
        each.source for each in found if any(comparison.run.model == model for comparison in each.comparisons)
    )


def _table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """As cells; a figure without any value is no line."""
    return [row.cells() for row in rows if row.reference is not None or row.simulated is not None]


def _total(curve: Curve, batch: int) -> float:
    return curve[batch]["total_tokens_per_s"]


def _plateau(evidence: Evidence, found: Sequence[Posed]) -> Section:
    rows = _table(findings.plateau(evidence))
    rows += [_family_row(evidence, model, found) for model in FAMILY if model not in findings.MEASURED_MODELS]
    total = _curve_plot(
        evidence,
        "throughput",
        "Total tokens/s by batch limit",
        "total tokens/s",
        _total,
    )
    others = [model for model in FAMILY if _source_of(found, model) == "roofline"]
    family = _curve_plot(
        evidence,
        "family",
        "The others, on the roofline",
        "total tokens/s",
        _total,
        others,
    )
    return Section(
        "plateau",
        "1 Throughput has a knee, and its plateau lies inside one GPU's memory",
        "Fixed lengths: prompts of 242 tokens (Llama-2: 250), outputs of 260. Knee: the smallest batch limit with 0.9 "
        "of the best total tokens/s T(B). Where the KV cache is not full at the knee, more memory would not buy "
        "throughput. Hollow markers are measured. Models without a trace are simulated on the roofline, and nothing of "
        "them was measured.",
        HEAD,
        rows,
        [total, family],
    )


def _family_row(evidence: Evidence, model: str, found: Sequence[Posed]) -> tuple[str, ...]:
    """A model of which nothing was measured, in one line."""
    curve = findings.sweep(evidence, model).simulated
    batch = knee(curve)
    if batch is None:
        return (f"{model}: knee, max_num_seqs", "", "", "none", "", "", "")
    words = f"{model} ({_source_of(found, model)}): knee, max_num_seqs (KV cache used there)"
    return (words, "", "", f"{batch} ({100 * curve[batch]['kv_peak']:.0f} %)", "", "", "")


def _latency(evidence: Evidence) -> Section:
    itl = _curve_plot(
        evidence,
        "itl",
        "Mean ITL by batch limit",
        "mean ITL, ms",
        lambda curve, batch: 1e3 * curve[batch]["itl_mean_s"],
    )
    return Section(
        "latency",
        "2 Throughput is bought with latency",
        "The same runs: what eight times the batch brings in throughput, and costs in latency.",
        HEAD,
        _table(findings.latency(evidence)),
        [_frontier_plot(evidence), itl],
    )


def _energy(evidence: Evidence) -> Section:
    joules = _curve_plot(
        evidence,
        "joules",
        "J per output token by batch limit",
        "J per output token",
        lambda curve, batch: joules_per_output_token(curve[batch]) or float("nan"),
        logarithmic=True,
    )
    return Section(
        "energy",
        "3 Energy per token falls up to the knee, and is flat beyond it",
        "Median power of the active seconds over output tokens/s. The last line of each model is what the largest "
        "batch costs more than the knee.",
        HEAD,
        _table(findings.energy(evidence)),
        [joules],
    )


def _gaps(evidence: Evidence) -> Section:
    idle = _curve_plot(
        evidence,
        "idle",
        "SM idle by batch limit",
        "seconds without a kernel, %",
        lambda curve, batch: 100 - curve[batch].get("sm_busy_pct", float("nan")),
    )
    return Section(
        "gaps",
        "4 The GPU idles between iterations",
        "SM idle: what `nvidia-smi dmon` calls not busy, median of the active seconds, measured and simulated alike. "
        "Host gap: the share of the simulated run in which the engine prepares the next iteration and no kernel runs; "
        "no measurement has it.",
        HEAD,
        _table(findings.gaps(evidence)),
        [idle],
    )


def _replicas(evidence: Evidence) -> Section:
    return Section(
        "replicas",
        "5 Replicas win it back",
        "OPT-2.7B, ShareGPT conversations, prefill-first with 2,048 tokens an iteration, replicas under MPS; gains in "
        "output tokens/s. The best single replica is that of all batch limits and both schedulers that were run. Lines "
        "marked scenario are no run of the table, but `scenarios/paper/replicas-opt-2.7b.yaml`. The lengths of single "
        "requests were not published but reconstructed. Until November 2026 this page used Llama-2-7B's for both "
        "models, so that single replicas came out 9 % too fast and two under MPS 6 %; `reports/fidelity.md` has more.",
        HEAD,
        _table(findings.replicas(evidence)),
        [_bars(evidence)],
    )


def _family_gains(evidence: Evidence, found: Sequence[Posed]) -> Section:
    rows = _table(findings.family_gains(evidence, REPLICATED))
    cannot = [
        f"{each.path.stem}: {point}"
        for each in found
        for point, _ in each.infeasible
        if each.path.stem.startswith("replicas")
    ]
    words = (
        "From the scenarios, with lengths drawn from the distributions stated there, batch limits 96 to 512 (OPT-1.3B, "
        "on the roofline: to 768). Replicas that leave too little memory for KV blocks preempt, and lose."
    )
    if cannot:
        words += f" Points that do not fit the device's memory: {'; '.join(cannot)}."
    return Section("family", "Replicas of other models", words, HEAD, rows)


def _advice(evidence: Evidence) -> Section:
    return Section(
        "advice",
        "6 What the advisor would choose, and the memory it frees",
        "B_opt: the largest batch limit with T(B) / (B · T(1)) above 0.1 and a mean TPOT of at most 3 times that at "
        "batch 32. Freed: what the KV cache does not need at its peak there, as a share of the device's memory. No "
        "advice where batch 1 was not run at the table's highest clock. Where ours differs from theirs, the last line "
        "has the latency that decides.",
        HEAD,
        _table(findings.advice(evidence)),
    )


# ---- plots ----------------------------------------------------------------------------------------------------


def _curve_plot(
    evidence: Evidence,
    name: str,
    title: str,
    axis: str,
    value: Value,
    models: Sequence[str] = findings.MEASURED_MODELS,
    *,
    logarithmic: bool = False,
) -> Plot:
    series = _series(evidence, value, models)
    figure = batch_figure(axis, series, logarithmic=logarithmic)
    return _plot(name, title, figure, series)


def _frontier_plot(evidence: Evidence) -> Plot:
    series = [
        Series(each.name, each.batches, each.values, each.measured, other.values)
        for each, other in zip(
            _series(evidence, _total),
            _series(evidence, lambda curve, batch: 1e3 * curve[batch]["itl_mean_s"]),
            strict=True,
        )
    ]
    return _plot(
        "frontier",
        "Throughput against latency",
        against_figure("mean ITL, ms", "total tokens/s", series),
        series,
    )


def _series(
    evidence: Evidence, value: Value, models: Sequence[str] = findings.MEASURED_MODELS
) -> list[Series]:
    found = []
    for model in models:
        curve = findings.sweep(evidence, model)
        for each, measured in ((curve.simulated, False), (curve.measured, True)):
            if each:
                found.append(Series(model, list(each), [value(each, batch) for batch in each], measured))
    return found


def _plot(name: str, title: str, figure: Figure, series: Sequence[Series]) -> Plot:
    parts = []
    for each in series:
        who = "measured" if each.measured else "simulated"
        parts.append(f"{each.name} {who}, {number(min(each.values))} to {number(max(each.values))}")
    return Plot(f"paper-{name}", title, f"{title}: {'; '.join(parts)}.", figure, legend(series))


def _bars(evidence: Evidence) -> Plot:
    """Output tokens/s of one, two and four replicas; of one, at larger batch limits too."""
    what = {"model": "opt-2.7b", "workload": "sharegpt", "batching": "prefill-first"}
    sets: Mapping[str, Mapping[tuple[int, int], float]] = {
        "measured": _rates(chosen(evidence.recorded, **what), findings.measured),
        "as run": _rates(chosen(evidence.recorded, **what), findings.simulated),
        "scenario": _rates(chosen(evidence.posed, **what), findings.simulated),
    }
    known = {name: rates for name, rates in sets.items() if rates}
    least, most = findings.REPLICATED_BATCHES[0], findings.REPLICATED_BATCHES[-1]
    every = {place for rates in known.values() for place in rates if place[1] >= least}
    places = sorted(place for place in every if place[0] == 1 or place[1] <= most)
    labels = [f"{replicas} × {batch}" for replicas, batch in places]
    groups = {name: [rates.get(place) for place in places] for name, rates in known.items()}
    title = "Output tokens/s of one, two and four replicas of OPT-2.7B"
    words = f"{title}: {', '.join(labels)}, {' and '.join(groups)}."
    figure = bars_figure("output tokens/s", labels, groups)
    return Plot("paper-replicas", title, words, figure, bars_legend(groups))


def _rates(
    comparisons: Sequence[Comparison], who: Callable[[Comparison], Mapping[str, float]]
) -> dict[tuple[int, int], float]:
    """By replicas and batch limit; repeats are averaged."""
    rates: dict[tuple[int, int], list[float]] = {}
    for each in comparisons:
        place = (each.run.replicas, each.run.max_num_seqs)
        rates.setdefault(place, []).append(who(each)["output_tokens_per_s"])
    return {place: sum(values) / len(values) for place, values in rates.items()}


# ---- Markdown -------------------------------------------------------------------------------------------------


def markdown(page: FindingsView) -> str:
    """The same without plots."""
    parts = [
        f"# {page.title}\n",
        "Findings of [Towards Pareto Optimal Throughput in Small Language Model Serving]"
        "(https://arxiv.org/abs/2404.03353) (EuroMLSys 2024) and [Mind the Memory Gap]"
        "(https://arxiv.org/abs/2503.08311) (2025): published there, measured by their authors (from the runs they "
        "published), simulated here. Written by `make paper`, with plots beside it in `paper.html`. "
        f"Runs: {', '.join(page.setup)}.\n",
        f"{page.sentence}\n",
        *(f"**{note}**\n" for note in page.notes),
        "Costs: " + "; ".join(f"{source} ({models})" for source, models in page.sources) + ".\n",
    ]
    for section in page.sections:
        parts += [f"## {section.title}\n", f"{section.words}\n", _lines(section.head, section.rows)]
    return "\n".join(parts)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    bold = [[f"**{cell}**" if cell == "outside" else cell for cell in row] for row in rows]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in bold)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

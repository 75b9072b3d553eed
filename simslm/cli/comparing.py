"""``simslm compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.errors import SimslmError

if TYPE_CHECKING:
    from simslm.comparison import Comparison, Contrast, Delta

SHOWN = (
    "slo.attainment",
    "slo.goodput_rps",
    "throughput.requests_per_s",
    "throughput.output_tokens_per_s",
    "ttft_s.mean",
    "ttft_s.p99",
    "tpot_s.mean",
    "tpot_s.p99",
    "itl_s.p99",
    "e2e_s.p99",
    "energy.j_per_output_token",
    "kv.peak_utilization",
    "kv.preemptions",
    "economics.usd_per_million_output_tokens",
)
"""Figures on the screen; ``--json`` and the page have all."""

MOST_CHANGES = 12
"""Differing keys on the screen."""

MARKS = {"better": "better", "worse": "worse", "different": "differs", "unclear": "unclear", "same": "="}


def compare(directories: Sequence[Path], output: Path | None, fail_on: Sequence[str], as_json: bool) -> None:
    """Compares, writes the page, prints the answer.

    Raises:
        UsageError: fewer than two runs, or a file or condition that cannot be read.
        SimslmError: a ``fail_on`` condition is true.
    """
    from simslm.comparison import compare as held_against
    from simslm.comparison.gate import Gate, failures
    from simslm.report.comparison import write_comparison
    from simslm.report.tables import read_run

    gates = [Gate(text) for text in fail_on]
    target = output or page_place(directories)
    free_place(target.parent)
    with screen.working("reading the runs"):
        runs = [read_run(directory) for directory in directories]
    with screen.working("comparing"):
        comparison = held_against(runs, [str(directory) for directory in directories])
    failed = list(failures(gates, comparison.contrasts))
    with screen.working("drawing the page"):
        page = write_comparison(comparison, target)
    if as_json:
        screen.show_json(values(comparison) | {"failed": failed, "page": str(page)})
    else:
        _show(comparison, page)
    if failed:
        raise SimslmError("; ".join(failed))


def page_place(directories: Sequence[Path]) -> Path:
    """Where the page goes unless said otherwise: beside the runs, or here where they lie in different places."""
    parents = {directory.resolve().parent for directory in directories}
    beside = directories[0].parent if len(parents) == 1 else Path()
    return beside / "comparison.html"


def values(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values."""
    return {
        "baseline": _described(comparison.baseline),
        "contrasts": [
            {
                **_described(each.configuration),
                "pairing": asdict(each.pairing),
                "changes": [asdict(change) for change in each.changes],
                "figures": {delta.path: _figures(delta) for delta in each.deltas},
                "latencies": {
                    latency.metric: {
                        "pairs": latency.pairs,
                        "faster": latency.faster,
                        "slower": latency.slower,
                        "levels": latency.levels.tolist(),
                        "differences_s": latency.differences_s.tolist(),
                    }
                    for latency in each.latencies
                },
            }
            for each in comparison.contrasts
        ],
        "notes": list(comparison.notes),
    }


def _described(configuration: Any) -> dict[str, Any]:
    return {
        "label": configuration.label,
        "runs": list(configuration.places),
        "seeds": list(configuration.seeds),
    }


def _figures(delta: Delta) -> dict[str, Any]:
    return {
        "baseline": delta.baseline,
        "value": delta.value,
        "delta": delta.delta,
        "interval": delta.interval,
        "relative": delta.relative,
        "relative_interval": delta.relative_interval,
        "verdict": delta.verdict,
        "note": delta.note,
    }


def _show(comparison: Comparison, page: Path) -> None:
    for contrast in comparison.contrasts:
        _show_contrast(comparison.baseline.label, contrast)
        print()
    for method in dict.fromkeys(each.pairing.method for each in comparison.contrasts):
        screen.show_text("sure:", method)
    for note in comparison.notes:
        screen.show_text("note:", note)
    print(f"page: {page}")


def _show_contrast(baseline: str, contrast: Contrast) -> None:
    name = contrast.configuration.label
    print(f"{name} against {baseline}: {answer(contrast)}")
    print()
    rows = [
        (
            delta.title,
            delta.metric.show(delta.baseline),
            delta.metric.show(delta.value),
            change(delta),
            _interval(delta),
            MARKS.get(delta.verdict, ""),
        )
        for delta in map(contrast.delta, SHOWN)
        if delta.delta is not None
    ]
    screen.show_table(("", "before", "after", "change", "95 % interval", ""), rows, left=(0, 5))
    print()
    screen.show_text("why: ", _why(contrast))


def answer(contrast: Contrast) -> str:
    """What is better and what worse beyond doubt, in a few words."""
    told = {"better": [], "worse": []}
    for delta in map(contrast.delta, SHOWN):
        if delta.verdict in told:
            told[delta.verdict].append(f"{delta.title} {change(delta)}")
    parts = [f"{verdict}: {', '.join(texts[:4])}" for verdict, texts in told.items() if texts]
    return "; ".join(parts) or "no difference beyond what the intervals leave open"


def change(delta: Delta) -> str:
    """The change in per cent, in the figure's own unit where the baseline is 0."""
    if delta.delta == 0:
        return "0"
    return (
        f"{_percent(delta.relative)} %"
        if delta.relative is not None
        else f"+{delta.metric.show(delta.delta)}"
    )


def _percent(share: float) -> str:
    """A signed percentage without its unit: ``+1,040``, ``-3.21``."""
    return f"{100 * share:+,.0f}" if abs(share) >= 10 else f"{100 * share:+.3g}"


def _interval(delta: Delta) -> str:
    if delta.relative_interval is None or delta.delta == 0 == max(map(abs, delta.relative_interval)):
        return ""
    low, high = sorted(delta.relative_interval)
    return f"{_percent(low)} to {_percent(high)} %"


def _why(contrast: Contrast) -> str:
    changes = [
        f"{each.path} {_plain(each.baseline)} → {_plain(each.value)}"
        for each in contrast.changes[:MOST_CHANGES]
    ]
    if len(contrast.changes) > MOST_CHANGES:
        changes.append(f"and {len(contrast.changes) - MOST_CHANGES} more keys")
    what = "; ".join(changes) if changes else "the scenarios do not differ"
    return f"{what} ({contrast.pairing.why})"


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)

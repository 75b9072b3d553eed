"""``simslm compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
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
    "ttft_s.p95",
    "ttft_s.p99",
    "tpot_s.mean",
    "tpot_s.p99",
    "itl_s.p99",
    "e2e_s.p99",
    "energy.j_per_output_token",
    "kv.peak_utilization",
    "kv.preemptions",
    "requests.rejected",
    "requests.failed",
    "economics.usd_per_million_output_tokens",
)
"""Figures on the screen; ``--json`` and the page have all."""

MOST_CHANGES = 12
"""Differing keys on the screen."""

MARKS = {
    "better": "better",
    "worse": "worse",
    "different": "differs",
    "unclear": "unclear",
    "same": "=",
    "untested": "open",
}


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
    """The default place of the page: beside the runs, or the working directory where they lie in different places."""
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
        "requests": {
            "arrived": configuration.arrived,
            **{status: configuration.count(status) for status in ("finished", "rejected", "failed")},
        },
    }


def _figures(delta: Delta) -> dict[str, Any]:
    """JSON has no infinity: null stands for it, and ``infinite`` says of which."""
    infinite = [
        name for name in ("baseline", "value") if _finite(getattr(delta, name)) != getattr(delta, name)
    ]
    return {
        "baseline": _finite(delta.baseline),
        "value": _finite(delta.value),
        "infinite": infinite,
        "delta": _finite(delta.delta),
        "interval": _ends(delta.interval),
        "relative": _finite(delta.relative),
        "relative_interval": _ends(delta.relative_interval),
        "direction": delta.direction,
        "verdict": delta.verdict,
        "note": delta.note,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _ends(interval: tuple[float, float] | None) -> list[float | None] | None:
    return None if interval is None else [_finite(end) for end in interval]


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
    from simslm.comparison.wording import change, interval, sentences, shown, untold

    said = " ".join(words for _, words in sentences(contrast, SHOWN))
    screen.show_text(f"{contrast.configuration.label} against {baseline}:", said)
    print()
    deltas = [delta for delta in map(contrast.delta, SHOWN) if delta.delta is not None and _matters(delta)]
    rows = [
        (
            delta.title,
            shown(delta, delta.baseline),
            shown(delta, delta.value),
            change(delta),
            interval(delta),
            _mark(delta),
        )
        for delta in deltas
    ]
    screen.show_table(("", "before", "after", "change", "95 % interval", ""), rows, left=(0, 5))
    print()
    screen.show_text("why: ", _why(contrast))
    for words in untold(deltas):
        screen.show_text("open:", words)


def _mark(delta: Delta) -> str:
    """The mark of a verdict; empty for a count without an interval, which is exact."""
    counted = delta.path.startswith("requests.") and delta.verdict == "untested"
    return "" if counted else MARKS.get(delta.verdict, "")


def _matters(delta: Delta) -> bool:
    """Whether a figure is worth a row: counts of missed requests only where there are any."""
    return not delta.path.startswith("requests.") or bool(delta.baseline or delta.value)


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

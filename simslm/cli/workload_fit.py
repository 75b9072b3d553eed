"""``simslm workload fit``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simslm.catalog.presets import Preset, is_file
from simslm.cli import screen
from simslm.cli.destination import free_place
from simslm.cli.workload import ShownTraffic, drawn_of, recorded, write_page
from simslm.errors import UsageError
from simslm.units import number

if TYPE_CHECKING:
    from simslm.workload.fitted import Goodness, HeldOut
    from simslm.workload.traffic import Traffic


def fit(
    file: Path,
    output: Path | None,
    format_: str,
    what: str,
    sources: list[str],
    halves: bool,
    as_json: bool,
) -> None:
    """Fits a preset to a trace, prints how well it meets it, and writes it with its page."""
    from simslm.workload.fitted import compared, drawn, fitted, held_out

    said = _source(sources)
    if output is not None:
        _check_preset_place(output)
    found = recorded(file, format_)
    workload = fitted(found.traffic)
    redrawn = drawn(workload)
    good = compared(found.traffic, redrawn)
    parts = held_out(found.traffic) if halves else []
    preset = Preset("", what, workload, said | _facts(file, found), _goodness(good))
    if as_json:
        held = [
            {"parts": each.parts, "fit": _goodness(each.fit), "own": _goodness(each.own)} for each in parts
        ]
        screen.show_json({"workload": workload, "source": preset.source, "fit": preset.fit, "halves": held})
    else:
        print(f"{found.title}: {found.origin}")
        print()
        screen.show_table(("", "trace", "fit"), _side_by_side(good, found.traffic, redrawn))
        if parts:
            print()
            screen.show_table(HALVES, halves_rows(parts))
    if output is not None:
        _write_preset(output, file, preset, found, redrawn, good)


def _write_preset(
    output: Path, file: Path, preset: Preset, found: ShownTraffic, redrawn: Traffic, good: Goodness
) -> None:
    """Writes a preset and the page of how well it meets its trace."""
    from simslm.metrics.whole import write_whole
    from simslm.report.traffic import TrafficPage

    text = preset_text(preset)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, lambda path: path.write_text(text, encoding="utf-8"))
    beside = output.with_suffix(".html")
    page = TrafficPage(
        f"A preset fitted to {found.title}",
        [f"{len(found.traffic):,} requests", *found.notes],
        f"Lengths are met to {max(good.prompt_ks, good.output_ks):.3f} (Kolmogorov-Smirnov). Prefixes and sessions are "
        "not fitted.",
        ("", "trace", "fit"),
        _side_by_side(good, found.traffic, redrawn),
        (),
        [(name, str(value)) for name, value in preset.source.items()],
        text,
        shlex.join(["simslm", "workload", "fit", str(file), "-o", str(output)]),
    )
    write_page(
        beside, page, [drawn_of("trace", found.traffic), drawn_of("fit", redrawn, found.traffic.span_s)]
    )
    screen.note(f"preset: {output}")
    screen.note(f"page: {beside}")


def preset_text(preset: Preset) -> str:
    """A preset as the text of its file."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 110
    content = {"source": preset.source, "workload": preset.workload, "fit": preset.fit}
    text = StringIO()
    yaml.dump({"what": preset.what, **content} if preset.what else content, text)
    return text.getvalue()


def _check_preset_place(output: Path) -> None:
    if not is_file(output.name):
        raise UsageError("a preset is a YAML file", where=str(output), remedy="let its name end in .yaml")
    free_place(output.parent)


def _source(pairs: list[str]) -> dict[str, Any]:
    found = {}
    for text in pairs:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"expected key=value, got {text!r}", where="--source")
        found[key.strip()] = value.strip()
    return found


def _facts(file: Path, found: ShownTraffic) -> dict[str, Any]:
    """What is known of a trace by itself."""
    import hashlib

    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    facts: dict[str, Any] = {"file": file.name, "sha256": digest, "requests": len(found.traffic)}
    if found.traffic.timed:
        facts["span_s"] = float(f"{found.traffic.span_s:.6g}")
    return facts | ({"dropped": found.dropped} if found.dropped else {})


def _goodness(good: Goodness) -> dict[str, Any]:
    """How two traffics compare, as numbers."""
    pairs = {
        name: [None if value is None else float(f"{value:.4g}") for value in pair]
        for name, pair in good.figures.items()
    }
    return {
        "prompt_tokens_ks": round(good.prompt_ks, 4),
        "output_tokens_ks": round(good.output_ks, 4),
        **{name: pair for name, pair in pairs.items() if pair != [None, None]},
    }


def _side_by_side(good: Goodness, trace: Traffic, redrawn: Traffic) -> list[tuple[str, ...]]:
    names = {
        "rate_rps": "rate, requests/s",
        "gap_cv": "CV of gaps",
        "peak_to_mean_1s": "peak to mean, 1 s",
        "peak_to_mean_60s": "peak to mean, 60 s",
    }
    rows: list[tuple[str, ...]] = [
        (names[name], number(first), number(second))
        for name, (first, second) in good.figures.items()
        if first is not None
    ]
    for name in ("prompt_tokens", "output_tokens"):
        pair = [getattr(each, name) for each in (trace, redrawn)]
        words = name.replace("_", " ")
        rows.append((f"{words}, mean", *(number(float(each.mean())) for each in pair)))
        rows.append((f"{words}, p99", *(number(float(np.quantile(each, 0.99))) for each in pair)))
        distance = good.prompt_ks if name == "prompt_tokens" else good.output_ks
        rows.append((f"{words}, KS distance", "", f"{distance:.3f}"))
    correlations = [number(each.rank_correlation) for each in (trace, redrawn)]
    return [*rows, ("rank correlation", *correlations)]


HALVES = ("parts", "KS prompts", "of the parts", "KS outputs", "of the parts", "CV of gaps", "fit", "off")


def halves_rows(parts: Sequence[HeldOut]) -> list[tuple[str, ...]]:
    """Rows of the table :data:`HALVES`: each fit against the part that it has not seen."""
    rows = []
    for each in parts:
        first, second = each.fit.figures["gap_cv"]
        off = each.fit.off("gap_cv")
        rows.append(
            (
                each.parts,
                f"{each.fit.prompt_ks:.3f}",
                f"{each.own.prompt_ks:.3f}",
                f"{each.fit.output_ks:.3f}",
                f"{each.own.output_ks:.3f}",
                number(first),
                number(second),
                "–" if off is None else f"{off:+.0%}",
            )
        )
    return rows

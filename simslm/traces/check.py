"""Is a trace good enough to build on? Findings, each with its place and its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simslm.catalog.architecture import element_bytes
from simslm.catalog.devices import load_device
from simslm.catalog.models import load_model
from simslm.errors import SimslmError
from simslm.traces.files import Trace, flags_of
from simslm.traces.shapes import SHAPE_COLUMNS, Shapes, alone, shapes
from simslm.units import seconds

FEW_REPEATS = 3
"""A median of fewer calls than this is one unlucky call away from wrong."""

NOISY = 0.1
"""Interquartile range over median above which a point counts as noisy."""

FALL = 0.05
"""A median that falls by more than this fraction while the work grows is not physical."""

DRIFT = 0.05
"""A change by more than this fraction from the earlier to the later repeats, in the median over shapes, is a drift."""

ENERGY_TOLERANCE = 0.15
"""Allowed disagreement between energy and power times time."""

MANY_OUTLIERS = 0.05
"""Share of calls far from the others of their shape above which the machine was busy with something else."""

SLOWER = 0.03
"""Visits with a longer window that are slower than short ones by more than this share, in the median over shapes."""

BUSY = 0.03
"""Part of the processors' time that others had during the campaign, above which it is said."""

_MOST_SHOWN = 8
_SLOW_S = 0.5
_SLOWER_THAN_WEIGHTS = 100.0
_FASTER_THAN_WEIGHTS = 0.3


@dataclass(frozen=True)
class Finding:
    """One thing a reader of the trace should know.

    Attributes:
        severity: ``error`` (do not use it), ``warning`` (answers suffer) or ``note`` (good to know).
        what: what was found, with its size.
        where: the table and the shapes concerned.
        remedy: what to do about it.
    """

    severity: str
    what: str
    where: str
    remedy: str


def check_trace(trace: Trace) -> list[Finding]:
    """Everything doubtful about a trace, one finding of a kind with its count and its worst place, the most severe
    first; empty when all is well.

    Held-out points are compared in :mod:`simslm.cost.heldout`, which knows the interpolation.
    """
    if trace.iterations is None:
        return list(_flagged(trace))
    table = alone(trace.iterations)
    measured = shapes(table)
    findings = [
        *_units(trace, measured),
        *_repeats(measured),
        *_noise(measured),
        *_falls(measured),
        *_drift(measured),
        *_outliers(measured),
        *_throttled(measured),
        *_coverage(measured),
        *_energy(trace, measured),
        *_counter(trace),
        *_busy(trace),
        *_unfinished(trace),
        *_refused(trace),
    ]
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _flagged(trace: Trace) -> Iterator[Finding]:
    """A calibration that misses the runs it was made of: forced beyond what was allowed, it is not to be used."""
    forced = bool(trace.provenance.get("forced"))
    for number, flag in enumerate(flags_of(trace.provenance)):
        yield Finding(
            "error" if forced and number == 0 else "warning",
            flag,
            "provenance, flags",
            "look at the runs it was fitted to, and calibrate again without those that do not belong together",
        )


def _units(trace: Trace, measured: Shapes) -> Iterator[Finding]:
    """Latencies in the wrong unit: far from the time that it takes to read the weights once."""
    decode = np.flatnonzero(measured.decode_only)
    if len(decode) == 0:
        return
    first = int(decode[0])
    latency = float(measured.median("latency_s")[first])
    weights = _weights_read_s(trace)
    if latency > max(_SLOW_S, _SLOWER_THAN_WEIGHTS * weights):
        yield Finding(
            "error",
            f"the smallest decode iteration takes {seconds(latency)}; the column looks like milliseconds",
            _place(measured, first),
            "convert latency_s and host_s to seconds",
        )
    elif latency < _FASTER_THAN_WEIGHTS * weights:
        yield Finding(
            "error",
            f"the smallest decode iteration takes {seconds(latency)}, less than reading the weights once "
            f"({seconds(weights)})",
            _place(measured, first),
            "check the unit of latency_s, and that the device was synchronised before the clock was read",
        )


def _weights_read_s(trace: Trace) -> float:
    """Weights over memory bandwidth, or 0 when the catalogue does not know the model or the device."""
    try:
        model = load_model(trace.provenance["model"])
        device = load_device(trace.provenance["device"])
        size = model.weight_bytes(trace.provenance["dtype"])
        if trace.provenance.get("quantization"):
            each = element_bytes(trace.provenance["dtype"])
            # Eight-bit weights of the layers take one byte each; embeddings and head keep the data type.
            size -= (each - 1) * model.num_layers * model.layer_matrix_parameters()
        return size / device.memory_bandwidth_bytes_per_s
    except SimslmError:
        return 0.0


def _repeats(measured: Shapes) -> Iterator[Finding]:
    repeats = measured.repeats
    few = np.flatnonzero(repeats < FEW_REPEATS)
    if len(few):
        worst = int(few[np.argmin(repeats[few])])
        yield Finding(
            "warning",
            f"{len(few)} of {len(repeats)} shapes have fewer than {FEW_REPEATS} repeats, the fewest {repeats[worst]}",
            _place(measured, worst),
            "measure them again with more repeats",
        )


def _noise(measured: Shapes) -> Iterator[Finding]:
    spread = measured.spread("latency_s")
    noisy = np.flatnonzero(spread > NOISY)
    if len(noisy):
        worst = int(noisy[np.argmax(spread[noisy])])
        yield Finding(
            "warning",
            f"{len(noisy)} of {len(spread)} shapes are noisy: interquartile range up to "
            f"{spread[worst]:.0%} of the median",
            _place(measured, worst),
            "measure again on a quiet machine, or with more repeats",
        )


def _falls(measured: Shapes) -> Iterator[Finding]:
    """Medians that fall although the batch, the context, the prompt or its cached part grows."""
    latency = measured.median("latency_s")
    columns = dict(measured.columns)
    # By sequence: the sum grows with the batch, and neighbours along it would differ in both.
    columns["mean_ctx"] = columns["decode_ctx_tokens"] / np.maximum(columns["decode_seqs"], 1)
    axes = ("decode_seqs", "mean_ctx", "prefill_tokens", "prefill_ctx_tokens")
    falls = [
        (1 - latency[larger] / latency[smaller], axis, smaller, larger)
        for axis in axes
        for smaller, larger in _pairs_that_fall(
            columns[axis],
            np.column_stack([columns[name] for name in (*axes, "prefill_seqs") if name != axis]),
            latency,
        )
    ]
    if falls:
        drop, axis, smaller, larger = max(falls)
        places = "place" if len(falls) == 1 else "places"
        yield Finding(
            "warning",
            f"the median falls in {len(falls)} {places} where the work grows, by up to {drop:.0%} while {axis} grows",
            f"{_place(measured, smaller)} → {measured.label(larger)}",
            "the interpolation pools such points; measure them again to keep their detail",
        )


def _drift(measured: Shapes) -> Iterator[Finding]:
    """Later repeats that differ from earlier ones in all shapes alike: the machine was not the same all the time."""
    for column, what in (("sm_clock_mhz", "the SM clock"), ("latency_s", "latency")):
        change = measured.drift(column)
        known = change[~np.isnan(change)]
        if not len(known) or abs(median := float(np.median(known))) <= DRIFT:
            continue
        yield Finding(
            "warning",
            f"{what} {'rises' if median > 0 else 'falls'} by {abs(median):.0%} from the earlier to the later repeats, "
            f"in the median over {len(known)} shapes",
            f"iterations.parquet, {column}",
            "let the device warm up or cool down, end other work on it, and measure again",
        )


def _outliers(measured: Shapes) -> Iterator[Finding]:
    """Calls that took far longer or less long than the others of their shape; medians leave them out."""
    flags = measured.table.column("outlier").drop_null().to_numpy()
    if len(flags) and (share := float(flags.mean())) > MANY_OUTLIERS:
        yield Finding(
            "warning",
            f"{share:.0%} of the calls are outliers of their shape",
            "iterations.parquet, outlier",
            "end other work on the machine, and measure again",
        )


def _throttled(measured: Shapes) -> Iterator[Finding]:
    """Calls made while something held the clock down, and visits so short that nothing did yet."""
    known = measured.table.column("throttle").drop_null().to_pylist()
    held = [reasons for reasons in known if reasons]
    if held:
        by_visit = throttle_by_visit(measured.table)
        spread = f"; by visit {by_visit}" if by_visit else ""
        yield Finding(
            "warning",
            f"the clock was held down in {len(held) / len(known):.0%} of the calls: {', '.join(sorted(set(held)))}"
            f"{spread}",
            "iterations.parquet, throttle",
            "let the device cool down or raise its power cap, and measure again; or take it as how the device runs",
        )
    yield from _short_visits(measured)


def _short_visits(measured: Shapes) -> Iterator[Finding]:
    """Visits with a longer window, as energy needs, show a device as it serves; short ones a cooler one."""
    long = ~np.isnan(_floats(measured.table, "energy_j"))
    for column, what, sign in (("latency_s", "take {} longer", 1), ("sm_clock_mhz", "have a clock lower by {}", -1)):
        values, changes = _floats(measured.table, column), []
        for rows in measured.rows:
            there = [values[rows[long[rows] == which]] for which in (True, False)]
            longer, short = (each[~np.isnan(each)] for each in there)
            if len(longer) and len(short):
                changes.append(float(np.median(longer) / np.median(short)) - 1)
        if changes and (change := sign * float(np.median(changes))) > SLOWER:
            yield Finding(
                "warning",
                f"calls of visits that last longer {what.format(f'{change:.0%}')} than those of short visits, in the "
                f"median over {len(changes)} shapes: the device slows down under load",
                f"iterations.parquet, {column}",
                "trust the longer visits (those with energy_j); measure with fewer passes to have no others: "
                "--repeats 3",
            )


def throttle_by_visit(iterations: pa.Table) -> str:
    """The share of calls whose clock was held down, for each visit in its order; empty where it is not known.

    Returns:
        ``1: 40%, 2: 35%, 3: 0%``, visits numbered from 1 within each shape, none after the eighth.
    """
    found = {name: iterations.column(name).to_pylist() for name in (*SHAPE_COLUMNS, "visit", "throttle")}
    visits: dict[tuple[Any, ...], set[int]] = {}
    rows = []
    for *shape, visit, reasons in zip(*found.values(), strict=True):
        if visit is not None and reasons is not None:
            visits.setdefault(tuple(shape), set()).add(visit)
            rows.append((tuple(shape), visit, bool(reasons)))
    order = {shape: {visit: i for i, visit in enumerate(sorted(each))} for shape, each in visits.items()}
    shares: dict[int, list[bool]] = {}
    for shape, visit, held in rows:
        shares.setdefault(order[shape][visit], []).append(held)
    shown = [(number, float(np.mean(shares[number]))) for number in sorted(shares)[:_MOST_SHOWN]]
    return ", ".join(f"{number + 1}: {share:.0%}" for number, share in shown)


def _floats(table: pa.Table, column: str) -> np.ndarray:
    return pc.cast(table.column(column), pa.float64()).to_numpy()


def _pairs_that_fall(axis: np.ndarray, others: np.ndarray, latency: np.ndarray) -> list[tuple[int, int]]:
    """Neighbours along one axis, all else equal, of which the larger is faster by more than ``FALL``."""
    order = np.lexsort((axis, *others.T))
    same = np.all(others[order[1:]] == others[order[:-1]], axis=1)
    fall = latency[order[1:]] < latency[order[:-1]] * (1 - FALL)
    return [(int(order[i]), int(order[i + 1])) for i in np.flatnonzero(same & fall)]


def _coverage(measured: Shapes) -> Iterator[Finding]:
    """Gaps that the cost model fills by itself: kinds of iteration that were not measured, and corners of the grid."""
    decode, prefill = measured.decode_only, measured.prefill_only
    for kind, mask, severity in (
        ("decode-only", decode, "error"),
        ("prefill-only", prefill, "error"),
        ("mixed", ~decode & ~prefill, "warning"),
    ):
        if not mask.any():
            yield Finding(
                severity,
                f"no {kind} iterations",
                "iterations.parquet",
                "measure them: `simslm profile` does by default",
            )
    columns = measured.columns
    if decode.any():
        seqs = columns["decode_seqs"][decode]
        ctx = np.rint(columns["decode_ctx_tokens"][decode] / seqs).astype(int)
        yield from _corner(seqs, ctx, "decode_seqs", "context per sequence")
    if prefill.any():
        tokens, cached = columns["prefill_tokens"][prefill], columns["prefill_ctx_tokens"][prefill]
        yield from _corner(tokens, cached, "prefill_tokens", "prefill_ctx_tokens")


def _corner(x: np.ndarray, y: np.ndarray, x_name: str, y_name: str) -> Iterator[Finding]:
    measured = set(zip(x.tolist(), y.tolist(), strict=True))
    missing = [(i, j) for i in np.unique(x).tolist() for j in np.unique(y).tolist() if (i, j) not in measured]
    if (int(x.max()), int(y.max())) in missing:
        yield Finding(
            "note",
            f"the corner {x_name} {x.max()} with {y_name} {y.max()} is not measured "
            f"({len(missing)} points of that grid are not)",
            "iterations.parquet",
            "answers there come from the roofline and count as outside the measured domain",
        )


def _energy(trace: Trace, measured: Shapes) -> Iterator[Finding]:
    energy, power = measured.median("energy_j"), measured.median("power_w")
    latency = measured.median("latency_s")
    if np.isnan(energy).all():
        reason = trace.provenance.get("power_note") or "its provenance does not say why"
        yield Finding("note", f"no energy: {reason}", "iterations.parquet", "answers will have no energy")
        return
    gap = np.abs(energy / (power * latency) - 1)
    apart = np.flatnonzero(gap > ENERGY_TOLERANCE)
    if len(apart):
        worst = int(apart[np.argmax(gap[apart])])
        yield Finding(
            "warning",
            f"energy and power × time disagree by up to {gap[worst]:.0%} in {len(apart)} shapes",
            _place(measured, worst),
            "lengthen the measuring window, or check the units of energy_j and power_w",
        )


def _counter(trace: Trace) -> Iterator[Finding]:
    """The energy counter against the power sensor: two independent measurements."""
    if trace.power is None:
        return
    rows = [row for row in trace.power.to_pylist() if row["sampled_power_w"] is not None]
    for state in dict.fromkeys(row["state"] for row in rows):
        ratios = [row["power_w"] / row["sampled_power_w"] for row in rows if row["state"] == state]
        apart = float(np.median(ratios)) - 1
        if abs(apart) > ENERGY_TOLERANCE:
            yield Finding(
                "warning",
                f"the energy counter gives {apart:+.0%} of the power that the sensor shows",
                f"power.parquet, state {state}",
                "lengthen the measuring window, or check the units of both",
            )


def _busy(trace: Trace) -> Iterator[Finding]:
    others = trace.provenance.get("other_load") or 0.0
    if others > BUSY:
        yield Finding(
            "warning",
            f"others had {others:.0%} of the processors' time while it was measured",
            "provenance, other_load",
            "end other work on the machine, and measure again",
        )


def _unfinished(trace: Trace) -> Iterator[Finding]:
    if trace.provenance.get("unfinished"):
        yield Finding(
            "warning",
            f"its campaign did not end: {trace.provenance['repeats']} passes are whole",
            "provenance",
            "run the command of its provenance again: it goes on from there",
        )


def _refused(trace: Trace) -> Iterator[Finding]:
    """What the device refused to run: shapes of one replica alone, and ways and shapes of several."""
    shapes = trace.provenance.get("not_measurable") or []
    refused = [(each["shape"], each["why"]) for each in shapes]
    refused += (trace.provenance.get("colocation_refused") or {}).items()
    for why, count in Counter(why for _, why in refused).items():
        names = [name for name, reason in refused if reason == why]
        more = f" and {count - 1} more" if count > 1 else ""
        yield Finding(
            "warning",
            f"not measurable: {names[0]}{more} ({why})",
            "provenance, not_measurable and colocation_refused",
            "answers there come from the roofline; free memory, or measure with --reach, and measure again",
        )


def _place(measured: Shapes, index: int) -> str:
    return f"iterations.parquet, {measured.label(index)}"

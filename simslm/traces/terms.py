"""The terms of a calibrated trace: what each means, its unit, and the values physics leaves open.

``terms.parquet`` has one row per term. Efficiencies are shares of the device's peaks in the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simslm.errors import TraceError, nearest
from simslm.traces.files import Trace


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the physical cost model.

    Attributes:
        unit: of its value.
        low, high: what physics leaves open; outside, a value is refused.
        doc: what it is.
    """

    unit: str
    low: float
    high: float
    doc: str


TERMS: Mapping[str, Term] = {
    "host": Term("s", 0.0, 1.0, "host time of an iteration, in which no kernel runs"),
    "host_per_seq": Term("s", 0.0, 0.1, "host time for each sequence in it"),
    "layer": Term("s", 0.0, 0.1, "device time of a layer beside arithmetic and memory traffic"),
    "launch": Term("s", 0.0, 0.1, "launching a layer's kernels without a CUDA graph"),
    "weight_bandwidth": Term("1", 1e-3, 1.0, "share of the peak bandwidth at which weights are read"),
    "kv_bandwidth": Term("1", 1e-3, 1.0, "share of the peak bandwidth at which keys and values are read"),
    "compute": Term("1", 1e-3, 1.0, "share of the arithmetic peak that matrix products reach"),
    "prefill_attention": Term(
        "1", 1e-4, 1.0, "share of the arithmetic peak that attention of prompts reaches"
    ),
    "key": Term("s", 0.0, 1e-3, "latency of one key of a decoding sequence, in each layer"),
    "startup": Term(
        "s", 0.0, 600.0, "from the first request of a burst to the first iteration; no part of one"
    ),
    "idle_power": Term("W", 0.0, 1e5, "power with nothing running"),
    "active_power": Term("W", 0.0, 1e5, "power beyond idle while any kernel runs"),
    "byte_energy": Term("J", 0.0, 1e-8, "energy of a byte of weights, prompts or embeddings moved"),
    "kv_byte_energy": Term(
        "J", 0.0, 1e-8, "energy of a byte of keys and values of decoding sequences, attention included"
    ),
    "flop_energy": Term("J", 0.0, 1e-10, "energy of a floating-point operation"),
}
"""Every term, in the order of the table."""

POWER = ("idle_power", "active_power", "byte_energy", "kv_byte_energy", "flop_energy")
"""Terms of energy: all are there, or none."""

OPTIONAL = (*POWER, "key", "startup")
"""Terms a trace may lack; ``key`` and ``startup`` are then 0."""


def terms_table(values: Mapping[str, float], stderr: Mapping[str, float]) -> dict[str, list]:
    """The columns of ``terms.parquet``; a term without a standard error was not fitted."""
    names = [name for name in TERMS if name in values]
    return {
        "term": names,
        "value": [float(values[name]) for name in names],
        "stderr": [stderr.get(name) for name in names],
        "unit": [TERMS[name].unit for name in names],
    }


def read_terms(trace: Trace) -> dict[str, float]:
    """The values of a trace's terms by name, checked.

    Raises:
        TraceError: the trace has no terms, lacks one, or one is unknown, twice there, in another unit or
            impossible.
    """
    where = str(trace.path / "terms.parquet")
    if trace.terms is None:
        raise TraceError(
            "the trace has no terms", where=str(trace.path), remedy="`simslm calibrate` fits them"
        )
    values: dict[str, float] = {}
    for row in trace.terms.to_pylist():
        name, value, unit = row["term"], row["value"], row["unit"]
        term = TERMS.get(name)
        if term is None:
            raise TraceError(f"unknown term {name!r}{nearest(name, list(TERMS))}", where=where)
        if name in values:
            raise TraceError(f"term {name!r} is there twice", where=where, remedy="remove one")
        if unit != term.unit:
            raise TraceError(f"term {name!r} is in {unit!r}, expected {term.unit!r}", where=where)
        if not term.low <= value <= term.high:
            raise TraceError(
                f"term {name!r} is {value:g}, expected {term.low:g} to {term.high:g} {term.unit}",
                where=where,
                remedy="calibrate again",
            )
        values[name] = value
    missing = [name for name in TERMS if name not in values and name not in OPTIONAL]
    if 0 < sum(name in values for name in POWER) < len(POWER):
        missing += [name for name in POWER if name not in values]
    if missing:
        raise TraceError(f"lacks the terms {', '.join(missing)}", where=where, remedy="calibrate again")
    return values

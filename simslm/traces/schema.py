"""The columns of a trace, each with its unit and its meaning, and what a provenance must say.

Every table of a trace carries ``simslm.schema`` (the table's name), ``simslm.schema_version`` and
``simslm.provenance`` (JSON, the same in every file of a trace) in its Parquet metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

VERSIONS: Mapping[int, str] = {
    1: "the tables, columns and keys of this page; `partition`, `visit`, `throttle`, `outlier` and `sampled_power_w` were "
    "added to it, and a file without them is read as if they were null",
}
"""What each version of the schema has.

A column that may be null comes without a new version, because a reader takes a file that lacks it. A column that must
be there, another unit or another meaning needs a new version.
"""

SCHEMA_VERSION = max(VERSIONS)
"""Version that is written; a reader refuses any other."""

SCHEMA_KEY = b"simslm.schema"
VERSION_KEY = b"simslm.schema_version"
PROVENANCE_KEY = b"simslm.provenance"

SOURCES = ("measured", "calibrated", "imported", "roofline")
"""Where the figures of a trace come from (``provenance.source``)."""

PROVENANCE: Mapping[str, str] = {
    "source": "`measured` by the profiler, `calibrated` to runs, `imported` from a table, or `roofline`",
    "model": "the catalogue's name of the model",
    "dtype": "data type of weights and KV cache",
    "device": "the catalogue's name of the device",
    "engine": "name and version of what was measured, e.g. `simslm-engine 0.4.0`",
    "memory_bytes": "memory of the device",
    "driver": "version of its driver",
    "cuda": "version of CUDA",
    "torch": "version of torch",
    "clocks": "what the clocks were set to, as text or an object",
    "warmup": "calls before the first that counts",
    "repeats": "calls of each shape that count",
    "date": "day of the measurement, ISO 8601",
    "command": "what measures, or fits, the same again",
    "power_note": "why energy is not known; empty where it was measured",
}
"""What each key of a provenance says; it may hold others. A value is null where the machine has no such thing."""

_ALWAYS = ("source", "model", "dtype", "device", "engine")
_MEASURED = (
    "memory_bytes", "driver", "cuda", "torch", "clocks", "warmup", "repeats", "date", "command", "power_note",
)  # fmt: skip

REQUIRED_PROVENANCE = {
    "measured": _ALWAYS + _MEASURED,
    "calibrated": (*_ALWAYS, "date", "command"),
    "imported": (*_ALWAYS, "date"),
    "roofline": _ALWAYS,
}
"""Keys of :data:`PROVENANCE` that must be there, by the source."""


def _field(name: str, kind: pa.DataType, unit: str, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "doc": doc})


_INT, _FLOAT, _TEXT = pa.int64(), pa.float64(), pa.string()

ITERATIONS = pa.schema(
    [
        _field("decode_seqs", _INT, "sequences", "sequences that decode one token each"),
        _field("decode_ctx_tokens", _INT, "tokens", "tokens in the KV cache, summed over decoding sequences"),
        _field("prefill_seqs", _INT, "sequences", "prompts, or chunks of prompts, prefilled"),
        _field("prefill_tokens", _INT, "tokens", "new prompt tokens, summed over those prompts"),
        _field("prefill_ctx_tokens", _INT, "tokens", "tokens of those prompts already in the cache, summed"),
        _field("sharing", _TEXT, "", "how the device is shared: none, mps, time-slice, …", nullable=True),
        _field("replicas", _INT, "replicas", "how many run at once on the device, this one included"),
        _field("other_decode_seqs", _INT, "sequences", "sequences each other replica decoded", nullable=True),
        _field(
            "other_decode_ctx_tokens", _INT, "tokens", "cached tokens each other decoded over", nullable=True
        ),
        _field("other_prefill_tokens", _INT, "tokens", "prompt tokens each other prefilled", nullable=True),
        _field("sm_fraction", _FLOAT, "1", "share of the device's SMs given to this replica", nullable=True),
        _field(
            "partition",
            _TEXT,
            "",
            "what gives that share under sm-partition: mps-percentage or green-context; null = not known",
            nullable=True,
        ),
        _field("repeat", _INT, "1", "number of this call among those of the same shape, from 0"),
        _field("latency_s", _FLOAT, "s", "the whole iteration, host time included"),
        _field(
            "host_s",
            _FLOAT,
            "s",
            "the part of latency_s in which no kernel of this replica runs or waits for the device; the rest is what "
            "replicas on one device compete for",
            nullable=True,
        ),
        _field("energy_j", _FLOAT, "J", "device energy of the window divided by its calls", nullable=True),
        _field("power_w", _FLOAT, "W", "mean device power during the window", nullable=True),
        _field("sm_clock_mhz", _FLOAT, "MHz", "SM clock during the window", nullable=True),
        _field("visit", _INT, "1", "calls made in a row share it; visits lie apart", nullable=True),
        _field(
            "throttle", _TEXT, "", "what held the clock down, joined by +; empty = nothing", nullable=True
        ),
        _field("outlier", _INT, "1", "1 = far from the other calls of its shape; kept", nullable=True),
    ]
)

KERNELS = pa.schema(
    [
        _field("op", _TEXT, "", "operator: qkv, attention, mlp, head, sampler, …"),
        _field("tokens", _INT, "tokens", "new tokens processed"),
        _field("seqs", _INT, "sequences", "sequences they belong to"),
        _field("ctx_tokens", _INT, "tokens", "cached tokens attended, summed over sequences"),
        _field("repeat", _INT, "1", "number of this call among those of the same shape, from 0"),
        _field("latency_s", _FLOAT, "s", "duration of one call"),
        _field("flops", _FLOAT, "1", "floating-point operations of one call, from the architecture"),
        _field("bytes", _FLOAT, "B", "bytes moved by one call, from the architecture"),
    ]
)

POWER = pa.schema(
    [
        _field("state", _TEXT, "", "idle, prefill, decode, …"),
        _field("sm_clock_mhz", _FLOAT, "MHz", "SM clock that was set or seen", nullable=True),
        _field("cap_w", _FLOAT, "W", "power cap that was set", nullable=True),
        _field("power_w", _FLOAT, "W", "mean device power in that state, by the energy counter"),
        _field(
            "sampled_power_w", _FLOAT, "W", "the same by samples of the device's power sensor", nullable=True
        ),
        _field("relative_speed", _FLOAT, "1", "speed relative to default clock and cap", nullable=True),
        _field("repeat", _INT, "1", "number of this measurement of the same state, from 0"),
    ]
)

TERMS = pa.schema(
    [
        _field("term", _TEXT, "", "name of the fitted term"),
        _field("value", _FLOAT, "see column unit", "fitted value"),
        _field("stderr", _FLOAT, "see column unit", "standard error of the fit", nullable=True),
        _field("unit", _TEXT, "", "unit of value and stderr"),
    ]
)

ROWS: Mapping[str, str] = {
    "iterations": "one row per measured forward pass; raw repeats are kept",
    "kernels": "one row per measured call of an operator",
    "power": "one row per measurement of power in a state, or at a clock or power cap",
    "terms": "one row per fitted term of a calibrated trace, which has them instead of iterations",
    "heldout": "as `iterations`: points from which no cost model is built, to try it on",
}
"""What a row of each table is."""

TABLES: Mapping[str, pa.Schema] = {
    "iterations": ITERATIONS,
    "kernels": KERNELS,
    "power": POWER,
    "terms": TERMS,
    "heldout": ITERATIONS,
}
"""The tables that a trace may hold, by file stem; see :data:`ROWS`."""


def missing_provenance(provenance: Mapping[str, Any]) -> list[str]:
    """The required keys that ``provenance`` lacks; an unknown source counts as a lacking ``source``."""
    source = provenance.get("source")
    if source not in REQUIRED_PROVENANCE:
        return ["source"]
    return [key for key in REQUIRED_PROVENANCE[source] if key not in provenance]

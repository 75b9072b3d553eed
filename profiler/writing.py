"""The journal of a campaign as a trace, while it goes on and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from profiler.grid import Shape
from profiler.measure.confidence import outliers
from simslm.errors import TraceError, UsageError
from simslm.traces.files import Trace, holds_trace, read_trace, write_trace
from simslm.traces.shapes import together

if TYPE_CHECKING:
    from profiler.passes import Passes

SETTINGS = (
    "model",
    "device",
    "dtype",
    "quantization",
    "engine",
    "attention",
    "torch",
    "threads",
    "block_size",
)
"""What iterations of one trace have in common, by its provenance."""


class TraceWriter:
    """Writes the trace of a campaign; what the trace already holds of replicas measured together stays in it.

    Args:
        target: where.
        describe: what its provenance says of engine and machine, asked anew for each writing: some of it is known only
            once the engine has run.
    """

    def __init__(self, target: Path, describe: Callable[[], dict[str, Any]]) -> None:
        self._target, self._describe = target, describe

    def check(self, again: Collection[tuple[str, int]]) -> None:
        """Refuses to write over replicas that were measured together with other settings.

        Args:
            again: ways of sharing and numbers of replicas that will be measured anew.

        Raises:
            UsageError: naming both.
        """
        trace = self._present()
        if trace is None or (rows := _colocated(trace)) is None or not (differing := self._differing(trace)):
            return
        held = set(zip(rows["sharing"].to_pylist(), rows["replicas"].to_pylist(), strict=True))
        if lost := sorted(held - set(again)):
            raise UsageError(
                f"this trace holds {', '.join(f'{way} ×{count}' for way, count in lost)}, measured with another "
                f"{', '.join(differing)}",
                where=str(self._target),
                remedy="measure these again too (--replicas, --sharing), or write to another place (-o)",
            )

    def save(self, passes: Passes) -> None:
        """Writes what there is so far as an unfinished trace, unless a finished one is there."""
        if self._replaceable() and passes.journal.rows("iteration"):
            self.write(passes, {"unfinished": True})

    def _replaceable(self) -> bool:
        if not holds_trace(self._target):
            return True
        trace = self._present()
        return trace is not None and bool(trace.provenance.get("unfinished"))

    def _present(self) -> Trace | None:
        """The trace that is there; None where there is none, or a damaged one."""
        try:
            return read_trace(self._target) if holds_trace(self._target) else None
        except TraceError:
            return None

    def _differing(self, trace: Trace) -> list[str]:
        mine = self._describe()
        return [name for name in SETTINGS if trace.provenance.get(name) != mine.get(name)]

    def write(self, passes: Passes, more: dict[str, Any] | None = None) -> None:
        """Writes all that was measured; ``more`` joins its provenance."""
        journal, trace = passes.journal, self._present()
        provenance = self._describe() | passes.method() | (more or {})
        rows: Any = _columns(flagged(journal.rows("iteration")))
        kept = None if trace is None else _colocated(trace)
        if trace is not None and kept is not None and rows is not None and not self._differing(trace):
            rows = pa.concat_tables([pa.table(rows), kept], promote_options="default")
            provenance |= {name: trace.provenance.get(name) for name in ("colocation", "colocation_refused")}
        write_trace(
            self._target,
            provenance=provenance,
            iterations=rows,
            heldout=_columns(flagged(journal.rows("heldout"))),
            kernels=_columns(journal.rows("kernel"), ("op", "tokens", "seqs", "ctx_tokens")),
            power=_columns(journal.rows("power"), ("state",)),
        )


def _colocated(trace: Trace) -> pa.Table | None:
    """Rows of replicas measured together that a trace holds; None without."""
    return None if trace.iterations is None else together(trace.iterations)


def flagged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with ``outlier``, judged among those of the same shape, sharing and replicas."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(
            tuple(row[name] for name in (*Shape().columns(), "sharing", "replicas")), []
        ).append(row)
    for group in groups.values():
        for row, far in zip(group, outliers([row["latency_s"] for row in group]), strict=True):
            row["outlier"] = int(far)
    return rows


def _columns(rows: list[dict[str, Any]], key: Sequence[str] = ()) -> dict[str, list[Any]] | None:
    """Rows as columns, or None without rows; with ``key``, ``repeat`` is counted anew within equal keys."""
    if not rows:
        return None
    if key:
        counts: dict[tuple[Any, ...], int] = {}
        for row in rows:
            del row["visit"]
            which = tuple(row[name] for name in key)
            row["repeat"] = counts.setdefault(which, 0)
            counts[which] += 1
    return {name: [row[name] for row in rows] for name in rows[0]}

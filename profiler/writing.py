"""The journal of a campaign as a trace, while it goes on and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.grid import Shape
from profiler.measure.confidence import outliers
from simslm.errors import TraceError
from simslm.traces.files import holds_trace, read_trace, write_trace

if TYPE_CHECKING:
    from profiler.campaign import Campaign


class TraceWriter:
    """Writes the trace of a campaign.

    Args:
        target: where.
        describe: what its provenance says of engine and machine, asked anew for each writing: some of it is known only
            once the engine has run.
    """

    def __init__(self, target: Path, describe: Callable[[], dict[str, Any]]) -> None:
        self._target, self._describe = target, describe

    def save(self, campaign: Campaign) -> None:
        """What there is so far, as a trace that says so, unless a finished one is there already."""
        if self._replaceable() and campaign.journal.rows("iteration"):
            self.write(campaign, {"unfinished": True})

    def _replaceable(self) -> bool:
        if not holds_trace(self._target):
            return True
        try:
            return bool(read_trace(self._target).provenance.get("unfinished"))
        except TraceError:
            return False

    def write(self, campaign: Campaign, more: dict[str, Any] | None = None) -> None:
        """All that was measured; ``more`` joins its provenance."""
        journal = campaign.journal
        write_trace(
            self._target,
            provenance=self._describe() | campaign.method() | (more or {}),
            iterations=_columns(flagged(journal.rows("iteration"))),
            heldout=_columns(flagged(journal.rows("heldout"))),
            kernels=_columns(journal.rows("kernel"), ("op", "tokens", "seqs", "ctx_tokens")),
            power=_columns(journal.rows("power"), ("state",)),
        )


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

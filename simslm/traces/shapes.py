"""Repeats gathered by shape: one row per distinct iteration, with medians and spread over its repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simslm.catalog.work import IterationShape, equal_prompts

SHAPE_COLUMNS = (
    "decode_seqs",
    "decode_ctx_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_ctx_tokens",
)
"""The columns that say what ran in an iteration."""


@dataclass(frozen=True)
class Shapes:
    """The distinct shapes of a table of iterations, in lexicographic order.

    Attributes:
        columns: each of ``SHAPE_COLUMNS`` as an int64 array of shape ``(n,)``.
        rows: for each shape, the indices of its repeats in ``table``.
        table: the iterations the indices point into.
    """

    columns: dict[str, np.ndarray]
    rows: tuple[np.ndarray, ...]
    table: pa.Table

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def repeats(self) -> np.ndarray:
        """Repeats per shape, shape ``(n,)``."""
        return np.array([len(rows) for rows in self.rows])

    @property
    def work(self) -> IterationShape:
        """All shapes at once, the prompts of each taken as equally long (as a campaign measures them)."""
        return equal_prompts(*(self.columns[name] for name in SHAPE_COLUMNS))

    @property
    def decode_only(self) -> np.ndarray:
        """Mask of the shapes without prompts."""
        return self.columns["prefill_tokens"] == 0

    @property
    def prefill_only(self) -> np.ndarray:
        """Mask of the shapes without decoding sequences."""
        return self.columns["decode_seqs"] == 0

    def median(self, column: str) -> np.ndarray:
        """Median of a float column's samples, shape ``(n,)``; NaN where every repeat is null."""
        found = self.samples(column)
        return np.array([np.median(values) if len(values) else np.nan for values in found])

    def samples(self, column: str) -> list[np.ndarray]:
        """What each shape's median is taken over: medians of its visits, each of whose calls were made in a row.

        Where visits are not known every repeat is its own. Nulls are left out.
        """
        values, visits = (
            pc.cast(self.table.column(name), pa.float64()).to_numpy() for name in (column, "visit")
        )
        return [_by_visit(values[rows], visits[rows]) for rows in self.rows]

    def spread(self, column: str) -> np.ndarray:
        """Interquartile range over the median, shape ``(n,)``; NaN where every repeat is null."""

        def relative(values: np.ndarray) -> float:
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            return float((high - low) / middle) if middle else 0.0

        return self._over_repeats(column, relative)

    def drift(self, column: str) -> np.ndarray:
        """Median of the later half of each shape's repeats over that of the earlier half, less 1, shape ``(n,)``.

        NaN where fewer than four repeats are known. The middle one of an odd number is in neither half.
        """
        numbers = self.table.column("repeat").to_numpy()
        values = pc.cast(self.table.column(column), pa.float64()).to_numpy()
        result = np.full(len(self), np.nan)
        for i, rows in enumerate(self.rows):
            known = values[rows[np.argsort(numbers[rows], kind="stable")]]
            known = known[~np.isnan(known)]
            half = len(known) // 2
            # Two a half at least: the difference of two single calls is noise.
            if half >= 2 and (before := np.median(known[:half])) > 0:
                result[i] = np.median(known[-half:]) / before - 1
        return result

    def label(self, index: int) -> str:
        """A shape for a message: ``decode_seqs=8 decode_ctx_tokens=1024``; zeros are left out."""
        parts = [f"{name}={values[index]}" for name, values in self.columns.items() if values[index]]
        return " ".join(parts)

    def _over_repeats(self, column: str, statistic) -> np.ndarray:
        values = pc.cast(self.table.column(column), pa.float64()).to_numpy()
        result = np.full(len(self), np.nan)
        for i, rows in enumerate(self.rows):
            known = values[rows]
            known = known[~np.isnan(known)]
            if len(known):
                result[i] = statistic(known)
        return result


def _by_visit(values: np.ndarray, visits: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    # A trace without visits, or with some unknown: every call is taken as independent.
    if np.isnan(visits).any():
        return values[known]
    numbers = np.unique(visits[known])
    return np.array([np.median(values[known & (visits == number)]) for number in numbers])


def alone(table: pa.Table) -> pa.Table:
    """The iterations of a replica that had the device to itself."""
    return table.filter(pa.array(table.column("replicas").to_numpy() == 1))


def together(table: pa.Table) -> pa.Table | None:
    """The iterations of replicas that shared the device with others; None when there are none."""
    rows = table.filter(pa.array(table.column("replicas").to_numpy() > 1))
    return rows if rows.num_rows else None


def shapes(table: pa.Table) -> Shapes:
    """Gather the repeats of a table of iterations (``schema.ITERATIONS``) by shape."""
    keys = np.column_stack([table.column(name).to_numpy() for name in SHAPE_COLUMNS])
    distinct, index = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(index, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index, minlength=len(distinct)))[:-1])
    columns = {name: distinct[:, i] for i, name in enumerate(SHAPE_COLUMNS)}
    return Shapes(columns, tuple(rows) if len(distinct) else (), table)

"""Block tables that stay on the device: of each iteration only those that are new go there.

A sequence keeps its row for as long as it keeps the array that lists its blocks: a sequence that gets another block has
another array. Rows of arrays that an iteration does not have are given up when there are no free ones.

Invariant: arrays of blocks are never written to, so that an array that is known is on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ROWS = 1024


class BlockTables:
    """Block tables of many sequences, each in a row of its own, on the host and on the device.

    Args:
        pages: most blocks of a sequence.
        device: where kernels read them.
        rows: sequences that have a row, at first; more where a batch has more.

    Attributes:
        pages: all tables in a row, on the device.
        width: of each.
        generation: how often the tables were moved, because a batch had more sequences than there were rows.
    """

    def __init__(self, pages: int, device: torch.device, rows: int = _ROWS) -> None:
        self.width, self.generation, self._device = pages, 0, device
        self._make(rows)

    def _make(self, rows: int) -> None:
        self._host = np.zeros((rows, self.width), dtype=np.int64)
        self.pages = torch.zeros(rows * self.width, dtype=torch.int64, device=self._device)
        self._rows: dict[int, int] = {}
        self._arrays: dict[int, np.ndarray] = {}  # keeps them alive, so that no other one has their identity
        self._free = list(range(rows))

    def find(self, tables: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The row of every table, and what of them the device lacks.

        Args:
            tables: one of every chunk; the same array may come again.

        Returns:
            Rows ``(tables,)``; and where in ``pages`` which blocks are to be written, ``(2, n)``.
        """
        known = self._rows
        rows = [known.get(id(table), -1) for table in tables]
        if -1 not in rows:
            return np.array(rows), np.empty((2, 0), dtype=np.int64)
        new = {id(table): table for table, row in zip(tables, rows, strict=True) if row < 0}
        if len(new) > len(self._free):
            new = self._give_up(tables, new)
        added = [self._add(table) for table in new.values()]
        return np.array([self._rows[id(table)] for table in tables]), np.concatenate(added, axis=1)

    def blocks(self, rows: np.ndarray, pages: np.ndarray) -> np.ndarray:
        """Blocks of the tables in ``rows`` at ``pages``."""
        return self._host[rows, pages]

    def update(self, places: Tensor, blocks: Tensor) -> None:
        """Writes what :meth:`find` said, on the device."""
        if len(places):
            self.pages.index_copy_(0, places, blocks)

    def _give_up(self, tables: Sequence[np.ndarray], new: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Frees the rows of arrays that this iteration lacks; where those are too few, makes a larger, empty table."""
        wanted = {id(table): table for table in tables}
        if len(wanted) > len(self._host):
            self.generation += 1
            self._make(2 * len(wanted))
            return wanted
        for gone in self._rows.keys() - wanted.keys():
            self._free.append(self._rows.pop(gone))
            del self._arrays[gone]
        return new

    def _add(self, table: np.ndarray) -> np.ndarray:
        row, used = self._free.pop(), min(len(table), self.width)
        self._rows[id(table)], self._arrays[id(table)] = row, table
        self._host[row, :used] = table[:used]
        return np.stack([row * self.width + np.arange(used), self._host[row, :used]])

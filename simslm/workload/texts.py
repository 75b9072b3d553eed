"""What prompts and outputs are made of: a tree of texts, in which equal beginnings are the same pieces.

Every piece of text stands behind another (or begins a prompt), and a prompt is the way from the root to its last
piece. Units of :data:`~simslm.scenario.workload.PREFIX_UNIT_TOKENS` tokens are numbered by the piece in which they
end: two prompts have the same unit exactly where they are the same up to its end.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain

import numpy as np

from simslm.scenario.workload import PREFIX_UNIT_TOKENS as UNIT

ROOT = -1


class Texts:
    """The tree; pieces are numbered from 0."""

    def __init__(self) -> None:
        self._before = array("q")
        self._end = array("q")
        self._first = array("q")
        self._head = array("q")
        self._known: dict[tuple[int, Hashable, int], int] = {}
        self._units = 0

    def add(self, before: int, tokens: int) -> int:
        """A piece of its own behind another, or behind :data:`ROOT`; returns its number."""
        start, piece = self.tokens(before), len(self._end)
        # Numbers go on where nothing was added in between: turns of one conversation become one run of numbers, which
        # is what makes a range of them.
        goes_on = before != ROOT and self._units == self._stop(before)
        self._before.append(before)
        self._end.append(start + tokens)
        self._first.append(self._units)
        self._head.append(self._head[before] if goes_on else piece)
        # Units that end in this piece: the one that began in the piece before is this piece's as soon as it is full.
        self._units += (start + tokens) // UNIT - start // UNIT
        return piece

    def _stop(self, piece: int) -> int:
        """The number after that of the last unit which ends in a piece."""
        return self._first[piece] + self._end[piece] // UNIT - self.tokens(self._before[piece]) // UNIT

    def share(self, before: int, text: Hashable, tokens: int) -> int:
        """The same for the text of a name: behind the same piece it is the same piece."""
        key = (before, text, tokens)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self.add(before, tokens)
        return found

    def tokens(self, piece: int) -> int:
        """Tokens from the beginning to a piece's end."""
        return 0 if piece == ROOT else self._end[piece]

    def units(self, piece: int, tokens: int) -> Sequence[int]:
        """The full units of the first ``tokens`` tokens on the way to a piece's end.

        They come as a range where they are one, which takes no room: of programs without branches they are.
        """
        runs = [run for run in self._runs(piece, tokens // UNIT) if len(run)]
        runs.reverse()
        whole = sum(map(len, runs))
        if not runs:
            return ()
        if runs[-1].stop - runs[0].start == whole:
            return range(runs[0].start, runs[-1].stop)
        return tuple(chain.from_iterable(runs))

    def _runs(self, piece: int, count: int) -> Iterator[range]:
        """The units that end on the way back to the root, of the first ``count``.

        Pieces whose numbers go on from those of the piece before, as turns of a conversation do, are one step.
        """
        while piece != ROOT:
            head = self._head[piece]
            before = self._before[head]
            start, first = self.tokens(before) // UNIT, self._first[head]
            stop = min(self._end[piece] // UNIT, count)
            yield range(first, first + max(stop - start, 0))
            piece = before


class PromptUnits(Sequence[Sequence[int]]):
    """The units of many prompts, each made when it is asked for.

    Args:
        texts: the tree they are in.
        pieces: the last piece of each prompt, int64.
        tokens: the tokens of each that count, int64.
    """

    def __init__(self, texts: Texts, pieces: np.ndarray, tokens: np.ndarray) -> None:
        self._texts = texts
        self._pieces = array("q", pieces.tobytes())
        self._tokens = array("q", tokens.tobytes())

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> Sequence[int]:  # type: ignore[override]
        return self._texts.units(self._pieces[index], self._tokens[index])

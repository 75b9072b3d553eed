"""The launch gaps in iterations that were served.

While an engine serves, nothing can be put in front of its kernels, so the host's clock shows an iteration's launch gaps
as device time. They are measured afterwards, alone on the device, for one iteration of each form that was served. A
recorded iteration is one launch: its form is its recording, whatever its contexts. The gaps of others close as kernels
become longer. Their form is half an octave of tokens and an octave of the context that is attended to, and between the
measured iterations of one octave of context the gaps follow straight lines over the tokens.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from math import log2, nan
from typing import NamedTuple, TypeVar

import numpy as np

from profiler.engine.graphs import Size
from profiler.engines.own import OwnEngine
from profiler.grid import Shape
from profiler.measure.faults import deadly, survivable
from profiler.serving.log import SHAPE, Served
from profiler.serving.stage import Stage

K = TypeVar("K", bound=Hashable)

_STEPS_PER_OCTAVE = 2
_SHORTER = 0.9


class _Work(NamedTuple):
    """The work of one iteration, as in a trace."""

    decode_seqs: int
    decode_ctx_tokens: int
    prefill_seqs: int
    prefill_tokens: int
    prefill_ctx_tokens: int

    @property
    def rows(self) -> int:
        return self.decode_seqs + self.prefill_tokens

    @property
    def context(self) -> int:
        return self.decode_ctx_tokens + self.prefill_ctx_tokens


class LaunchGaps:
    """Launch gaps of an engine's iterations; each form is measured once.

    Args:
        engine: whose iterations; no requests may be on it while gaps are measured.
        num_blocks: of its KV cache, what serving has.
        seed: of tokens and block tables.
    """

    def __init__(self, engine: OwnEngine, num_blocks: int, seed: int) -> None:
        self._engine, self._num_blocks = engine, num_blocks
        self._rng = np.random.default_rng(seed)
        self._lines: dict[Hashable, dict[int, float]] = {}
        self._measured: set[Hashable] = set()

    def added(self, served: Served) -> Served:
        """The workload that was served, with launch gaps in its host time; a CPU has none.

        Host time is NaN where the device ran out of memory, say, when gaps were to be measured.

        Args:
            served: its ``host_s`` is what the loop could tell, see :func:`profiler.measure.timing.time_iteration`.
        """
        columns = served.iterations
        if self._engine.kernels is None or not len(columns["start_s"]):
            return served
        table = np.stack([columns[name] for name in SHAPE[:5]], axis=1)
        works = [_Work(*row) for row in table.tolist()]
        self._measure(works)
        gaps_s = np.empty(len(works))
        for line, members in _grouped([self._line(work) for work in works]).items():
            rows, found_s = zip(*sorted(self._lines[line].items()), strict=True)
            gaps_s[members] = np.interp([works[i].rows for i in members], rows, found_s)
        host_s = np.minimum(columns["host_s"] + gaps_s, columns["duration_s"])
        return replace(served, iterations=columns | {"host_s": host_s})

    def _measure(self, works: list[_Work]) -> None:
        """Measures one iteration of each form that is new."""
        forms = _grouped([(self._line(work), self._step(work)) for work in works])
        for form, members in forms.items():
            if form not in self._measured:
                self._measured.add(form)
                middle = sorted((works[i] for i in members), key=lambda work: (work.rows, work.context))
                work = middle[(len(middle) - 1) // 2]
                self._lines.setdefault(form[0], {})[work.rows] = self._gaps_s(work)

    def _line(self, work: _Work) -> Hashable:
        """Key of iterations whose gaps lie on one line over their tokens."""
        recording = self._recording(work.decode_seqs + work.prefill_seqs, work.rows)
        return round(log2(1 + work.context)) if recording is None else recording

    def _step(self, work: _Work) -> int:
        recorded = self._recording(work.decode_seqs + work.prefill_seqs, work.rows) is not None
        return 0 if recorded else round(_STEPS_PER_OCTAVE * log2(work.rows))

    def _recording(self, seqs: int, rows: int) -> Size | None:
        """Size of the recording that runs so many sequences and tokens; None where they run eagerly."""
        return self._engine.graphs and self._engine.graphs.size_of(seqs, rows)

    def _gaps_s(self, work: _Work) -> float:
        """Launch gaps of one iteration with the work of a served one; NaN where the device refuses it now."""
        assert self._engine.kernels is not None
        try:
            stage = Stage(self._engine, self._shape(work), self._rng)
            stage.time()  # these lengths may not have been met
            return stage.launch_gaps_s(self._engine.kernels)
        except Exception as error:
            if not survivable(error) or deadly(error):
                raise
            return nan  # the workload was served all the same

    def _shape(self, work: _Work) -> Shape:
        """The work with prompts of one length; it is recorded if it was, and shorter if it does not fit so."""
        seqs, each = work.decode_seqs + work.prefill_seqs, work.prefill_tokens // max(work.prefill_seqs, 1)
        eager = self._recording(seqs, work.rows) is None
        each += eager and self._recording(seqs, work.decode_seqs + work.prefill_seqs * each) is not None
        decode_ctx = work.decode_ctx_tokens // max(work.decode_seqs, 1)
        prefill_ctx = work.prefill_ctx_tokens // max(work.prefill_seqs, 1)
        shape = Shape(work.decode_seqs, decode_ctx, work.prefill_seqs, each, prefill_ctx)
        longest = self._engine.architecture.max_position_embeddings
        while shape.blocks(self._engine.cache.block_size, longest) > self._num_blocks:
            shorter = int(_SHORTER * shape.decode_ctx), int(_SHORTER * shape.prefill_ctx)
            shape = shape._replace(decode_ctx=shorter[0], prefill_ctx=shorter[1])
        return shape


def _grouped(keys: list[K]) -> dict[K, list[int]]:
    """The places of equal keys."""
    found: dict[K, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return found

"""The cost of a model with a draft beside it: what proposing and verifying take together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.model import CostModel, Costs, DecodeLine


class Drafted(CostModel):
    """A model that verifies what a draft model proposes.

    For ``k`` proposed tokens of each sequence the draft decodes ``k`` times, over contexts that grow by a token each
    time, before the model's own iteration verifies them; a prompt is prefilled by both. An iteration that proposes
    nothing costs what the model's own does: that the draft has not seen its token is not charged later.

    Args:
        cost: of the model, which prices ``draft_tokens``.
        draft: of the draft model.
    """

    def __init__(self, cost: CostModel, draft: CostModel) -> None:
        facts = replace(
            cost.facts.noting(draft=draft.provenance),
            idle_w=cost.idle_w if draft.idle_w is not None else None,
            power_note=cost.power_note or draft.power_note,
        )
        super().__init__(facts)
        self._cost = cost
        self._draft = draft

    def _line(self, decode_seqs: int) -> DecodeLine:
        """The line of the model: nothing is proposed in plain decode iterations."""
        return self._cost.decode(decode_seqs)

    def latency_s(self, shape: IterationShape) -> float:
        """Seconds of one iteration and of what was proposed for it."""
        seconds = self._cost.latency_s(shape)
        if shape.prefill_tokens:
            seconds += self._draft.latency_s(_prompts(shape))
        for i in range(int(shape.draft_tokens // (shape.decode_seqs or 1))):
            seconds += self._draft.latency_s(_proposal(shape, i))
        return seconds

    def host_s(self, shape: IterationShape) -> float:
        """Host time of the model's iteration and of the draft's."""
        seconds = self._cost.host_s(shape)
        if shape.prefill_tokens:
            seconds += self._draft.host_s(_prompts(shape))
        for i in range(int(shape.draft_tokens // (shape.decode_seqs or 1))):
            seconds += self._draft.host_s(_proposal(shape, i))
        return seconds

    def evaluate(self, shapes: IterationShape) -> Costs:
        """Costs of many iterations; one is inside the measured domain where the model's part and the draft's are."""
        own = self._cost.evaluate(shapes)
        latency, host, inside = own.latency_s.copy(), own.host_s.copy(), own.in_domain.copy()
        energy = None if own.energy_j is None else own.energy_j.copy()
        columns = IterationShape(*(np.broadcast_to(np.asarray(part), latency.shape) for part in shapes))
        times = np.asarray(columns.draft_tokens // np.maximum(columns.decode_seqs, 1))
        rounds = [(columns.prefill_tokens > 0, _prompts)]
        rounds += [
            (times > i, lambda shape, i=i: _proposal(shape, i)) for i in range(int(times.max(initial=0)))
        ]
        for mask, asked in rounds:
            rows = np.flatnonzero(mask)
            if not len(rows):
                continue
            added = self._draft.evaluate(asked(IterationShape(*(part[rows] for part in columns))))
            latency[rows] += added.latency_s
            host[rows] += added.host_s
            inside[rows] &= added.in_domain
            if energy is not None and added.energy_j is not None:
                energy[rows] += added.energy_j
            else:
                energy = None
        return Costs(latency, host, energy if self.idle_w is not None else None, inside)

    def variants(self) -> tuple[tuple[CostModel, CostModel], ...]:
        """The variants of the model, with the draft's costs unchanged."""
        return tuple(
            (Drafted(low, self._draft), Drafted(high, self._draft)) for low, high in self._cost.variants()
        )


def _prompts(shape: IterationShape) -> IterationShape:
    """What the draft prefills."""
    nothing = shape.decode_seqs * 0
    return shape._replace(
        decode_seqs=nothing, decode_ctx_tokens=nothing, unread_seqs=nothing, draft_tokens=nothing
    )


def _proposal(shape: IterationShape, number: int) -> IterationShape:
    """What the draft decodes to propose token ``number`` of each sequence, counted from 0."""
    nothing = shape.decode_seqs * 0
    context = shape.decode_ctx_tokens + number * shape.decode_seqs
    return IterationShape(
        shape.decode_seqs, context, nothing, nothing, nothing, nothing * 0.0, nothing, nothing
    )

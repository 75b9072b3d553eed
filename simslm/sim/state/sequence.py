"""A request while it is in a replica."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass, field
from math import inf

PAUSED = -2
"""The phase of a sequence that has its tokens computed, here or elsewhere, and waits to go on."""

Units = abc.Sequence[int]
"""A chain of hashes."""


@dataclass(slots=True, eq=False)
class Sequence:
    """What the engine keeps of a request in flight; policies see it as ``Prompt``, without its true length.

    Attributes:
        request_id: its number in the workload.
        arrival_s: when it arrived.
        prompt_tokens: tokens of its prompt.
        max_tokens: declared limit of its output.
        row: of what is noted of it, see :class:`~simslm.sim.rows.RequestRows`.
        priority: the lower, the sooner.
        session_id: the conversation it belongs to, -1 for none.
        program, stage, deadline_s: see :class:`~simslm.policies.route.RoutedRequest`.
        group: number of the group it arrived at.
        units: hashes of its prompt's prefix, ``unit_tokens`` tokens each; empty when they are not known.
        context_units: hashes of its prompt and output together, full units only, those of the prompt among them; empty
            where no other prompt goes on from its output.
        prefill_tokens: tokens of the whole present prefill: the prompt and, after a preemption by recompute,
            what had been generated.
        remaining: tokens of it still to prefill, without what a prefix cache holds.
        uncached_tokens: what ``remaining`` was when it was admitted; kept for policies by layers, else 0.
        blocks: KV blocks that admitting it, or letting it go on, takes from the free ones.
        reserved: KV blocks that it holds from its admission on, where they are not taken as needed.
        here: it waits, and its blocks are on the device already.
        generated: output tokens emitted up to its last prefill or preemption.
        decode_from: number of the replica's decode iteration that it decodes in first, -1 before.
        decode_last: number of the one it finishes in.
        phase: when it takes new blocks, see :class:`~simslm.sim.state.blocks.BlockPool`; -1 when it takes none,
            :data:`PAUSED` while it waits to go on.
        last_token_s: when its last token came, as far as noted: at a prefill's end and at a preemption.
        held: the cached units it holds.
        lost: tokens it had in the cache when it was taken off the device, until it is admitted again.
        cancelled: its client has gone.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    row: int = -1
    priority: int = 0
    session_id: int = -1
    program: int = -1
    stage: int = 0
    deadline_s: float = inf
    group: int = 0
    units: Units = ()
    unit_tokens: int = 0
    context_units: Units = ()
    prefill_tokens: int = 0
    remaining: int = 0
    uncached_tokens: int = 0
    blocks: int = 0
    reserved: int = field(default=0, repr=False)
    here: bool = field(default=False, repr=False)
    generated: int = field(default=0, repr=False)
    decode_from: int = field(default=-1, repr=False)
    decode_last: int = field(default=-1, repr=False)
    phase: int = field(default=-1, repr=False)
    last_token_s: float = field(default=-1.0, repr=False)
    held: Units = field(default=(), repr=False)
    lost: int = field(default=0, repr=False)
    cancelled: bool = field(default=False, repr=False)

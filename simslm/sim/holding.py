"""What a replica does with one sequence: where it waits, which blocks it holds, and how it leaves.

Invariants: a sequence holds blocks from its admission until they are given back, once; it ends once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

from simslm.sim.clock import Clock
from simslm.sim.log import FAILED, FINISHED, ReplicaLog, RequestLog
from simslm.sim.log.replica import PACK_STAY
from simslm.sim.span import Span
from simslm.sim.state.sequence import Sequence
from simslm.sim.view import Visible


class Holding(Visible):
    """The part of :class:`~simslm.sim.replica.Replica` that keeps the books of its sequences."""

    __slots__ = ()

    clock: Clock
    log: ReplicaLog
    on_done: Callable[[int], None] | None
    output_tokens: array[int]
    outstanding: int
    requests: RequestLog
    span: Span
    _ends: tuple[Callable[[Sequence, float], None], ...]
    _gives_up: tuple[Callable[[Sequence], None], ...]
    _last_decode_s: float
    _leaves: tuple[Callable[[Sequence, int, int], None], ...]
    _moves_on: tuple[Callable[[Sequence], None], ...]
    _preempted: tuple[Callable[[Sequence, int, bool], bool], ...]
    _reserves: bool
    _rivals: tuple[Callable[[], Iterable[Sequence]], ...]

    # ---- who waits ------------------------------------------------------------------------------------------

    def rivals(self) -> Iterator[Sequence]:
        """Sequences that wait elsewhere for blocks here."""
        for rivals in self._rivals:
            yield from rivals()

    def present(self) -> set[Sequence]:
        """All sequences of the replica that want more tokens."""
        held = (sequence for holds in self._holds for sequence in holds())
        return {*self.queue, *self.paused, *held, *self.batch.running} - {*self.batch.lingering}

    def requeue(self, sequence: Sequence) -> None:
        """Puts a sequence in the queue, all of it to be prefilled."""
        tokens = sequence.prompt_tokens + sequence.generated
        sequence.prefill_tokens = sequence.remaining = tokens
        sequence.blocks = self.room(sequence) if self._reserves else self.pool.blocks(tokens)
        self.queue.add(sequence)

    # ---- what a sequence holds ------------------------------------------------------------------------------

    def room(self, sequence: Sequence) -> int:
        """KV blocks that a sequence whose prompt is to be held here takes; a reservation is noted."""
        if not self._reserves:
            return self.pool.blocks(sequence.prefill_tokens)
        sequence.reserved = self.pool.blocks(sequence.prompt_tokens + sequence.max_tokens)
        return sequence.reserved

    def held_blocks(self, sequence: Sequence) -> int:
        """KV blocks that a sequence holds here."""
        if self._reserves:
            return sequence.reserved
        return self.pool.blocks(sequence.prefill_tokens + self.batch.steps(sequence))

    def start_decoding(self, sequence: Sequence) -> None:
        """A running sequence, its tokens all computed, takes part in the next decode iterations."""
        batch = self.batch
        self.span.steady = False
        sequence.phase = -1
        if not self._reserves:
            sequence.phase = self.pool.start(sequence.prefill_tokens, batch.decoded)
        batch.start(sequence, self.output_tokens[sequence.row] - sequence.generated)

    def _stay(self, sequence: Sequence) -> None:
        """A sequence stops decoding, which the log notes; the next iterations cost otherwise."""
        self.span.steady = False
        self.log.stays += PACK_STAY(
            sequence.request_id, sequence.decode_from, self.batch.decoded, sequence.phase
        )

    def give_back(self, sequence: Sequence, steps: int) -> None:
        """All blocks of a sequence are free again, but for those a prefix cache keeps."""
        pool = self.pool
        free = pool.free if self._leaves else 0
        if self._reserves:
            pool.release(sequence.reserved)
        elif sequence.phase >= 0:
            pool.stop(sequence.phase, sequence.prefill_tokens + steps)
            sequence.phase = -1
        else:
            pool.release(pool.blocks(sequence.prefill_tokens + steps))
        if pool.prefix is None and not self._leaves:
            return
        tokens = 0 if sequence.remaining else sequence.prefill_tokens + steps
        if pool.prefix is not None:
            pool.leave_prefix(sequence, tokens)
        for leaves in self._leaves:
            leaves(sequence, tokens, pool.free - free)

    def give_up(self, sequence: Sequence, blocks: int) -> None:
        """Blocks of a sequence that goes on elsewhere are free again, but for those a prefix cache keeps."""
        self.pool.release(blocks)
        if self.pool.prefix is not None:
            self.pool.leave_prefix(sequence, sequence.prefill_tokens)
        for gives_up in self._gives_up:
            gives_up(sequence)

    # ---- how it leaves --------------------------------------------------------------------------------------

    def preempt(self, victim: Sequence, *, beside: bool = False) -> None:
        """Takes a sequence off the device: to the host if there is room, else to be prefilled again.

        Args:
            victim: that runs.
            beside: others may run while its blocks leave.
        """
        free = self.pool.free
        self.depart(victim)
        self.requests.preemptions[victim.row] += 1
        for preempted in self._preempted:
            if preempted(victim, self.pool.free - free, beside):
                return
        self.requeue(victim)

    def depart(self, sequence: Sequence) -> None:
        """Takes a running sequence off the device before its time, keeping count of what it has generated."""
        if sequence.decode_from >= 0:
            self._stay(sequence)
        steps = self.batch.remove(sequence)
        sequence.lost = sequence.prefill_tokens - sequence.remaining + steps
        self.give_back(sequence, steps)
        if sequence.decode_from < 0:
            return
        if steps:
            sequence.last_token_s = self._last_decode_s
        sequence.generated += steps
        sequence.prefill_tokens += steps
        sequence.decode_from = -1

    def detach(self, sequence: Sequence) -> int:
        """Takes a decoding sequence off the device, its blocks still held here; returns how many those are."""
        blocks = self.held_blocks(sequence)
        self._stay(sequence)
        steps = self.batch.remove(sequence)
        self.pool.hold(sequence.phase)
        sequence.phase = sequence.decode_from = -1
        if steps:
            sequence.last_token_s = self._last_decode_s
        sequence.generated += steps
        sequence.prefill_tokens += steps
        return blocks

    def move_on(self, sequence: Sequence) -> None:
        """A sequence that has left the queue and the device goes on at another replica."""
        self.outstanding -= 1
        for moves_on in self._moves_on:
            moves_on(sequence)

    def dismiss(self, sequence: Sequence) -> None:
        """A sequence that had its last token an iteration ago is seen to be done."""
        self.span.steady = False
        steps = self.batch.dismiss(sequence)
        decoded = sequence.generated < self.output_tokens[sequence.row]  # else its first token was its last
        self.give_back(sequence, steps if decoded else 0)

    def drop(self, sequence: Sequence) -> None:
        """A sequence whose client has gone, and whose blocks are here, leaves."""
        self.give_back(sequence, 0)
        self.end(sequence, self.clock.time_s)

    def answer(self, sequence: Sequence, now: float) -> None:
        """All tokens of a sequence go out at once, to a client that is still there."""
        if not sequence.cancelled:
            self.requests.first_token_s[sequence.row] = now
        self.end(sequence, now)

    def end(self, sequence: Sequence, now: float) -> None:
        """A request is done with: its last token is out, or its client has gone, perhaps while that was computed."""
        requests, row = self.requests, sequence.row
        for ends in self._ends:
            ends(sequence, now)
        self.outstanding -= 1
        if sequence.cancelled:
            requests.status[row] = FAILED
        else:
            requests.finish_s[row] = now
            requests.status[row] = FINISHED
        if self.on_done is not None:
            self.on_done(row)

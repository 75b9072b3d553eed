"""The sequences a replica runs, kept as aggregates: one that only decodes costs nothing per iteration.

Decode iterations of a replica are numbered from 0. What a sequence will do is known when it begins to decode: it
takes part in every decode iteration from then on, and finishes in the one that its output length says. So a batch
keeps sums, and a calendar of who finishes in which iteration.
"""

from __future__ import annotations

from heapq import heappop, heappush

from simslm.sim.state.sequence import Sequence


class Batch:
    """Who runs, and who finishes when.

    Attributes:
        running: every admitted sequence, in order of admission.
        partial: those whose prompt is only partly in the cache, oldest first.
        starting: those that will decode for the first time since their prefill.
        padded: those that have finished but keep their place.
        lingering: those that have finished but not been seen to, and which decode iteration was their first.
        decoding: how many decode, the padded ones not counted.
        scheduled: how many the next decode iteration is scheduled for: those that decode, and those that linger.
        rows: how many it computes, the padded ones counted.
        context: tokens in the cache of those that decode or are padded, summed.
        decoded: decode iterations so far, and so the number of the next.
        accepted: drafted tokens that the next decode iteration emits; 0 without speculation.
        full: how many of the computed ones do not grow, for they keep a bounded number of tokens; 0 without a window.
    """

    __slots__ = (
        "_calendar",
        "_finishes",
        "accepted",
        "context",
        "decoded",
        "decoding",
        "full",
        "lingering",
        "padded",
        "partial",
        "rows",
        "running",
        "scheduled",
        "starting",
    )

    def __init__(self) -> None:
        self.running: dict[Sequence, None] = {}
        self.partial: list[Sequence] = []
        self.starting: list[Sequence] = []
        self.padded: list[Sequence] = []
        self.lingering: dict[Sequence, int] = {}
        self.decoding = 0
        self.scheduled: int = 0
        self.rows: int = 0
        self.context: int = 0
        self.decoded: int = 0
        self.accepted = 0
        self.full = 0
        self._calendar: dict[int, list[Sequence]] = {}
        self._finishes: list[int] = []

    @property
    def until_finish(self) -> int:
        """Decode iterations up to and with the one in which a sequence finishes next; one must decode."""
        finishes = self._finishes
        while finishes[0] not in self._calendar:
            heappop(finishes)
        return finishes[0] - self.decoded + 1

    def steps(self, sequence: Sequence) -> int:
        """Tokens that a running sequence has decoded since its prefill."""
        return self.decoded - sequence.decode_from if sequence.decode_from >= 0 else 0

    def open_rows(self) -> bytes:
        """Packed rows of the sequences that do not grow now, for the log."""
        return b""

    def admit(self, sequence: Sequence) -> None:
        """A sequence joins, its prompt still to prefill."""
        self.running[sequence] = None
        self.partial.append(sequence)

    def start(self, sequence: Sequence, tokens: int) -> None:
        """A sequence takes part in the next decode iterations, as many as it has ``tokens`` to go."""
        first = sequence.decode_from = self.decoded
        last = sequence.decode_last = first + tokens - 1
        self.decoding += 1
        self.scheduled += 1
        self.rows += 1
        self.context += sequence.prefill_tokens
        self.starting.append(sequence)
        finishers = self._calendar.get(last)
        if finishers is None:
            self._calendar[last] = [sequence]
            heappush(self._finishes, last)
        else:
            finishers.append(sequence)

    def decode(self, iterations: int) -> list[Sequence] | None:
        """All that decode have decoded so many tokens; returns those whose last it was, if any.

        They are still in the batch.
        """
        if self.starting:
            self.starting.clear()
        self.context += self.rows * iterations
        last = self.decoded + iterations
        self.decoded = last
        finishers = self._calendar.pop(last - 1, None)
        if finishers is not None:
            heappop(self._finishes)
        return finishers

    def finish(self, sequence: Sequence) -> int:
        """A sequence has decoded its last token and leaves; returns how many it decoded since its prefill."""
        steps = self.decoded - sequence.decode_from
        self.decoding -= 1
        self.scheduled -= 1
        self.rows -= 1
        self.context -= sequence.prefill_tokens + steps
        del self.running[sequence]
        return steps

    def remove(self, sequence: Sequence) -> int:
        """A sequence leaves before its time; returns how many tokens it decoded since its prefill."""
        if sequence.decode_from < 0:
            del self.running[sequence]
            self.partial.remove(sequence)
            return 0
        finishers = self._calendar[sequence.decode_last]
        finishers.remove(sequence)
        if not finishers:
            del self._calendar[sequence.decode_last]
        if sequence.decode_from == self.decoded:
            self.starting.remove(sequence)
        return self.finish(sequence)

    def pad(self, sequence: Sequence) -> None:
        """A sequence has finished and keeps its place; its context stays in the cache."""
        if sequence.decode_from >= 0:
            self.decoding -= 1
            self.scheduled -= 1
        else:
            self.rows += 1
            self.context += sequence.prefill_tokens
        sequence.decode_from = -1
        self.padded.append(sequence)

    def linger(self, sequence: Sequence) -> None:
        """The last token of a sequence is out; the scheduler will know one iteration later."""
        if sequence.decode_from >= 0:
            self.decoding -= 1
            self.lingering[sequence] = sequence.decode_from
            sequence.decode_from = -1
        else:
            self.scheduled += 1
            self.rows += 1
            self.context += sequence.prefill_tokens
            self.lingering[sequence] = self.decoded

    def dismiss(self, sequence: Sequence) -> int:
        """A lingering sequence leaves; returns how many tokens it decoded, the one thrown away included."""
        steps = self.decoded - self.lingering.pop(sequence)
        self.scheduled -= 1
        self.rows -= 1
        self.context -= sequence.prefill_tokens + steps
        del self.running[sequence]
        return steps

    def clear(self) -> list[Sequence]:
        """No sequence decodes any more, and the padded ones leave; returns them."""
        gone, self.padded = self.padded, []
        for sequence in gone:
            del self.running[sequence]
        self.rows = self.context = 0
        return gone

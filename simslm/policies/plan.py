"""What a batching policy sees (the view) and what it returns (the plan)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Prompt(Protocol):
    """A request that is waiting, or whose prompt is only partly in the cache.

    Attributes:
        request_id: its number in the workload.
        arrival_s: when it arrived.
        prompt_tokens: length of its prompt.
        max_tokens: the declared limit of its output; the true length is not known to a policy.
        priority: the lower, the sooner.
        remaining: tokens still to prefill: the rest of the prompt that no prefix cache holds and, after a
            preemption by recompute, the tokens generated before it.
        uncached_tokens: what ``remaining`` was when it was admitted; kept for policies by layers, else 0.
        blocks: free KV blocks that admitting it takes.
    """

    @property
    def request_id(self) -> int: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def uncached_tokens(self) -> int: ...
    @property
    def blocks(self) -> int: ...


class ReplicaView(Protocol):
    """What a policy may know of a replica between two iterations.

    Attributes:
        waiting: requests that may be admitted, in queue order; none while swapped sequences wait to come back.
        partial: admitted requests whose prompt is only partly in the cache, oldest first.
        decoding: number of sequences that decode.
        free_blocks: KV blocks that are not in use.
        decode_blocks: KV blocks the decoding sequences need to run one more iteration.
        watermark_blocks: blocks to keep free when admitting, so that running sequences can grow.
        max_num_seqs: most sequences that may run (decoding or partial) at once.
        max_num_batched_tokens: most tokens of one iteration.
    """

    @property
    def waiting(self) -> Iterable[Prompt]: ...
    @property
    def partial(self) -> Sequence[Prompt]: ...
    @property
    def decoding(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def decode_blocks(self) -> int: ...
    @property
    def watermark_blocks(self) -> int: ...
    @property
    def max_num_seqs(self) -> int: ...
    @property
    def max_num_batched_tokens(self) -> int: ...


class Plan:
    """What runs in the next iteration.

    Attributes:
        decode: whether every decoding sequence advances by one token.
        chunks: ``(prompt, tokens)`` to prefill, in order.
        tokens: tokens of the iteration so far.
        admitted: how many of the chunks belong to prompts that were waiting.
        padded_to: every prompt is padded to this many tokens; 0 = no padding.
    """

    __slots__ = ("_running", "_spare", "admitted", "chunks", "decode", "padded_to", "tokens")

    def __init__(self, view: ReplicaView, *, decode: bool) -> None:
        self.decode = decode
        self.chunks: list[tuple[Prompt, int]] = []
        decoding = view.decoding
        self.tokens = decoding if decode else 0
        self._running = decoding + len(view.partial)
        self.admitted = 0
        self.padded_to = 0
        self._spare = -1

    def advance(self, prompt: Prompt, tokens: int) -> None:
        """Prefills ``tokens`` more of a prompt that is admitted already."""
        self.chunks.append((prompt, tokens))
        self.tokens += tokens

    def admit(self, prompt: Prompt, tokens: int, view: ReplicaView) -> bool:
        """Admits a waiting prompt and prefills its first ``tokens``, if a sequence slot and its blocks are free.

        Blocks that decoding sequences need for the iteration, if the plan decodes, come first. The watermark is
        not kept on a replica that would otherwise stand empty.
        """
        running = self._running + self.admitted
        if running >= view.max_num_seqs:
            return False
        # Looked up with the first prompt only: most plans of a full replica admit none, and both figures cost time.
        if self._spare < 0:
            self._spare = view.free_blocks - (view.decode_blocks if self.decode else 0)
        spare = self._spare - prompt.blocks
        # An empty replica ignores the watermark, or a prompt as large as the cache could never run.
        if spare < (view.watermark_blocks if running else 0):
            return False
        self._spare = spare
        self.admitted += 1
        self.chunks.append((prompt, tokens))
        self.tokens += tokens
        return True

    def fill(self, view: ReplicaView, size: int, most_partial: int | None = None) -> None:
        """Prefills until the iteration has ``size`` tokens: partial prompts first, then as much of those that wait.

        Args:
            view: what the plan is made of.
            size: tokens of the iteration, decodes included.
            most_partial: prompts that may be left partly prefilled before another is admitted; None = any number.
        """
        partial = 0
        for prompt in view.partial:
            if self.tokens >= size:
                return
            chunk = min(prompt.remaining, size - self.tokens)
            self.advance(prompt, chunk)
            partial += chunk < prompt.remaining
        for prompt in view.waiting:
            room = size - self.tokens
            if room <= 0 or (most_partial is not None and partial >= most_partial):
                break
            split = prompt.remaining > room
            if not self.admit(prompt, room if split else prompt.remaining, view):
                break
            partial += split

    @property
    def empty(self) -> bool:
        return not self.tokens


class BatchingPolicy(Protocol):
    """Forms the batch of the next iteration.

    Attributes:
        whole_prompts: prompts are never split, so one longer than ``max_num_batched_tokens`` cannot be served.
        reserves_output: a sequence gets the blocks of its declared ``max_tokens`` when it is admitted, and
            takes none later; else blocks are taken as it grows.
        holds_batch: a sequence that has finished stays in the batch, padded, until the whole batch has.
        returns_batch: tokens go out when the whole batch has finished, all at once; else each when it is there.
        by_layers: a chunk is a share of the layers instead of the tokens: every token that the prompt had to prefill
            when it was admitted passes the next layers, as large a share of all layers as the chunk is of those tokens.
    """

    whole_prompts: bool
    reserves_output: bool
    holds_batch: bool
    returns_batch: bool
    by_layers: bool

    def plan(self, view: ReplicaView) -> Plan:
        """What runs next. A function of the view alone: the same view gives the same plan.

        Not asked when no request waits and no prompt is partial: all decoding sequences then simply go on. Waiting
        requests are admitted in their order, none before another. So a plan that only decodes is kept, without asking
        again, until a request comes to the head of the queue, or one finishes or is preempted: until then more blocks
        are taken and none are freed, so nothing new could be admitted.
        """
        ...


class Batching:
    """The defaults of a batching policy: prompts may be split, blocks are taken as needed, slots are freed at once."""

    whole_prompts = False
    reserves_output = False
    holds_batch = False
    returns_batch = False
    by_layers = False

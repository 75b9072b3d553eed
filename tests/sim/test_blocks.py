"""The KV block pool against an independent model that keeps every sequence's blocks one by one."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from simslm.errors import SimslmError
from simslm.sim.state.blocks import BlockPool
from simslm.sim.state.sequence import Sequence


class PoolMachine(RuleBasedStateMachine):
    """Admits, decodes and drops sequences; the model counts ``ceil(tokens / block_size)`` for each."""

    pool_class: type[BlockPool] = BlockPool

    @initialize(size=st.sampled_from([1, 3, 16]), num=st.integers(1, 40))
    def begin(self, size: int, num: int) -> None:
        self.pool = self.pool_class(num, size)
        self.prompts: list[int] = []
        self.sequences: list[tuple[int, int]] = []
        self.at = 0

    def held(self) -> int:
        tokens = self.prompts + [cached for cached, _ in self.sequences]
        return sum(-(-count // self.pool.block_size) for count in tokens)

    @rule(tokens=st.integers(1, 60))
    def admit(self, tokens: int) -> None:
        need = -(-tokens // self.pool.block_size)
        if need <= self.pool.num_blocks - self.held():
            self.pool.allocate(self.pool.blocks(tokens))
            self.prompts.append(tokens)
        else:
            with pytest.raises(SimslmError):
                self.pool.allocate(self.pool.blocks(tokens))

    @precondition(lambda self: self.prompts)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        tokens = self.prompts.pop(data.draw(st.integers(0, len(self.prompts) - 1)))
        self.sequences.append((tokens, self.pool.start(tokens, self.at)))

    @precondition(lambda self: self.prompts)
    @rule(data=st.data())
    def drop_prompt(self, data: st.DataObject) -> None:
        self.pool.release(
            self.pool.blocks(self.prompts.pop(data.draw(st.integers(0, len(self.prompts) - 1))))
        )

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        cached, phase = self.sequences.pop(data.draw(st.integers(0, len(self.sequences) - 1)))
        self.pool.stop(phase, cached)

    @rule(limit=st.integers(1, 70))
    def decode(self, limit: int) -> None:
        fits = 0
        while fits < limit and self._after(fits + 1) <= self.pool.num_blocks:
            fits += 1
        assert self.pool.horizon(self.at, limit) == fits
        assert self.pool.demand(self.at) == self._after(1) - self.held()
        self.pool.grow(self.at, fits)
        assert self.pool.used == self._after(fits)
        self.at += fits
        self.sequences = [(cached + fits, phase) for cached, phase in self.sequences]

    def _after(self, iterations: int) -> int:
        grown = sum(-(-(cached + iterations) // self.pool.block_size) for cached, _ in self.sequences)
        return grown + sum(-(-tokens // self.pool.block_size) for tokens in self.prompts)

    @invariant()
    def free_and_used_are_all(self) -> None:
        if hasattr(self, "pool"):
            assert self.pool.used == self.held()
            assert self.pool.free + self.pool.used == self.pool.num_blocks


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([1, 3, 16]),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(0, 12),
    st.integers(1, 60),
)
def test_with_a_spare_block_a_jump_ends_where_the_last_sequence_finds_none_free(size, cached, free, limit):
    """Each sequence in turn must find a block free, and takes one if its own are full (vLLM V0, ``can_append_slots``);
    one that runs alone must find one only if it takes it."""
    held = sum(-(-tokens // size) for tokens in cached)
    pool = BlockPool(held + free, size)
    pool.allocate(held)
    running = {}
    for number, tokens in enumerate(cached):
        sequence = Sequence(number, 0.0, tokens, 1, phase=pool.start(tokens, 0))
        running[sequence] = None
    pool.touching = running
    left, fits = free, 0
    while fits < limit:
        for tokens in cached:
            takes = (tokens + fits) % size == 0
            if left < (1 if len(cached) > 1 else takes):
                break
            left -= takes
        else:
            fits += 1
            continue
        break
    assert pool.horizon(0, limit) == fits
    assert (pool.needed(0) <= free) == (fits > 0)


class LeaksTheLastBlock(BlockPool):
    """Gives back only full blocks when a sequence leaves."""

    def stop(self, phase: int, cached_tokens: int) -> None:
        super().stop(phase, cached_tokens)
        self.free += cached_tokens // self.block_size - self.blocks(cached_tokens)


class GrowsOneTooLate(BlockPool):
    """Takes a sequence's next block one iteration after it is needed."""

    def start(self, cached_tokens: int, at: int) -> int:
        return super().start(cached_tokens - 1, at)


class ForgetsWhoLeft(BlockPool):
    """Goes on growing for sequences that have left."""

    def stop(self, phase: int, cached_tokens: int) -> None:
        self.free += self.blocks(cached_tokens)


@pytest.mark.parametrize("faulty", [LeaksTheLastBlock, GrowsOneTooLate, ForgetsWhoLeft])
def test_the_machine_kills_seeded_bugs(faulty):
    """The same machine on three pools with a bug each: it finds every one."""
    machine = type("Faulty", (PoolMachine,), {"pool_class": faulty})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=200,
                stateful_step_count=30,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )

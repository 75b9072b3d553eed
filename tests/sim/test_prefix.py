"""The prefix cache: real traffic against a computation of the test's own, and a state machine on the pool."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.invariants import simulate
from support.synthetic import Lists, deployment

from simslm.scenario.workload import Workload
from simslm.sim.log import FINISHED
from simslm.sim.state.blocks import BlockPool
from simslm.sim.state.prefix import PrefixCache
from simslm.sim.state.sequence import Sequence
from simslm.workload import generate

# ---- real traffic ------------------------------------------------------------------------------------------

BLOCK = 16
UNIT = 512
LONGEST = 1 << 18


def served(path: Path, num_gpu_blocks: int, **engine):
    """A Mooncake slice through the simulator, one request at a time in order of arrival."""
    replay = {"replay": {"format": "mooncake", "path": path.name}}
    requests = generate(Workload.model_validate(replay), 0, LONGEST, path.parent)
    alone = deployment(
        max_num_seqs=1,
        max_num_batched_tokens=1 << 15,
        num_gpu_blocks=num_gpu_blocks,
        prefix_caching=True,
        max_model_len=LONGEST,
        **engine,
    )
    return simulate(requests, alone).request_columns


def rows(path: Path) -> list[dict]:
    """The lines of the file in order of arrival."""
    return sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["timestamp"])


def blocks_of(row: dict) -> list[int]:
    """Full blocks in each of a prompt's units."""
    filled = [min(UNIT, row["input_length"] - start) for start in range(0, row["input_length"], UNIT)]
    return [tokens // BLOCK for tokens in filled]


def hit_tokens(row: dict, matched: int) -> int:
    """What the engine does not compute again: whole blocks, and never the last token of a prompt."""
    return min(sum(blocks_of(row)[:matched]), (row["input_length"] - 1) // BLOCK) * BLOCK


def leading(cache, row: dict) -> int:
    """How many of a prompt's first units a cache holds."""
    count = 0
    while count < len(row["hash_ids"]) and row["hash_ids"][count] in cache:
        count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ratio"), [("conversation", 0.306), ("synthetic", 0.336)])
def test_an_infinite_cache_hits_what_a_set_of_all_hashes_hits(name, ratio, workloads):
    path = workloads / f"mooncake_{name}.jsonl"
    found = served(path, 10**9)
    seen: set[int] = set()
    expected = []
    for row in rows(path):
        expected.append(hit_tokens(row, leading(seen, row)))
        seen.update(row["hash_ids"])
    assert found["cached_prompt_tokens"].tolist() == expected
    assert round(sum(expected) / int(found["prompt_tokens"].sum()), 3) == ratio


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conversation", "synthetic"])
@pytest.mark.parametrize("num_gpu_blocks", [9_000, 40_000])
def test_a_small_cache_hits_what_an_lru_cache_hits(name, num_gpu_blocks, workloads):
    path = workloads / f"mooncake_{name}.jsonl"
    found = served(path, num_gpu_blocks)
    cache: OrderedDict[int, int] = OrderedDict()
    held, expected, rejected = 0, [], 0
    for row in rows(path):
        most = -(-(row["input_length"] + row["output_length"] - 1) // BLOCK)
        if most > num_gpu_blocks:
            expected.append(0)
            rejected += 1
            continue
        matched = leading(cache, row)
        expected.append(hit_tokens(row, matched))
        for unit in row["hash_ids"][:matched]:
            held -= cache.pop(unit)
        while held > num_gpu_blocks - most:
            held -= cache.popitem(last=False)[1]
        for unit, blocks in reversed(list(zip(row["hash_ids"], blocks_of(row), strict=True))):
            cache[unit] = blocks
            held += blocks
    assert found["cached_prompt_tokens"].tolist() == expected
    assert np.count_nonzero(found["status"] != FINISHED) == rejected
    everything = served(path, 10**9)["cached_prompt_tokens"].sum()
    assert 0 < sum(expected) < everything


@pytest.mark.parametrize("swap_blocks", [0, 40])
def test_a_crowd_gives_everything_back(swap_blocks):
    """Prompts that share while they are preempted and swapped; then one that needs every block there is."""
    chains = [tuple(range(10 * i, 10 * i + 8)) for i in range(4)]
    count = 120
    rng = np.random.default_rng(5)
    requests = Lists.of(
        np.append(np.cumsum(rng.exponential(0.01, count - 1)), 1000),
        np.append(np.full(count - 1, 200), 70 * 16),
        np.append(rng.integers(1, 80, count - 1), 1),
        units=[*(chains[i] for i in rng.integers(0, 4, count - 1)), ()],
        unit_tokens=16,
    )
    engine = deployment(num_gpu_blocks=70, max_num_seqs=8, prefix_caching=True, swap_blocks=swap_blocks)
    found = simulate(requests, engine)
    assert found.summary["kv"]["preemptions"] > 0
    cached = found.request_columns["cached_prompt_tokens"]
    assert cached.max() == 128
    assert not (cached % 16).any()
    assert (found.request_columns["status"] == FINISHED).all()
    assert found.request_columns["first_scheduled_s"][-1] == 1000


@pytest.mark.parametrize("unit", [8, 16, 512])
@pytest.mark.parametrize("block_size", [1, 16, 32, 64])
@pytest.mark.parametrize("prompt", [1, 16, 17, 32, 512, 1000, 1024])
def test_of_a_prompt_that_is_cached_whole_the_last_block_is_computed_again(prompt, block_size, unit):
    """All whole blocks before the last token are reused (vLLM: 16 of 32 and 1,008 of 1,024, at 16 tokens a block)."""
    requests = Lists.of([0.0, 10.0, 20.0], prompt, 4)
    requests.units, requests.unit_tokens = [tuple(range(-(-prompt // unit)))] * 3, unit
    engine = deployment(block_size=block_size, prefix_caching=True, num_gpu_blocks=9000)
    cached = simulate(requests, engine).request_columns["cached_prompt_tokens"]
    reused = range(0, prompt, block_size)[-1]
    assert cached.tolist() == [0, reused, reused]


@pytest.mark.parametrize("block_size", [1, 16, 24, 32, 100, 4096])
def test_units_may_be_smaller_than_blocks_or_cut_across_them(block_size):
    """The second of two prompts that agree in 150 units of 16 finds all whole blocks within them."""
    units = [tuple(range(150)), (*range(150), 1000)]
    requests = Lists.of([0.0, 50.0], 3000, 5, units=units, unit_tokens=16)
    engine = deployment(block_size=block_size, prefix_caching=True, num_gpu_blocks=9000)
    cached = simulate(requests, engine).request_columns["cached_prompt_tokens"]
    assert cached.tolist() == [0, 2400 // block_size * block_size]


# ---- the pool against a model ------------------------------------------------------------------------------


class Model:
    """Who holds which unit, which units are idle in which order, and how many blocks that leaves."""

    def __init__(self, num_blocks: int, block_size: int, unit_tokens: int) -> None:
        self.num_blocks, self.block_size, self.unit_tokens = num_blocks, block_size, unit_tokens
        self.holders: dict[int, set[int]] = {}
        self.idle: list[int] = []
        self.size: dict[int, int] = {}
        self.tokens: dict[int, int] = {}

    def measure(self, prompt: int, units: tuple[int, ...]) -> None:
        """Learns how many blocks end in each unit of a prompt."""
        for i, unit in enumerate(units):
            start, end = (min(k * self.unit_tokens, prompt) for k in (i, i + 1))
            whole = range(self.block_size, prompt + 1, self.block_size)
            self.size[unit] = sum(start < block_end <= end for block_end in whole)

    @property
    def used(self) -> int:
        """Every sequence's blocks, those of a unit counted once for all its holders."""
        private = sum(-(-tokens // self.block_size) for tokens in self.tokens.values())
        again = sum(self.size[unit] * (len(holders) - 1) for unit, holders in self.holders.items())
        return private - again

    @property
    def idle_blocks(self) -> int:
        return sum(self.size[unit] for unit in self.idle)

    def matching(self, units: tuple[int, ...]) -> tuple[int, ...]:
        count = 0
        while count < len(units) and (units[count] in self.holders or units[count] in self.idle):
            count += 1
        return units[:count]

    def hold(self, name: int, units: tuple[int, ...]) -> None:
        for unit in units:
            if unit in self.idle:
                self.idle.remove(unit)
            self.holders.setdefault(unit, set()).add(name)

    def drop(self, name: int) -> None:
        del self.tokens[name]
        mine = [unit for unit, holders in self.holders.items() if name in holders]
        for unit in sorted(mine, reverse=True):
            self.holders[unit].remove(name)
            if not self.holders[unit]:
                del self.holders[unit]
                self.idle.append(unit)

    def evict(self) -> None:
        while self.idle_blocks > self.num_blocks - self.used:
            self.idle.pop(0)


class PrefixMachine(RuleBasedStateMachine):
    """Admits (one or two at once), computes, decodes, drops and readmits prompts of a small tree of prefixes."""

    pool_class: type[BlockPool] = BlockPool
    cache_class: type[PrefixCache] = PrefixCache

    @initialize(
        num_blocks=st.integers(4, 60), block_size=st.sampled_from([1, 4, 6]), unit=st.sampled_from([4, 8, 12])
    )
    def begin(self, num_blocks: int, block_size: int, unit: int) -> None:
        self.cache = self.cache_class()
        self.pool = self.pool_class(num_blocks, block_size, self.cache)
        self.model = Model(num_blocks, block_size, unit)
        self.numbers: dict[tuple, int] = {}
        self.admitted: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self.preempted: list[Sequence] = []
        self.at = 0
        self.count = 0

    def prompt(self, path: list[int], rest: int, cut: int) -> Sequence:
        """A prompt along a path of the tree, then ``rest`` tokens of its own, or ``cut`` before the path's end.

        A path's numbers grow from its root on, as in no two units is the parent younger than the child.
        """
        unit = self.model.unit_tokens
        steps = [tuple(path[: i + 1]) for i in range(len(path))]
        if cut:
            steps[-1] = (*steps[-1], -cut)
        units = tuple(self.numbers.setdefault(step, len(self.numbers)) for step in steps)
        tokens = unit * len(path) - cut if cut else unit * len(path) + rest
        self.model.measure(tokens, units)
        self.count += 1
        return Sequence(self.count, 0.0, tokens, 1, units=units, unit_tokens=unit, prefill_tokens=tokens)

    def find(self, sequence: Sequence) -> bool:
        """Compares what the pool finds of a prompt; True when there is room for the rest."""
        self.pool.find_prefix(sequence)
        found = self.model.matching(sequence.units)
        full = sum(self.model.size[unit] for unit in found)
        assert sequence.held == found
        size = self.pool.block_size
        hit = min(full * size, (sequence.prefill_tokens - 1) // size * size)
        assert sequence.prefill_tokens - sequence.remaining == hit
        idle = sum(self.model.size[unit] for unit in found if unit in self.model.idle)
        needed = -(-sequence.prefill_tokens // self.pool.block_size) - full
        assert sequence.blocks == needed + idle
        return needed + idle <= self.model.num_blocks - self.model.used

    def take(self, sequences: list[Sequence]) -> None:
        """All hold what they found before any of them takes blocks, as when a batch is formed."""
        for sequence in sequences:
            self.pool.hold_prefix(sequence)
        for sequence in sequences:
            self.model.hold(sequence.request_id, sequence.held)
            self.model.tokens[sequence.request_id] = sequence.prefill_tokens
            self.pool.allocate(sequence.blocks)
        self.model.evict()
        self.admitted += sequences

    paths = st.lists(st.integers(0, 1), min_size=1, max_size=4)

    @rule(path=paths, rest=st.integers(0, 9), cut=st.integers(0, 3))
    def admit(self, path: list[int], rest: int, cut: int) -> None:
        sequence = self.prompt(path, rest, cut)
        if self.find(sequence):
            self.take([sequence])

    @rule(path=paths, other=paths, rest=st.integers(0, 9))
    def admit_two(self, path: list[int], other: list[int], rest: int) -> None:
        pair = [self.prompt(path, rest, 0), self.prompt(other, 0, 0)]
        fit = [self.find(sequence) for sequence in pair]
        if all(fit) and sum(each.blocks for each in pair) <= self.pool.free:
            self.take(pair)

    @precondition(lambda self: self.preempted)
    @rule()
    def readmit(self) -> None:
        if self.find(self.preempted[-1]):
            self.take([self.preempted.pop()])

    @precondition(lambda self: self.admitted)
    @rule(index=st.integers(0, 9))
    def compute(self, index: int) -> None:
        sequence = self.admitted.pop(index % len(self.admitted))
        self.pool.keep_prefix(sequence)
        held = self.model.holders
        mine = [unit for unit in sequence.units if sequence.request_id in held.get(unit, ())]
        for unit in sequence.units[len(mine) :]:
            if unit in held or unit in self.model.idle:
                break
            held[unit] = {sequence.request_id}
        sequence.phase = self.pool.start(sequence.prefill_tokens, self.at)
        sequence.decode_from = self.at
        self.decoding.append(sequence)

    @precondition(lambda self: self.admitted)
    @rule(index=st.integers(0, 9))
    def drop_prompt(self, index: int) -> None:
        sequence = self.admitted.pop(index % len(self.admitted))
        self.pool.release(self.pool.blocks(sequence.prefill_tokens))
        self.pool.leave_prefix(sequence)
        self.model.drop(sequence.request_id)

    @precondition(lambda self: self.decoding)
    @rule(index=st.integers(0, 9), again=st.booleans())
    def stop(self, index: int, again: bool) -> None:
        sequence = self.decoding.pop(index % len(self.decoding))
        tokens = self.model.tokens[sequence.request_id]
        self.pool.stop(sequence.phase, tokens)
        self.pool.leave_prefix(sequence)
        self.model.drop(sequence.request_id)
        if again:
            sequence.prefill_tokens = tokens
            self.preempted.append(sequence)

    @precondition(lambda self: self.decoding)
    @rule(most=st.integers(1, 40))
    def decode(self, most: int) -> None:
        iterations = self.pool.horizon(self.at, most)
        self.pool.grow(self.at, iterations)
        self.at += iterations
        for sequence in self.decoding:
            self.model.tokens[sequence.request_id] += iterations
        self.model.evict()

    @invariant()
    def pool_and_model_agree(self) -> None:
        if not hasattr(self, "pool"):
            return
        model = self.model
        assert self.pool.free + self.pool.used == self.pool.num_blocks
        assert self.pool.used == model.used
        assert 0 <= self.pool.used <= self.pool.num_blocks
        assert self.cache.evictable == model.idle_blocks <= self.pool.free
        assert list(self.cache._idle) == model.idle
        holders = {unit: count for unit, count in self.cache._holders.items() if count}
        assert holders == {unit: len(names) for unit, names in model.holders.items()}
        assert set(self.cache._blocks) == set(model.holders) | set(model.idle)
        assert not set(model.holders) & set(model.idle)


TestPrefixes = PrefixMachine.TestCase
TestPrefixes.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


class HeadBeforeTail(PrefixCache):
    """Lets the head of a chain go idle before its tail."""

    def leave(self, units):
        return super().leave(tuple(reversed(units)))


class LastInFirstOut(PrefixCache):
    """Evicts what was used last."""

    def evict(self):
        self._idle.move_to_end(next(reversed(self._idle)), last=False)
        return super().evict()


class HeldIsEvictable(PrefixCache):
    """Goes on counting units as evictable that a request holds again."""

    def hold(self, units):
        before = self.evictable
        super().hold(units)
        self.evictable = before


class CountsIdleUnitsTwice(BlockPool):
    """Two that are admitted at once both take the blocks of the idle units they share."""

    def hold_prefix(self, sequence):
        assert self.prefix is not None
        blocks, idle = sequence.blocks, self.prefix.idle_blocks(sequence.held)
        super().hold_prefix(sequence)
        sequence.blocks = blocks - idle


class SharesWithTheDead(BlockPool):
    """Gives the blocks of a unit back although another request holds it."""

    def leave_prefix(self, sequence):
        before, held = self.free, len(sequence.held)
        super().leave_prefix(sequence)
        self.free = before if held else self.free


@pytest.mark.slow
@pytest.mark.parametrize(
    "faulty", [HeadBeforeTail, LastInFirstOut, HeldIsEvictable, CountsIdleUnitsTwice, SharesWithTheDead]
)
def test_the_machine_kills_seeded_bugs(faulty):
    """The same machine on a cache or a pool with a bug each: it finds every one."""
    part = "cache_class" if issubclass(faulty, PrefixCache) else "pool_class"
    machine = type("Faulty", (PrefixMachine,), {part: faulty})
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=300,
                stateful_step_count=40,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )

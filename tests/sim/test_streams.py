"""A workload that comes in pieces is served as it is in one piece, and no more of it is held than is under way."""

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import priced, simulate
from support.observed import observe
from support.scenarios import examples, scenarios
from support.synthetic import LinearCost, Lists, Loop, deployment

from simslm.metrics import tally
from simslm.metrics.books import Forget
from simslm.metrics.result import Result
from simslm.sim.deployment import Deployment
from simslm.sim.log import FINISHED, UNFINISHED, Move, Settled, Window
from simslm.sim.rows import RequestRows
from simslm.sim.world import run


@dataclass
class Pieces:
    """Requests in pieces of ``most``."""

    requests: Lists
    most: int

    @property
    def count(self) -> int:
        return len(self.requests.prompt_tokens)

    @property
    def closed_loop(self) -> Loop | None:
        return self.requests.closed_loop

    def pieces(self) -> Iterator[Lists]:
        given = {each.name: getattr(self.requests, each.name) for each in fields(Lists)}
        names = [name for name, value in given.items() if isinstance(value, np.ndarray | list)]
        for begin in range(0, self.count, self.most):
            yield replace(self.requests, **{name: given[name][begin : begin + self.most] for name in names})


class Kept(Forget):
    """A sink that keeps the requests, and how many at a time."""

    def __init__(self) -> None:
        self.parts: list[dict[str, np.ndarray]] = []
        self.moves: list[Move] = []

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        self.parts.append(columns)

    def take_moves(self, moves: Sequence[Move]) -> None:
        self.moves.extend(moves)

    def all(self, result: Result) -> dict[str, np.ndarray]:
        parts = [*self.parts, result.request_columns]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Nowhere:
    """Takes the log and drops it."""

    def take_window(self, replica: int, window: Window) -> None: ...

    def take_requests(self, settled: Settled) -> None: ...

    def take_moves(self, moves: Sequence[Move]) -> None: ...


def observed(requests: Any, served: Deployment, sink: Any = None) -> Result:
    return observe(requests, served, priced(served), slo={"ttft_s": 0.1, "tpot_s": 0.01}, sink=sink)


@settings(max_examples=examples(200), deadline=None)
@given(scenarios(), st.integers(1, 20))
def test_a_stream_is_the_whole(scenario, most):
    """Every column but the sums of energies is the same to the bit, with any sink."""
    requests, served = scenario
    whole = observed(requests, served)
    kept = Kept()
    streamed = observed(Pieces(requests, most), served, kept)
    held = observed(Pieces(requests, most), served)
    for columns in (kept.all(streamed), held.request_columns):
        for name, column in whole.request_columns.items():
            same = np.allclose if name == "energy_j" else np.array_equal
            assert same(columns[name], column, equal_nan=True), name
    for name in ("requests", "ttft_s", "tpot_s", "e2e_s", "queue_s", "slo", "throughput"):
        assert streamed.summary[name] == held.summary[name] == whole.summary[name], name
    for name in ("energy", "itl_s", "utilization"):
        known = {key: value for key, value in whole.summary[name].items() if value is not None}
        found = {key: value for key, value in streamed.summary[name].items() if value is not None}
        assert found == pytest.approx(known, rel=1e-9, abs=1e-12), name
    assert streamed.log.events == whole.log.events
    assert (*kept.moves, *streamed.log.moves) == held.log.moves == whole.log.moves


def busy(count: int, loop: Loop | None = None) -> tuple[Lists, Deployment]:
    """Requests that come as fast as two replicas serve them with some left in their queues."""
    rng = np.random.default_rng(1)
    prompts, outputs = rng.integers(1, 60, (2, count))
    requests = Lists.of(np.cumsum(rng.exponential(1 / 60, count)), prompts, outputs, loop)
    return requests, deployment(replicas=2, cost=LinearCost(), max_num_seqs=8)


def test_a_piece_that_takes_freed_rows_leaves_the_others_as_they_are():
    """The rows of the first piece come free first, while those behind it are still under way."""
    rows, four = RequestRows(4), np.ones(4, dtype=int)
    requests = Lists.of(np.arange(4.0), four, four)
    for group in (0, 1):
        rows.load(requests, four.astype(bool), able=np.full(4, group))
    for row in range(4):
        rows.log.status[row] = FINISHED
    assert rows.over() == 1
    rows.let_go()
    rows.load(requests, four.astype(bool), able=np.full(4, 2))
    assert rows.able == [2, 2, 2, 2, 1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("loop", [None, Loop(20)])
def test_rows_are_used_again(loop):
    """Ten times the requests take no more rows."""
    rows = []
    for count in (2_000, 20_000):
        requests, served = busy(count, loop)
        log = run(
            Pieces(requests, 50),
            served,
            sink=Nowhere(),
        )
        assert not any((each.columns["status"] == UNFINISHED).any() for each in log.held)
        rows.append(len(log.arrival_s))
    assert rows[1] <= rows[0] + 50 <= 500


def test_one_who_waits_long_holds_those_behind_until_it_is_over():
    """Requests are handed out in order: the first, which takes longest, is the first to be handed out."""
    requests = Lists.of(np.arange(400) / 10, 4, [2_000, *[2] * 399])
    kept = Kept()
    result = observed(Pieces(requests, 10), deployment(cost=LinearCost()), kept)
    numbers = kept.all(result)["request_id"]
    assert numbers.tolist() == list(range(400))
    assert kept.parts[0]["finish_s"][0] > kept.parts[0]["arrival_s"][-1] + 1
    assert 60 < len(result.log.arrival_s) < 100


def test_somebody_who_was_over_long_ago_does_not_leave_in_place_of_another():
    """The patience of a request that has its answer ends when its row is another's, who is still served."""
    requests = Lists.of(np.arange(300) / 4, 4, 3)
    requests.patience_s = np.where(np.arange(300) % 2, np.inf, 5.0)
    requests.output_tokens[150::30] = requests.max_tokens[150::30] = 400
    requests.patience_s[150::30] = np.inf
    engine = deployment(cost=LinearCost())
    whole, kept = simulate(requests, engine), Kept()
    columns = kept.all(observed(Pieces(requests, 5), engine, kept))
    assert len(kept.parts) > 10
    assert np.array_equal(columns["status"], whole.request_columns["status"])


FREE_TUPLES = 2000 * 112
"""Bytes of the tuples of nine that CPython keeps for later ones, which it lets go of at a full collection only."""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_requests(monkeypatch):
    """Four times the requests, and what a run allocates at most stays within a fifth; a row kept is 100 bytes more."""
    monkeypatch.setattr(tally, "MOST_LATENCIES", 500)
    monkeypatch.setattr("simslm.metrics.ledger.MOST_STREAMED_GAPS", 2_000)
    monkeypatch.setattr("simslm.metrics.quantiles._KEPT_BITS", 4)
    monkeypatch.setattr("simslm.sim.log.replica.WINDOW_BYTES", 1 << 14)
    peaks = []
    for count in (3_000, 12_000):
        requests, served = busy(count)
        tracemalloc.start()
        observed(Pieces(requests, 100), served, Forget())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + FREE_TUPLES


def test_merged_latencies_are_right_to_an_eighth_of_a_thousandth(monkeypatch):
    """Means, largest values, attainment and goodput stay exact."""
    requests, served = busy(4_000)
    exact = observed(requests, served).summary
    monkeypatch.setattr(tally, "MOST_LATENCIES", 300)
    near = observed(Pieces(requests, 100), served, Forget()).summary
    for latency in tally.LATENCY_COLUMNS:
        for name, value in exact[latency].items():
            assert near[latency][name] == pytest.approx(value, rel=2.0**-13), (latency, name)
        assert near[latency]["max"] == exact[latency]["max"]
    assert near["slo"] == exact["slo"]
    assert near["requests"] == exact["requests"]


def test_a_stream_that_is_stopped_keeps_what_had_happened():
    """What was handed out and what is still held are all that arrived, each once."""
    requests, served = busy(2_000)
    stop: list[Any] = []

    class Stopping(Kept):
        def take_requests(self, columns: dict[str, np.ndarray]) -> None:
            super().take_requests(columns)
            if len(self.parts) == 5:
                stop[0]()

    kept = Stopping()
    result = observe(Pieces(requests, 50), served, priced(served), slo={}, sink=kept, on_start=stop.append)
    columns = kept.all(result)
    assert result.log.interrupted
    assert columns["request_id"].tolist() == list(range(len(columns["request_id"])))
    assert 250 <= len(columns["request_id"]) < 500
    assert result.summary["requests"]["arrived"] == len(columns["request_id"])
    assert (columns["status"] == UNFINISHED).sum() == result.summary["requests"]["unfinished"]

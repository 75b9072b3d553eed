"""The books of a run, kept window by window: sums, token gaps, and the energy of each request.

Nothing here grows with the tokens of a run; the gaps between tokens are one number per decode iteration, and beyond
:data:`MOST_GAPS` of them (of a stream: :data:`MOST_STREAMED_GAPS`) those are merged that agree in 13 binary digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from simslm.cost.model import CostModel
from simslm.metrics.iterations import IterationTable, iteration_table
from simslm.metrics.quantiles import Distribution, Pool, pooled
from simslm.sim.log import FINISHED, Window

MOST_GAPS = 1 << 24
"""Gaps between tokens up to which each is kept; of more, percentiles are right to 0.013 %."""

MOST_STREAMED_GAPS = 1 << 21
"""The same where the workload is too long to hold."""


@dataclass(frozen=True, slots=True)
class Priced:
    """What is known of a replica beside its log.

    Attributes:
        cost: prices its iterations in joules and host time.
        sharers: replicas on its device.
        num_gpu_blocks: its KV blocks.
        speculates: whether it verifies drafted tokens.
        policies: its policies of preemption and queueing, in words; empty where they are not known.
        levels: its costs at each level of the clock, ``cost`` the first, where clocks change during the run.
        device: the number of its device, or of the first of those it spans.
        spans: how many it spans.
    """

    cost: CostModel
    sharers: int
    num_gpu_blocks: int
    speculates: bool = False
    policies: str = ""
    levels: tuple[CostModel, ...] = ()
    device: int = 0
    spans: int = 1


class Timed(NamedTuple):
    """What happened when, in a window of a replica.

    Attributes:
        iterations: ``start_s end_s host_s energy_j prefill_j`` of each; the energies are 0 where they are not known.
        gaps: ``gap_s weight end_s`` between tokens: how often each occurs, and when its second token was out.
    """

    iterations: np.ndarray
    gaps: np.ndarray


@dataclass(slots=True)
class Account:
    """Sums over the iterations of one replica.

    Attributes:
        busy_s, host_s, inside_s: time in iterations, of it without a kernel, of it inside the measured domain.
        energy_j, prefill_j: energy of its iterations, and the part that prefill is charged with; None when
            the cost model knows no power.
        end_s: end of its last iteration, NaN when there was none.
        peak_blocks: most KV blocks held.
        last_decode_s: end of its last decode iteration.
        decode_j: decode energy of one sequence that had decoded in every iteration so far.
        begun_j: that sum when each of the sequences that decode now began to.
        gaps: between tokens, in seconds, and how often each occurs.
        timed: iterations and gaps one by one; empty unless they are asked for.
    """

    busy_s: float = 0.0
    host_s: float = 0.0
    inside_s: float = 0.0
    energy_j: float | None = 0.0
    prefill_j: float = 0.0
    end_s: float = float("nan")
    peak_blocks: int = 0
    last_decode_s: float = float("nan")
    decode_j: float = 0.0
    begun_j: dict[int, float] = field(default_factory=dict)
    gaps: Pool = field(default_factory=Pool)
    timed: list[Timed] = field(default_factory=list)


class Ledger:
    """Takes the windows of all replicas.

    Args:
        replicas: one entry per replica.
        requests: how many there are; None for a stream, of which those are kept that have not been released.
        sink: called with a replica's number, a window and its priced table, after they are booked.
        timed: keep what :meth:`between` needs: 64 bytes for each iteration.
    """

    def __init__(
        self,
        replicas: list[Priced],
        requests: int | None,
        sink: Callable[[int, Window, IterationTable], None] | None = None,
        *,
        timed: bool = False,
    ) -> None:
        self.replicas = replicas
        self.accounts = [Account() for _ in replicas]
        self._request_j = np.zeros(requests or 0)
        self._most_gaps = MOST_STREAMED_GAPS if requests is None else MOST_GAPS
        self._first = 0
        self._own = Pool()
        self._answers: list[np.ndarray] = []
        self._sink = sink
        self._timed = timed
        self._speculates = any(priced.speculates for priced in replicas)

    def take(self, index: int, window: Window) -> None:
        """Books one window of replica ``index``; windows of a replica come in order."""
        priced, account = self.replicas[index], self.accounts[index]
        table = iteration_table(
            window, priced.cost, priced.sharers, speculates=self._speculates, levels=priced.levels
        )
        if len(table):
            _sums(account, table)
            gaps = _gaps(account, window)
            if self._timed:
                account.timed.append(_timed(window, table, gaps))
            # The bound is on all replicas together: with one each, memory would grow with the number of replicas.
            if sum(each.gaps.count for each in self.accounts) > self._most_gaps:
                for each in self.accounts:
                    each.gaps.merge()
            if table.energy_j is None:
                account.energy_j = None
            # One window without energy makes the sum unknown for good: a later window must not start it again.
            elif account.energy_j is not None:
                account.energy_j += float(np.sum(table.energy_j))
                account.prefill_j += float(np.dot(table.energy_j, table.prefill_share))
                self._charge(account, window, table, table.energy_j)
        if self._sink is not None:
            self._sink(index, window, table)

    def take_answers(self, columns: Mapping[str, np.ndarray]) -> None:
        """Books the gaps between tokens that did not go out as they were computed: of answers that went out whole, all
        but the first token with the first, and of those that the gateway gave.

        Args:
            columns: of requests that are over, see :class:`~simslm.sim.log.RequestLog`.
        """
        first_s, end_s = columns["first_token_s"], columns["finish_s"]
        gaps = columns["output_tokens"] - 1
        mine = (columns["status"] == FINISHED) & (gaps > 0)
        mine &= (columns["replica"] < 0) | (first_s == end_s)
        if mine.any():
            count = gaps[mine].astype(float)
            values = (end_s - first_s)[mine] / count
            self._own.add(values, self._most_gaps, count)
            if self._timed:
                self._answers.append(np.array([values, count, end_s[mine]]))

    @property
    def energy_known(self) -> bool:
        """Whether the energy of every replica is known, also of those that have not run yet."""
        return all(
            account.energy_j is not None and priced.cost.idle_w is not None
            for priced, account in zip(self.replicas, self.accounts, strict=True)
        )

    def token_gaps(self) -> Distribution:
        """The gaps between tokens, all requests and replicas pooled, in seconds."""
        return pooled([*(account.gaps for account in self.accounts), self._own])

    def between(self, begin_s: float, end_s: float) -> tuple[list[Account], Distribution]:
        """The sums of each replica over a time, and the gaps between tokens whose second was out in it.

        An iteration counts as far as it lies in that time. What the KV cache held, and how much was inside the measured
        domain, stays that of the whole run.
        """
        accounts, gaps = [], Pool()
        for values, weights, ends in self._answers:
            counts = (ends > begin_s) & (ends <= end_s)
            gaps.add(values[counts], weights=weights[counts])
        for account in self.accounts:
            sums = np.zeros(4)
            for part in account.timed:
                start, end, *amounts = part.iterations
                lasted = end - start
                inside = np.maximum(np.minimum(end, end_s) - np.maximum(start, begin_s), 0.0)
                part_inside = np.divide(inside, lasted, out=np.zeros(len(lasted)), where=lasted > 0)
                sums += np.array([lasted, *amounts]) @ part_inside
                values, weights, ends = part.gaps
                # Half open, so that two stretches of time side by side count each gap once.
                counts = (ends > begin_s) & (ends <= end_s)
                gaps.add(values[counts], weights=weights[counts])
            busy, host, energy, prefill = sums.tolist()
            accounts.append(
                replace(
                    account,
                    busy_s=busy,
                    host_s=host,
                    energy_j=None if account.energy_j is None else energy,
                    prefill_j=prefill,
                )
            )
        return accounts, pooled([gaps])

    def release(self, first: int, count: int) -> np.ndarray:
        """The energies of requests from a number on, joules; they, and those before, are forgotten."""
        begin = first - self._first
        energies = self._request_j[begin : begin + count]
        # A slice would keep the whole old array alive, and a stream would hold every request after all.
        self._request_j = self._request_j[begin + count :].copy()
        self._first = first + count
        return np.concatenate([energies, np.zeros(count - len(energies))])

    def _add(self, requests: np.ndarray, energy_j: np.ndarray) -> None:
        """Adds to the energies of requests, by number."""
        places = requests.astype(np.int64) - self._first
        more = int(places.max(initial=-1)) + 1 - len(self._request_j)
        if more > 0:
            self._request_j = np.concatenate([self._request_j, np.zeros(more)])
        # Not ``+=`` with an index: a request that occurs twice among ``places`` would be counted once.
        np.add.at(self._request_j, places, energy_j)

    def _charge(self, account: Account, window: Window, table: IterationTable, energy_j: np.ndarray) -> None:
        """Charges requests with the energy of a window; idle energy is charged to no request.

        The decode part of an iteration is divided equally among the sequences that emit a token and those whose last
        token had not been looked at yet, the prefill part among the chunks in proportion to their tokens; padding is
        charged to those it was made for.
        """
        decoding = table.columns["decoding"] > 0
        late = window.lingered["iteration"].astype(np.int64)
        rows = table.columns["decoding"] + np.bincount(late, minlength=len(table))
        row_j = np.divide(
            energy_j * (1 - table.prefill_share), rows, where=rows > 0, out=np.zeros(len(table))
        )
        self._add(window.lingered["request_id"], row_j[late])
        each = row_j[decoding]
        # Every decoding sequence pays the same for an iteration, so what one pays for a stretch is a difference of
        # two entries of one running sum: O(1) for each stretch, however many iterations it has.
        total = account.decode_j + np.concatenate([[0.0], np.cumsum(each)])
        account.decode_j = float(total[-1])
        before = window.decoded_before
        _, begun = _begun(account, window.stays, total, before)
        ends = window.stays["decode_to"].astype(np.int64) - before
        self._add(window.stays["request_id"], total[ends] - begun)
        still, begun = _begun(account, window.open_stays, total, before)
        account.begun_j = dict(zip(still, begun.tolist(), strict=True))
        iteration = window.chunks["iteration"].astype(np.int64)
        together = np.bincount(iteration, window.chunks["tokens"], minlength=len(table))
        prefill = (energy_j * table.prefill_share)[iteration]
        share = window.chunks["tokens"] / together[iteration]
        self._add(window.chunks["request_id"], prefill * share)


def _begun(
    account: Account, stays: dict[str, np.ndarray], total: np.ndarray, before: int
) -> tuple[list[int], np.ndarray]:
    """The requests of some stays, and the sum of the decode energy when each stay began, perhaps in an older window."""
    requests = stays["request_id"].astype(np.int64).tolist()
    first = stays["decode_from"].astype(np.int64) - before
    begun = total[np.maximum(first, 0)]
    # These began in an older window, whose running sum is gone; it was noted when that window ended.
    for i in np.flatnonzero(first < 0).tolist():
        begun[i] = account.begun_j[requests[i]]
    return requests, begun


def _sums(account: Account, table: IterationTable) -> None:
    columns = table.columns
    account.busy_s += float(columns["duration_s"].sum())
    account.host_s += float(columns["host_s"].sum())
    account.inside_s += float(columns["duration_s"][table.in_domain].sum())
    account.end_s = float(table.end_s[-1])
    account.peak_blocks = max(account.peak_blocks, int(columns["kv_blocks_used"].max()))


def _gaps(account: Account, window: Window) -> np.ndarray:
    """Adds all gaps between consecutive output tokens of the same request, with how often each occurs.

    The gap between two consecutive decode iterations counts once for every sequence that decoded in both; the
    gaps before a request's first decode iteration and across its preemptions are in the window one by one. Drafted
    tokens that are accepted come with the token before them. A window of answers that go out whole has none, see
    :meth:`Ledger.take_answers`.

    Returns:
        The gap, how often it occurs, and when it ended, shape ``(3, n)``; of what is not in the window one by one.
    """
    columns = window.columns
    if window.whole:
        return np.zeros((3, 0))
    decoding = columns["decoding"] > 0
    ends, found = columns["end_s"][decoding], np.zeros((3, 0))
    if len(ends):
        # A sequence that starts has no earlier decode iteration here: its first gap is in the window one by one.
        shared = (columns["decoding"] - columns["starting"])[decoding]
        between = np.diff(ends, prepend=account.last_decode_s)
        found = np.array([between, shared, ends])[:, shared > 0]
        account.gaps.add(found[0], weights=found[1])
        together = float(columns["accepted_tokens"].sum())
        if together:
            account.gaps.add(np.zeros(1), weights=np.array([together]))
        account.last_decode_s = float(ends[-1])
    account.gaps.add(window.gaps)
    return found


def _timed(window: Window, table: IterationTable, gaps: np.ndarray) -> Timed:
    columns = table.columns
    energy = np.zeros(len(table)) if table.energy_j is None else table.energy_j
    amounts = [columns["host_s"], energy, energy * table.prefill_share]
    accepted = columns["accepted_tokens"]
    drafted = np.flatnonzero(accepted)
    return Timed(
        np.array([columns["start_s"], columns["end_s"], *amounts]),
        np.concatenate(
            [
                gaps,
                [np.zeros(len(drafted)), accepted[drafted], columns["end_s"][drafted]],
                [window.gaps, np.ones(len(window.gaps)), window.gap_ends_s],
            ],
            axis=1,
        ),
    )

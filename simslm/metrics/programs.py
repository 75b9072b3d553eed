"""Figures of programs: how many came to their end, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simslm.metrics.quantiles import spread
from simslm.sim.log import FAILED, FINISHED, REJECTED


@dataclass(frozen=True, slots=True)
class ProgramColumns:
    """The programs of all requests.

    Attributes:
        of: the program of each request, shape ``(requests,)``, int64, from 0.
        stage: requests on the longest way from its program's start to it, shape ``(requests,)``, int64.
        parents: the requests each depends on, one request after the other, int64.
        parent_ends: where those of each request end, shape ``(requests,)``, int64.
        counted: which requests are looked at, a mask of shape ``(requests,)``; None = all.
    """

    of: np.ndarray
    stage: np.ndarray
    parents: np.ndarray
    parent_ends: np.ndarray
    counted: np.ndarray | None = None

    def only(self, counted: np.ndarray) -> ProgramColumns:
        """The same for the programs of some requests."""
        return ProgramColumns(self.of, self.stage, self.parents, self.parent_ends, counted)

    def columns(self, requests: np.ndarray) -> dict[str, np.ndarray]:
        """What ``requests.parquet`` says of some requests, by their numbers."""
        begins = self.parent_ends - np.diff(self.parent_ends, prepend=0)
        depends_on = np.empty(len(requests), dtype=object)
        parents, ranges = self.parents.tolist(), np.stack([begins, self.parent_ends])[:, requests].T.tolist()
        for row, (begin, end) in enumerate(ranges):
            depends_on[row] = parents[begin:end]
        return {"program": self.of[requests], "stage": self.stage[requests], "depends_on": depends_on}


def program_figures(requests: Mapping[str, np.ndarray], programs: ProgramColumns) -> dict[str, Any]:
    """Programs by what became of them, and the times of those that finished.

    A program has arrived when one of its requests has, finished when all of them have, and failed when one was rejected
    or left by its client: what depends on that is never sent.

    Args:
        requests: columns of the arrived requests, ``request_id`` among them.
        programs: of all requests.
    """
    number = int(programs.of.max(initial=-1)) + 1
    mine = programs.of[requests["request_id"]]
    of_all = programs.of if programs.counted is None else programs.of[programs.counted]

    def of_program(mask: np.ndarray) -> np.ndarray:
        return np.bincount(mine[mask], minlength=number)

    size = np.bincount(of_all, minlength=number)
    status = requests["status"]
    sent = of_program(np.ones(len(mine), dtype=bool))
    lost = of_program((status == FAILED) | (status == REJECTED)) > 0
    finished = (of_program(status == FINISHED) == size) & (sent > 0)
    took_s, active_s = program_times(requests, mine, finished)
    return {
        "arrived": int(np.count_nonzero(sent)),
        "finished": int(np.count_nonzero(finished)),
        "failed": int(np.count_nonzero(lost)),
        "unfinished": int(np.count_nonzero((sent > 0) & ~finished & ~lost)),
        "requests_not_sent": int((size - sent)[sent > 0].sum()),
        "jct_s": spread(took_s),
        "active_s": spread(active_s),
    }


def program_times(
    requests: Mapping[str, np.ndarray], mine: np.ndarray, finished: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each finished program, seconds from its first arrival to its last token, and those of them in which at least
    one of its requests was in the system.

    The ``k``-th requests of all programs, in order of arrival, are looked at together.
    """
    rows = np.flatnonzero(finished[mine])
    rows = rows[np.lexsort((requests["arrival_s"][rows], mine[rows]))]
    program, arrival_s, finish_s = mine[rows], requests["arrival_s"][rows], requests["finish_s"][rows]
    first = np.flatnonzero(np.diff(program, prepend=-1))
    sizes = np.diff(np.append(first, len(program)))
    until_s = arrival_s[first].copy()
    active_s = np.zeros(len(first))
    for k in range(int(sizes.max(initial=0))):
        has = np.flatnonzero(sizes > k)
        at = first[has] + k
        begin_s = np.maximum(arrival_s[at], until_s[has])
        active_s[has] += np.maximum(finish_s[at] - begin_s, 0.0)
        until_s[has] = np.maximum(until_s[has], finish_s[at])
    return until_s - arrival_s[first], active_s

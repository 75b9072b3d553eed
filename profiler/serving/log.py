"""What serving leaves behind, as columns: the iterations that ran, and what became of each request."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from profiler.serving.replica import Work
from profiler.serving.sequence import Sequence

SHAPE = Work._fields[1:]
"""What an iteration notes of its work."""

_REQUEST = (
    "request_id",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "preemptions",
    "recomputed_tokens",
    "rejected",
)


@dataclass(frozen=True)
class Served:
    """A workload that was served.

    Attributes:
        requests: columns over requests, in order of arrival; times are seconds, NaN where nothing happened;
            ``replica`` is which replica served them.
        iterations: columns over iterations, replica after replica; ``host_s`` is the part of ``duration_s`` in which
            no kernel of this replica runs or waits for the device: planning, laying out, launch gaps, reading tokens,
            keeping the books. As the loop knows it, launch gaps are not in it yet, see
            :class:`profiler.serving.gaps.LaunchGaps`.
        gaps_s: every gap between two output tokens of one request.
        outputs: the tokens each request was answered with.
        energy_j: of the device meanwhile; None without a meter.
        other_load: the part of all cores' time that others had meanwhile; None where it is not known.
    """

    requests: dict[str, np.ndarray]
    iterations: dict[str, np.ndarray]
    gaps_s: np.ndarray
    outputs: list[np.ndarray]
    energy_j: float | None = None
    other_load: float | None = None


class Log:
    """Filled in the loop: appending numbers costs tenths of a microsecond each."""

    def __init__(self) -> None:
        self._times = array("d")
        self._shapes = array("q")
        self._gaps_s = array("d")

    def iteration(self, start_s: float, duration_s: float, host_s: float, work: Work) -> None:
        """One iteration is over."""
        self._times.extend((start_s, duration_s, host_s))
        self._shapes.extend(work[1:])

    def tokens(self, emitted: Iterable[Sequence], now: float) -> None:
        """Each of these sequences got a token."""
        for sequence in emitted:
            if sequence.generated > 1:
                self._gaps_s.append(now - sequence.last_token_s)
            else:
                sequence.first_token_s = now
            sequence.last_token_s = now

    def served(self, sequences: list[Sequence]) -> Served:
        """The columns of a run that is over, on one replica."""
        times = np.array(self._times).reshape(-1, 3)
        shapes = np.array(self._shapes).reshape(-1, len(SHAPE))
        iterations = dict(zip(("start_s", "duration_s", "host_s"), times.T, strict=True))
        iterations |= dict(zip(SHAPE, shapes.T, strict=True))
        iterations["replica"] = np.zeros(len(times), dtype=np.int64)
        requests = {name: np.array([getattr(each, name) for each in sequences]) for name in _REQUEST}
        requests["replica"] = np.zeros(len(sequences), dtype=np.int64)
        return Served(requests, iterations, np.array(self._gaps_s), [each.output for each in sequences])

"""Figures with misses counted: what a configuration is chosen or compared by.

A summary leaves requests that were rejected, failed or did not finish out of its latencies, so that turning traffic
away makes them better. Here each such request counts as a miss, with infinite latency: a percentile is that of all
arrived requests, and the mean and the maximum are infinite with the first miss. TPOT and ITL count those that have more
than one output token, ITL every gap of them. A program of which a request is missed is missed as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simslm.metrics.books import Forget
from simslm.metrics.programs import program_times
from simslm.metrics.quantiles import Distribution, Pool, distribution, pooled
from simslm.metrics.result import Result
from simslm.metrics.tally import LATENCY_COLUMNS, MOST_LATENCIES
from simslm.sim.log import FINISHED

Columns = Mapping[str, np.ndarray]


@dataclass(slots=True)
class FinishedLatencies:
    """Latencies of the requests that finished, in seconds, and how many others there are.

    Attributes:
        latencies: by name.
        misses: requests that did not finish.
        longer: those of them that have more than one output token.
        gaps: between the tokens of those.
    """

    latencies: dict[str, Pool] = field(default_factory=lambda: {name: Pool() for name in LATENCY_COLUMNS})
    misses: int = 0
    longer: int = 0
    gaps: int = 0

    def take(self, columns: Columns) -> None:
        """Counts some more requests; the columns are those of ``requests.parquet``, ``status`` in numbers."""
        if "counted" in columns:  # a warm-up and a cool-down are left out of misses too
            columns = {name: column[columns["counted"]] for name, column in columns.items()}
        done = columns["status"] == FINISHED
        for name, pool in self.latencies.items():
            known = columns[name][done]
            pool.add(known[~np.isnan(known)], MOST_LATENCIES)
        after = columns["output_tokens"][~done] - 1
        self.misses += len(after)
        self.longer += int(np.count_nonzero(after > 0))
        self.gaps += int(after[after > 0].sum())

    def figures(self) -> dict[str, float]:
        """Every statistic of every latency, by its path in a summary."""
        found = {}
        for name, pool in self.latencies.items():
            misses = self.longer if name == "tpot_s" else self.misses
            found |= _named(name, pooled([pool]), misses)
        return found


class CountMisses(Forget):
    """A sink that keeps what :func:`figures` needs of requests that are not kept in the result."""

    def __init__(self) -> None:
        self.all = FinishedLatencies()
        self.classes: dict[str, FinishedLatencies] = {}

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        """Counts some more requests."""
        self.all.take(columns)
        if "class" not in columns:
            return
        for name in dict.fromkeys(columns["class"].tolist()):
            mine = columns["class"] == name
            of_class = {key: column[mine] for key, column in columns.items()}
            self.classes.setdefault(str(name), FinishedLatencies()).take(of_class)


def figures(result: Result, sink: CountMisses | None = None) -> dict[str, float]:
    """The latencies of a run that misses change, by their paths in its summary; infinite where nothing bounds them.

    Args:
        result: of the run.
        sink: that the run was given; None where the result holds every request.
    """
    columns = result.request_columns
    counts = result.summary["requests"]
    if counts["finished"] == counts["arrived"]:
        return {}
    sink = sink or CountMisses()
    sink.take_requests(columns)
    found = sink.all.figures() | _named("itl_s", result.token_gaps, sink.all.gaps)
    for name, counted in sink.classes.items():
        if counted.misses:
            found |= {f"classes.{name}.{path}": value for path, value in counted.figures().items()}
    if "program" in columns:
        found |= _programs(columns)
        for name in sink.classes:
            mine = columns["class"] == name
            of_class = {key: column[mine] for key, column in columns.items()}
            found |= {f"classes.{name}.{path}": value for path, value in _programs(of_class).items()}
    return found


def _programs(columns: Columns) -> dict[str, float]:
    """The same of programs: one is missed as soon as one of its requests is, because the requests that depend on it are
    never sent."""
    programs, mine = np.unique(columns["program"], return_inverse=True)
    lost = np.bincount(mine[columns["status"] != FINISHED], minlength=len(programs)) > 0
    took_s, active_s = program_times(columns, mine, ~lost)
    misses = int(np.count_nonzero(lost))
    return {
        **_named("programs.jct_s", distribution(took_s), misses),
        **_named("programs.active_s", distribution(active_s), misses),
    }


def _named(name: str, known: Distribution, misses: int) -> dict[str, float]:
    return {
        f"{name}.{statistic}": value for statistic, value in known.spread(misses).items() if value is not None
    }

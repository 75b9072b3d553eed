"""What a comparison says: configurations, each held against the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from simslm.comparison.changed_settings import Change
from simslm.comparison.delta import Delta
from simslm.comparison.pairs import PairedLatency, Run
from simslm.plain import section_of

__all__ = ["Comparison", "Configuration", "Contrast", "Pairing", "Run", "flags"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One scenario, run under one or several seeds.

    Attributes:
        label: what screens call it: its runs' directories, or their names where those are given twice.
        places: the directory of each run.
        runs: what each left behind.
        seeds: of each run, in the same order.
    """

    label: str
    places: tuple[str, ...]
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]

    @property
    def arrived(self) -> int:
        """Requests, over all runs."""
        return sum(len(run.requests["request_id"]) for run in self.runs)

    @property
    def served(self) -> int:
        """Requests that finished, over all runs."""
        return self.count("finished")

    @property
    def missed(self) -> int:
        """Requests that were rejected, failed or did not finish, over all runs."""
        return self.arrived - self.served

    def count(self, status: str) -> int:
        """Requests of a status, over all runs; 0 where the runs do not say."""
        return sum(int(np.sum(run.requests[status])) for run in self.runs if status in run.requests)


def flags(configurations: Iterable[Configuration]) -> list[str]:
    """The warnings that come with the costs of some configurations, each once."""
    found = [
        str(flag)
        for each in configurations
        for run in each.runs
        for flag in section_of(run.summary, "cost").get("flags", ())
    ]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Pairing:
    """How two configurations were held against each other.

    Attributes:
        kind: ``requests``: request by request in one run of each; ``seeds``: run by run under the same seeds;
            ``unpaired``: different requests.
        count: requests, or seeds, that both have; of unpaired ones 0.
        why: in a sentence, what makes it so.
        method: in a sentence, how intervals were computed, with its source.
    """

    kind: str
    count: int
    why: str
    method: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """One configuration against the baseline.

    Attributes:
        baseline, configuration: which two.
        pairing: how.
        changes: what differs in the manifests.
        deltas: of every figure that a summary has, in its order.
        latencies: request by request; empty unless so paired.
    """

    baseline: Configuration
    configuration: Configuration
    pairing: Pairing
    changes: tuple[Change, ...]
    deltas: tuple[Delta, ...]
    latencies: tuple[PairedLatency, ...]

    def delta(self, path: str) -> Delta:
        """The delta of one figure.

        Raises:
            KeyError: summaries have no such figure.
        """
        for delta in self.deltas:
            if delta.path == path:
                return delta
        raise KeyError(path)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Configurations, each against the first.

    Attributes:
        baseline: the first.
        contrasts: of each other one, in the order given; at least one.
        notes: what a reader should know before trusting the intervals.
    """

    baseline: Configuration
    contrasts: Sequence[Contrast]
    notes: tuple[str, ...]

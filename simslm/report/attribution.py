"""Where the time of the replicas went: host, prefill, decode or idle.

Host time is in the iteration log. The device time of an iteration that only prefills or only decodes is that
phase's. Of a mixed iteration, decode gets what an iteration of this run that only decodes the same number of
sequences took on the mean (linear between the batch sizes seen, at most the iteration's own device time) and
prefill the rest; in a run without a decode-only iteration the tokens of the two phases share the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.report.tables import Columns


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Replica-seconds of a run; they add up to replicas x makespan.

    ``host_s`` is None when the log does not know the host time; it is then inside the phases.
    """

    host_s: float | None
    prefill_s: float
    decode_s: float
    idle_s: float

    @property
    def busy_s(self) -> float:
        return (self.host_s or 0.0) + self.prefill_s + self.decode_s

    @property
    def total_s(self) -> float:
        return self.busy_s + self.idle_s

    def parts(self) -> list[tuple[str, float]]:
        """The named parts that are known, in the order in which they are drawn."""
        named = [
            ("host", self.host_s),
            ("prefill", self.prefill_s),
            ("decode", self.decode_s),
            ("idle", self.idle_s),
        ]
        return [(name, value) for name, value in named if value is not None]


def time_split(iterations: Columns, replicas: float, makespan_s: float) -> TimeSplit:
    """The split of ``replicas`` x ``makespan_s`` replica-seconds by the rules of this module."""
    known = bool(np.isfinite(iterations["host_s"]).any())
    host = np.nan_to_num(iterations["host_s"])
    device = np.maximum(iterations["duration_s"] - host, 0.0)
    decode = decode_device_s(iterations, device)
    available = replicas * makespan_s
    idle = available - float(np.sum(iterations["duration_s"]))
    return TimeSplit(
        host_s=float(np.sum(host)) if known else None,
        prefill_s=float(np.sum(device - decode)),
        decode_s=float(np.sum(decode)),
        idle_s=idle if idle > 1e-9 * available else 0.0,
    )


def decode_device_s(iterations: Columns, device_s: np.ndarray) -> np.ndarray:
    """The part of every iteration's device time that decode takes, shape ``(iterations,)``."""
    seqs, prompt = iterations["decode_seqs"], iterations["prefill_tokens"]
    mixed, pure = (seqs > 0) & (prompt > 0), (seqs > 0) & (prompt == 0)
    decode = np.where(pure, device_s, 0.0)
    if not mixed.any():
        return decode
    if pure.any():
        sizes, group = np.unique(seqs[pure], return_inverse=True)
        mean = np.bincount(group, weights=device_s[pure]) / np.bincount(group)
        alone = np.interp(seqs[mixed], sizes, mean)
        # Decodes alone may have had longer contexts on average; a part is never more than the whole.
        decode[mixed] = np.minimum(alone, device_s[mixed])
    else:
        decode[mixed] = device_s[mixed] * seqs[mixed] / (seqs[mixed] + prompt[mixed])
    return decode

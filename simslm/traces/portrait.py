"""A trace as arrays to draw: its tables, and the predictions of the cost model made of it.

:func:`simslm.cost.portrait.portrait` makes it; a page draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simslm.traces.check import Finding
from simslm.traces.files import Trace


@dataclass(frozen=True)
class Decoding:
    """Decode-only iterations as the cost model has them, over batch and context.

    Attributes:
        seqs: decoding sequences, ascending, shape ``(n,)``.
        context: cached tokens of each sequence, ascending, shape ``(m,)``.
        latency_s: shape ``(n, m)``.
        host_s: the part of it in which no kernel runs, shape ``(n, m)``.
        power_w: device power, shape ``(n, m)``; None where the model knows none.
        inside: whether the shape lies inside what was measured, shape ``(n, m)``.
    """

    seqs: np.ndarray
    context: np.ndarray
    latency_s: np.ndarray
    host_s: np.ndarray
    power_w: np.ndarray | None
    inside: np.ndarray


@dataclass(frozen=True)
class Prefilling:
    """Iterations of one prompt as the cost model has them, over its new and its cached tokens.

    Attributes:
        tokens: new tokens, ascending, shape ``(n,)``.
        cached: tokens already in the cache, ascending, shape ``(m,)``.
        latency_s: shape ``(n, m)``.
    """

    tokens: np.ndarray
    cached: np.ndarray
    latency_s: np.ndarray


@dataclass(frozen=True)
class Heldout:
    """Points that the cost model was not made from, each array of shape ``(n,)``.

    Attributes:
        labels: the shapes in words.
        measured_s, predicted_s: latencies.
        inside: whether the model counts the shape as inside what was measured.
    """

    labels: tuple[str, ...]
    measured_s: np.ndarray
    predicted_s: np.ndarray
    inside: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Signed, as fractions of the measured latency."""
        return self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True)
class Portrait:
    """A trace and its cost model.

    Attributes:
        trace: what was measured, fitted or imported.
        findings: what ``simslm traces check`` says of it.
        decoding, prefilling: what its cost model says; None without one.
        heldout: None where nothing was held out, or without a cost model.
        note: why there is no cost model; empty where there is one.
    """

    trace: Trace
    findings: tuple[Finding, ...]
    decoding: Decoding | None = None
    prefilling: Prefilling | None = None
    heldout: Heldout | None = None
    note: str = ""

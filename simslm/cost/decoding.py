"""Decode-only latency as a piecewise linear function of the total context, shared by every cost model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simslm.catalog.work import IterationShape
from simslm.cost.model import DecodeLine


def line_through(contexts: np.ndarray, seconds: np.ndarray) -> DecodeLine:
    """The line through points of increasing context, the first at 0; its last slope has no end.

    Segments that continue their predecessor are merged, so a straight line has one segment.
    """
    slopes = np.diff(seconds) / np.diff(contexts)
    bends = np.abs(np.diff(slopes)) > 1e-9 * np.abs(slopes[1:])
    keep = np.concatenate([[True], bends])
    starts, slopes, values = contexts[:-1][keep], slopes[keep], seconds[:-1][keep]
    intercepts = values - slopes * starts
    return DecodeLine(tuple(starts.tolist()), tuple(intercepts.tolist()), tuple(slopes.tolist()))


def decode_columns(
    decode: Callable[[int], DecodeLine], shapes: IterationShape, latency_s: np.ndarray
) -> None:
    """Overwrite, in place, the latency of the decode-only rows by their batch size's line."""
    only = np.flatnonzero(shapes.plain_decode)
    if len(only) == 0:
        return
    seqs = np.asarray(shapes.decode_seqs)[only]
    contexts = np.asarray(shapes.decode_ctx_tokens)[only]
    order = np.argsort(seqs, kind="stable")
    batches, first = np.unique(seqs[order], return_index=True)
    for batch, rows in zip(batches.tolist(), np.split(order, first[1:]), strict=True):
        latency_s[only[rows]] = decode(batch).latencies_s(contexts[rows])

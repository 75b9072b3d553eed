"""The shape of what a plan runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from simslm.catalog.work import IterationShape
from simslm.policies.plan import Plan

_new: Callable[[type[IterationShape], tuple[Any, ...]], IterationShape] = cast("Any", tuple).__new__
"""Makes a shape of all its fields in half the time that its own constructor takes."""


def decode_shape(rows: int, context: int) -> IterationShape:
    """The shape of an iteration that only decodes."""
    return _new(IterationShape, (rows, context, 0, 0, 0, 0.0, 0, 0, 1.0))


def prefill_shape(decoding: int, context: int, plan: Plan, unread: int) -> IterationShape:
    """The shape of an iteration that prefills, padding included."""
    count, chunks = len(plan.chunks), plan.chunks
    if plan.padded_to:
        length = plan.padded_to
        pairs = count * length * (length + 1) / 2
        return _new(IterationShape, (decoding, context, count, count * length, 0, pairs, unread, 0, 1.0))
    tokens = cached = 0
    pairs = 0.0
    prompt: Any
    for prompt, new in chunks:
        before = prompt.prefill_tokens - prompt.remaining
        tokens += new
        cached += before
        pairs += new * (before + (new + 1) / 2)
    return _new(IterationShape, (decoding, context, count, tokens, cached, pairs, unread, 0, 1.0))


def layered_shape(decoding: int, context: int, plan: Plan, unread: int) -> IterationShape:
    """The shape of an iteration in which prompts pass a share of the layers, whole.

    Over all iterations of a prompt its tokens and pairs add up to those of the prompt, and the shares to 1.
    """
    tokens = cached = whole = 0
    pairs = 0.0
    prompt: Any
    for prompt, new in plan.chunks:
        uncached = prompt.uncached_tokens
        before = prompt.prefill_tokens - uncached
        tokens += new
        whole += uncached
        cached += before * new // uncached
        pairs += new * (before + (uncached + 1) / 2)
    count, layers = len(plan.chunks), tokens / whole
    return IterationShape(decoding, context, count, tokens, cached, pairs, unread, 0, layers)

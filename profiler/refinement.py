"""Where the grid has to be finer: between points that a straight line from their neighbours misses.

Cost models are piecewise linear along the batch, the context, the prompt and its cached part
(:mod:`simslm.cost.surface`). A point that its two neighbours predict badly says that the surface bends there, and
that a line through it and one neighbour will miss what lies between them, by about a quarter as much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

from profiler.grid import Shape

BEND = 0.1
"""Error, as a share of the latency, above which a line has missed its point."""

_CLOSE = 1.5
_STEP = 16


class _Line(NamedTuple):
    """Shapes that differ in one size only.

    Attributes:
        at: the size of each, increasing.
        shapes: in that order.
        make: the shape of another size.
        tokens: whether it counts tokens, which lie in the middle of a block.
    """

    at: list[int]
    shapes: list[Shape]
    make: Callable[[int], Shape]
    tokens: bool


def refined(latency_s: Mapping[Shape, float], avoided: Collection[Shape], most: int) -> list[Shape]:
    """Shapes to measure besides, at most so many, the worst bends first.

    Args:
        latency_s: of what was measured.
        avoided: shapes that are not to be among them.
        most: how many.
    """
    worst: dict[Shape, float] = {}
    for line in _lines(latency_s):
        for index, error in _bends(line, latency_s):
            for low, high in pairwise(line.at[index - 1 : index + 2]):
                middle = _between(low, high, line.tokens)
                if middle is not None and (shape := line.make(middle)) not in avoided:
                    worst[shape] = max(error, worst.get(shape, 0.0))
    chosen = sorted(
        (shape for shape in worst if shape not in latency_s), key=lambda shape: (-worst[shape], shape)
    )
    return chosen[:most]


def _bends(line: _Line, latency_s: Mapping[Shape, float]) -> Iterator[tuple[int, float]]:
    """Index and relative error of the inner points that their neighbours miss."""
    values = [latency_s[shape] for shape in line.shapes]
    for i in range(1, len(values) - 1):
        share = (line.at[i] - line.at[i - 1]) / (line.at[i + 1] - line.at[i - 1])
        error = abs((values[i - 1] + share * (values[i + 1] - values[i - 1])) / values[i] - 1.0)
        if error > BEND:
            yield i, error


def _between(low: int, high: int, tokens: bool) -> int | None:
    """A size near the geometric mean; None where the two are close already."""
    if high < _CLOSE * max(low, 1) or high - low < 2:
        return None
    middle = sqrt(max(low, 1) * high)
    size = round((middle - _STEP / 2) / _STEP) * _STEP + _STEP // 2 if tokens else round(middle)
    return size if low < size < high else None


def _lines(measured: Collection[Shape]) -> Iterator[_Line]:
    """Along the batch and context of decodes, tokens and cached context of a prompt, both sizes of mixed ones."""
    decodes = [shape for shape in measured if not shape.prefill_seqs]
    prompts = [shape for shape in measured if not shape.decode_seqs and shape.prefill_seqs == 1]
    mixed = [shape for shape in measured if shape.decode_seqs and shape.prefill_seqs == 1]
    shortest = min((shape.decode_ctx for shape in decodes), default=0)
    yield from _along("decode_seqs", [shape for shape in decodes if shape.decode_ctx == shortest])
    yield from _along("decode_ctx", decodes)
    yield from _along("prefill_new", [shape for shape in prompts if not shape.prefill_ctx])
    yield from _along("prefill_ctx", prompts)
    yield from _along("prefill_new", mixed)
    yield from _along("decode_seqs", mixed)


def _along(size: str, shapes: list[Shape]) -> Iterator[_Line]:
    """The lines along one size, all others equal."""
    groups: dict[Shape, list[Shape]] = {}
    for shape in shapes:
        groups.setdefault(shape._replace(**{size: 0}), []).append(shape)
    for rest, members in groups.items():
        ordered = sorted(members, key=lambda shape: getattr(shape, size))
        yield _Line(
            [getattr(shape, size) for shape in ordered],
            ordered,
            lambda value, rest=rest: rest._replace(**{size: value}),
            size != "decode_seqs",
        )

"""The work of iterations under transforms."""

from __future__ import annotations

from collections.abc import Sequence

from simslm.catalog.work import IterationShape, Work, WorkModel
from simslm.transforms.registry import Served, ShapeTransform, Transform, WorkTransform


class TransformedWork:
    """Asked like the :class:`~simslm.catalog.work.WorkModel` that it changes.

    Args:
        work: without any transform.
        transforms: applied in order: first those of the shape, then those of the work of that shape.
        served: in the unit of ``work``.
    """

    def __init__(self, work: WorkModel, transforms: Sequence[Transform], served: Served) -> None:
        self._work = work
        self._served = served
        self._shapes = tuple(each for each in transforms if isinstance(each, ShapeTransform))
        self._works = tuple(each for each in transforms if isinstance(each, WorkTransform))

    def __call__(self, shape: IterationShape) -> Work:
        """The work of one iteration, or of many when the shape's fields are arrays."""
        for each in self._shapes:
            shape = each.shape(shape)
        work = self._work(shape)
        for each in self._works:
            work = each.work(shape, work, self._served)
        return work

    def knots(self, decode_seqs: int) -> tuple[float, ...]:
        """The contexts where the work of decoding changes its slope."""
        own = self._work.knots(decode_seqs)
        return own + tuple(knot for each in self._shapes for knot in each.knots(decode_seqs))

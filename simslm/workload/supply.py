"""Workloads that are too long to hold: their requests are made anew, a piece at a time, whenever they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from simslm.scenario.workload import Workload
from simslm.workload.generate import request_pieces
from simslm.workload.readers import rows_at_most
from simslm.workload.replay import in_order
from simslm.workload.requests import ClosedLoop, RequestArrays

MOST_HELD = 1 << 20
"""Requests up to which a workload is held whole."""

PIECE = 1 << 16
"""Requests of a piece."""


@dataclass(frozen=True, slots=True)
class RequestStream:
    """Requests in order of arrival, the same every time.

    Attributes:
        make: makes them from the first on, in pieces of any size.
        count: how many there are.
        mean_tokens: of their prompts and outputs.
        most: requests of a piece.
        source, dropped, notes, closed_loop, class_of, classes: see
            :class:`~simslm.workload.requests.RequestArrays`.
    """

    make: Callable[[], Iterator[RequestArrays]]
    count: int
    mean_tokens: tuple[float, float]
    source: str
    dropped: Mapping[str, int]
    notes: tuple[str, ...]
    closed_loop: ClosedLoop | None
    most: int
    class_of: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def pieces(self) -> Iterator[RequestArrays]:
        """The requests, no more than ``most`` at a time."""
        for made in self.make():
            for begin in range(0, len(made), self.most):
                yield made.part(slice(begin, begin + self.most))

    def whole(self) -> RequestArrays:
        """All requests at once, for callers that need them whole."""
        return _together(self.make(), self.dropped, self.notes)


def in_parts(whole: RequestArrays) -> RequestArrays | RequestStream:
    """Requests that had to be made all at once; where they are many, and none waits for others, as a stream."""
    if len(whole) <= MOST_HELD or whole.programs is not None:
        return whole
    return RequestStream(
        lambda: iter((whole,)),
        len(whole),
        whole.mean_tokens,
        whole.source,
        whole.dropped,
        whole.notes,
        whole.closed_loop,
        PIECE,
        whole.class_of,
        whole.classes,
    )


def supply(
    workload: Workload, seed: int, max_model_len: int, base_dir: Path
) -> RequestArrays | RequestStream | None:
    """A workload in pieces, where it can be made so; held whole where no more than :data:`MOST_HELD` come of it.

    All of it is made once, so that it is known how much there is, and that all of it can be read.

    Args:
        workload: without programs.
        seed, max_model_len, base_dir: see :func:`~simslm.workload.generate.generate`.

    Raises:
        ScenarioError: as :func:`~simslm.workload.generate.generate` does.
    """
    dropped: Mapping[str, int] | None = None
    if workload.replay is not None:
        few = rows_at_most(base_dir / workload.replay.path) <= MOST_HELD
        if few or (dropped := in_order(workload, base_dir, MOST_HELD)) is None:
            return None
    elif workload.duration_s is None and (workload.num_requests or 0) <= MOST_HELD:
        return None
    return _surveyed(partial(request_pieces, workload, seed, max_model_len, base_dir), dropped)


def _surveyed(
    make: Callable[[], Iterator[RequestArrays]], dropped: Mapping[str, int] | None
) -> RequestArrays | RequestStream | None:
    """The stream of the requests that ``make`` gives, or the requests themselves where they are few; None where there
    are none.

    Args:
        make: gives them in pieces.
        dropped: of their file; None = as the last piece says.
    """
    count = prompts = outputs = 0
    first, last, few = None, None, list[RequestArrays]()
    for last in make():
        first = last if first is None else first
        few = [*few, last] if count + len(last) <= MOST_HELD else []
        count += len(last)
        prompts += int(last.prompt_tokens.sum())
        outputs += int(last.output_tokens.sum())
    if first is None or last is None:
        return None
    dropped = last.dropped if dropped is None else dropped
    if count <= MOST_HELD:
        return _together(few, dropped, last.notes)
    means = prompts / count, outputs / count
    return RequestStream(make, count, means, first.source, dropped, last.notes, first.closed_loop, PIECE)


def _together(
    pieces: Iterable[RequestArrays], dropped: Mapping[str, int], notes: tuple[str, ...]
) -> RequestArrays:
    """The requests of all pieces; there is at least one."""
    found = list(pieces)
    if len(found) == 1:
        return replace(found[0], dropped=dropped, notes=notes)
    columns = {name: [piece.columns[name] for piece in found] for name in found[0].columns}
    joined = {
        name: np.concatenate(parts) if isinstance(parts[0], np.ndarray) else list(chain(*parts))
        for name, parts in columns.items()
    }
    return replace(found[0], dropped=dropped, notes=notes, **joined)
